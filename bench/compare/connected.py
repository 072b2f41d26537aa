"""Three servers of any system whose protocol `bench.compare.sockets` speaks, under its load."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from bench.compare.peer import Driven, Load, Running, differing
from bench.compare.programs import POLL_S, Program
from bench.processes import Process

AGREE_WITHIN_S = 20.0


class _Servers(Running):
    generators = 1

    def __init__(self, servers: list[Program], clients: Process) -> None:
        self.pids = [one.pid for one in servers]
        self.generator_pids = [clients.pid]
        self._clients = clients

    async def drive(self, seconds: float) -> Driven:
        """One generator with all connections."""
        return Driven(**await self._clients.ask("drive", seconds=seconds, patience_s=seconds))

    async def verify(self, answered: int) -> list[str]:
        """Every server's own word."""
        expected = range(answered, answered + 1)
        found = ["nothing was asked"]
        with trio.move_on_after(AGREE_WITHIN_S):
            while found:  # a server that is behind catches up
                held = await self._clients.ask("held")
                found = differing(
                    {f"server {number}": one for number, one in enumerate(held, start=1)}, expected
                )
                if max(held) > answered:
                    break
                await trio.sleep(POLL_S)
        return found


@asynccontextmanager
async def connected(
    wire: str, load: Load, directory: Path, servers: list[Program], ports: list[int]
) -> AsyncIterator[Running]:
    """Connect the clients; they are gone behind the block."""
    assignment = {
        "wire": wire,
        "ports": ports,
        "clients": load.clients,
        "pipeline": load.pipeline,
        "size": load.size,
    }
    clients = await Process.begin("bench.compare.sockets", 0, assignment, directory / "clients.log")
    try:
        await clients.answer("start")
        yield _Servers(servers, clients)
    finally:
        await clients.kill()
