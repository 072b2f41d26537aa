"""The HTTP door as tests talk to it: in this process, without sockets, or through the real port."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self

import httpx
import trio
from starlette.types import Message

import craft
from examples.kv.http.app import application
from examples.kv.http.guard import Guard
from examples.kv.http.house import House
from examples.kv.http.limits import HttpLimits
from examples.kv.machine import KeyValue
from examples.kv.store import Store
from examples.kv.users import User, Users

URL = "http://127.0.0.1:1"


@asynccontextmanager
async def houses(
    count: int = 1, *, users: Sequence[User] = (), limits: HttpLimits | None = None, **settings: Any
) -> AsyncIterator[list[House]]:
    """Servers of one cluster on a memory network, ready."""
    network = craft.MemoryNetwork()
    addresses = {number: f"127.0.0.1:{7400 + number}" for number in range(1, count + 1)}
    found = []
    async with AsyncExitStack() as stack:
        for number in addresses:
            config = craft.Config(cluster="kv", server_id=number, servers=addresses, **settings)
            server = await stack.enter_async_context(
                craft.open_server(
                    config, KeyValue(), clock=craft.SystemClock(), transport=network.transport(number)
                )
            )
            found.append(house(server, users, limits or HttpLimits()))
        for one in found:
            await one.store.server.wait_ready()
        yield found


def house(server: craft.Server[KeyValue], users: Sequence[User], limits: HttpLimits) -> House:
    guard = Guard(Users(users), waiting_max=limits.passwords_max, clock=trio.current_time)
    return House(Store(server), guard, limits)


def client_of(one: House, **options: Any) -> httpx.AsyncClient:
    """A client of the application itself."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(application(one)), base_url=URL, **options)


@asynccontextmanager
async def one_client(**options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a cluster of one."""
    async with houses(**options) as [one], client_of(one) as client:
        yield client


def problem(response: httpx.Response, kind: str) -> dict[str, Any]:
    """The answer is a problem of this kind."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    content: dict[str, Any] = response.json()
    assert content["type"] == f"urn:kv:{kind}", content
    assert content["status"] == response.status_code
    return content


class Stream:
    """One request to the application, whose answer comes in pieces while it goes on."""

    def __init__(self, one: House, path: str, query: str = "", headers: dict[str, str] | None = None) -> None:
        self._app = application(one)
        self._scope: dict[str, Any] = {
            "type": "http",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
            "client": ("127.0.0.1", 1),
        }
        self._asked = False
        self.put, self._got = trio.open_memory_channel[Message](0)
        self.status = 0

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        self.nursery = await self._stack.enter_async_context(trio.open_nursery())
        self.nursery.start_soon(self._app, self._scope, self._receive, self.put.send)
        self.status = (await self._got.receive())["status"]
        return self

    async def __aexit__(self, *error: object) -> None:
        self.nursery.cancel_scope.cancel()
        await self._stack.aclose()

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await trio.sleep_forever()
        raise AssertionError

    async def text(self) -> str:
        """The next piece."""
        message = await self._got.receive()
        return str(message["body"], "utf-8")

    async def event(self) -> tuple[int | None, str, Any]:
        """The next event: its id, its name and its data."""
        while True:
            text = await self.text()
            while not text.endswith("\n\n"):
                text += await self.text()
            fields = dict(line.split(": ", 1) for line in text.splitlines() if line)
            if "event" in fields:
                position = int(fields["id"]) if "id" in fields else None
                return position, fields["event"], json.loads(fields["data"])
