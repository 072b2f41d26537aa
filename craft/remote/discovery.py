"""Servers that nobody named: a client asks the one that it reached where clients reach the others.

Invariants
- The addresses that were given are kept and tried first; what is learned is bounded, one address a server.
- What is no answer is not believed, in no part, and disturbs nothing: the connection is used on.
"""

from __future__ import annotations

import logging
import random
from typing import Any

import trio

from craft.config import Address, parse_address
from craft.errors import ConfigError, RemoteError, Unreachable
from craft.limits import RemoteLimits
from craft.logs import event
from craft.remote.links import Links
from craft.server.listener_requests import OK
from craft.types import SERVER_ID_MAX, ServerId
from craft.wire.fields import shown

log = logging.getLogger("craft.remote")


async def discover(links: Links, limits: RemoteLimits) -> None:
    """Ask each server that we are connected to, and again from time to time. Runs until it is cancelled."""
    while True:
        link = await links.connected()
        try:
            with trio.move_on_after(limits.attempt_timeout_ms / 1000):
                outcome, value = await link.ask("servers", None)
                if outcome == OK:
                    links.learn(decoded(value, limits.servers_max))
        except RemoteError as error:
            event(log, logging.WARNING, "servers not learned", address=link.address, reason=str(error))
        except Unreachable:
            pass  # it is gone, and the next one is asked
        with trio.move_on_after(limits.servers_interval_ms / 1000):
            await link.ended.wait()


def decoded(value: Any, servers_max: int) -> dict[ServerId, Address]:
    """What a server answers, in an order drawn anew: clients spread. Raises RemoteError for what is none."""
    if type(value) is not tuple or len(value) > servers_max:
        raise RemoteError(f"servers are {shown(value)}; allowed is an array of at most {servers_max}")
    told = dict(_server(row) for row in value)
    return {server: told[server] for server in random.sample(sorted(told), len(told))}


def _server(row: Any) -> tuple[ServerId, Address]:
    if type(row) is not tuple or [type(item) for item in row] != [int, str]:
        raise RemoteError(f"a server is {shown(row)}; allowed is [server, address]")
    server, text = row
    if not 1 <= server <= SERVER_ID_MAX:
        raise RemoteError(f"a server's id is {server}; allowed: 1 to {SERVER_ID_MAX}")
    try:
        return server, parse_address("address", text)
    except ConfigError as error:
        raise RemoteError(f"server {server}: {error}") from error
