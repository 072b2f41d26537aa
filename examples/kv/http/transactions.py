"""POST /transactions: commands that run as one, at one position of the merged log.

Knows: what a transaction may hold. Must not know: sockets.

Invariants:
- What cannot be run as it stands (an unknown command, a missing right) is refused before any of it runs. What
  a command finds out while it runs (a hash where it wants a string) is its own reply, as in Redis.
- One that only reads, and watches nothing, does not go into the log.
"""

from __future__ import annotations

import json

from starlette.responses import Response

from examples.kv.commands import Args, find
from examples.kv.http import texts
from examples.kv.http.asking import FRESHNESS
from examples.kv.http.problems import Problem
from examples.kv.http.resource import Asked, not_allowed
from examples.kv.machine import KeyValue
from examples.kv.replies import NO_ARRAY, Refused, Reply, is_error, size


async def post(asked: Asked) -> Response:
    """POST /transactions."""
    house = asked.house
    parameters = asked.parameters(*FRESHNESS)
    media_type = asked.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Problem("unsupported-media-type", "Content-Type: allowed is application/json")
    body = await asked.read(house.limits.json_bytes_max)
    commands, watched = texts.transaction(texts.parsed(body), commands_max=house.limits.commands_max)
    kinds = [permitted(asked, args) for args in commands]
    for key, _ in watched:
        asked.check(b"GET", key)
    fresh = asked.freshness(parameters)
    replies: Reply
    most = house.limits.replies_bytes_max
    if True in kinds or watched:
        replies = await house.write(commands, watched)
        if is_error(replies) or size(replies) > most:
            raise Problem("answer-lost", f"the replies have more than {most} bytes", fate="applied")
    else:
        replies = await asked.see(lambda machine, now: read(machine, commands, now, most), fresh)
        if replies is None:
            raise Problem("too-large", f"the replies have more than {most} bytes")
    if replies == NO_ARRAY:
        raise Problem("condition-failed", "a watched key has another version")
    content = {"replies": texts.reply(replies), "position": asked.position}
    return Response(json.dumps(content), media_type="application/json")


def read(machine: KeyValue, commands: list[Args], now: int, most: int) -> list[Reply] | None:
    """The replies of commands that change nothing; None where they have more bytes than are allowed."""
    replies, taken = [], 0
    for args in commands:
        replies.append(machine.read(args, now))
        taken += size(replies[-1])
        if taken > most:
            return None
    return replies


def permitted(asked: Asked, args: Args) -> bool:
    """Does a command write? Raises Problem for one that this user may not run."""
    try:
        command = find(args)
        asked.user.check(args)
    except Refused as refused:
        raise not_allowed(refused) from None
    return command.writes
