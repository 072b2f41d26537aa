"""What every path has in common: who asks, which methods there are, and how what goes wrong is answered.

Knows: ASGI, problems. Must not know: what any path means.

Invariants:
- Every answer is what a handler returns or a problem+json; a problem of a request that writes has a fate.
- Every answer says how far the log is applied here (`Craft-Position`): what was read, how far it was then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias, TypeVar

import trio
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from examples.kv.http import asking, problems
from examples.kv.http.bodies import Body, Gone
from examples.kv.http.house import House
from examples.kv.http.limits import PIECE_BYTES
from examples.kv.http.problems import REJECTED, Problem
from examples.kv.replies import Refused
from examples.kv.store import Query
from examples.kv.users import EVERYBODY, User

T = TypeVar("T")

READING = frozenset({"GET", "HEAD"})
METHODS = frozenset({*READING, "PUT", "POST", "DELETE", "OPTIONS", "PATCH"})
"""Those that are counted under their names."""

HARDENED = {
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "vary": "Authorization",
}


class Asked:
    """A request, and who asks."""

    def __init__(self, house: House, scope: Scope, receive: Receive) -> None:
        self.house = house
        self.scope = scope
        self.headers = Headers(scope=scope)
        self.body = Body(receive, timeout_s=house.limits.body_timeout_s)
        self.user: User = EVERYBODY
        self._read_at: int | None = None

    @property
    def writes(self) -> bool:
        """May it change anything?"""
        return self.scope["method"] not in READING

    @property
    def address(self) -> str:
        """Where it comes from."""
        client = self.scope.get("client")
        return "" if client is None else str(client[0])

    def parameters(self, *allowed: str) -> dict[str, bytes]:
        """Of the query."""
        return asking.parameters(self.scope["query_string"], frozenset(allowed))

    def freshness(self, parameters: Mapping[str, bytes]) -> asking.Freshness:
        """How fresh a read is to be."""
        return asking.freshness(parameters.get("consistency"), self.headers.get("craft-position"))

    @property
    def position(self) -> int:
        """How far the log was applied in the state that is told; else, how far it is.

        Who reads a state and follows the changes behind it misses none: the log may go on before it is told.
        """
        return self.house.store.position if self._read_at is None else self._read_at

    async def see(self, query: Query[T], fresh: asking.Freshness) -> T:
        """What a query answers, at a position. Raises Problem."""
        found, self._read_at = await self.house.see(
            lambda machine, now: (query(machine, now), machine.position), fresh
        )
        return found

    def listed(self, name: str) -> str | None:
        """A header that is a list: each of its lines is a part of it (RFC 9110, 5.3)."""
        lines = self.headers.getlist(name)
        return ", ".join(lines) if lines else None

    def check(self, *args: bytes) -> None:
        """May this user run a command? Raises Problem."""
        try:
            self.user.check(list(args))
        except Refused as refused:
            raise not_allowed(refused) from None

    async def read(self, most: int) -> bytes:
        """Its body. Raises Problem, Gone."""
        if self.headers.get("content-encoding", "identity").lower() != "identity":
            raise Problem("unsupported-media-type", "Content-Encoding: allowed is identity")
        return await self.body.read(most, self.headers.get("content-length"))


def not_allowed(refused: Refused) -> Problem:
    """A command that is refused before it runs: for want of a right, or of sense."""
    text = str(refused.args[0], "utf-8", "replace") if isinstance(refused.args[0], bytes) else refused.args[0]
    code, _, why = text.partition(" ")
    return Problem("not-allowed", why) if code == "NOPERM" else Problem("refused", text)


Handler: TypeAlias = Callable[[Asked], Awaitable[Response]]


class Resource:
    """The methods of one path, as an ASGI application."""

    def __init__(
        self, house: House, methods: Mapping[str, Handler], *, anonymous: bool = False, endless: bool = False
    ) -> None:
        self._house = house
        self._methods = dict(methods)
        if "GET" in methods:
            self._methods["HEAD"] = methods["GET"]  # the server leaves the body out
        self._anonymous = anonymous
        self._endless = endless
        """Its answers may take for ever, and do not count as requests under way."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        house = self._house
        asked = Asked(house, scope, receive)
        counts = 0 if self._endless else 1
        house.requests += counts
        try:
            response = await self._response(asked)
            method = scope["method"] if scope["method"] in METHODS else "other"
            house.answers[method, response.status_code] += 1
            await self._send(response, asked, receive, send)
        except Gone:
            pass
        finally:
            house.requests -= counts

    async def _response(self, asked: Asked) -> Response:
        try:
            response = await self._handled(asked)
        except Problem as problem:
            if problem.fate is None and asked.writes:
                problem.fate = REJECTED
            response = Response(
                problem.body(), problem.status, headers=problem.headers, media_type=problems.MEDIA_TYPE
            )
        for name, value in HARDENED.items():
            response.headers[name] = value
        response.headers.setdefault("cache-control", "no-store")
        response.headers["craft-position"] = str(asked.position)
        return response

    async def _handled(self, asked: Asked) -> Response:
        house, method = self._house, asked.scope["method"]
        if house.requests > house.limits.requests_max:
            limit = f"limits.requests_max = {house.limits.requests_max}"
            raise Problem("overloaded", limit, headers=problems.AGAIN)
        check_host(house.hosts, asked.headers.get("host"))
        if not self._anonymous:
            asked.user = await house.guard.identify(asked.headers.get("authorization"), asked.address)
        if method not in self._methods:
            allowed = ", ".join(sorted(self._methods))
            raise Problem("method-not-allowed", f"allowed: {allowed}", headers={"allow": allowed})
        return await self._methods[method](asked)

    async def _send(self, response: Response, asked: Asked, receive: Receive, send: Send) -> None:
        body = asked.body
        await body.discard()
        if body.ended:
            await self._respond(response, asked, receive, send)
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(body.drain)
            await self._respond(response, asked, receive, send)
            nursery.cancel_scope.deadline = trio.current_time() + self._house.limits.body_timeout_s

    async def _respond(self, response: Response, asked: Asked, receive: Receive, send: Send) -> None:
        """Until the client has taken it, or takes none of it for too long.

        A connection that takes nothing is ended below; a stream of HTTP/2 may take nothing on one that does.
        """
        with trio.CancelScope() as scope:

            async def in_time(message: Message) -> None:
                with trio.move_on_after(self._house.limits.send_timeout_s) as taking:
                    await send(message)
                if taking.cancelled_caught:
                    scope.cancel()
                    await trio.lowlevel.checkpoint()

            async def in_pieces(message: Message) -> None:
                body = message.get("body", b"")
                last = max(len(body) - 1, 0) // PIECE_BYTES * PIECE_BYTES
                for at in range(0, last, PIECE_BYTES):
                    await in_time({**message, "body": body[at : at + PIECE_BYTES], "more_body": True})
                await in_time({**message, "body": body[last:]} if last else message)

            await response(asked.scope, receive, in_pieces)


def check_host(allowed: frozenset[str] | None, host: str | None) -> None:
    """Is the server called by its name?"""
    if allowed is None:
        return
    name = (host or "").lower()
    name = name[: name.rfind("]") + 1] if name.startswith("[") else name.partition(":")[0]
    if name not in allowed:
        raise Problem(
            "wrong-host", f"Host: {name[:80]!r} is not allowed; allowed: {', '.join(sorted(allowed))}"
        )
