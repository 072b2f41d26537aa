"""Every path, and what answers there.

Knows: the paths. Must not know: what they do.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from starlette.responses import Response
from starlette.routing import Match, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from examples.kv.http import about, asking, changes, keys, transactions
from examples.kv.http.house import House
from examples.kv.http.problems import Problem
from examples.kv.http.resource import Asked, Resource

ABSOLUTE = re.compile(rb"https?://([^/]+)(/.*)?", re.IGNORECASE | re.DOTALL)
"""A target in its absolute form."""


def application(house: House) -> ASGIApp:
    """The ASGI application of a server."""
    return Origin(routes(house))


def routes(house: House) -> Router:
    """Which path is answered by what."""
    one_key = Resource(house, {"GET": keys.get, "PUT": keys.put, "DELETE": keys.delete})
    return Router(
        [
            KeyRoute("/keys/{key}", one_key),
            Route("/keys", Resource(house, {"GET": keys.scan})),
            Route("/transactions", Resource(house, {"POST": transactions.post})),
            Route("/changes", Resource(house, {"GET": changes.get}, endless=True)),
            Route("/", Resource(house, {"GET": about.seen})),
            Route("/health", Resource(house, {"GET": about.health}, anonymous=True)),
            Route("/status", Resource(house, {"GET": about.status})),
            Route("/metrics", Resource(house, {"GET": about.metrics})),
            Route("/openapi.json", Resource(house, {"GET": about.described})),
        ],
        redirect_slashes=False,
        default=Elsewhere(house),
    )


class Origin:
    """A target with a host in it, as one asks a proxy, is its path on that host (RFC 9112, 3.2.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The header Host counts for nothing then."""
        target = ABSOLUTE.fullmatch(scope["raw_path"]) if scope["type"] == "http" else None
        if target is not None:
            host, path = target[1], target[2] or b"/"
            headers = [(b"host", host), *(pair for pair in scope["headers"] if pair[0].lower() != b"host")]
            scope = {**scope, "path": unquote(path.decode("ascii")), "raw_path": path, "headers": headers}
        await self._app(scope, receive, send)


class KeyRoute(Route):
    """/keys/ and any bytes: what is in a key decides nothing here, not even a slash or a line's end."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """By the path as it came."""
        if scope["type"] != "http" or not scope["raw_path"].startswith(asking.KEYS):
            return Match.NONE, {}
        return super().matches({**scope, "path": "/keys/any"})


class Elsewhere:
    """All other paths."""

    def __init__(self, house: House) -> None:
        methods = dict.fromkeys(("GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"), nothing)
        self._http = Resource(house, methods)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Nothing is here; a WebSocket is refused."""
        if scope["type"] == "websocket":
            await WebSocketClose()(scope, receive, send)
        else:
            await self._http(scope, receive, send)


async def nothing(asked: Asked) -> Response:
    """Nothing is here."""
    raise Problem(
        "no-such-page", f"{asked.scope['path'][:80]!r} is no path of this server; see /openapi.json"
    )
