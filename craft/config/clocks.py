"""Where a server's time comes from, and how good the operator says that the clocks are.

Invariant: a `ClockConfig` that passed `check_clock` names one source, and time servers only for that which
asks them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from craft.config.addresses import Address, parse_address
from craft.errors import ConfigError

SOURCES = ("system", "chrony", "ntp")

NTP_PORT = 123
NTP_SERVERS_MAX = 16
"""Time servers of one server. Seven outvote three liars; more is a burden to others."""

NTP_POLL_INTERVAL_MS_MIN = 2000
"""No server is asked more often than this, whosever it is."""


@dataclass(frozen=True, slots=True)
class ClockConfig:
    """A server's clock."""

    source: str = "system"
    """`system`: the system's clock, with the error that the kernel states. `chrony`: the system's clock, with
    the error that `chronyc` states. `ntp`: a clock of craft's own that asks `ntp_servers`."""

    ntp_servers: list[str] = field(default_factory=list)
    """Time servers for `source = "ntp"`, as `host` or `host:port`. A majority of them must answer and agree:
    of three one may be lost or wrong, of five two."""

    ntp_poll_interval_ms: int = 64_000
    """How often each time server is asked, once it has answered. Ask those of others no more often."""

    error_ms_max: int | None = None
    """The operator's word that no server's clock is ever further than this from true time. The same on all
    servers. Without it: no such bound is known."""

    @property
    def ntp_addresses(self) -> list[Address]:
        """The time servers; the port is 123 where none is named."""
        return [
            parse_ntp_server(f"clock.ntp_servers[{place}]", text)
            for place, text in enumerate(self.ntp_servers)
        ]


def parse_ntp_server(key: str, text: str) -> Address:
    """`host`, `host:port`, `[v6]` or `[v6]:port`. Raises ConfigError, which names `key`."""
    named = re.search(r":[0-9]+\Z", text) if not text.endswith("]") else None
    return parse_address(key, text if named else f"{text}:{NTP_PORT}")


def check_clock(clock: ClockConfig) -> None:
    """Raise ConfigError for the first value that does not fit the others."""
    if clock.source not in SOURCES:
        allowed = ", ".join(f'"{source}"' for source in SOURCES)
        raise ConfigError(f"clock.source: {clock.source!r} is not allowed; allowed: {allowed}")
    if clock.ntp_poll_interval_ms < NTP_POLL_INTERVAL_MS_MIN:
        raise ConfigError(
            f"clock.ntp_poll_interval_ms: {clock.ntp_poll_interval_ms} is not allowed; "
            f"allowed: at least {NTP_POLL_INTERVAL_MS_MIN}"
        )
    _check_ntp_servers(clock)


def _check_ntp_servers(clock: ClockConfig) -> None:
    count = len(clock.ntp_servers)
    if clock.source != "ntp" and count:
        raise ConfigError(
            f'clock.ntp_servers: has {count} servers, which nobody asks; allowed: none, or source = "ntp"'
        )
    if clock.source == "ntp" and not 1 <= count <= NTP_SERVERS_MAX:
        raise ConfigError(f"clock.ntp_servers: has {count} servers; allowed: 1 to {NTP_SERVERS_MAX}")
    seen: dict[Any, int] = {}
    for place, address in enumerate(clock.ntp_addresses):
        if address in seen:
            raise ConfigError(
                f"clock.ntp_servers[{place}]: {clock.ntp_servers[place]!r} is ntp_servers[{seen[address]}] "
                "again; allowed: each once, for each has one vote"
            )
        seen[address] = place
