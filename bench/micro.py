"""What do a turn and a command cost, part by part, in one process without sockets?"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import trio

from bench.alone import merge_alone, raft_alone
from bench.experiment import (
    Experiment,
    Figures,
    Progress,
    add_common_options,
    add_size_option,
    whole,
)
from bench.joined import PARTS, Joined, python_calls, sources
from bench.plots import Curve, Plot, add_plot_option, check_plot, draw
from bench.repeats import add_repeat_options, repeated, shown, spreads
from bench.tables import columns, markdown

BATCHES = (1, 22, 1000)
"""Commands a call: a lone client, what 1,024 awaiting tasks make of a turn, and bulk."""

BULK = BATCHES[-1]
WARM_UP = 3
ENTRIES = 210
"""For the parts that are timed alone."""

COUNTED_BEATS = 3

COUNTS = ("turns", "frames", "messages", "writes", "entries", "wire_bytes", "log_bytes")
"""Exact: no repetition may differ. Python's calls may, by a landmark of the log; blocks are its own."""


ALONE = {"raft": raft_alone, "merge": merge_alone}


class Setting(NamedTuple):
    """What is timed at a time."""

    what: str  # "turn", or one of ALONE
    batch: int

    def __str__(self) -> str:
        return f"{self.what} with {self.batch} commands a call"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    add_common_options(parser)
    add_size_option(parser, 64)
    parser.add_argument(
        "--beats",
        type=whole(1, 100_000),
        default=30,
        metavar="N",
        help="calls at every server, one after the other, that are timed in a repetition (default: 30)",
    )
    add_repeat_options(parser, 5)
    add_plot_option(parser)


async def run(options: argparse.Namespace, progress: Progress) -> tuple[Figures, list[str]]:
    """Every part for every size of call."""
    settings = [Setting(what, batch) for batch in BATCHES for what in ("turn", *ALONE)]
    runs, failures = await repeated(settings, partial(_measure, options), options=options, progress=progress)
    found = dict(zip(settings, runs, strict=True))
    batches = {str(batch): _of_batch(found, batch) for batch in BATCHES}
    for name, one in batches.items():
        if any(counts != one["counts"] for counts in one.pop("all_counts")):
            failures.append(f"{name} commands a call: two repetitions counted differently")
    figures = {
        "batches": batches,
        "engine_ns_per_command": batches[str(BULK)]["ns_per_command"]["engine"]["median"],
        "engine_us_per_turn": batches["1"]["engine_us_per_turn"]["median"],
        "doubts": [],
    }
    if options.plot is not None:
        draw(picture(figures), options.plot)
    return figures, failures


async def _measure(options: argparse.Namespace, setting: Setting) -> tuple[Figures, list[str]]:
    await trio.lowlevel.checkpoint()  # nothing else lets a signal in
    if setting.what == "turn":
        with tempfile.TemporaryDirectory(prefix="craft-bench-", dir=options.dir) as place:
            return _turns(options, setting.batch, Path(place))
    payload = bytes(setting.batch * (options.bytes + 2))
    took, done = ALONE[setting.what](payload, ENTRIES)
    lacking = done < ENTRIES
    return {"ns_per_entry": took}, ([f"{done} entries of {ENTRIES} came through"] if lacking else [])


def _turns(options: argparse.Namespace, batch: int, place: Path) -> tuple[Figures, list[str]]:
    joined = Joined(options.servers, directory=place)
    try:
        joined.settle()
        callers = sources(joined.ids, batch=batch, size=options.bytes)
        for _ in range(WARM_UP):
            joined.beat(callers)
        joined.counts.clear()
        joined.spent.clear()
        for _ in range(options.beats):
            joined.beat(callers)
        turns, writes, spent = joined.counts["turns"], joined.counts["writes"], joined.spent.copy()
        counts = _counted(joined, callers)
        joined.finish()
        beats = WARM_UP + options.beats + COUNTED_BEATS
        failures = joined.differences(beats * batch * options.servers)
    finally:
        joined.close()
    applied = options.beats * batch * options.servers * options.servers  # each server applies all of them
    return {
        **{part: spent[part] / applied for part in PARTS},
        "engine_us_per_turn": spent["engine"] / turns / 1000,
        "sync_ms": spent["sync"] / writes / 1e6,
        "counts": counts,
    }, failures


def _counted(joined: Joined, callers: Any) -> dict[str, int]:
    """Three more beats: one is counted, in one Python's calls are, and in one the blocks that are kept.

    Each begins in a quiet moment, so that no heartbeat is among it.
    """
    joined.calm()
    joined.counts.clear()
    joined.beat(callers)
    counts = {name: joined.counts[name] for name in COUNTS}
    joined.calm()
    with python_calls() as calls:
        joined.beat(callers)
    joined.calm()
    gc.collect()
    before = sys.getallocatedblocks()
    joined.beat(callers)
    joined.calm()
    gc.collect()
    return {**counts, "python_calls": calls["call"], "blocks_kept": sys.getallocatedblocks() - before}


def _of_batch(found: Mapping[Setting, list[Figures]], batch: int) -> Figures:
    turn = found[Setting("turn", batch)]
    all_counts = [one["counts"] for one in turn]
    alone = {what: spreads(found[Setting(what, batch)], ["ns_per_entry"])["ns_per_entry"] for what in ALONE}
    return {
        "ns_per_command": spreads(turn, PARTS),
        **spreads(turn, ("engine_us_per_turn", "sync_ms")),
        **{f"{what}_ns_per_entry": one for what, one in alone.items()},
        "counts": {name: all_counts[0][name] for name in COUNTS},
        "all_counts": [{name: counts[name] for name in COUNTS} for counts in all_counts],
        **{name: min(counts[name] for counts in all_counts) for name in ("python_calls", "blocks_kept")},
    }


# -- for people ------------------------------------------------------------------------------------


def _rows(figures: Figures) -> list[list[str]]:
    """The parts of a command, then of a turn and an entry, then what was counted: a column a size of call."""
    batches = figures["batches"].values()
    rows = [
        [f"{part}, ns a command", *(shown(one["ns_per_command"][part]) for one in batches)] for part in PARTS
    ]
    rows += [
        [title, *(shown(one[name], digits) for one in batches)]
        for title, name, digits in (
            ("engine, µs a turn", "engine_us_per_turn", 1),
            ("sync, ms", "sync_ms", 2),
            ("Raft alone, ns an entry", "raft_ns_per_entry", 0),
            ("merge alone, ns an entry", "merge_ns_per_entry", 0),
        )
    ]
    rows += [
        [f"{name.replace('_', ' ')} a beat", *(f"{one['counts'][name]:,}" for one in batches)]
        for name in COUNTS
    ]
    return rows + [
        [title, *(f"{one[name]:,}" for one in batches)]
        for title, name in (("Python calls a beat", "python_calls"), ("blocks kept a beat", "blocks_kept"))
    ]


def table(figures: Figures) -> list[str]:
    """The figures for a page."""
    return markdown(["commands a call", *figures["batches"]], _rows(figures))


def summary(figures: Figures) -> list[str]:
    """The figures for people."""
    bulk, turn = figures["engine_ns_per_command"], figures["engine_us_per_turn"]
    return [
        f"engine       {bulk:,.0f} ns a command in bulk, {turn:,.1f} µs a turn with one command a call",
        *columns(["commands a call", *figures["batches"]], _rows(figures)),
        "A beat is one call at every server. Nanoseconds are those of a server for each command it applies.",
    ]


def picture(figures: Figures) -> Plot:
    """Nanoseconds a command over commands a call, a curve a part."""
    batches = figures["batches"]
    curves = []
    for part in PARTS:
        spread = [one["ns_per_command"][part] for one in batches.values()]
        curves.append(
            Curve(
                name=part,
                x=[int(batch) for batch in batches],
                y=[one["median"] for one in spread],
                least=[one["least"] for one in spread],
                greatest=[one["greatest"] for one in spread],
            )
        )
    return Plot(
        title="What a server spends on a command",
        x_label="commands a call",
        y_label="nanoseconds a command",
        curves=curves,
        x_log=True,
        y_log=True,
        x_ticks=BATCHES,
    )


EXPERIMENT = Experiment(
    name="micro",
    question="What do a turn and a command cost, part by part, in one process without sockets?",
    figure="engine_ns_per_command",
    add_options=add_options,
    check=check_plot,
    run=run,
    summary=summary,
    table=table,
    quick=("--repeats", "3", "--beats", "10"),
)
