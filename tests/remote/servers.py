"""Servers with real client ports and a memory network, and a wire between them and a client to be cut."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio

import craft
from craft.types import Position
from tests.server.listening import QUICK

EPOCH = 1_700_000_000_000_000_000


class SetClock:
    """Trio's time, and an offset that a test may set."""

    def __init__(self) -> None:
        self.offset_ns = 0

    def now(self) -> int:
        return EPOCH + int(trio.current_time() * 1e9) + self.offset_ns

    def error(self) -> int | None:
        return None


class Ledger:
    """Remembers commands; answers with how many there were."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []

    def apply_batch(self, batch: craft.Batch) -> Sequence[Any] | None:
        results: list[Any] = []
        for command in batch:
            self.commands.append(command)
            results.append(len(self.commands))
        return results

    def query(self, query: bytes) -> Any:
        if query == b"wrong":
            raise ValueError("no such thing")
        return [len(self.commands), query]


class Silent(Ledger):
    """Has no results."""

    def apply_batch(self, batch: craft.Batch) -> None:
        super().apply_batch(batch)


class Servers:
    """One or three servers of one cluster; each can be killed."""

    def __init__(self, nursery: trio.Nursery, count: int, settings: dict[str, Any]) -> None:
        self.network = craft.MemoryNetwork()
        self.clock = SetClock()
        self.servers: dict[int, craft.Server[Any]] = {}
        self.addresses: dict[int, str] = {}
        self._names = {i: f"127.0.0.1:{7500 + i}" for i in range(1, count + 1)}
        defaults: dict[str, Any] = {"cluster": "test", "client_listen": "127.0.0.1:0", "engine": QUICK}
        self._settings = defaults | settings
        self._scopes: dict[int, trio.CancelScope] = {}
        self._nursery = nursery

    def machine(self, i: int) -> Any:
        return self.servers[i].state_machine

    async def start(self, i: int, machine: Any) -> None:
        config = craft.Config(server_id=i, servers=self._names, close_timeout_ms=500, **self._settings)
        self.servers[i] = await self._nursery.start(self._run, config, machine)
        self.addresses[i] = str(self.servers[i].client_addresses[0])

    async def _run(
        self, config: craft.Config, machine: Any, *, task_status: trio.TaskStatus[craft.Server[Any]]
    ) -> None:
        with trio.CancelScope() as self._scopes[config.server_id]:
            async with craft.open_server(
                config, machine, clock=self.clock, transport=self.network.transport(config.server_id)
            ) as server:
                task_status.started(server)
                await trio.sleep_forever()

    def advertise(self, i: int, address: str | None = None) -> None:
        """Port 0 tells nobody where it is; this does."""
        self.servers[i].transport.advertise(address or self.addresses[i])

    def kill(self, i: int) -> None:
        """It is gone at once, and its clients' connections with it."""
        self._scopes[i].cancel()


@asynccontextmanager
async def serving(
    count: int = 1, *, machine: Callable[[], Any] = Ledger, ready: bool = True, **settings: Any
) -> AsyncIterator[Servers]:
    """Servers that are ready."""
    async with trio.open_nursery() as nursery:
        servers = Servers(nursery, count, settings)
        for i in range(1, count + 1):
            await servers.start(i, machine())
        if ready:
            for server in servers.servers.values():
                await server.wait_ready()
        yield servers
        nursery.cancel_scope.cancel()


class Wire:
    """A TCP proxy. `swallow` loses what the server answers from now on; `cut` breaks the connections."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.address = ""
        self.swallow = False
        self.swallowed = trio.Event()  # an answer was lost
        self.connections = 0
        self._scopes: set[trio.CancelScope] = set()

    async def run(
        self, ssl_context: Any = None, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.address = f"127.0.0.1:{listener.socket.getsockname()[1]}"

        async def serve(stream: trio.SocketStream) -> None:
            await self._serve(
                stream if ssl_context is None else trio.SSLStream(stream, ssl_context, server_side=True)
            )

        task_status.started()
        await trio.serve_listeners(serve, [listener])

    async def _serve(self, stream: trio.abc.Stream) -> None:
        self.connections += 1
        host, port = self.target.rsplit(":", 1)
        with trio.CancelScope() as scope, contextlib.suppress(OSError):  # nobody there: the client is hung up
            self._scopes.add(scope)
            async with AsyncExitStack() as stack:
                stack.push_async_callback(trio.aclose_forcefully, stream)
                server = await stack.enter_async_context(await trio.open_tcp_stream(host, int(port)))
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pass, stream, server.send_all, scope)
                    nursery.start_soon(self._pass, server, self._answer(stream), scope)
        self._scopes.discard(scope)

    def _answer(self, stream: trio.abc.Stream) -> Callable[[bytes], Awaitable[None]]:
        async def send(data: bytes) -> None:
            if self.swallow:
                self.swallowed.set()
            else:
                await stream.send_all(data)

        return send

    async def _pass(
        self,
        source: trio.abc.Stream,
        send: Callable[[bytes], Awaitable[None]],
        scope: trio.CancelScope,
    ) -> None:
        try:
            while data := await source.receive_some(65536):
                await send(bytes(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()

    def cut(self) -> None:
        for scope in self._scopes:
            scope.cancel()


@asynccontextmanager
async def wire(target: str, ssl_context: Any = None) -> AsyncIterator[Wire]:
    """A wire to a server."""
    async with trio.open_nursery() as nursery:
        one = Wire(target)
        await nursery.start(one.run, ssl_context)
        yield one
        nursery.cancel_scope.cancel()


async def until_applied(server: craft.Server[Any], position: Position) -> None:
    """Wait until a server has applied so much."""
    while server.engine.state.applied_position < position:  # noqa: ASYNC110  # nobody tells
        await trio.sleep(0.005)
