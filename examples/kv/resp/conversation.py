"""One connection's commands, in batches: a pipeline of writes is one call of the log, of reads one read.

Knows: what may run when, and what can travel together. Must not know: sockets.

Invariants:
- Commands are answered in the order in which they came, each once.
- A pipeline that writes goes into the log whole, its reads too: it costs one trip, and each read sees what
  was written before it.
- One that only reads is answered from one state as far as its replies have `replies_bytes_max`; what is left
  is read when the client has taken these.
- Nothing that a client sends ends more than its own connection.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from inspect import isawaitable
from typing import cast

from examples.kv.commands import TABLE, Args, Command
from examples.kv.machine import pack_command
from examples.kv.replies import Refused, Reply
from examples.kv.resp.client import Client, Queued
from examples.kv.resp.commands import Local, find

BATCH_MAX = 1024
"""Commands that travel together; a turn of the state machine executes them at one go."""

QUEUED: Reply = "QUEUED"


async def replies(client: Client, requests: list[Args]) -> AsyncGenerator[list[Reply], None]:
    """The replies to what has come, a part at a time. A part is sent before the next is asked for."""
    run: list[Args] = []
    for args in requests:
        travels = client.ordinary and args[0].upper() in TABLE
        if travels:
            run.append(args)
        while run and (not travels or len(run) == BATCH_MAX):
            found = await together(client, run)
            run = run[len(found) :]
            yield found
        if travels:
            continue
        yield [await alone(client, args)]
        if client.leaving:
            return
    while run:
        found = await together(client, run)
        run = run[len(found) :]
        yield found


async def together(client: Client, run: list[Args]) -> list[Reply]:
    """Commands of the engine: all in the log if any of them writes, else one read of as many as may be."""
    if any(TABLE[args[0].upper()].writes for args in run):
        found = await client.store.write(run)
        client.seen = client.store.position
        return found
    return await read(client, run)


async def read(client: Client, run: list[Args]) -> list[Reply]:
    """Replies to the first of these commands, or all, from one state."""
    most = client.house.limits.replies_bytes_max
    return await client.store.read(run, most, client.mode, client.seen)


async def alone(client: Client, args: Args) -> Reply:
    """Any command in any state of its connection."""
    try:
        command = find(args)
        check(client, command, args)
        if client.queue is not None and not (isinstance(command, Local) and command.immediate):
            return enqueue(client, command, args)
    except Refused as refused:
        client.spoiled = client.queue is not None
        return refused.reply
    if isinstance(command, Local):
        try:
            answer = command.function(client, args)
            return await answer if isawaitable(answer) else answer
        except Refused as refused:
            return refused.reply
    if command.writes:
        [reply] = await client.store.write([args])
        client.seen = client.store.position
    else:
        [reply] = await read(client, [args])
    return reply


def check(client: Client, command: Command | Local, args: Args) -> None:
    """May this client run it now? Raises Refused."""
    local = command if isinstance(command, Local) else None
    if client.user is None:
        if local is None or not local.anonymous:
            raise Refused("NOAUTH Authentication required.")
    elif local is None:
        client.user.check(args)
    if client.subscribed and not (local is not None and local.subscribed):
        raise Refused(
            b"ERR Can't execute '%b': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are"
            b" allowed in this context" % args[0].lower()
        )


def enqueue(client: Client, command: Command | Local, args: Args) -> Reply:
    """Between MULTI and EXEC."""
    assert client.queue is not None
    if len(client.queue) >= client.house.limits.queue_max:
        raise Refused(f"ERR more commands than queue_max = {client.house.limits.queue_max}")
    size = client.queue_bytes + len(pack_command(args))
    client.check_size(size, "a transaction")
    if isinstance(command, Local):
        if not command.queued:
            raise Refused("ERR Command not allowed inside a transaction")
        client.queue.append(Queued(args, cast(Callable[[Client, Args], Reply], command.function)))
    else:
        client.queue.append(Queued(args, None))
    client.queue_bytes = size
    return QUEUED
