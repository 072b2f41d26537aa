"""The body of a request, as it comes: bounded in bytes and in time.

Knows: ASGI's messages. Must not know: what is in a body.

Invariants:
- No more than was allowed is held. What nobody wanted is taken and forgotten, or the connection would wait
  for us to take it for ever.
"""

from __future__ import annotations

import trio
from starlette.types import Message, Receive

from examples.kv.http.problems import Problem

DISCARD_BYTES_MAX = 8 * 1024 * 1024
"""So much of an unwanted body is read before its request is answered: who still sends may not read."""


class Gone(Exception):
    """The client has left."""


class Body:
    """Of one request."""

    def __init__(self, receive: Receive, *, timeout_s: float) -> None:
        self._receive = receive
        self._timeout_s = timeout_s
        self.ended = False

    async def read(self, most: int, length: str | None) -> bytes:
        """All of it. Raises Problem for more than `most`, or what does not come; Gone."""
        if length is not None and length.isdecimal() and (len(length) > 18 or int(length) > most):
            raise too_large(most)
        parts: list[bytes] = []
        size = 0
        with trio.move_on_after(self._timeout_s):
            while not self.ended:
                part = await self._next()
                size += len(part)
                if size > most:
                    raise too_large(most)
                parts.append(part)
            return b"".join(parts)
        raise Problem("body-too-slow", f"allowed: {self._timeout_s} s")

    async def discard(self) -> None:
        """What is left of it, within reason."""
        size = 0
        with trio.move_on_after(self._timeout_s):
            while not self.ended and size <= DISCARD_BYTES_MAX:
                size += len(await self._next())

    async def drain(self) -> None:
        """Everything, until the connection has ended."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _next(self) -> bytes:
        message: Message = await self._receive()
        if message["type"] == "http.disconnect":
            self.ended = True
            raise Gone
        self.ended = not message.get("more_body", False)
        part: bytes = message.get("body", b"")
        return part


def too_large(most: int) -> Problem:
    """More than is allowed."""
    return Problem("too-large", f"the body has more than {most} bytes")
