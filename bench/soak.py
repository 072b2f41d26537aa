"""Hours of load, kills and restarts: do the servers stay the same, and the same size?

A round: a load on all servers but one, in large calls and by tasks that wait, in turns. Under it that one is
killed, is away for a moment, and starts again. When all calls are answered the servers are compared, with one
another and with the number of commands answered since the first round, and their sizes are noted.

No load runs on the server that is killed: what it had not answered would be unknown, and no count exact.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import trio

from bench.experiment import (
    SECONDS_MAX,
    Experiment,
    Figures,
    OptionError,
    Progress,
    add_common_options,
    add_group_option,
    add_size_option,
    add_snapshot_options,
    seconds,
    whole,
)
from bench.loading import agree, settle, stop_load
from bench.processes import Cluster, cluster
from bench.setting import snapshot_plan
from bench.sizes import largest_directory, largest_memory_mb, megabytes, most_files

MODES = {"bulk": 1000, "awaited": 1}
"""Commands a call."""

AWAITED_TASKS = 40
"""For one that makes large calls."""

GROWTH_MAX = 1.5
"""Times the early median: so large may the late one be, of memory, of directories and of open files."""

SERVE_WITHIN_S = 120.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    add_common_options(parser)
    add_group_option(parser)
    parser.add_argument(
        "--minutes",
        type=whole(1, SECONDS_MAX // 60),
        default=60,
        metavar="M",
        help="begin no further round after so long (default: 60)",
    )
    parser.add_argument(
        "--round",
        type=seconds(0.1),
        default=12.0,
        metavar="S",
        help="of load a round: a third before the kill, a third without that server, a third with it again"
        " (default: 12)",
    )
    parser.add_argument(
        "--rounds", type=whole(1, 10**6), metavar="N", help="end after N rounds, if that is sooner"
    )
    parser.add_argument(
        "--tasks",
        type=whole(1, 100),
        default=4,
        metavar="N",
        help="a server, each with a call of 1,000 commands outstanding; in rounds of single commands"
        f" {AWAITED_TASKS} times as many (default: 4)",
    )
    add_size_option(parser, 256)
    parser.add_argument(
        "--seed", type=whole(0, 2**31), default=1, metavar="N", help="whom to kill (default: 1)"
    )
    add_snapshot_options(parser, trailing_mib=32)


def check(options: argparse.Namespace) -> None:
    """One server is away while the others serve."""
    if options.servers < 3:
        raise OptionError(f"--servers {options.servers} is not allowed here; allowed: at least 3")


async def run(options: argparse.Namespace, progress: Progress) -> tuple[Figures, list[str]]:
    """Round after round, until one fails or the time is over."""
    plan = snapshot_plan(options)
    rng = random.Random(options.seed)
    rounds: list[dict[str, Any]] = []
    failures: list[str] = []
    agreed: dict[str, Any] = {}
    answered = 0
    progress.stage(f"starting {plan.servers} servers")
    async with cluster(plan) as running:
        doubts = await settle(running, progress)
        end = trio.current_time() + options.minutes * 60
        while not failures and trio.current_time() < end and len(rounds) != options.rounds:
            mode = list(MODES)[len(rounds) % len(MODES)]
            victim = rng.randrange(options.servers)
            progress.stage(
                f"round {len(rounds) + 1}: {mode}, server {victim + 1} is killed, {answered:,} answered"
            )
            loaded = await _round(running, options, mode, victim, rng.getrandbits(64))
            answered += loaded.answered
            agreed, failures = await agree(running, replace(loaded, answered=answered), progress)
            rounds.append(
                {"mode": mode, "killed": victim + 1, "answered": loaded.answered, **await _sizes(running)}
            )
    trends = {name: trend([one[name] for one in rounds]) for name in ("memory_mb", "directory_mb", "files")}
    within = all(one["growth"] <= GROWTH_MAX for one in trends.values())
    if not within and len(rounds) >= len(MODES) * 5:  # with fewer, buffers still fill
        failures.append(f"something grows: {trends}")
    return {
        "rounds": len(rounds),
        "answered": answered,
        "trends": trends,
        "within_bound": within,
        "samples": rounds,
        "agreed": agreed,
        "doubts": doubts,
    }, failures


async def _round(running: Cluster, options: argparse.Namespace, mode: str, victim: int, seed: int) -> Any:
    tasks = options.tasks * (1 if mode == "bulk" else AWAITED_TASKS)
    shared = {"mode": mode, "batch": MODES[mode], "size": options.bytes}
    places = range(options.servers)
    loads = [{**shared, "tasks": 0 if place == victim else tasks, "seed": seed ^ place} for place in places]
    await running.ask_each("start", loads)
    await trio.sleep(options.round / 3)
    await running.processes[victim].kill()
    await trio.sleep(options.round / 3)
    await running.restart(victim)
    await running.processes[victim].ask("see", patience_s=SERVE_WITHIN_S)
    await trio.sleep(options.round / 3)
    return await stop_load(running)


async def _sizes(running: Cluster) -> dict[str, float]:
    return {
        "memory_mb": largest_memory_mb(running),
        "directory_mb": megabytes(sum((await largest_directory(running)).values())),
        "files": most_files(running),
    }


def trend(values: Sequence[float]) -> dict[str, float]:
    """The median of the second fifth and of the last one, and their ratio: the first fifth fills buffers."""
    fifth = max(1, len(values) // 5)
    early, late = median(values[fifth : 2 * fifth] or values), median(values[-fifth:])
    return {
        "early": round(early, 1),
        "late": round(late, 1),
        "growth": round(late / early, 3) if early else 1.0,
    }


def summary(figures: Figures) -> list[str]:
    """The figures for people."""
    f = figures
    lines = [
        f"rounds       {f['rounds']:,}, one kill and one comparison each; {f['answered']:,} commands answered"
    ]
    for name, one in f["trends"].items():
        lines.append(f"{name:<12} {one['early']:,.1f} early, {one['late']:,.1f} late: {one['growth']} times")
    lines.append(f"bound        {GROWTH_MAX} times: {'kept' if f['within_bound'] else 'MISSED'}")
    return lines


EXPERIMENT = Experiment(
    name="soak",
    question="Hours of load, kills and restarts: do the servers stay the same, and the same size?",
    figure="answered",
    add_options=add_options,
    check=check,
    run=run,
    summary=summary,
)
