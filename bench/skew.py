"""What do wrong clocks cost? Write latency against skew, in the simulator: the same figures on any machine.

Virtual time, real engines, a LAN (0.2 to 0.4 ms one way) and disks (0.2 to 0.6 ms a sync). Servers compute in
no time at all, so what is seen here is waiting alone.

Only differences between clocks can matter: no engine knows the true time. One behind is all others ahead.
"""

from __future__ import annotations

import argparse
import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgpack
import trio

from bench import skew_picture
from bench.experiment import (
    SERVERS_MAX,
    Experiment,
    Figures,
    OptionError,
    Progress,
    new_file,
    seconds,
    whole,
)
from bench.figures import percentile
from bench.skew_picture import words
from craft.limits import EngineLimits
from craft.state_machine import Batch
from craft.testing.history import Operation, Outcome
from craft.testing.plan import MS, SECOND, Plan
from craft.testing.world import World
from craft.types import ServerId

HOUR_MS = 3_600_000.0
SKEWS_MS = (0.1, 1.0, 10.0, 100.0, HOUR_MS)
"""From less than a frame takes, to an hour: far beyond what an engine lets a leader's clock be ahead."""

SKEWED: ServerId = 2
"""The server whose clock is wrong where only one is."""

ELECTIONS_NS = 5 * SECOND
"""Leaders are elected, and come home or hand over, before the load begins."""

PATIENCE_NS = 10 * SECOND
"""What is not answered so long after the load has ended never will be."""

COMMAND = b"x" * 16
BODY = msgpack.packb([COMMAND])


class Load(NamedTuple):
    """Closed-loop clients of each server, how long each thinks between its writes, what is not counted."""

    name: str
    clients: int
    think: tuple[int, int]
    warmup: int
    seconds: float
    """By default."""


LOADS = (
    Load("light", 1, (5 * MS, 35 * MS), 500 * MS, 8.0),
    Load("busy", 8, (0, 2 * MS), 50 * MS, 0.25),
)


class Scenario(NamedTuple):
    """Who is wrong, and by how much.

    `ahead`, `behind`: one server. `all`: each by something else, from so much behind to so much ahead.
    `alike`: all by the same. `jump ahead`, `jump behind`: one server, from the beginning of the window on.
    """

    who: str
    skew_ms: float

    def offsets(self, servers: int) -> tuple[int, ...]:
        """Each server's clock less true time at the start, in ns."""
        if self.who == "all":
            return tuple(round(self._ns * (2 * number / (servers - 1) - 1)) for number in range(servers))
        if self.who == "alike":
            return (self._ns,) * servers
        one = {"ahead": self._ns, "behind": -self._ns}.get(self.who, 0)
        return tuple(one if number + 1 == SKEWED else 0 for number in range(servers))

    def jump(self) -> int:
        """By how much the one server's clock is set while it serves, in ns."""
        return {"jump ahead": self._ns, "jump behind": -self._ns}.get(self.who, 0)

    @property
    def _ns(self) -> int:
        return round(self.skew_ms * MS)


SCENARIOS = (
    Scenario("none", 0.0),
    *(Scenario(who, skew) for who in ("ahead", "behind", "all") for skew in SKEWS_MS),
    Scenario("alike", 100.0),
    Scenario("jump ahead", HOUR_MS),
    Scenario("jump behind", HOUR_MS),
)


class _Silent:
    """A state machine that has nothing to do and nothing to say."""

    def apply_batch(self, batch: Batch) -> None:
        """Nothing."""


class _Writers:
    """Clients that stay at their server, and write while the load lasts."""

    def __init__(self, world: World, load: Load, *, begin: int, end: int) -> None:
        self._world, self._think = world, load.think
        self._begin, self._end = begin, end
        self._rng = random.Random(f"{world.plan.seed} writers")
        self.latencies: dict[ServerId, list[float]] = defaultdict(list)
        """Of the writes that began in the window, by the server that took them, in seconds."""
        self.waiting = 0
        self.failed = 0
        world.settled = self._settled
        for server_id in world.ids * load.clients:
            self._pause(server_id)

    def _pause(self, server_id: ServerId) -> None:
        when = self._world.time + self._rng.randint(*self._think)
        if when < self._end:
            self._world.at(when, partial(self._write, server_id))

    def _write(self, server_id: ServerId) -> None:
        world = self._world
        self.waiting += 1
        operation = world.history.invoke(0, server_id, "write", (COMMAND,), at=world.time)
        world.servers[server_id].propose(operation, BODY)

    def _settled(self, operation: Operation) -> None:
        self.waiting -= 1
        if operation.outcome is not Outcome.OK or operation.returned is None:
            self.failed += 1
        elif operation.invoked >= self._begin:
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
    begin = world.time + load.warmup
    end = begin + round(seconds * SECOND)
    writers = _Writers(world, load, begin=begin, end=end)
    world.run(begin)
    world.clocks[SKEWED].jump(begin, scenario.jump())
    before = _appended(world)
    world.run(end)
    appended = _appended(world) - before
    world.run_while(lambda: writers.waiting > 0, until=end + PATIENCE_NS)
    own = writers.latencies[SKEWED]
    others = [one for i in world.ids if i != SKEWED for one in writers.latencies[i]]
    writes = len(own) + len(others)
    return {
        "load": load.name,
        "who": scenario.who,
        "skew_ms": scenario.skew_ms,
        "writes": writes,
        "unanswered": writers.failed + writers.waiting,
        "differ": _differ(world),
        "all": _spread([*own, *others]),
        "own": _spread(own),
        "others": _spread(others),
        "entries_per_write": round(appended / max(1, writes), 3),
    }


def _differ(world: World) -> bool:
    """Do the servers' merged logs differ? What nobody waits for reaches the others with a heartbeat."""
    world.run(world.time + SECOND)
    states = [world.servers[i].engine.state for i in world.ids]
    return len({(state.merged_position, state.digest) for state in states}) > 1


def _appended(world: World) -> int:
    """Entries of all groups, commands' and closing ones."""
    return sum(raft.state.log.last_index for raft in world.servers[SKEWED].engine.state.replicas)


def _spread(latencies: Sequence[float]) -> dict[str, float | None]:
    ranked = sorted(latencies)
    return {
        name: None if (value := percentile(ranked, share)) is None else round(value * 1000, 3)
        for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99), ("max_ms", 1.0))
    }


# -- the experiment --------------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment: it starts no processes, and has no use for what the others share."""
    parser.set_defaults(dir=None, beside=None, beside_figure=None)
    parser.add_argument(
        "--servers",
        type=whole(1, SERVERS_MAX),
        default=3,
        metavar="N",
        help="and as many groups (default: 3)",
    )
    for load in LOADS:
        parser.add_argument(
            f"--{load.name}",
            type=seconds(0.01),
            default=load.seconds,
            metavar="S",
            help=f"virtual seconds of {load.name} load, {load.clients} client(s) a server"
            f" (default: {load.seconds:g})",
        )
    parser.add_argument("--seed", type=whole(0, 2**31), default=1, metavar="N", help="default: 1")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write the result there")
    parser.add_argument("--svg", type=new_file, metavar="FILE", help="draw the figures there")
    parser.add_argument("--table", type=new_file, metavar="FILE", help="write them there, as Markdown")


def check(options: argparse.Namespace) -> None:
    """A clock must have another one to differ from."""
    if options.servers < SKEWED:
        raise OptionError(
            f"--servers {options.servers} is not allowed here; allowed: {SKEWED} to {SERVERS_MAX}"
        )


async def run(options: argparse.Namespace, progress: Progress) -> tuple[Figures, list[str]]:
    """One scenario after the other; a signal is heeded between two."""
    cells: list[Figures] = []
    for load, scenario in itertools.product(LOADS, SCENARIOS):
        progress.stage(f"{load.name} load, {words(scenario.who, scenario.skew_ms)}")
        duration = getattr(options, load.name)
        cells.append(measure(scenario, load, servers=options.servers, seconds=duration, seed=options.seed))
        await trio.lowlevel.checkpoint()
    failures = [failure for cell in cells for failure in _failures(cell)]
    if not failures:
        _write(options.svg, skew_picture.picture(cells))
        _write(options.table, skew_picture.table(cells))
    figures = {
        "cells": cells,
        "added_p50_ms_max": _added_max(cells, "p50_ms"),
        "added_p99_ms_max": _added_max(cells, "p99_ms"),
        "clock_offset_ms_max": EngineLimits().clock_offset_ms_max,
        "virtual_time": True,
        "doubts": [],
    }
    return figures, failures


def _failures(cell: Figures) -> Iterator[str]:
    where = f"{cell['load']} load, {words(cell['who'], cell['skew_ms'])}"
    if cell["unanswered"]:
        yield f"{where}: {cell['unanswered']} writes unanswered"
    if cell["differ"]:
        yield f"{where}: the servers' merged logs differ"
    if None in (cell["own"]["p50_ms"], cell["others"]["p50_ms"]):
        yield f"{where}: a server was asked nothing: the load is too short"


def _write(file: Path | None, text: str) -> None:
    if file is not None:
        file.write_text(text, encoding="utf-8")


def _added_max(cells: Sequence[Figures], figure: str) -> float | None:
    """By how much all writes together took longer than without skew, where that is most."""
    exact = {cell["load"]: cell["all"][figure] for cell in cells if cell["who"] == "none"}
    if any(cell["all"][figure] is None for cell in cells):
        return None
    return max(round(float(cell["all"][figure] - exact[cell["load"]]), 3) for cell in cells)


def summary(figures: Figures) -> list[str]:
    """The figures, for people."""
    columns = ("all p50", "p99", "max", "wrong p50", "p99", "max", "others p50", "p99", "max", "entries")
    lines = [f"{'ms':<30}" + "".join(f"{column:>11}" for column in columns)]
    for cell in figures["cells"]:
        spreads = [value for whose in ("all", "own", "others") for value in cell[whose].values()]
        values = [*spreads, cell["entries_per_write"]]
        lines.append(
            f"{cell['load']}, {words(cell['who'], cell['skew_ms'])}".ljust(30)
            + "".join(f"{'-' if value is None else f'{value:.2f}':>11}" for value in values)
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
    quick=("--light", "0.15", "--busy", "0.02"),
)
