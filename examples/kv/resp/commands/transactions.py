"""MULTI and its relatives: what is queued becomes one command of the merged log.

Reference: Redis 7.0, multi.c.
"""

from __future__ import annotations

from collections.abc import Callable

import craft
from examples.kv import fates
from examples.kv.commands.arguments import Args
from examples.kv.machine import pack_transaction
from examples.kv.replies import NO_ARRAY, OK, Refused, Reply, error, is_error, size
from examples.kv.resp.client import Client
from examples.kv.resp.commands.table import Local

HEADER_BYTES = 4
"""What the number of its commands adds to a transaction, at most."""


def multi(client: Client, _args: Args) -> Reply:
    """MULTI."""
    if client.queue is not None:
        raise Refused("ERR MULTI calls can not be nested")
    client.queue = []
    client.queue_bytes = len(pack_transaction([], list(client.watched.items()))) + HEADER_BYTES
    return OK


def discard(client: Client, _args: Args) -> Reply:
    """DISCARD."""
    if client.queue is None:
        raise Refused("ERR DISCARD without MULTI")
    client.forget_transaction()
    return OK


async def watch(client: Client, args: Args) -> Reply:
    """WATCH key …: EXEC will run nothing if one of them has changed by then."""
    if client.queue is not None:
        raise Refused("ERR WATCH inside MULTI is not allowed")
    assert client.user is not None
    client.user.check_read(args[1:])
    new = [key for key in dict.fromkeys(args[1:]) if key not in client.watched]
    if len(client.watched) + len(new) > client.house.limits.watched_max:
        raise Refused(f"ERR more keys than watched_max = {client.house.limits.watched_max}")
    client.check_size(sum(map(len, (*client.watched, *new))), "all watched keys")
    try:
        versions = await client.store.versions(new)
    except craft.CraftError as error:
        return fates.unseen(error)
    client.watched.update(zip(new, versions, strict=True))
    return OK


def unwatch(client: Client, _args: Args) -> Reply:
    """UNWATCH."""
    client.watched.clear()
    return OK


async def exec_(client: Client, _args: Args) -> Reply:
    """EXEC: those of the engine as one; those about the connection when that is done, each in its place."""
    if client.queue is None:
        raise Refused("ERR EXEC without MULTI")
    queue, spoiled, watched = client.queue, client.spoiled, list(client.watched.items())
    client.forget_transaction()
    if spoiled:
        raise Refused("EXECABORT Transaction discarded because of previous errors.")
    replies: Reply = []
    if watched or any(item.local is None for item in queue):
        replies = await client.store.transact([item.args for item in queue if item.local is None], watched)
        client.seen = client.store.position
    if is_error(replies) or replies == NO_ARRAY:
        return replies
    assert isinstance(replies, list)
    following = iter(replies)
    found: list[Reply] = []
    most = left = client.house.limits.replies_bytes_max
    for item in queue:
        reply = next(following) if item.local is None else refusable(item.local, client, item.args)
        found.append(reply)
        left -= size(reply)
        if left < 0:
            client.leaving = True  # what is left undone is of its connection, which ends
            return error(f"{fates.APPLIED}: the replies have more than {most} bytes")
    return found


def refusable(function: Callable[[Client, Args], Reply], client: Client, args: Args) -> Reply:
    """What a command answers, or that it is refused."""
    try:
        return function(client, args)
    except Refused as refused:
        return refused.reply


COMMANDS = (
    Local(b"MULTI", 1, multi, immediate=True),
    Local(b"DISCARD", 1, discard, immediate=True),
    Local(b"WATCH", -2, watch, immediate=True),
    Local(b"UNWATCH", 1, unwatch),
    Local(b"EXEC", 1, exec_, immediate=True),
)
