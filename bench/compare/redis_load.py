"""Load over Redis's protocol by redis-benchmark, a load generator in C: SET, one key a generator.

It makes a number of requests, not a load for a time. So the number is taken from the rate that was seen
before, server by server, so that all generators end at about the same time. The rate is the writes of all of
them by the time of the slowest: where they do not end together, the figure is too low, never too high.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.compare.peer import Driven
from bench.compare.programs import run_to_end, together
from bench.processes import BenchError

PROBE_REQUESTS = 10
"""On each connection, to learn the rate from."""

COLUMNS = {"rps", "p50_latency_ms", "p99_latency_ms"}


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one generator says."""

    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float


def report(output: str, requests: int) -> Report:
    """Of `redis-benchmark --csv` with so many requests. Raises BenchError for what is none."""
    rows = list(csv.DictReader(output.splitlines()))
    if len(rows) != 1 or not rows[0].keys() >= COLUMNS:
        raise BenchError(f"redis-benchmark says nothing that can be read:\n{output}")
    row = rows[0]
    return Report(
        requests=requests,
        per_second=float(row["rps"]),
        p50_ms=float(row["p50_latency_ms"]),
        p99_ms=float(row["p99_latency_ms"]),
    )


def driven_of(reports: Sequence[Report]) -> Driven:
    """All generators together. Percentiles cannot be added up: those of the worst generator stand."""
    answered = sum(one.requests for one in reports)
    return Driven(
        answered=answered,
        per_second=answered / max(one.requests / one.per_second for one in reports),
        p50_ms=max(one.p50_ms for one in reports),
        p99_ms=max(one.p99_ms for one in reports),
    )


def makeable(wanted: int, *, clients: int, pipeline: int) -> int:
    """How many writes redis-benchmark is told to make, so that it makes just as many.

    Each connection gets at least one turn, and a turn is never cut: told another number, it makes more than
    it says.
    """
    return pipeline * max(clients, math.ceil(wanted / pipeline))


class RedisLoad:
    """The generators of one system, one a server."""

    def __init__(self, ports: Sequence[int], clients: Sequence[int], *, pipeline: int, size: int) -> None:
        self._ports = ports
        self._clients = clients
        self._pipeline = pipeline
        self._value = "x" * size
        self._rates: list[float] = []
        self.probed = 0
        """Writes made only to learn the rate."""

    async def drive(self, seconds: float) -> Driven:
        """About so long."""
        if not self._rates:
            probes = [PROBE_REQUESTS * clients * self._pipeline for clients in self._clients]
            self.probed = (await self._make(probes, seconds)).answered
        return await self._make([round(rate * seconds) for rate in self._rates], seconds)

    async def _make(self, wanted: list[int], seconds: float) -> Driven:
        requests = [
            makeable(number, clients=clients, pipeline=self._pipeline)
            for number, clients in zip(wanted, self._clients, strict=True)
        ]
        said = await together(
            [self._command(place, number) for place, number in enumerate(requests)], seconds
        )
        reports = [report(one, number) for one, number in zip(said, requests, strict=True)]
        self._rates = [one.per_second for one in reports]
        return driven_of(reports)

    def _command(self, place: int, requests: int) -> list[str]:
        return [
            "redis-benchmark", "-p", str(self._ports[place]), "-c", str(self._clients[place]),
            "-P", str(self._pipeline), "-n", str(requests), "--csv", "SET", f"bench-{place}", self._value,
        ]  # fmt: skip


async def info(port: int, section: str) -> dict[str, str]:
    """What a server says of itself."""
    said = await run_to_end(["redis-cli", "-p", str(port), "INFO", section], 0.0)
    return dict(line.strip().split(":", 1) for line in said.splitlines() if ":" in line)
