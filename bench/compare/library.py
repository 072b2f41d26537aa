"""craft as a library: tasks in the servers' own processes, each with one `propose` outstanding."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import craft
from bench.compare.peer import SERVERS, SYNCED_MAJORITY, Driven, Load, Peer, Running
from bench.experiment import Progress
from bench.figures import milliseconds, percentile, spent
from bench.loading import LoadPlan, Run, agree, evenly, run_load, settle
from bench.processes import Cluster, Plan, cluster


class _Quiet(Progress):
    """The comparison tells how far it is itself."""

    def _show(self, text: str) -> None:
        pass

    def stage(self, text: str) -> None:
        """Nothing."""


class _Servers(Running):
    generators = 0

    def __init__(self, load: Load, cluster: Cluster) -> None:
        self.pids = [one.pid for one in cluster.processes]
        self.generator_pids = []
        self._load = load
        self._cluster = cluster
        self._drives = 0
        self._last: Run | None = None

    async def drive(self, seconds: float) -> Driven:
        """As `bench throughput --mode awaited` does."""
        self._drives += 1
        plan = LoadPlan(
            mode="awaited",
            tasks=evenly(self._load.clients * self._load.pipeline, SERVERS),
            batch=1,
            size=self._load.size,
            warmup_s=0.0,
            window_s=seconds,
            seed=self._drives,  # no command of one drive is one of another
        )
        self._last = run = await run_load(self._cluster, plan, _Quiet())
        return Driven(
            answered=run.answered,
            per_second=sum(spent(one, "answered") / spent(one, "at_s") for one in run.measured),
            p50_ms=milliseconds(percentile(run.latencies, 0.5)),
            p99_ms=milliseconds(percentile(run.latencies, 0.99)),
        )

    async def verify(self, answered: int) -> list[str]:
        """Every server applied each command once, in the same order."""
        assert self._last is not None
        _, found = await agree(self._cluster, replace(self._last, answered=answered), _Quiet())
        return found


class Craft(Peer):
    """This library."""

    name = "craft"
    generator = "tasks in the servers (propose)"

    def missing(self) -> str | None:
        """Nothing: it runs this."""
        return None

    def version(self) -> str:
        """Of the library."""
        return craft.__version__

    def durability(self) -> tuple[str, str]:
        """Of the level `applied`."""
        return SYNCED_MAJORITY

    @asynccontextmanager
    async def running(self, load: Load, directory: Path) -> AsyncIterator[Running]:
        """Three servers with the defaults, whose leaders are at home."""
        async with cluster(Plan(servers=SERVERS, directory=directory)) as servers:
            await settle(servers, _Quiet())
            yield _Servers(load, servers)
