"""Addresses as people write them: `host:port`, `[v6]:port`. Nothing is resolved here."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from craft.errors import ConfigError

PORT_MAX = 65535

_ADDRESS = re.compile(r"(?:\[(?P<v6>[^\s\[\]/]+)\]|(?P<name>[^\s:\[\]/]+)):(?P<port>[0-9]{1,5})", re.ASCII)


class Address(NamedTuple):
    """Where to listen or connect. `host` is a name or an address, without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Does it stay on this machine? Of names only `localhost` does: others may resolve to anything."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def everywhere(self) -> bool:
        """Does it stand for all addresses of a machine? One can listen there, and not connect."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False


def parse_address(key: str, text: str, *, any_port: bool = False) -> Address:
    """`host:port` or `[v6]:port`, port 0 only with `any_port`. Raises ConfigError, which names `key`."""
    least = 0 if any_port else 1
    match = _ADDRESS.fullmatch(text)
    if match is None or not least <= int(match["port"]) <= PORT_MAX or not _is_v6(match["v6"]):
        raise ConfigError(
            f'{key}: {text!r} is not an address; allowed: "host:port" or "[IPv6 address]:port", '
            f"port {least} to {PORT_MAX}"
        )
    return Address(match["v6"] or match["name"], int(match["port"]))


def _is_v6(text: str | None) -> bool:
    """Is what stands in brackets, if anything does, an IPv6 address?"""
    if text is None:
        return True
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
