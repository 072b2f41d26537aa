"""The key-value store of `examples/kv`, three servers on disks, over Redis's protocol."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

import craft
from bench.compare.peer import SERVERS, SYNCED_MAJORITY, Driven, Load, Peer, Running, differing, lacking
from bench.compare.programs import POLL_S, Program, programs, start
from bench.compare.redis import TOOLS
from bench.compare.redis_load import RedisLoad, info
from bench.loading import SETTLE_WITHIN_S, evenly
from bench.processes import free_ports, with_root
from craft import client

EXTRA = "craft-consensus[kv]"
AGREE_WITHIN_S = 20.0


class _Store(Running):
    def __init__(self, load: Load, servers: list[Program], ports: list[int], addresses: list[str]) -> None:
        self.pids = [one.pid for one in servers]
        self.generator_pids = []
        self._ports = ports
        self._addresses = addresses
        self._load = RedisLoad(ports, evenly(load.clients, SERVERS), pipeline=load.pipeline, size=load.size)

    async def drive(self, seconds: float) -> Driven:
        """One generator a server."""
        return await self._load.drive(seconds)

    async def verify(self, answered: int) -> list[str]:
        """Each server counts the writes that its own clients asked for; and all hold the same merged log."""
        expected = answered + self._load.probed
        counts = [int((await info(port, "stats"))["total_writes_processed"]) for port in self._ports]
        found = differing({"the cluster": sum(counts)}, range(expected, expected + 1))
        logs: set[Any] = set()
        with trio.move_on_after(AGREE_WITHIN_S):
            while len(logs) != 1:
                logs = {await _merged(address) for address in self._addresses}
                await trio.sleep(POLL_S)
        if len(logs) != 1:
            found.append(f"the servers' merged logs differ in position, digest or what is applied: {logs}")
        return found


async def _status(address: str) -> Any:
    async with client.connect(address) as connection:
        return await connection.status()


async def _merged(address: str) -> tuple[Any, ...]:
    status = await _status(address)
    return status["merged_position"], status["merged_digest"], status["applied_position"]


class Store(Peer):
    """The store, with its defaults: data in memory, the log on disk."""

    name = "craft-kv"
    generator = "redis-benchmark"

    def missing(self) -> str | None:
        """What the example needs, and the generator."""
        return lacking(programs=TOOLS, modules={"hiredis": EXTRA, "hypercorn": EXTRA, "starlette": EXTRA})

    def version(self) -> str:
        """Of the library: the example is in the same tree."""
        return craft.__version__

    def durability(self) -> tuple[str, str]:
        """Of the level `applied`."""
        return SYNCED_MAJORITY

    @asynccontextmanager
    async def running(self, load: Load, directory: Path) -> AsyncIterator[Running]:
        """Three servers, as `python -m examples.kv serve` starts each, whose leaders are at home."""
        ports = free_ports(3 * SERVERS)
        redis, peers, clients = (ports[kind::3] for kind in range(3))
        addresses = [f"127.0.0.1:{port}" for port in clients]
        environment = {"PYTHONPATH": with_root()}
        async with programs() as servers:
            for number in range(1, SERVERS + 1):
                place = directory / f"server-{number}"
                place.mkdir()
                config = craft.Config(
                    cluster="bench",
                    server_id=number,
                    servers={other: f"127.0.0.1:{port}" for other, port in enumerate(peers, start=1)},
                    data_dir=Path("data"),
                    client_listen=addresses[number - 1],
                )
                (place / "craft.toml").write_text(config.to_toml(), encoding="utf-8")
                settings = place / "store.toml"
                settings.write_text(
                    f'craft = "craft.toml"\nredis_listen = "127.0.0.1:{redis[number - 1]}"\n',
                    encoding="utf-8",
                )
                command = [sys.executable, "-m", "examples.kv", "serve", "--config", str(settings)]
                await start(servers, f"kv server {number}", command, place, environment)
            for number, server in enumerate(servers, start=1):
                await server.until_said(f"kv: server {number} is ready")
            await _settled(addresses[0])
            yield _Store(load, servers, redis, addresses)


async def _settled(address: str) -> None:
    """Wait a while for every group to be led where it belongs."""
    with trio.move_on_after(SETTLE_WITHIN_S):
        while True:  # another process: it has no event for it
            groups = (await _status(address))["groups"]
            if all(group["leader"] == group["preferred"] for group in groups):
                break
            await trio.sleep(POLL_S)
