"""Redis, one server that syncs every write: what a single server can do, with nothing replicated."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.compare.peer import Driven, Load, Peer, Running, differing, lacking, program
from bench.compare.programs import Program, output_of, programs, start
from bench.compare.redis_load import RedisLoad, info
from bench.processes import free_ports

TOOLS = {"redis-benchmark": "redis-tools", "redis-cli": "redis-tools"}
READY = "Ready to accept connections"


class _Server(Running):
    generators = 1

    def __init__(self, load: Load, server: Program, port: int) -> None:
        self.pids = [server.pid]
        self.generator_pids = []
        self._port = port
        self._load = RedisLoad([port], [load.clients], pipeline=load.pipeline, size=load.size)

    async def drive(self, seconds: float) -> Driven:
        """One generator."""
        return await self._load.drive(seconds)

    async def verify(self, answered: int) -> list[str]:
        """The server's own count of SETs that it carried out."""
        stats = await info(self._port, "commandstats")
        told = dict(pair.split("=") for pair in stats.get("cmdstat_set", "calls=0,failed_calls=0").split(","))
        expected = answered + self._load.probed
        held = int(told["calls"]) - int(told["failed_calls"])
        return differing({"the server": held}, range(expected, expected + 1))


class Redis(Peer):
    """The ceiling of one server."""

    name = "redis"
    generator = "redis-benchmark"

    def missing(self) -> str | None:
        """Server and tools are in two packages."""
        return lacking(programs={"redis-server": "redis-server", **TOOLS})

    def version(self) -> str:
        """Of the server."""
        found = re.search(r"v=(\S+)", output_of(program("redis-server") or "redis-server", "--version"))
        return found.group(1) if found else "unknown"

    def durability(self) -> tuple[str, str]:
        """With `appendfsync always`."""
        return "synced, 1 server", "one server has it in its log, synced; it is on no other"

    @asynccontextmanager
    async def running(self, load: Load, directory: Path) -> AsyncIterator[Running]:
        """One server, with an empty data set."""
        port, *_ = free_ports(1)
        command = [
            program("redis-server") or "redis-server", "--port", str(port), "--bind", "127.0.0.1",
            "--appendonly", "yes", "--appendfsync", "always", "--save", "",
        ]  # fmt: skip
        async with programs() as servers:
            server = await start(servers, "redis", command, directory, {})
            await server.until_said(READY)
            yield _Server(load, server, port)
