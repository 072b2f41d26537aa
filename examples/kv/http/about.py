"""What a server tells of itself: /, /health, /status, /metrics, /openapi.json.

Knows: what craft says of itself. Must not know: sockets.
"""

from __future__ import annotations

import json
from functools import cache

from starlette.responses import Response

from examples.kv.http import exposition, openapi
from examples.kv.http.problems import AGAIN, Problem
from examples.kv.http.resource import Asked
from examples.kv.page import page


async def health(asked: Asked) -> Response:
    """GET /health: does it take commands? Without a password, for who only wants to know that."""
    asked.parameters()
    status = asked.house.store.server.status()
    if not status["ready"] or status["stopping"]:
        raise Problem("not-ready", "it stops" if status["stopping"] else "it starts", headers=AGAIN)
    return as_json({"ready": True})


async def status(asked: Asked) -> Response:
    """GET /status."""
    asked.parameters()
    return as_json(asked.house.store.server.status())


async def metrics(asked: Asked) -> Response:
    """GET /metrics: craft's, and this port's."""
    asked.parameters()
    text = exposition.text([*asked.house.store.server.metrics(), *asked.house.metrics()])
    return Response(text, headers={"content-type": exposition.MEDIA_TYPE})


@cache
def description() -> bytes:
    """The same for ever."""
    return json.dumps(openapi.description()).encode()


async def described(asked: Asked) -> Response:
    """GET /openapi.json."""
    asked.parameters()
    return Response(description(), media_type="application/json")


async def seen(asked: Asked) -> Response:
    """GET /: for a browser."""
    asked.parameters()
    found = page()
    headers = {"content-security-policy": found.policy, "cache-control": "no-cache"}
    return Response(found.content, headers=headers, media_type="text/html")


def as_json(content: object) -> Response:
    """An answer."""
    return Response(json.dumps(content), media_type="application/json")
