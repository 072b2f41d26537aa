"""The bulk load of `throughput`, for the experiments that change the cluster and not the load."""

from __future__ import annotations

import argparse

from bench.experiment import whole
from bench.loading import LoadPlan

BATCH = 1000
"""Large enough that a call's cost (a wake-up of 10 µs) is small beside its commands', small enough that an
entry holds many calls of 64-byte commands (70 kB)."""

TASKS = 6
"""While one batch is on the disks the next ones are on the wire and in the queue; more only wait longer."""

SEED = 1


def add_task_option(
    parser: argparse.ArgumentParser, default: int = TASKS, text: str = "bulk: tasks a server"
) -> None:
    """How many calls are under way."""
    parser.add_argument(
        "--tasks",
        type=whole(1, 10_000),
        default=default,
        metavar="N",
        help=f"{text}, each with one propose_many outstanding (default: {default})",
    )


def bulk_load(options: argparse.Namespace, tasks: list[int]) -> LoadPlan:
    """Calls of 1,000 commands, for the window of the options."""
    return LoadPlan(
        mode="bulk",
        tasks=tasks,
        batch=BATCH,
        size=options.bytes,
        warmup_s=options.warmup,
        window_s=options.seconds,
        seed=SEED,
    )
