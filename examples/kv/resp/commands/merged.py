"""What only this store has: CRAFT.STATUS, CRAFT.POSITION, CRAFT.WAIT, CRAFT.GETAT.

Knows: the merged log has positions and timestamps. Must not know: how it comes about.
"""

from __future__ import annotations

import json

import trio

import craft
from examples.kv import fates
from examples.kv.commands.arguments import NOT_AN_INTEGER, Args, integer
from examples.kv.replies import Refused, Reply
from examples.kv.resp.client import Client
from examples.kv.resp.commands.table import Local

WAIT_MS_MAX = 3_600_000


def status(client: Client, _args: Args) -> Reply:
    """CRAFT.STATUS: everything one wants to see of this server, as JSON."""
    return json.dumps(client.store.server.status()).encode()


def position(client: Client, _args: Args) -> Reply:
    """CRAFT.POSITION: what this connection was answered is in the merged log up to here."""
    return client.store.position


async def wait(client: Client, args: Args) -> Reply:
    """CRAFT.WAIT position milliseconds: until the log is applied here so far, or the time is over (0: never).

    Answers the position that is reached. With another server's CRAFT.POSITION, stale reads here see what was
    answered there.
    """
    wanted, limit_ms = integer(args[1]), integer(args[2])
    if wanted < 0 or not 0 <= limit_ms <= WAIT_MS_MAX:
        raise Refused(NOT_AN_INTEGER)
    with trio.CancelScope() as scope:
        client.waiting = scope
        try:
            return await client.store.wait_for(wanted, limit_ms / 1000 if limit_ms else float("inf"))
        except craft.CraftError as error:
            return fates.unseen(error)
        finally:
            client.waiting = None
    return client.store.position  # to nobody: its connection has ended


async def getat(client: Client, args: Args) -> Reply:
    """CRAFT.GETAT key timestamp: the string that the key held at that time (ms since 1970).

    Of every server the same answer, once the merged log is known up to that time; a time outside what is
    retained is refused.
    """
    assert client.user is not None
    client.user.check_read(args[1:2])
    try:
        return await client.store.at(args[1], integer(args[2]))
    except craft.CraftError as error:
        return fates.unseen(error)


COMMANDS = (
    Local(b"CRAFT.STATUS", 1, status),
    Local(b"CRAFT.POSITION", 1, position),
    Local(b"CRAFT.WAIT", 3, wait, queued=False),
    Local(b"CRAFT.GETAT", 3, getat, queued=False),
)
