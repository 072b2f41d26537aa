"""A server that writes its own configuration: it creates a cluster, or joins one, and is started so again.

For containers, whose number is all that one wants to say: the same command on each.

Knows: how configurations are made, and `craft members`. Must not know: what a server does.

Invariants:
- A directory with a configuration is used as it is. Only one without may create a cluster, or join one.
- A cluster is created only if it is asked for, and nothing listens at any address that is named to join.
- Nobody is asked before all is known to be in order here, and both files are there or count for nothing.
- Who comes back with an empty directory at an address that a member has takes that member's place, under a
  new id: what the old one had acknowledged may be gone, and its disk must not be mistaken for this one.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import craft
from examples.kv import settings
from examples.kv.settings import MEMORY

CRAFT_FILE, STORE_FILE, DATA = "craft.toml", "store.toml", "data"

FIRST_ID = 1
CONNECT_S = 5
ASK_S = 60
ADD_ATTEMPTS = 10
"""Several may come at once and choose the same id: all but one are refused, and choose again."""


@dataclass(frozen=True, slots=True)
class Member:
    """What a server is told of itself."""

    directory: Path
    host: str
    """By which name or address the others, and clients, reach it."""
    peer_port: int = 7000
    client_port: int = 8000
    redis_port: int = 6379
    http_port: int = 8080
    create: bool = False
    join: tuple[str, ...] = ()
    """Where servers of the cluster listen for craft's clients."""
    insecure_listen: bool = False
    store: str = MEMORY

    @property
    def address(self) -> str:
        """At which the others reach it."""
        return f"{self.host}:{self.peer_port}"


def prepare(member: Member) -> Path:
    """The settings to serve with, made if they are not there. Raises craft.ConfigError, craft.Unreachable."""
    store = member.directory / STORE_FILE
    if store.exists():
        return store
    member.directory.mkdir(parents=True, exist_ok=True)
    check(member)
    beside = store.with_name(f"{STORE_FILE}.new")
    try:
        write(beside, settings_text(member))
        own = joined(member)
        if own is None and not member.create:
            raise craft.Unreachable(
                f"nobody answers at {', '.join(member.join) or 'no address'}; allowed: --join with that of"
                " a server that runs, or --create for a new cluster"
            )
        config = founding(member) if own is None else configured(member, own, join=list(member.join))
        write(member.directory / CRAFT_FILE, config.to_toml())
        beside.rename(store)
    finally:
        beside.unlink(missing_ok=True)
    return store


def check(member: Member) -> None:
    """Raise craft.ConfigError for what is wrong here: a cluster that is asked waits for who never comes."""
    founding(member)
    if member.join:
        configured(member, FIRST_ID, join=list(member.join))
    if (member.directory / DATA).exists():
        raise craft.ConfigError(
            f"--dir: {member.directory} holds data, and no {STORE_FILE} that says whose they are; allowed: a"
            " directory with both, or with neither"
        )
    check_ports(member)


def joined(member: Member) -> int | None:
    """Become a member; returns the id, or None where nobody answers.

    Raises craft.Unreachable where somebody does, but does not let us in: a majority may be away, or asks for
    certificates. A new cluster beside that one would be mistaken for it.
    """
    own_door = f"{member.host}:{member.client_port}"
    there = [address for address in member.join if address != own_door and answers(address)]
    for address in there:
        for _ in range(ADD_ATTEMPTS):
            found = members(address, "list")
            if found is None:
                break
            ids = {server["address"]: server["server_id"] for server in found["servers"]}
            # Each id that came this way came with a version: so none comes twice, also of those that went.
            own: int = 1 + max(*ids.values(), found["version"])
            gone = ids.get(member.address)  # an address is one server's
            change = ("add",) if gone is None else ("replace", str(gone))
            if members(address, "--no-wait", *change, str(own), member.address) is not None:
                return own
    if there:
        raise craft.Unreachable(
            f"{', '.join(there)} answers, but does not let us in as {member.address}; allowed: to try again"
            " when a majority of its cluster is there"
        )
    return None


def answers(address: str) -> bool:
    """Does anything listen there?"""
    where = settings.address("--join", address)
    try:
        with socket.create_connection(where, timeout=CONNECT_S):
            return True
    except (OSError, UnicodeError):  # UnicodeError: a name that cannot be one
        return False


def check_ports(member: Member) -> None:
    """Raise craft.ConfigError where one is another's: that of a server that runs here, perhaps."""
    host = listen_host(member)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.ExitStack() as stack:  # all at once: no two may be the same
        for kind in ("peer", "client", "redis", "http"):
            port = getattr(member, f"{kind}_port")
            try:
                stack.enter_context(socket.create_server((host.strip("[]"), port), family=family))
            except OSError as error:
                raise craft.ConfigError(
                    f"--{kind}-port: cannot listen on {host}:{port}: {error}; allowed: a free port of this"
                    " machine"
                ) from error


def members(address: str, *words: str) -> dict[str, Any] | None:
    """What `craft members` answers; None where it was refused, or there is no answer within `ASK_S`."""
    options = ["--timeout", str(ASK_S), *(word for word in words if word.startswith("--"))]
    command = [word for word in words if not word.startswith("--")]
    done = subprocess.run(  # noqa: S603  # our own program
        [sys.executable, "-m", "craft", "members", address, "--json", *options, *command],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        found: dict[str, Any] = json.loads(done.stdout)
        return found
    print(f"kv: {done.stderr.strip()}", file=sys.stderr)
    return None


def listen_host(member: Member) -> str:
    """Where all its ports are."""
    return "0.0.0.0" if member.insecure_listen else member.host  # noqa: S104  # asked for


def founding(member: Member) -> craft.Config:
    """The configuration of a cluster's first server. Raises craft.ConfigError."""
    return configured(member, FIRST_ID, servers={FIRST_ID: member.address})


def configured(member: Member, server_id: int, **cluster: Any) -> craft.Config:
    """Craft's own configuration. Raises craft.ConfigError."""
    host = listen_host(member)
    return craft.Config(
        cluster="kv",
        server_id=server_id,
        data_dir=Path(DATA),
        listen=f"{host}:{member.peer_port}",
        client_listen=f"{host}:{member.client_port}",
        client_advertise=f"{member.host}:{member.client_port}",
        insecure_listen=member.insecure_listen,
        **cluster,
    )


def settings_text(member: Member) -> str:
    """The store's own file."""
    host = listen_host(member)
    lines = [
        f'craft = "{CRAFT_FILE}"',
        f'redis_listen = "{host}:{member.redis_port}"',
        f'http_listen = "{host}:{member.http_port}"',
        f"insecure_listen = {str(member.insecure_listen).lower()}",
        f'store = "{member.store}"',
    ]
    return "\n".join(lines) + "\n"


def write(file: Path, text: str) -> None:
    """Durably: what a file says is used for ever."""
    with file.open("w", encoding="utf-8") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())


def parse_join(texts: Sequence[str]) -> tuple[str, ...]:
    """Addresses, also several in one text with commas: environments have no lists."""
    return tuple(part.strip() for text in texts for part in text.split(",") if part.strip())
