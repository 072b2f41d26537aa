"""GET /changes: the merged log from any position that is kept, as server-sent events.

Knows: subscriptions, who may see what. Must not know: sockets.

Invariants:
- Everything after the position is told once, in order, or left out because it is nothing to this follower. A
  client that comes again with the id that it saw last misses nothing and sees nothing twice.
- Nobody waits for a slow follower: craft drops it, and it is told from where it may go on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

import craft
from examples.kv.http import feed
from examples.kv.http.asking import number
from examples.kv.http.bodies import Body
from examples.kv.http.feed import Filter
from examples.kv.http.house import House
from examples.kv.http.problems import Problem, of_read
from examples.kv.http.resource import Asked


async def get(asked: Asked) -> Response:
    """GET /changes."""
    parameters = asked.parameters("after", "prefix")
    await asked.read(0)  # of what comes later, only the end is waited for
    last = asked.headers.get("last-event-id") or None
    after = number("after", parameters["after"]) if "after" in parameters else asked.house.store.position
    if last is not None:
        after = number("Last-Event-ID", last)
    if not asked.user.readable:
        raise Problem("not-allowed", "this user may read no key")
    seen = Filter(asked.user.readable, parameters.get("prefix", b""))
    follower = Follower(asked.house, asked.body, after, seen)
    if asked.scope["method"] == "HEAD":
        return Response(media_type=feed.MEDIA_TYPE)
    await follower.open()
    return follower


class Follower(Response):
    """A response that goes on until the client leaves, or falls behind."""

    media_type = feed.MEDIA_TYPE

    def __init__(self, house: House, body: Body, after: int, seen: Filter) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._house = house
        self._body = body
        self._seen = seen
        self._after = after
        """Everything up to here has been told, or left out."""
        self._send: Send
        self._sending = trio.Lock()

    async def open(self) -> None:
        """Is what is wanted still here? Raises Problem."""
        server = self._house.store.server
        if self._after >= server.position:
            return  # It is still to come.
        try:
            async with server.subscribe(after=self._after) as batches:
                async for _ in batches:
                    return
        except craft.Compacted as error:
            raise Problem("compacted", str(error), retained=error.retained) from error
        except craft.CraftError as error:
            raise of_read(error) from error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  Starlette's
        """Tell everything until it ends."""
        self._send = send
        self._house.followers += 1
        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            await self._tell(feed.opening(self._after))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_after, self._body.drain, nursery.cancel_scope)
                nursery.start_soon(cancel_after, self._house.stopping.wait, nursery.cancel_scope)
                nursery.start_soon(self._beat)
                await self._follow()
                nursery.cancel_scope.cancel()
            if self._house.stopping.is_set():
                await self._end("the server stops: ask another one")
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._house.followers -= 1

    async def _follow(self) -> None:
        try:
            async with self._house.store.server.subscribe(after=self._after) as batches:
                async for batch in batches:
                    for entry in batch:
                        event = feed.change(entry, self._seen) if entry.commands else None
                        if event is not None:
                            await self._tell(event)
                        self._after = entry.position
        except craft.Compacted as error:
            await self._tell(feed.event("compacted", {"retained": error.retained, "detail": str(error)}))
        except craft.TooSlow as error:
            await self._tell(feed.event("too-slow", {"after": self._after, "detail": str(error)}))
        except craft.CraftError as error:
            await self._end(str(error))

    async def _end(self, why: str) -> None:
        await self._tell(feed.event("ended", {"after": self._after, "detail": why}))

    async def _tell(self, data: bytes) -> None:
        async with self._sending:
            await self._put(data)

    async def _put(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def _beat(self) -> None:
        while True:
            await trio.sleep(self._house.limits.heartbeat_interval_s)
            async with (
                self._sending
            ):  # behind what is being told: a client goes on from the id that it saw last
                await self._put(feed.heartbeat(self._after))


async def cancel_after(wait: Callable[[], Awaitable[object]], scope: trio.CancelScope) -> None:
    """End something when something else has come to its end."""
    await wait()
    scope.cancel()
