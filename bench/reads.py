"""What do reads cost: linearizable, at a position (a session's), and stale ones; alone, and beside writes?

The readers run inside every server, and each read is checked against what any server's writer had been
answered before (`bench.reading`): a linearizable or a session's read that misses it fails the run. Of stale
reads it is counted how many did.
"""

from __future__ import annotations

import argparse
from itertools import product
from typing import Any

from bench.experiment import (
    Experiment,
    Figures,
    OptionError,
    Progress,
    add_common_options,
    add_group_option,
    add_size_option,
    add_window_options,
    whole,
)
from bench.loading import LoadPlan
from bench.processes import Plan
from bench.reading import READS
from bench.repeats import add_repeat_options, shown
from bench.setting import Points, Setting, measure_in_turns
from bench.workload import SLOTS_MAX

SEED = 3
READERS = 64
WRITE_PERCENT = 10

FIGURES = ("calls_per_second", "reads_behind")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    add_common_options(parser)
    add_group_option(parser)
    add_size_option(parser, 64)
    parser.add_argument(
        "--readers",
        type=whole(1, SLOTS_MAX // 2**8),
        default=READERS,
        metavar="N",
        help=f"tasks a server, each with one read or write outstanding (default: {READERS})",
    )
    parser.add_argument(
        "--write-share",
        type=whole(1, 99),
        default=WRITE_PERCENT,
        metavar="PERCENT",
        help=f"how many of 100 calls are writes, in the mixed runs (default: {WRITE_PERCENT})",
    )
    parser.add_argument(
        "--kinds",
        type=kinds,
        default=",".join(READS),
        metavar="KIND,…",
        help=f"which reads (default: {','.join(READS)})",
    )
    add_window_options(parser, window=5, warmup=1)
    add_repeat_options(parser, 3)


def kinds(text: str) -> list[str]:
    """The type of an option that names some kinds of reads."""
    found = text.split(",")
    if not set(found) <= set(READS) or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: some of {', '.join(READS)}")
    return found


def check(options: argparse.Namespace) -> None:
    """Raise OptionError where there is nothing to agree on."""
    if options.servers < 2:
        raise OptionError(
            f"--servers {options.servers} is not allowed here; allowed: at least 2, who alone has whom to ask"
        )


async def run(options: argparse.Namespace, progress: Progress) -> tuple[Figures, list[str]]:
    """Each kind alone and mixed, in turns."""
    settings = [
        Setting(
            what={"kind": kind, "write_percent": percent},
            plan=Plan(servers=options.servers, groups=options.groups, directory=options.dir),
            load=LoadPlan(
                mode=kind,
                tasks=[options.readers] * options.servers,
                batch=1,
                size=options.bytes,
                warmup_s=options.warmup,
                window_s=options.seconds,
                seed=SEED,
                write_share=percent / 100,
            ),
        )
        for kind, percent in product(options.kinds, (0, options.write_share))
    ]
    points, failures, doubts = await measure_in_turns(settings, options, progress, more=FIGURES)
    figures = {
        "reads_per_second": points[0]["calls_per_second"]["median"],
        "points": points,
        "doubts": doubts,
    }
    return figures, failures + behind(points)


def behind(points: Points) -> list[str]:
    """Reads that missed what had been answered, where that must not be."""
    return [
        f"{one['kind']} reads, {one['write_percent']} % writes: {run['reads_behind']} did not see a write"
        " that had been answered before they began"
        for one in points
        if one["kind"] != "stale"
        for run in one["runs"]
        if run["reads_behind"]
    ]


def summary(figures: Figures) -> list[str]:
    """The figures for people."""
    return [line for one in figures["points"] for line in _lines(one)]


def _lines(one: dict[str, Any]) -> list[str]:
    name = f"{one['kind']}, {one['write_percent']} % writes"
    servers = ", ".join(f"{server['calls_per_second']:,.0f}" for server in one["runs"][-1]["servers"])
    missed = sum(run["reads_behind"] for run in one["runs"])
    return [
        (
            f"{name:<26} {shown(one['calls_per_second'])} reads a second, p50 {shown(one['p50_ms'], 2)} ms,"
            f" p99 {shown(one['p99_ms'], 2)} ms; {shown(one['applied_per_second'])} writes"
        ),
        f"{'':<26} by server {servers}; {missed} reads came before what had been answered",
    ]


EXPERIMENT = Experiment(
    name="reads",
    question="How many reads a second does each server serve, of each kind, alone and beside writes?",
    figure="reads_per_second",
    add_options=add_options,
    check=check,
    run=run,
    summary=summary,
    quick=("--kinds", "linearizable,stale", "--repeats", "1", "--seconds", "1.5", "--warmup", "0.5"),
)
