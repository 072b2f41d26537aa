"""How long until a server serves again: with a long log to read, and with a fresh snapshot?"""

from __future__ import annotations

import argparse

import trio

from bench.experiment import (
    Experiment,
    Figures,
    Progress,
    add_common_options,
    add_group_option,
    add_size_option,
    whole,
)
from bench.loading import Run, agree, settle, stop_load
from bench.processes import Cluster, Plan, cluster
from craft import EngineLimits

BOUND_TAIL_S = 15.0
"""With a tail of 1 GB of 1 KiB commands, on 2 cores."""

BOUND_SNAPSHOT_S = 2.0

BATCH = 100
TASKS = 4
SEED = 1
POLL_S = 0.1
SERVE_WITHIN_S = 300.0
NEVER_BYTES = 2**40


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    add_common_options(parser)
    add_group_option(parser)
    parser.add_argument(
        "--megabytes",
        type=whole(1, 100_000),
        default=1000,
        metavar="N",
        help="payload in the logs (default: 1000)",
    )
    add_size_option(parser, 1024)


async def run(options: argparse.Namespace, progress: Progress) -> tuple[Figures, list[str]]:
    """Fill the logs, then kill and start one server: as it is, and behind a snapshot."""
    plan = Plan(
        servers=options.servers,
        groups=options.groups,
        directory=options.dir,
        engine=EngineLimits(snapshot_log_bytes=NEVER_BYTES),
        snapshots=True,
    )
    progress.stage(f"starting {plan.servers} servers")
    async with cluster(plan) as running:
        doubts = await settle(running, progress)
        loaded = await _fill(running, options, progress)
        progress.stage("a restart with all of the log to read")
        tail_s = await _restart(running)
        progress.stage("taking a snapshot; a restart behind it")
        await running.processes[-1].ask("capture", patience_s=SERVE_WITHIN_S)
        snapshot_s = await _restart(running)
        agreed, failures = await agree(running, loaded, progress)
    figures = {
        "tail_s": round(tail_s, 3),
        "snapshot_s": round(snapshot_s, 3),
        "log_mb": round(loaded.answered * options.bytes / 1e6, 1),
        "megabytes_per_second": round(loaded.answered * options.bytes / 1e6 / tail_s, 1),
        "within_bound": tail_s < BOUND_TAIL_S and snapshot_s < BOUND_SNAPSHOT_S,
        "agreed": agreed,
        "doubts": doubts,
    }
    return figures, failures


async def _fill(running: Cluster, options: argparse.Namespace, progress: Progress) -> Run:
    progress.stage(f"writing {options.megabytes} MB")
    load = {"mode": "bulk", "batch": BATCH, "size": options.bytes, "seed": SEED, "tasks": TASKS}
    await running.ask_all("start", **load)
    commands = options.megabytes * 10**6 // options.bytes
    written = 0
    while written < commands:
        await trio.sleep(POLL_S)
        written = sum(one["answered"] for one in await running.ask_all("glance"))
        progress.bar(f"{written * options.bytes / 1e6:.0f} MB", written / commands)
    run = await stop_load(running)
    await running.ask_all("see")
    return run


async def _restart(running: Cluster) -> float:
    """SIGKILL and start the last server; seconds from the start of its process to its first read."""
    place = len(running.processes) - 1
    await running.processes[place].kill()
    began = trio.current_time()
    await running.restart(place)
    await running.processes[place].ask("see", patience_s=SERVE_WITHIN_S)
    return trio.current_time() - began


def summary(figures: Figures) -> list[str]:
    """The figures for people."""
    f = figures
    return [
        (
            f"log          {f['tail_s']} s from the start of the process to the first linearizable read, with"
            f" {f['log_mb']:,.0f} MB to read ({f['megabytes_per_second']:,.0f} MB/s)"
        ),
        f"snapshot     {f['snapshot_s']} s with a fresh snapshot",
        (
            f"bound        {BOUND_TAIL_S:g} s with 1,000 MB, {BOUND_SNAPSHOT_S:g} s with a fresh snapshot:"
            f" {'kept' if f['within_bound'] else 'MISSED'}"
        ),
    ]


EXPERIMENT = Experiment(
    name="recovery",
    question="How long until a killed server serves again, with a long log and with a fresh snapshot?",
    figure="tail_s",
    add_options=add_options,
    run=run,
    summary=summary,
    quick=("--megabytes", "100"),
)
