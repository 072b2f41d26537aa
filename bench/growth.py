"""Does a cluster that takes snapshots stay as large as it is: its directories, and its memory?"""

from __future__ import annotations

import argparse
from typing import Any

import trio

from bench.experiment import (
    Experiment,
    Figures,
    Progress,
    add_common_options,
    add_group_option,
    add_size_option,
    add_snapshot_options,
    whole,
)
from bench.figures import percentile
from bench.loading import agree, settle, stop_load
from bench.processes import Cluster, cluster
from bench.setting import snapshot_plan
from bench.sizes import largest_directory, largest_memory_mb, megabytes
from craft.limits import MIB

BOUND = 3
"""Times the state and the trailing window: so large may a directory be."""

BATCH = 1000
SEED = 1
SAMPLE_S = 1.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    add_common_options(parser)
    add_group_option(parser)
    parser.add_argument(
        "--commands",
        type=whole(1000, 10**12),
        default=50_000_000,
        metavar="N",
        help="to be written (default: 50,000,000)",
    )
    add_size_option(parser, 64)
    parser.add_argument(
        "--tasks",
        type=whole(1, 10_000),
        default=6,
        metavar="N",
        help="a server, each with a call of 1,000 commands outstanding; as many thousand keys has the state"
        " (default: 6)",
    )
    add_snapshot_options(parser, trailing_mib=64)


async def run(options: argparse.Namespace, progress: Progress) -> tuple[Figures, list[str]]:
    """Write, and look at the directories and the processes meanwhile."""
    plan = snapshot_plan(options)
    progress.stage(f"starting {plan.servers} servers")
    async with cluster(plan) as running:
        doubts = await settle(running, progress)
        progress.stage(f"writing {options.commands:,} commands")
        load = {"mode": "bulk", "batch": BATCH, "size": options.bytes, "seed": SEED, "tasks": options.tasks}
        began = trio.current_time()
        await running.ask_all("start", **load)
        samples = await _watch(running, options.commands, progress)
        took_s = trio.current_time() - began
        loaded = await stop_load(running)
        agreed, failures = await agree(running, loaded, progress)
        taken = [one["taken"] for one in await running.ask_all("glance")]
    state = agreed["keys"] * options.bytes
    bound = BOUND * (state + options.trailing_mib * MIB)
    figures = {
        "commands": loaded.answered,
        "payload_mb": round(loaded.answered * options.bytes / 1e6, 1),
        "applied_per_second": round(loaded.answered / took_s, 1),
        "snapshots": taken,
        "state_mb": round(state / 1e6, 3),
        "bound_mb": round(bound / 1e6, 1),
        "directory_mb_max": max(one["directory_mb"] for one in samples),
        "within_bound": max(one["directory_mb"] for one in samples) <= bound / 1e6,
        **_memory(samples),
        **rates(samples),
        "samples": samples,
        "agreed": agreed,
        "doubts": doubts,
    }
    return figures, failures


async def _watch(running: Cluster, commands: int, progress: Progress) -> list[dict[str, Any]]:
    """One sample a second, of the largest directory and the largest process."""
    samples = []
    written, began = 0, trio.current_time()
    while written < commands:
        await trio.sleep(SAMPLE_S)
        written = sum(one["answered"] for one in await running.ask_all("glance"))
        largest = await largest_directory(running)
        samples.append(
            {
                "commands": written,
                "at_s": round(trio.current_time() - began, 3),
                "directory_mb": megabytes(sum(largest.values())),
                "of_that_mb": {kind: megabytes(size) for kind, size in sorted(largest.items())},
                "memory_mb": largest_memory_mb(running),
            }
        )
        progress.bar(f"{written:,}", written / commands)
    return samples


def _memory(samples: list[dict[str, Any]]) -> Figures:
    """The median of the second and of the last fifth of the run: the first fills buffers."""
    fifth = max(1, len(samples) // 5)
    parts = {"memory_mb_early": samples[fifth : 2 * fifth] or samples, "memory_mb_late": samples[-fifth:]}
    return {name: percentile(sorted(one["memory_mb"] for one in part), 0.5) for name, part in parts.items()}


def rates(samples: list[dict[str, Any]]) -> Figures:
    """Commands a second in the first and the second half: what twice the history costs."""
    half = samples[-1]["commands"] / 2
    middle = min(samples, key=lambda one: abs(one["commands"] - half))
    late_s = samples[-1]["at_s"] - middle["at_s"]
    early = middle["commands"] / middle["at_s"]
    late = (samples[-1]["commands"] - middle["commands"]) / late_s if late_s else None
    return {
        "rate_early": round(early, 1),
        "rate_late": None if late is None else round(late, 1),
        "late_over_early": None if late is None else round(late / early, 3),
    }


def summary(figures: Figures) -> list[str]:
    """The figures for people."""
    f = figures
    return [
        f"written      {f['commands']:,} commands, {f['payload_mb']:,.0f} MB",
        f"applied      {f['applied_per_second']:,.0f} a second, snapshots and samples included",
        (
            f"history      {_rate(f['rate_early'])} a second in the first half, {_rate(f['rate_late'])} in"
            f" the second: {f['late_over_early']} of it"
        ),
        f"snapshots    {', '.join(map(str, f['snapshots']))} were taken, a server",
        f"directory    {f['directory_mb_max']:,.0f} MB at most, a server; the state is {f['state_mb']:g} MB",
        (
            f"bound        {BOUND} times the state and the trailing window, {f['bound_mb']:,.0f} MB:"
            f" {'kept' if f['within_bound'] else 'MISSED'}"
        ),
        (
            f"memory       {f['memory_mb_early']:,.0f} MB in the second fifth of the run,"
            f" {f['memory_mb_late']:,.0f} MB in the last, of the largest server"
        ),
    ]


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:,.0f}"


EXPERIMENT = Experiment(
    name="growth",
    question="Do the directories and the memory of a cluster that takes snapshots stay as large as they are?",
    figure="directory_mb_max",
    add_options=add_options,
    run=run,
    summary=summary,
    quick=("--commands", "2000000", "--snapshot-mib", "16", "--trailing-mib", "16"),
)
