"""Servers of one process on a memory network, under a clock that jumps: what the tests of the shell share."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio

import craft
from craft.storage import Identity
from craft.storage.memory import MemoryStorage
from craft.types import Write

EPOCH = 1_700_000_000_000_000_000


class VirtualClock:
    """The time of Trio's own clock, plus an offset that a test may set."""

    def __init__(self, offset_ns: int = 0) -> None:
        self.offset_ns = offset_ns
        self.error_ns: int | None = None

    def now(self) -> int:
        return EPOCH + int(trio.current_time() * 1e9) + self.offset_ns

    def error(self) -> int | None:
        return self.error_ns


class Ledger:
    """Remembers every command with its position and timestamp; answers with the number of commands so far."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []
        self.places: list[tuple[int, int]] = []

    def apply_batch(self, batch: craft.Batch) -> Sequence[Any] | None:
        results = []
        for command in batch:
            self.commands.append(command)
            self.places.append((batch.position, batch.timestamp))
            results.append(len(self.commands))
        return results


class FailingStorage(MemoryStorage):
    """A disk that fails when told to: `fail_sync` and `fail_write` name the error."""

    def __init__(self, identity: Identity) -> None:
        super().__init__(identity)
        self.fail_sync: str | None = None
        self.fail_write: str | None = None
        self.syncs = 0

    def write(self, write: Write) -> None:
        if self.fail_write is not None:
            raise craft.StorageFailed(self.fail_write)
        super().write(write)

    def sync(self) -> None:
        self.syncs += 1
        if self.fail_sync is not None:
            raise craft.StorageFailed(self.fail_sync)
        super().sync()


class Cluster:
    """Up to three servers; each can be stopped, killed and started again on its disk."""

    def __init__(self, stack: AsyncExitStack, **settings: Any) -> None:
        self.network = craft.MemoryNetwork()
        self.servers: dict[int, craft.Server[Any]] = {}
        self.clocks = {server_id: VirtualClock() for server_id in (1, 2, 3)}
        self.settings = settings
        self.disks: dict[int, MemoryStorage] = {
            server_id: FailingStorage(Identity("test", server_id, secrets.token_hex(16), 3))
            for server_id in (1, 2, 3)
        }
        self._stack = stack

    def config(self, server_id: int) -> craft.Config:
        addresses = {i: f"127.0.0.1:{7400 + i}" for i in (1, 2, 3)}
        return craft.Config(cluster="test", server_id=server_id, servers=addresses, **self.settings)

    def opening(self, server_id: int, machine: Any = None) -> Any:
        return craft.open_server(
            self.config(server_id),
            machine if machine is not None else Ledger(),
            clock=self.clocks[server_id],
            storage=self.disks[server_id],
            transport=self.network.transport(server_id),
        )

    async def start(self, server_id: int, machine: Any = None) -> craft.Server[Any]:
        server: craft.Server[Any] = await self._stack.enter_async_context(self.opening(server_id, machine))
        self.servers[server_id] = server
        return server

    async def start_all(self, machine: Callable[[], Any] = Ledger) -> None:
        for server_id in (1, 2, 3):
            await self.start(server_id, machine())
        for server in self.servers.values():
            await server.wait_ready()

    def leaders(self) -> list[int | None]:
        groups = next(iter(self.servers.values())).status()["groups"]
        return [group["leader"] for group in groups]


@asynccontextmanager
async def three_servers(machine: Callable[[], Any] = Ledger, **settings: Any) -> AsyncIterator[Cluster]:
    """Three servers that are ready."""
    async with AsyncExitStack() as stack:
        cluster = Cluster(stack, **settings)
        await cluster.start_all(machine)
        yield cluster
