"""What one server of the store is told before it starts, in a TOML file of its own beside craft's.

Invariants:
- Settings that exist are valid. Every error names the key, the value, and what is allowed.
- Beyond loopback nothing listens without users and TLS, unless it is told to.

    craft = "server.toml"              # craft's own configuration: the cluster, this server, its directory
    redis_listen = "127.0.0.1:6379"
    http_listen = "127.0.0.1:9379"
    store = "rocks"                    # the data on disk, not in memory

    [users.alice]
    password = "scrypt:…"              # from: python -m examples.kv password
    rights = ["read *", "write app:*"]
"""

from __future__ import annotations

import dataclasses
import ipaddress
import ssl
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import craft
from examples.kv.http.limits import HttpLimits
from examples.kv.resp.client import RespLimits
from examples.kv.users import User, parse_user

PORT_MAX = 65535

HISTORY_BYTES_MAX = 16 * 1024 * 1024

MEMORY, ROCKS = STORES = ("memory", "rocks")

L = TypeVar("L", RespLimits, HttpLimits)


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Can only this machine reach it?"""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        """As one writes it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Certificates:
    """For clients' connections, of both protocols (PEM)."""

    cert_file: Path
    key_file: Path

    def context(self) -> ssl.SSLContext:
        """For a server; raises craft.ConfigError."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            # With a password, if a wrong one, OpenSSL does not ask for one at the terminal.
            context.load_cert_chain(self.cert_file, self.key_file, password="")
        except (OSError, ssl.SSLError) as error:
            raise craft.ConfigError(
                f"tls: {self.cert_file} and {self.key_file} cannot be used: {error}; allowed: a certificate"
                " and its unencrypted key, in PEM"
            ) from error
        return context


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One server's."""

    craft: craft.Config
    redis_listen: Address | None = None
    """Where Redis clients connect; None: nowhere."""
    http_listen: Address | None = None
    """Where HTTP clients and browsers connect; None: nowhere."""
    users: tuple[User, ...] = ()
    """Without any, whoever reaches a port may do everything."""
    tls: Certificates | None = None
    insecure_listen: bool = False
    """Listen beyond loopback without users or without TLS."""
    history_bytes_max: int = HISTORY_BYTES_MAX
    """What CRAFT.GETAT may look back on; 0: nothing."""
    store: str = MEMORY
    """Where the data are: in memory, or in a RocksDB on disk."""
    store_dir: Path | None = None
    """Where on disk. None: beside craft's data directory, whose name it has, with "-store" behind it."""
    limits: RespLimits = field(default_factory=RespLimits)
    """Of the Redis port."""
    http_limits: HttpLimits = field(default_factory=HttpLimits)
    """Of the HTTP port."""

    def __post_init__(self) -> None:
        """Check at once."""
        if self.store not in STORES:
            raise craft.ConfigError(f"store: {self.store!r} is not allowed; allowed: {', '.join(STORES)}")
        if self.craft.apply_in_thread:
            raise craft.ConfigError(
                "craft: apply_in_thread = true is not allowed, for the store tells its subscribers"
                " while it applies; allowed: false"
            )
        if self.store == ROCKS and self.craft.data_dir is None:
            raise craft.ConfigError(
                f"store: {self.store!r} is not allowed, for craft keeps its log in memory (no data_dir);"
                f" allowed: {MEMORY}"
            )
        if self.store != ROCKS and self.store_dir is not None:
            raise craft.ConfigError(f"store_dir: is not allowed with store = {self.store!r}; allowed: none")
        own, beside = self.directory, self.craft.data_dir
        if own is not None and beside is not None and own.resolve().is_relative_to(beside.resolve()):
            raise craft.ConfigError(
                f"store_dir: {own} is not allowed, for craft's own data are in {beside}; allowed: a directory"
                " beside it"
            )
        for key in ("redis_listen", "http_listen"):
            address: Address | None = getattr(self, key)
            if address is None or address.loopback or self.insecure_listen:
                continue
            lacking = " and ".join(
                what for what, there in (("users", self.users), ("tls", self.tls)) if not there
            )
            if lacking:
                raise craft.ConfigError(
                    f"{key}: {str(address)!r} can be reached from elsewhere, and there is no {lacking};"
                    " allowed: a loopback address, both of them, or insecure_listen = true"
                )

    @property
    def directory(self) -> Path | None:
        """Of the data; None: they are in memory."""
        beside = self.craft.data_dir
        if self.store != ROCKS or beside is None:
            return None
        return self.store_dir or beside.with_name(f"{beside.name}-store")


def load(path: Path | str) -> Settings:
    """Read a file, and craft's beside it. Raises craft.ConfigError, which opens with the file's name."""
    file = Path(path)
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise craft.ConfigError(f"{file}: cannot be read: {error}") from error
    try:
        return parse(table, file.parent)
    except craft.ConfigError as error:
        raise craft.ConfigError(f"{file}: {error}") from error


def parse(table: Mapping[str, Any], directory: Path) -> Settings:
    """The settings in a table; relative paths are relative to a directory. Raises craft.ConfigError."""
    allowed = {f.name for f in dataclasses.fields(Settings)}
    known(table, allowed, "")
    if not isinstance(table.get("craft"), str):
        raise craft.ConfigError("craft: is missing; allowed: the name of a file with craft's configuration")
    found: dict[str, Any] = {"craft": craft.Config.load(directory / table["craft"])}
    for key in ("redis_listen", "http_listen"):
        if key in table:
            found[key] = address(key, table[key])
    for key, kind, least in (("history_bytes_max", int, 0), ("insecure_listen", bool, 0), ("store", str, 0)):
        if key in table:
            found[key] = checked(key, table[key], kind, least)
    if "store_dir" in table:
        if table["store_dir"] == "":
            raise craft.ConfigError("store_dir: '' is not allowed; allowed: a path")
        found["store_dir"] = directory / checked("store_dir", table["store_dir"], str)
    if "users" in table:
        found["users"] = users(checked("users", table["users"], dict))
    if "tls" in table:
        found["tls"] = certificates(checked("tls", table["tls"], dict), directory)
    if "limits" in table:
        found["limits"] = limits("limits", checked("limits", table["limits"], dict), RespLimits)
    if "http_limits" in table:
        found["http_limits"] = limits(
            "http_limits", checked("http_limits", table["http_limits"], dict), HttpLimits
        )
    return Settings(**found)


def known(table: Mapping[str, Any], allowed: set[str], prefix: str) -> None:
    """No other keys than these."""
    for key in table:
        if key not in allowed:
            raise craft.ConfigError(f"{prefix}{key}: is not known; allowed: {', '.join(sorted(allowed))}")


def checked(key: str, value: Any, kind: type, least: int = 0) -> Any:
    """A value of a kind."""
    if type(value) is not kind or (isinstance(value, int) and value < least):
        what = {int: f"an integer, at least {least}", bool: "true or false", dict: "a table", str: "a text"}
        raise craft.ConfigError(f"{key}: {value!r} is not allowed; allowed: {what[kind]}")
    return value


def address(key: str, text: Any) -> Address:
    """`host:port`; port 0 is any free one."""
    host, colon, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    if not colon or not host or not port.isdecimal() or len(port) > 5 or int(port) > PORT_MAX:
        raise craft.ConfigError(f"{key}: {text!r} is not allowed; allowed: host:port")
    return Address(host.removeprefix("[").removesuffix("]"), int(port))


def users(table: Mapping[str, Any]) -> tuple[User, ...]:
    """Each with its password and rights."""
    found = []
    for name, values in table.items():
        key = f"users.{name}"
        known(checked(key, values, dict), {"password", "rights"}, f"{key}.")
        rights = values.get("rights", [])
        if not isinstance(rights, list) or not all(isinstance(right, str) for right in rights):
            raise craft.ConfigError(f"{key}.rights: {rights!r} is not allowed; allowed: a list of texts")
        try:
            found.append(parse_user(name, checked(f"{key}.password", values.get("password"), str), rights))
        except ValueError as error:
            raise craft.ConfigError(f"{key}: {error}") from error
    return tuple(found)


def certificates(table: Mapping[str, Any], directory: Path) -> Certificates:
    """Both files, which must be there and belong together."""
    known(table, {"cert_file", "key_file"}, "tls.")
    files = [directory / checked(f"tls.{key}", table.get(key), str) for key in ("cert_file", "key_file")]
    found = Certificates(*files)
    found.context()
    return found


def limits(key: str, table: Mapping[str, Any], kind: type[L]) -> L:
    """Those that are given."""
    known(table, {f.name for f in dataclasses.fields(kind)}, f"{key}.")
    least = {f.name: 0 for f in dataclasses.fields(kind) if f.default == 0}  # where it means: no limit
    return kind(
        **{name: checked(f"{key}.{name}", value, int, least.get(name, 1)) for name, value in table.items()}
    )
