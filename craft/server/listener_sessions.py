"""What a client with a session may ask: exactly once, whichever server it asks, and however often.

- `open` `[session, ttl_ms, floor]` → its place; from then on the session is named `[session, opened]`, by the
  position at which it was opened.
- `request` `[session, opened, request, answered_below, floor, [command, …]]` → its place and its results.
- `touch` and `close` `[session, opened]` → their place.
- `query` `[query, at_least]` → what `Queryable.query` answers, and how far the state machine was.

`session` are 16 random bytes; `answered_below` and `floor` (the greatest timestamp that the client was
answered at) are what it knew at one moment. A place is `[position, timestamp, value, known]`.

Invariants
- A floor is taken once this server's time has reached it, and refused after `floor_wait_ms_max`: no client
  can move the cluster's time, and no honest one waits (PROTOCOL 2, †).
- *rejected* and *ended* speak of this attempt alone: another one, through another server, may have had an
  effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import trio

from craft.applying import Told, effective
from craft.client_sessions import (
    SESSION_ID_BYTES,
    CloseTag,
    OpenTag,
    RequestTag,
    Tag,
    TouchTag,
    encode_tagged,
)
from craft.errors import Rejected, Unknown
from craft.limits import CLIENT_FLOOR_POLL_MS, CLIENT_SESSION_TTL_MS_MAX, CLIENT_SESSION_TTL_MS_MIN
from craft.server.calls import Call, pack
from craft.server.listener_requests import (
    OPERATIONS,
    BadRequest,
    Operations,
    Placed,
    checked_commands,
    read,
)
from craft.types import Timestamp
from craft.wire.fields import shown

if TYPE_CHECKING:
    from craft.server.core import Server


class _ClientCall(Call):
    """A client's request, which is told what it came to."""

    __slots__ = ("_floor", "tag")

    def __init__(self, tag: Tag, commands: Sequence[bytes], floor: Timestamp) -> None:
        super().__init__(list(commands), many=True, started=trio.current_time())
        self.tag = tag
        self._floor = floor

    def body(self) -> bytes:
        return encode_tagged(self.tag, pack(self.commands))

    @property
    def floor(self) -> Timestamp:
        return self._floor


async def _merge(
    server: Server[Any], tag: Tag, *, commands: Sequence[bytes] = (), floor: Timestamp = 0
) -> Told:
    """Have a client's request merged; what it came to. Raises Rejected and Unknown, of this attempt."""
    timeout_ms = server.config.clients.request_timeout_ms
    with trio.move_on_after(timeout_ms / 1000):
        await _wait_for_floor(server, floor)
        call = _ClientCall(tag, commands, floor)
        await server.submit(call)
        assert isinstance(call.results, Told)
        return call.results
    raise Unknown(f"not applied within request_timeout_ms = {timeout_ms}; it may still take effect")


async def _wait_for_floor(server: Server[Any], floor: Timestamp) -> None:
    wait_ms = server.config.engine.floor_wait_ms_max
    for _ in range(1 + wait_ms // CLIENT_FLOOR_POLL_MS):
        if server.engine.takes_floor(floor):
            return
        await trio.sleep(CLIENT_FLOOR_POLL_MS / 1000)
    raise Rejected(f"answered at {floor}, which this server's time has not reached in {wait_ms} ms")


def _place(told: Told, value: Any = None) -> Placed:
    """Where it was merged, or the error that its verdict means."""
    effective(told)
    return Placed(told.position, told.timestamp, value, told.known)


# -- the operations --------------------------------------------------------------------------------


async def _open(server: Server[Any], argument: Any) -> Any:
    session, ttl_ms, floor = _fields("open", argument, "session", "ttl_ms", "floor")
    if not CLIENT_SESSION_TTL_MS_MIN <= ttl_ms <= CLIENT_SESSION_TTL_MS_MAX:
        raise BadRequest(
            f"open.ttl_ms is {ttl_ms}; allowed are {CLIENT_SESSION_TTL_MS_MIN} … {CLIENT_SESSION_TTL_MS_MAX}"
        )
    told = await _merge(server, OpenTag(session, ttl_ms), floor=floor)
    return _place(told, told.opened)


async def _request(server: Server[Any], argument: Any) -> Any:
    names = ("session", "opened", "request", "answered_below", "floor", "commands")
    session, opened, request, below, floor, listed = _fields("request", argument, *names)
    commands = checked_commands(listed)
    tag = RequestTag(session, opened, request, below)
    told = await _merge(server, tag, commands=commands, floor=floor)
    results = told.results
    return _place(told, [None] * len(commands) if results is None else list(results))


async def _touch(server: Server[Any], argument: Any) -> Any:
    return _place(await _merge(server, TouchTag(*_fields("touch", argument, "session", "opened"))))


async def _close(server: Server[Any], argument: Any) -> Any:
    return _place(await _merge(server, CloseTag(*_fields("close", argument, "session", "opened"))))


async def _query(server: Server[Any], argument: Any) -> Any:
    query, _ = _fields("query", argument, "query", "at_least")
    # A linearizable read is at least as new as whatever anybody was answered.
    return await read(server, query)


def _fields(operation: str, argument: Any, *names: str) -> Any:
    """The fields of an argument, checked: bytes, numbers and commands by their name. Raises BadRequest."""
    if type(argument) is not tuple or len(argument) != len(names):
        raise BadRequest(f"{operation} takes {shown(argument)}; allowed is [{', '.join(names)}]")
    for name, value in zip(names, argument, strict=True):
        if name == "session":
            if type(value) is not bytes or len(value) != SESSION_ID_BYTES:
                raise BadRequest(
                    f"{operation}.session is {shown(value)}; allowed are {SESSION_ID_BYTES} bytes"
                )
        elif name not in {"commands", "query"} and (type(value) is not int or not 0 <= value < 2**63):
            raise BadRequest(f"{operation}.{name} is {shown(value)}; allowed is an integer 0 … 2**63-1")
    return argument


ALL_OPERATIONS: Operations = {
    **OPERATIONS,
    "open": _open,
    "request": _request,
    "touch": _touch,
    "close": _close,
    "query": _query,
}
"""What a client may ask, with a session and without."""
