"""Server processes for one experiment: started on loopback with a directory each, asked, and always ended.

Invariants
- However an experiment ends, its processes are killed and their directory removed before `cluster` returns.
- A process that dies or stops answering ends the experiment with an error that shows the end of its log.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio

from bench.member import requests
from craft import Config, EngineLimits, TransportLimits

ROOT = Path(__file__).resolve().parent.parent

PORTS = range(20_000, 32_000)
"""Below the range from which outgoing connections take theirs: none of those sits on a port just chosen."""

ANSWER_WITHIN_S = 60.0
"""A process that does not answer a request for this long beyond what the request itself takes is stuck."""

RESTART_WITHIN_S = 120.0
"""A server that has a long log to read takes its time."""

LOG_TAIL_LINES = 15

Progress = Callable[[int, int], None]
"""Called with a server's id and the commands answered there so far."""


class BenchError(Exception):
    """The run failed, and its figures mean nothing."""


class NotPossible(BenchError):
    """This machine lacks what the experiment takes: a privilege, or a program. It says what."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """Where one server runs."""

    address: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()
    """The start of a command that runs the rest there, as the same process; see `namespaces` and `quotas`."""

    closed_network: bool = False
    """Nobody but the experiment's servers reaches the address, which is not loopback's."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The cluster that an experiment wants."""

    servers: int
    groups: int | None = None
    keys: str = "reused"
    directory: Path | None = None
    """Where the servers' directories are made; without it, the system's place for temporary files."""

    engine: EngineLimits = field(default_factory=EngineLimits)
    transport: TransportLimits = field(default_factory=TransportLimits)
    snapshots: bool = False
    """Snapshots are taken, and logs compacted behind them."""

    hosts: Sequence[Host] = ()
    """One a server; without any, all are plain processes on loopback."""

    def host(self, server_id: int) -> Host:
        """Where a server runs."""
        return self.hosts[server_id - 1] if self.hosts else Host()


def with_root() -> str:
    """The search path for a process that imports what is in this tree."""
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on. All are held until the last is found, so that they differ."""
    held: list[socket.socket] = []
    try:
        for port in random.sample(PORTS, len(PORTS)):
            candidate = socket.socket()
            held.append(candidate)
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                held.pop().close()
            if len(held) == count:
                return [one.getsockname()[1] for one in held]
        raise BenchError(f"no {count} free ports from {PORTS.start} to {PORTS.stop - 1}")
    finally:
        for one in held:
            one.close()


def configs(plan: Plan, directory: Path) -> list[Config]:
    """One configuration a server: the defaults, RocksDB with its syncs, plain TCP on loopback."""
    ports = free_ports(plan.servers)
    addresses = {number: f"{plan.host(number).address}:{port}" for number, port in enumerate(ports, start=1)}
    return [
        Config(
            cluster="bench",
            server_id=number,
            servers=addresses,
            groups=plan.groups,
            data_dir=directory / f"server-{number}",
            engine=plan.engine,
            transport=plan.transport,
            insecure_listen=plan.host(number).closed_network,
        )
        for number in addresses
    ]


class Process:
    """One server process and the conversation with it."""

    def __init__(self, number: int, process: trio.Process, log: Path) -> None:
        assert process.stdin is not None and process.stdout is not None
        self.number = number
        self.pid = process.pid
        self._process = process
        self._log = log
        self._input = process.stdin
        self._lines = requests(process.stdout)

    @classmethod
    async def start(cls, config: Config, plan: Plan, log: Path) -> Process:
        """Start it and give it its assignment; it answers once its server runs."""
        assignment = {"config": config.to_toml(), "keys": plan.keys, "snapshots": plan.snapshots}
        prefix = plan.host(config.server_id).prefix
        return await cls.begin("bench.member", config.server_id, assignment, log, prefix=prefix)

    @classmethod
    async def begin(
        cls,
        module: str,
        number: int,
        assignment: Mapping[str, Any],
        log: Path,
        *,
        prefix: Sequence[str] = (),
    ) -> Process:
        """Start a module that is asked by its stdin, and give it its assignment, which it answers.

        Behind a `prefix`, the start of a command that runs the rest as the same process (`Host`).
        """
        with log.open("ab") as stderr:
            process = await trio.lowlevel.open_process(
                [*prefix, sys.executable, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, "PYTHONPATH": with_root()},
                start_new_session=True,  # Ctrl-C is for the harness alone
            )
        started = cls(number, process, log)
        try:
            await started._send(assignment)
        except BaseException:
            await started.kill()
            raise
        return started

    async def ask(
        self, do: str, *, progress: Progress | None = None, patience_s: float = 0.0, **arguments: Any
    ) -> Any:
        """Make a request (a method of `bench.member.Member`) and wait for its answer."""
        await self._send({"do": do, **arguments})
        return await self.answer(do, progress=progress, patience_s=patience_s)

    async def answer(self, what: str, *, progress: Progress | None = None, patience_s: float = 0.0) -> Any:
        """The next answer."""
        with trio.move_on_after(patience_s + ANSWER_WITHIN_S):
            async for line in self._lines:
                if "ok" in line:
                    return line["ok"]
                if progress is not None:
                    progress(self.number, line["progress"])
            raise self._failure(f"ended with exit code {await self._process.wait()}")
        raise self._failure(f"did not answer '{what}' within {patience_s + ANSWER_WITHIN_S:.0f} s")

    async def kill(self) -> None:
        """End it at once, whatever it does, and wait until it is gone."""
        with trio.CancelScope(shield=True):
            self._process.kill()
            await self._process.wait()
            await self._input.aclose()
            assert self._process.stdout is not None
            await self._process.stdout.aclose()

    async def _send(self, request: Mapping[str, Any]) -> None:
        try:
            await self._input.send_all(json.dumps(request).encode() + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._failure(f"ended with exit code {await self._process.wait()}") from None

    def _failure(self, what: str) -> BenchError:
        tail = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return BenchError("\n    ".join([f"server {self.number} {what}; its log ends:", *tail]))


class Cluster:
    """The running servers of one experiment."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        self.directory = directory
        self.configs = configs(plan, directory)
        self.processes: list[Process] = []
        self._plan = plan

    async def start_all(self) -> None:
        """Start every server; all answer afterwards."""
        for config in self.configs:
            self.processes.append(await self._start(config))
        await together([partial(one.answer, "start") for one in self.processes])

    async def restart(self, place: int) -> None:
        """Start the server at this place again, which was killed; it answers afterwards."""
        self.processes[place] = started = await self._start(self.configs[place])
        await started.answer("start", patience_s=RESTART_WITHIN_S)

    async def _start(self, config: Config) -> Process:
        log = self.directory / f"server-{config.server_id}.log"
        return await Process.start(config, self._plan, log)

    async def ask_all(self, do: str, **arguments: Any) -> list[Any]:
        """Make the same request of every server at once; the answers in the servers' order."""
        return await self.ask_each(do, [arguments] * len(self.processes))

    async def ask_each(self, do: str, arguments: list[dict[str, Any]]) -> list[Any]:
        """Make a request of every server at once, each with its own arguments."""
        pairs = zip(self.processes, arguments, strict=True)
        return await together([partial(process.ask, do, **own) for process, own in pairs])


async def together(calls: list[Callable[[], Any]]) -> list[Any]:
    """Run all at once. The first to fail ends the others, and its error is raised alone."""
    results: list[Any] = [None] * len(calls)
    failures: list[BenchError] = []

    async def run(place: int, call: Callable[[], Any], scope: trio.CancelScope) -> None:
        try:
            results[place] = await call()
        except BenchError as error:
            failures.append(error)
            scope.cancel()

    async with trio.open_nursery() as nursery:
        for place, call in enumerate(calls):
            nursery.start_soon(run, place, call, nursery.cancel_scope)
    if failures:
        raise failures[0]
    return results


@asynccontextmanager
async def cluster(plan: Plan) -> AsyncIterator[Cluster]:
    """Server processes while the block runs, all of them answering; afterwards nothing of them is left."""
    with tempfile.TemporaryDirectory(prefix="craft-bench-", dir=plan.directory) as name:
        running = Cluster(plan, Path(name))
        try:
            await running.start_all()
            yield running
        finally:
            for process in running.processes:
                await process.kill()
