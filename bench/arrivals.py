"""Open-loop load: calls arrive when they arrive, whether or not those before them were answered.

A closed-loop client that waits does not propose, so a stall delays as many calls as there are clients and
no more: the percentiles leave out whom else it would have met (coordinated omission). Here arrivals are a
Poisson process with a seed, planned without looking at the server, and a call's latency counts from the
instant that was planned, however late the call was made.

Invariants
- No arrival is left out: it is answered, refused by a limit of the library, or turned away here at a limit
  of the generator, and each is counted.
- What an answer measures began at the planned instant.
"""

from __future__ import annotations

import random
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import trio

from bench.figures import Measured, counted_since, milliseconds, percentile, ratio, spent
from bench.workload import SLOTS_MAX, Source, Table
from craft import Overloaded, Server

OUTSTANDING_MAX = 10_000
"""Calls a server that may wait at once: far more than the library's own limits take of large calls. Beyond it
the generator would measure its own memory."""

KEY_SETS = 16
"""So many calls in a row have keys of their own; then they come again. With keys for all calls that may wait
the state machine's dict would grow with the backlog: its resizing and memory would be what is measured."""

BURST_MAX = 64
"""Arrivals made without letting the server run, where the generator is late."""


def arrivals(rate: float, seed: int) -> Iterator[float]:
    """The instants of a Poisson process of so many events a second, in seconds from its start."""
    rng = random.Random(seed)
    at = 0.0
    while True:
        at += rng.expovariate(rate)
        yield at


class OpenLoad:
    """Calls of a batch each, which arrive at one server."""

    def __init__(
        self,
        server: Server[Table],
        *,
        calls_per_second: float,
        outstanding_max: int,
        batch: int,
        size: int,
        seed: int,
    ) -> None:
        assert KEY_SETS * batch <= SLOTS_MAX
        self._server = server
        self._batch = batch
        self._seed = seed
        self._rate = calls_per_second
        self._max = outstanding_max
        rng, origin = random.Random(seed), server.config.server_id
        self._sources = [
            Source(origin=origin, first_slot=number * batch, slots=batch, size=size, rng=rng)
            for number in range(KEY_SETS)
        ]
        self._outstanding = 0
        self._scope = trio.CancelScope()
        self._idle = trio.Event()
        self.latencies = array("d")
        """Seconds from the planned instant to the answer, of every answered call, in the answers' order."""
        self.planned = array("d")
        """Their planned instants, of the machine's monotonic clock."""
        self.late = array("d")
        """By how much each of them was made later than planned: the generator's own part of the latency."""
        self.offered = 0
        self.overloaded = 0
        self.turned_away = 0
        self.behind = 0

    @property
    def answered(self) -> int:
        """Commands answered as applied to their caller since the start."""
        return len(self.latencies) * self._batch

    @property
    def last_answered(self) -> list[bytes]:
        """None: calls under way at once share keys, so nobody knows which one a key holds in the end."""
        return []

    def counts(self) -> dict[str, int]:
        """What became of the calls so far."""
        return {
            "offered": self.offered,
            "refused": self.overloaded,
            "turned_away": self.turned_away,
        }

    def start(self, nursery: trio.Nursery, _mode: str) -> None:
        """Let calls arrive."""
        nursery.start_soon(self._arrive)

    async def stop(self) -> None:
        """No further arrivals; wait until every call is answered."""
        self._scope.cancel()
        await self._idle.wait()

    async def _arrive(self) -> None:
        began, now = time.monotonic(), time.monotonic
        async with trio.open_nursery() as nursery:
            with self._scope:
                for number, after in enumerate(arrivals(self._rate, self._seed)):
                    wait = began + after - now()
                    if wait > 0:
                        await trio.sleep(wait)
                    elif number % BURST_MAX == 0:
                        await trio.lowlevel.checkpoint()
                    self._begin(nursery, began + after)
        self._idle.set()

    def _begin(self, nursery: trio.Nursery, planned: float) -> None:
        self.offered += 1
        if self._outstanding < self._max:
            self._outstanding += 1
            nursery.start_soon(self._call, self._sources[self.offered % KEY_SETS], planned)
        else:
            self.turned_away += 1

    async def _call(self, source: Source, planned: float) -> None:
        late = time.monotonic() - planned
        commands = source.batch()
        try:
            if len(commands) == 1:
                await self._server.propose(commands[0])
            else:
                await self._server.propose_many(commands)
        except Overloaded:
            self.overloaded += 1
        else:
            self.latencies.append(time.monotonic() - planned)
            self.planned.append(planned)
            self.late.append(late)
        self._outstanding -= 1

    def between(self, from_s: float, to_s: float) -> tuple[array[float], array[float]]:
        """The latencies of the calls that were planned between two instants, and how late each was made."""
        places = [place for place, planned in enumerate(self.planned) if from_s <= planned < to_s]
        latencies, late = self.latencies, self.late
        return array("d", [latencies[place] for place in places]), array(
            "d", [late[place] for place in places]
        )


def lateness(late: Sequence[float]) -> dict[str, Any]:
    """Of the generator, in short."""
    ordered = sorted(late)
    return {
        "p50_ms": milliseconds(percentile(ordered, 0.5)),
        "p99_ms": milliseconds(percentile(ordered, 0.99)),
    }


def arrival_figures(
    measured: Sequence[Measured], late: Sequence[Mapping[str, Any]], batch: int
) -> dict[str, Any]:
    """What became of what arrived in the window: commands a second, and shares."""
    offered, refused, turned_away = (
        sum(counted_since(one, name) / spent(one, "at_s") for one in measured) * batch
        for name in ("offered", "refused", "turned_away")
    )
    worst = max((one["p99_ms"] for one in late if one["p99_ms"] is not None), default=None)
    return {
        "offered_per_second": round(offered, 1),
        "refused_per_second": round(refused, 1),
        "turned_away_per_second": round(turned_away, 1),
        "refused_share": ratio(refused, offered),
        "turned_away_share": ratio(turned_away, offered),
        "generator_late_p99_ms": worst,
    }
