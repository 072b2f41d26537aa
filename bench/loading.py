"""A load over a window of time, and the check afterwards that every server did the same.

The window's ends are instants of the machine's monotonic clock, which all processes share. A server takes its
readings at its next turn, and rates are by the time between its readings.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import trio

from bench.arrivals import OUTSTANDING_MAX, arrival_figures
from bench.experiment import Progress
from bench.figures import Measured, load_latencies
from bench.processes import BenchError, Cluster
from bench.reading import READS

SETTLE_WITHIN_S = 20.0
"""For every group to be led where it belongs; leaders come home a few seconds after a start."""

AGREE_WITHIN_S = 60.0
"""For all servers to apply the rest once nobody proposes any more."""

DRAIN_WITHIN_S = 240.0
"""For the answers to all that arrived and was taken, which may be far more than clients who wait propose."""

AGREE_POLL_S = 0.1
LEAD_S = 0.2
"""From telling the servers when to take their readings until the first one is due."""


@dataclass(frozen=True, kw_only=True)
class LoadPlan:
    """What is proposed, and for how long."""

    mode: str
    tasks: list[int]
    """Tasks that propose, a server. Open loop: 1 where commands arrive, else 0."""

    batch: int
    size: int
    warmup_s: float
    window_s: float
    seed: int
    profile: str | None = None
    """A file for the profile of the first server."""

    rate: float | None = None
    """Open loop: commands that arrive a second, over all servers."""

    outstanding_max: int = OUTSTANDING_MAX
    """Open loop: calls not yet answered, a server, beyond which an arrival is turned away."""

    slots: int | None = None
    """Closed loop: keys of a task, over which its calls walk: a multiple of the batch, the default."""

    write_share: float = 0.0
    """Reads: how many of the calls are writes."""

    def starts(self, directory: Path) -> list[dict[str, Any]]:
        """What each server is told."""
        rng = random.Random(self.seed)
        shared: dict[str, Any] = {"mode": self.mode, "batch": self.batch, "size": self.size}
        if self.mode in READS:
            shared |= {
                "write_share": self.write_share,
                "board": str(directory / "board"),
                "board_tasks": self.tasks,
            }
        if self.slots is not None:
            shared["slots"] = self.slots
        if self.rate is not None:
            calls = self.rate / self.batch / sum(self.tasks)
            shared |= {"calls_per_second": calls, "outstanding_max": self.outstanding_max}
        return [{**shared, "tasks": tasks, "seed": rng.getrandbits(64)} for tasks in self.tasks]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What came of it."""

    measured: list[Measured]
    latencies: list[float]
    answered: int
    """Commands answered to their callers, warm-up and wind-down included."""

    overloaded: int
    """Calls refused as Overloaded."""

    behind: int = 0
    """Reads that saw less than somebody had been answered before."""

    by_server: list[list[float]] = field(default_factory=list)
    """The latencies, server by server."""

    arrivals: dict[str, Any] = field(default_factory=dict)
    """Open loop: what became of what arrived in the window."""


def evenly(clients: int, servers: int) -> list[int]:
    """Clients a server, as even as can be."""
    return [clients // servers + (number < clients % servers) for number in range(servers)]


async def settle(cluster: Cluster, progress: Progress) -> list[str]:
    """Wait until the servers are ready and lead evenly; returns what is not as it should be."""
    progress.stage("waiting for leaders")
    replies = await cluster.ask_all("settle", within_s=SETTLE_WITHIN_S, patience_s=SETTLE_WITHIN_S)
    leaders = replies[0]["leaders"]
    if len({leader for leader in leaders if leader is not None}) < min(len(leaders), len(cluster.processes)):
        return [f"leaders were not spread over the servers at the start: {leaders}"]
    return []


async def run_load(cluster: Cluster, plan: LoadPlan, progress: Progress) -> Run:
    """Start the load, measure over the window, stop the load."""
    progress.stage(f"warming up for {plan.warmup_s:g} s, then measuring for {plan.window_s:g} s")
    await cluster.ask_each("start", plan.starts(cluster.directory))
    measured = await measure_window(cluster, plan, progress)
    progress.stage("waiting for the last answers")
    stopped = await stop_load(cluster, 0.0 if plan.rate is None else DRAIN_WITHIN_S)
    arrivals: dict[str, Any] = {}
    if plan.rate is not None:
        lateness = await cluster.ask_each(
            "arrived",
            [
                {"latencies": str(_latency_file(cluster, one.number)), **_window(reading)}
                for one, reading in zip(cluster.processes, measured, strict=True)
            ],
        )
        arrivals = arrival_figures(measured, lateness, plan.batch)
    by_server = window_latencies(cluster)
    return replace(
        stopped,
        measured=measured,
        latencies=sorted(chain.from_iterable(by_server)),
        by_server=by_server,
        arrivals=arrivals,
    )


def window_latencies(cluster: Cluster) -> list[list[float]]:
    """Those of the last window, server by server, in seconds and sorted."""
    return [load_latencies([_latency_file(cluster, one.number)]) for one in cluster.processes]


def _window(measured: Measured) -> dict[str, float]:
    return {"from_s": measured["before"]["at_s"], "to_s": measured["after"]["at_s"]}


async def stop_load(cluster: Cluster, patience_s: float = 0.0) -> Run:
    """End a load of which nothing was measured, and wait for the last answers."""
    stopped = await cluster.ask_all("stop", patience_s=patience_s)
    return Run(
        measured=[],
        latencies=[],
        answered=sum(one["answered"] for one in stopped),
        overloaded=sum(one["overloaded"] for one in stopped),
        behind=sum(one["behind"] for one in stopped),
    )


def _latency_file(cluster: Cluster, number: int) -> Any:
    return cluster.directory / f"latencies-{number}"


async def measure_window(cluster: Cluster, plan: LoadPlan, progress: Progress) -> list[Measured]:
    """Readings at both ends of the next window of a load that runs already."""
    from_s = time.monotonic() + LEAD_S + plan.warmup_s
    answered: dict[int, int] = {}
    shown = (time.monotonic(), 0)

    def show(server: int, count: int) -> None:
        nonlocal shown
        answered[server] = count
        now, total = time.monotonic(), sum(answered.values())
        if len(answered) == len(cluster.processes):
            rate = (total - shown[1]) / (now - shown[0])
            text = f"{rate:12,.0f} commands a second" if shown[1] else ""
            progress.bar(text, (now - from_s) / plan.window_s)
            shown = (now, total)
            answered.clear()

    window = {"from_s": from_s, "to_s": from_s + plan.window_s}
    return await cluster.ask_each(
        "measure",
        [
            {
                **window,
                "latencies": str(_latency_file(cluster, one.number)),
                "profile": plan.profile if one.number == 1 else None,
                "patience_s": plan.warmup_s + plan.window_s,
                "progress": show,
            }
            for one in cluster.processes
        ],
    )


# -- agreement -------------------------------------------------------------------------------------


async def agree(
    cluster: Cluster, run: Run, progress: Progress, *, plant: bool = False
) -> tuple[Any, list[str]]:
    """Wait until all servers are at one position, and compare what they hold; returns it and the differences.

    `plant` falsifies one command on the last server first.
    """
    progress.stage("comparing the servers")
    positions = await _same_position(cluster)
    last = cluster.processes[-1]
    contents = await cluster.ask_each(
        "content", [{"plant": plant and one is last} for one in cluster.processes]
    )
    states = [{**position, **content} for position, content in zip(positions, contents, strict=True)]
    found = differences(states, run.answered)
    agreed = {
        name: states[0][name]
        for name in ("merged_position", "merged_digest", "state_digest", "applied", "keys")
    }
    return {**agreed, "answered": run.answered}, found


async def _same_position(cluster: Cluster) -> list[Any]:
    with trio.move_on_after(AGREE_WITHIN_S):
        await cluster.ask_all("see", patience_s=AGREE_WITHIN_S)
        while True:
            states = await cluster.ask_all("positions")
            places = {
                place for state in states for place in (state["merged_position"], state["applied_position"])
            }
            if len(places) == 1:
                return states
            await cluster.ask_all("reach", position=max(places), patience_s=AGREE_WITHIN_S)
            await trio.sleep(AGREE_POLL_S)
    raise BenchError(f"the servers did not reach one position within {AGREE_WITHIN_S:.0f} s after the load")


def differences(states: list[dict[str, Any]], answered: int) -> list[str]:
    """What contradicts that every server applied each answered command exactly once, in the same order."""
    found = []
    for name in ("merged_position", "merged_digest", "state_digest", "applied", "keys"):
        values = [state[name] for state in states]
        if len(set(values)) > 1:
            shown = ", ".join(f"server {number}: {value}" for number, value in enumerate(values, start=1))
            found.append(f"{name} differs: {shown}")
    for number, state in enumerate(states, start=1):
        if state["applied"] != answered:
            found.append(
                f"server {number} applied {state['applied']} commands; callers were answered {answered}"
            )
        if state["lacking"]:
            found.append(f"server {number} lacks {state['lacking']} of the commands that it answered last")
    return found
