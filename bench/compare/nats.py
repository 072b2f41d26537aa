"""NATS JetStream, a cluster of three with a stream of three replicas in files, over its own protocol."""

from __future__ import annotations

import re
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from bench.compare.connected import connected
from bench.compare.nats_wire import REPLICAS, STREAM, SUBJECTS, NatsConnection
from bench.compare.peer import SERVERS, Load, Peer, Running, lacking, program
from bench.compare.programs import RUN_OVER_S, Program, output_of, programs, start
from bench.processes import free_ports

SYNC_ALWAYS = "sync_interval: always"
"""NATS 2.10 and later know it."""

TIMEOUT_S = 1.0
"""While the servers have no leader among them, nobody answers."""


def configuration(number: int, client: int, routes: list[int], *, synced: bool) -> str:
    """One server's."""
    others = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
    return (
        f"listen: 127.0.0.1:{client}\nserver_name: server-{number}\n"
        f'jetstream {{ store_dir: "data"\n{SYNC_ALWAYS if synced else ""}\n}}\n'
        f"cluster {{ name: bench, listen: 127.0.0.1:{routes[number - 1]}, routes: [{others}] }}\n"
    )


class Nats(Peer):
    """A stream whose writes are acknowledged by a quorum."""

    name = "nats"
    generator = "bench.compare.sockets (PUB)"

    def missing(self) -> str | None:
        """One package."""
        return lacking(programs={"nats-server": "nats-server"})

    def version(self) -> str:
        """Of the server."""
        found = re.search(r"v([\d.]+)", output_of(self._server, "--version"))
        return found.group(1) if found else "unknown"

    def durability(self) -> tuple[str, str]:
        """As the version has it."""
        if self._can_sync():
            return "synced, majority", f"a majority has it in its log, synced ({SYNC_ALWAYS})"
        return (
            "not synced, majority",
            "a majority has it in a file that this version syncs every two minutes: a power cut can lose it",
        )

    @property
    def _server(self) -> str:
        return program("nats-server") or "nats-server"

    def _can_sync(self) -> bool:
        """Does this version take a configuration that says so?"""
        with tempfile.TemporaryDirectory(prefix="craft-bench-") as name:
            file = Path(name) / "nats.conf"
            file.write_text(configuration(1, 1, [1], synced=True), encoding="utf-8")
            done = subprocess.run(
                (self._server, "-t", "-c", str(file)),
                cwd=name,
                capture_output=True,
                check=False,
                timeout=RUN_OVER_S,
            )
        return done.returncode == 0

    @asynccontextmanager
    async def running(self, load: Load, directory: Path) -> AsyncIterator[Running]:
        """Three servers, and the stream."""
        ports = free_ports(2 * SERVERS)
        clients, routes = ports[:SERVERS], ports[SERVERS:]
        synced = await trio.to_thread.run_sync(self._can_sync)
        async with programs() as servers:
            for number, client in enumerate(clients, start=1):
                place = directory / f"server-{number}"
                place.mkdir()
                text = configuration(number, client, routes, synced=synced)
                (place / "nats.conf").write_text(text, encoding="utf-8")
                await start(servers, f"nats {number}", [self._server, "-c", "nats.conf"], place, {})
            await _with_stream(servers[0], clients[0])
            async with connected("nats", load, directory, servers, clients) as running:
                yield running


async def _with_stream(server: Program, port: int) -> None:
    """Make the stream, which works once the servers have a leader among them."""

    def made() -> bool:
        settings = {"name": STREAM, "subjects": [SUBJECTS], "num_replicas": REPLICAS, "storage": "file"}
        try:
            with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as stream:
                connection = NatsConnection(0, 0)
                connection.open(stream)
                told = connection.ask(stream, "CREATE", settings)
        except (OSError, ValueError):
            return False
        return "config" in told

    async def ready() -> bool:
        return await trio.to_thread.run_sync(made)

    await server.until(ready)
