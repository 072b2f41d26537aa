"""Real `craft serve` processes for one experiment, which may be killed, stopped and started again.

Invariant: however an experiment ends, its processes are gone and their directory removed before `served`
returns.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from bench.processes import BenchError, with_root
from bench.pulse import PULSES, instants
from craft import Config, EngineLimits, client
from craft.cli.demo.cluster import HOST, ServerProcess, configs, free_ports
from craft.cli.members import ADD, REMOVE, WAIT_MS
from craft.errors import CraftError
from craft.limits import MIB

MACHINE = "bench.pulse:Pulse"

STOP_WITHIN_S = 30.0
"""A graceful stop that takes longer has hung."""

CLOSE_TIMEOUT_MS = 5000
"""As by default: the demo's servers are stopped all at once, and need not wait for one another."""

LIMITS = EngineLimits(snapshot_log_bytes=2 * MIB)
"""What a server reads when it starts again stays the same however long the experiment lasts."""

AGREE_WITHIN_S = 30.0
POLL_S = 0.05


class Served(ServerProcess):
    """One server; it may be stopped gracefully, and begun again."""

    async def terminate(self) -> float:
        """SIGTERM, and wait until it has ended; how many seconds that took. Raises BenchError if it fails."""
        process, self._process = self._process, None
        assert process is not None
        self.up = False
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        with trio.move_on_after(STOP_WITHIN_S):
            code = await process.wait()
            if code != 0:
                raise BenchError(f"server {self.server_id} ended with {code} on SIGTERM")
            return time.monotonic() - began
        process.kill()
        await process.wait()
        raise BenchError(f"server {self.server_id} did not end within {STOP_WITHIN_S:.0f} s of SIGTERM")

    async def ask(self, operation: str, *arguments: Any) -> Any:
        """One request to its listener."""
        async with client.connect(self.address) as connection:
            return await getattr(connection, operation)(*arguments)


class ServedCluster:
    """The servers of one experiment."""

    def __init__(self, directory: Path, servers: list[Served], config: Config) -> None:
        self.directory = directory
        self.servers = servers
        self._like = config
        self._newcomers: dict[int, str] = {}
        """Where they listen for the other servers."""

    async def join(self, server_id: int) -> Served:
        """Start a server that knows one of the others' addresses, and nothing else of the cluster."""
        listen, clients = (f"{HOST}:{port}" for port in free_ports(2))
        config = dataclasses.replace(
            self._like,
            server_id=server_id,
            servers={},
            groups=None,
            join=[self.servers[0].address],
            listen=listen,
            data_dir=self.directory / f"server-{server_id}",
            client_listen=clients,
        )
        newcomer = Served(config, self.directory, MACHINE)
        self.servers.append(newcomer)
        await newcomer.start()
        self._newcomers[server_id] = listen
        return newcomer

    async def change(self, *, add: Sequence[Served] = (), remove: Sequence[Served] = ()) -> list[int]:
        """Change the members in one step; who they are when every group has followed.

        Who goes is stopped then, as its operator would. The server that is asked stays.
        """
        asked = next(one for one in self.servers if one not in (*add, *remove))
        changes = [[ADD, one.server_id, self._newcomers[one.server_id], ""] for one in add]
        changes += [[REMOVE, one.server_id] for one in remove]
        async with client.connect(asked.address) as connection:
            found = await connection.members([*changes, WAIT_MS])
            version = found["version"]
            while found["reached_version"] < version:
                found = await connection.members([WAIT_MS])
        for one in remove:
            await one.terminate()
            self.servers.remove(one)
        return [server["server_id"] for server in found["servers"]]

    @property
    def addresses(self) -> list[str]:
        """Where clients reach them."""
        return [one.address for one in self.servers]

    def pulses(self, server: Served) -> list[int]:
        """When the process that runs now, or ran last, applied its batches."""
        return instants(self.directory, server.pid)

    async def leaders(self) -> list[tuple[int | None, int]]:
        """Each group's leader and its preferred server, by the word of the first server that answers."""
        for server in self.servers:
            try:
                status = await server.ask("status")
            except CraftError:  # it is away, or so busy that it does not answer in time
                continue
            return [(group["leader"], group["preferred"]) for group in status["groups"]]
        raise BenchError("no server answers")

    async def settled(self, within_s: float) -> bool:
        """Wait for a while until every group is led where it belongs; is it?"""
        with trio.move_on_after(within_s):
            while any(  # noqa: ASYNC110  # other processes
                leader != preferred for leader, preferred in await self.leaders()
            ):
                await trio.sleep(POLL_S)
            return True
        return False

    async def terms(self) -> int:
        """The groups' terms together, as the first server knows them: how many elections there were."""
        status = await self.servers[0].ask("status")
        return sum(group["term"] for group in status["groups"])

    async def agree(self, answered: list[bytes], failures: int) -> list[str]:
        """What contradicts that every server holds each answered write once, and nothing nobody asked for."""
        found = []
        states = await self._same_state()
        for server, state in zip(self.servers, states, strict=True):
            if state["digest"] != states[0]["digest"]:
                found.append(f"server {server.server_id} holds another state than server 1")
            if state["repeated"]:
                found.append(f"server {server.server_id}: took effect twice: {state['repeated'][:5]}")
            if not len(answered) <= state["writes"] <= len(answered) + failures:
                found.append(
                    f"server {server.server_id} holds {state['writes']} writes; callers were answered"
                    f" {len(answered)}, and {failures} calls failed"
                )
        return found

    async def _same_state(self) -> list[dict[str, Any]]:
        with trio.move_on_after(AGREE_WITHIN_S):
            while True:
                states = [await one.ask("read", b"summary") for one in self.servers]
                if len({state["position"] for state in states}) == 1:
                    return states
                await trio.sleep(POLL_S)
        raise BenchError(f"the servers did not come to one position within {AGREE_WITHIN_S:.0f} s")


@asynccontextmanager
async def served(
    servers: int, groups: int | None, directory: Path | None, engine: EngineLimits = LIMITS
) -> AsyncIterator[ServedCluster]:
    """Servers that are ready, while the block runs; afterwards nothing of them is left."""
    with tempfile.TemporaryDirectory(prefix="craft-bench-", dir=directory) as name:
        place = Path(name)
        os.environ[PULSES] = name
        os.environ["PYTHONPATH"] = with_root()
        own = [
            dataclasses.replace(one, close_timeout_ms=CLOSE_TIMEOUT_MS, engine=engine)
            for one in configs(place, servers, groups)
        ]
        started = [Served(one, place, MACHINE) for one in own]
        try:
            try:
                for server in started:
                    await server.start()
                for server in started:
                    await server.wait_ready()
            except CraftError as error:
                raise BenchError(str(error)) from error
            yield ServedCluster(place, started, own[0])
        finally:
            with trio.CancelScope(shield=True):
                for server in started:
                    if server.pid:
                        await server.kill()
