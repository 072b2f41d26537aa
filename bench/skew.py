"""What do wrong clocks cost? Write latency against skew, in the simulator: the same figures on any machine.

Virtual time, real engines, a LAN (0.2 to 0.4 ms one way) and disks (0.2 to 0.6 ms a sync). Servers compute in
no time at all, so what is seen here is waiting alone.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import trio

from bench import skew_picture
from bench.experiment import Experiment, Figures, Progress, add_common_options, new_file, seconds, whole
from bench.figures import percentile
from craft.limits import EngineLimits
from craft.state_machine import Batch
from craft.testing.history import Operation, Outcome
from craft.testing.plan import MS, SECOND, Plan
from craft.testing.world import World
from craft.types import ServerId

SKEWS_MS = (0.1, 1.0, 10.0, 100.0, 3_600_000.0)
"""From less than a frame takes, to an hour."""

SKEWED: ServerId = 2
"""The server whose clock is wrong where only one is."""

ELECTIONS_NS = 5 * SECOND
"""Leaders are elected, and come home or hand over, before the load begins."""

WARMUP_NS = 500 * MS
"""Load that is not counted."""

COMMAND = b"x" * 16
BODY = msgpack.packb([COMMAND])


class Load(NamedTuple):
    """Closed-loop clients of each server, and how long each thinks between its writes."""

    name: str
    clients: int
    think: tuple[int, int]


LOADS = (Load("light", 1, (5 * MS, 35 * MS)), Load("busy", 8, (0, 2 * MS)))
BY_DEFAULT_S = {"light": 5.0, "busy": 0.2}


class Scenario(NamedTuple):
    """Who is wrong, and by how much: one server `ahead` or `behind`, or `all`, each to the other side."""

    who: str
    skew_ms: float

    def offsets(self, servers: int) -> tuple[int, ...]:
        """Each server's clock less true time, in ns."""
        off = round(self.skew_ms * MS)
        if self.who == "all":
            return tuple(off if number % 2 else -off for number in range(servers))
        one = {"ahead": off, "behind": -off, "none": 0}[self.who]
        return tuple(one if number + 1 == SKEWED else 0 for number in range(servers))


SCENARIOS = (
    Scenario("none", 0.0),
    *(Scenario(who, skew) for who in ("ahead", "behind", "all") for skew in SKEWS_MS),
)


class _Silent:
    """A state machine that has nothing to do and nothing to say."""

    def apply_batch(self, batch: Batch) -> None:
        """Nothing."""


class _Writers:
    """Clients that stay at their server."""

    def __init__(self, world: World, load: Load) -> None:
        self._world, self._think = world, load.think
        self._rng = random.Random(f"{world.plan.seed} writers")
        self._since = world.time + WARMUP_NS
        self.latencies: dict[ServerId, list[float]] = defaultdict(list)
        self.unanswered = 0
        world.settled = self._settled
        for server_id in world.ids * load.clients:
            self._pause(server_id)

    def _pause(self, server_id: ServerId) -> None:
        when = self._world.time + self._rng.randint(*self._think)
        self._world.at(when, partial(self._write, server_id))

    def _write(self, server_id: ServerId) -> None:
        world = self._world
        operation = world.history.invoke(0, server_id, "write", (COMMAND,), at=world.time)
        world.servers[server_id].propose(operation, BODY)

    def _settled(self, operation: Operation) -> None:
        if operation.outcome is not Outcome.OK or operation.returned is None:
            self.unanswered += 1
        elif operation.invoked >= self._since:
            took = (operation.returned - operation.invoked) / SECOND
            self.latencies[operation.server].append(took)
        self._pause(operation.server)


def measure(scenario: Scenario, load: Load, *, servers: int, seconds: float, seed: int) -> Figures:
    """One run: what writes took, those of the wrong clock's server apart, and what was appended for them."""
    plan = Plan(seed, servers=servers, groups=servers, clock_offsets=scenario.offsets(servers))
    world = World(plan, _Silent)
    for server_id in world.ids:
        world.at(0, partial(world.start, server_id))
    world.run(ELECTIONS_NS)
    writers = _Writers(world, load)
    world.run(world.time + WARMUP_NS)
    before = _appended(world)
    world.run(world.time + round(seconds * SECOND))
    latencies = writers.latencies
    own = latencies[SKEWED]
    others = [one for server_id in world.ids if server_id != SKEWED for one in latencies[server_id]]
    writes = len(own) + len(others)
    return {
        "load": load.name,
        "who": scenario.who,
        "skew_ms": scenario.skew_ms,
        "writes": writes,
        "unanswered": writers.unanswered,
        "all": _spread([*own, *others]),
        "own": _spread(own),
        "others": _spread(others),
        "entries_per_write": round((_appended(world) - before) / max(1, writes), 3),
    }


def _appended(world: World) -> int:
    """Entries of all groups, commands' and closing ones."""
    return sum(raft.state.log.last_index for raft in world.servers[SKEWED].engine.state.replicas)


def _spread(latencies: Sequence[float]) -> dict[str, float | None]:
    ranked = sorted(latencies)
    return {
        name: None if (value := percentile(ranked, share)) is None else round(value * 1000, 3)
        for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99))
    }


# -- the experiment --------------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    add_common_options(parser)
    for load in LOADS:
        parser.add_argument(
            f"--{load.name}",
            type=seconds(0.01),
            default=BY_DEFAULT_S[load.name],
            metavar="S",
            help=f"virtual seconds with {load.clients} client(s) a server"
            f" (default: {BY_DEFAULT_S[load.name]:g})",
        )
    parser.add_argument("--seed", type=whole(0, 2**31), default=1, metavar="N", help="default: 1")
    parser.add_argument("--picture", type=new_file, metavar="FILE", help="draw the figures there, as SVG")
    parser.add_argument("--table", type=new_file, metavar="FILE", help="write them there, as Markdown")


def check(options: argparse.Namespace) -> None:
    """Any combination will do."""


def runs(options: argparse.Namespace) -> Iterator[tuple[Scenario, Load, float]]:
    """Everything that is measured."""
    for load in LOADS:
        for scenario in SCENARIOS:
            yield scenario, load, getattr(options, load.name)


async def run(options: argparse.Namespace, progress: Progress) -> tuple[Figures, list[str]]:
    """One scenario after the other; a signal is heeded between two."""
    cells: list[Figures] = []
    for scenario, load, duration in runs(options):
        progress.stage(f"{load.name} load, skew {scenario.who} {scenario.skew_ms:g} ms")
        cells.append(
            measure(scenario, load, servers=max(2, options.servers), seconds=duration, seed=options.seed)
        )
        await trio.lowlevel.checkpoint()
    if options.picture is not None:
        _write(options.picture, skew_picture.picture(cells))
    if options.table is not None:
        _write(options.table, skew_picture.table(cells))
    failures = [
        f"{cell['load']} load, {cell['who']} {cell['skew_ms']:g} ms: {cell['unanswered']} writes unanswered"
        for cell in cells
        if cell["unanswered"] or not cell["writes"]
    ]
    figures = {
        "cells": cells,
        "added_p50_ms_max": max(_added(cells, cell, "p50_ms") for cell in cells),
        "added_p99_ms_max": max(_added(cells, cell, "p99_ms") for cell in cells),
        "bound_ms": EngineLimits().clock_offset_ms_max,
        "doubts": [],
    }
    return figures, failures


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def _added(cells: Sequence[Figures], cell: Figures, figure: str) -> float:
    """By how much all writes together took longer than without skew."""
    exact: Any = next(one for one in cells if one["load"] == cell["load"] and one["who"] == "none")
    return round(float(cell["all"][figure] - exact["all"][figure]), 3)


def summary(figures: Figures) -> list[str]:
    """The figures, for people."""
    lines = [
        "load   skew            all p50   p99   | wrong clock  p50   p99   | others  p50   p99   | entries"
    ]
    for cell in figures["cells"]:
        skew = f"{cell['who']} {cell['skew_ms']:g}"
        spreads = [
            f"{cell[who]['p50_ms']:>8.2f}{cell[who]['p99_ms']:>8.2f}" for who in ("all", "own", "others")
        ]
        lines.append(
            f"{cell['load']:<7}{skew:<15}{'   |   '.join(spreads)}   |{cell['entries_per_write']:>7.2f}"
        )
    return lines


EXPERIMENT = Experiment(
    name="skew",
    question="What do wrong clocks cost a write? In the simulator, so the same on any machine.",
    figure="added_p50_ms_max",
    add_options=add_options,
    check=check,
    run=run,
    summary=summary,
)
