"""The comparison itself: its options, its turns, its table."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import machine
from bench.compare.etcd import Etcd
from bench.compare.kv import Store
from bench.compare.library import Craft
from bench.compare.nats import Nats
from bench.compare.peer import SERVERS, Load, Peer, measured
from bench.compare.pysyncobj import PySyncObj
from bench.compare.redis import Redis
from bench.compare.zookeeper import ZooKeeper
from bench.experiment import (
    Experiment,
    Figures,
    OptionError,
    Progress,
    add_common_options,
    add_size_option,
    seconds,
    whole,
)
from bench.processes import NotPossible
from bench.repeats import add_repeat_options, repeated, shown, spread, spreads
from bench.tables import cell

PEERS: dict[str, Peer] = {
    one.name: one
    for one in (
        Craft(),
        Store(),
        Etcd(),
        Redis(),
        ZooKeeper(),
        Nats(),
        PySyncObj("pysyncobj", batched=False),
        PySyncObj("pysyncobj-batched", batched=True),
    )
}

RATIOS_TO = ("etcd", "craft-kv")
"""Each system's writes a second stand beside these systems'."""

FIGURES = (
    "writes_per_second",
    "p50_ms",
    "p99_ms",
    "cpu_seconds_per_1000_writes",
    "generator_cores",
)

GENERATOR_CORES_MAX = 0.9
"""A single-threaded load generator that uses more of a core is what was measured."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    add_common_options(parser, servers=False)
    add_size_option(parser, 64)
    add_repeat_options(parser, 3)
    parser.add_argument(
        "--clients",
        type=whole(SERVERS, 1024),
        default=128,
        metavar="N",
        help="connections, spread over the servers; or tasks in them, for libraries (default: 128)",
    )
    parser.add_argument(
        "--pipeline",
        type=whole(1, 1024),
        default=1,
        metavar="N",
        help="writes outstanding on each connection (default: 1)",
    )
    parser.add_argument(
        "--seconds", type=seconds(0.1), default=5.0, metavar="S", help="the window (default: 5)"
    )
    parser.add_argument(
        "--warmup",
        type=seconds(0.1),
        default=1.0,
        metavar="S",
        help="load before the window, not measured (default: 1)",
    )
    parser.add_argument(
        "--systems",
        default=",".join(PEERS),
        metavar="NAME,…",
        help=f"which ones (default: all that are installed, of {', '.join(PEERS)})",
    )
    parser.add_argument(
        "--plant-mismatch",
        action="store_true",
        help="count more writes than were answered: the run must fail",
    )


def chosen(systems: str) -> list[Peer]:
    """The systems of `--systems`. Raises OptionError."""
    names = [name.strip() for name in systems.split(",")]
    for name in names:
        if name not in PEERS or names.count(name) > 1:
            raise OptionError(
                f"--systems {systems!r} is not allowed, for {name!r} is"
                f" {'there twice' if name in PEERS else 'none'}; allowed: some of {','.join(PEERS)}"
            )
    return [PEERS[name] for name in names]


def check(options: argparse.Namespace) -> None:
    """Raise OptionError for systems that there are not."""
    chosen(options.systems)


async def run(options: argparse.Namespace, progress: Progress) -> tuple[Figures, list[str]]:
    """Each system in its turn: started afresh, loaded, counted, ended."""
    wanted = chosen(options.systems)
    there = [peer for peer in wanted if peer.missing() is None]
    skipped = [{"name": peer.name, "install": peer.missing()} for peer in wanted if peer not in there]
    if not there:
        raise NotPossible(
            "nothing to compare: " + "; ".join(f"{one['name']}: {one['install']}" for one in skipped)
        )
    load = Load(
        clients=options.clients,
        pipeline=options.pipeline,
        size=options.bytes,
        warmup_s=options.warmup,
        window_s=options.seconds,
    )

    async def once(peer: Peer) -> tuple[Figures, list[str]]:
        with tempfile.TemporaryDirectory(prefix="craft-bench-", dir=options.dir) as name:
            probe = machine.sync_seconds(Path(name))
            figures, wrong = await measured(peer, load, Path(name), progress, plant=options.plant_mismatch)
        return {**figures, "fdatasync_p50_ms": round(machine.sync_p50_ms(probe), 3)}, wrong

    runs, failures = await repeated(
        there, once, options=options, progress=progress, name_of=lambda peer: peer.name
    )
    systems = [described(peer, own) for peer, own in zip(there, runs, strict=True)]
    relate(systems)
    by_name = {one["name"]: one for one in systems}
    kv = by_name.get("craft-kv", {}).get("over", {}).get("etcd")
    return {
        "systems": systems,
        "skipped": skipped,
        "kv_over_etcd": None if kv is None else kv["median"],
        "fdatasync_p50_ms": spread(one["fdatasync_p50_ms"] for own in runs for one in own),
        "doubts": doubts(systems),
    }, failures


def described(peer: Peer, runs: Sequence[Figures]) -> dict[str, Any]:
    """One system's figures, and what they mean."""
    durability, means = peer.durability()
    return {
        "name": peer.name,
        "version": peer.version(),
        "durability": durability,
        "durability_means": means,
        "generator": peer.generator,
        **spreads(runs, FIGURES),
        "runs": list(runs),
    }


def relate(systems: list[dict[str, Any]]) -> None:
    """Give each system its ratios, round by round: what ran side by side is compared."""
    by_name = {one["name"]: one for one in systems}
    for one in systems:
        one["over"] = {
            other: spread(
                round(mine["writes_per_second"] / beside["writes_per_second"], 3)
                for mine, beside in zip(one["runs"], by_name[other]["runs"], strict=True)
                if beside["writes_per_second"]
            )
            for other in RATIOS_TO
            if other in by_name
        }


def doubts(systems: Sequence[dict[str, Any]]) -> list[str]:
    """What makes a figure one of its load generator."""
    return [
        f"{one['name']}: each load generator used {one['generator_cores']['median']} of a core, so that it"
        " may be what was measured"
        for one in systems
        if (one["generator_cores"]["median"] or 0.0) > GENERATOR_CORES_MAX
    ]


# -- for people ------------------------------------------------------------------------------------


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """As Markdown has it, in columns; the first row is the head."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def row_of(one: dict[str, Any]) -> list[str]:
    """One system's."""
    return [
        one["name"],
        one["version"],
        shown(one["writes_per_second"]),
        *(shown(one["over"][other], 2) if other in one["over"] else "-" for other in RATIOS_TO),
        shown({**one["p50_ms"], "runs": 1}, 1),
        shown({**one["p99_ms"], "runs": 1}, 1),
        shown({**one["cpu_seconds_per_1000_writes"], "runs": 1}, 3),
        one["durability"],
        one["generator"],
    ]


def systems_table(figures: Figures) -> list[str]:
    """A row a system."""
    head = [
        "system", "version", "writes a second", *(f"over {other}" for other in RATIOS_TO), "p50 ms", "p99 ms",
        "CPU s per 1,000", "durability", "load made by",
    ]  # fmt: skip
    return table([head, *(row_of(one) for one in figures["systems"])])


def markdown(figures: Figures) -> list[str]:
    """The figures for a page: the table, and what an answer of each system means."""
    said = [f"- {one['name']}, answered: {cell(one['durability_means'])}" for one in figures["systems"]]
    skipped = [f"- {one['name']} is not here: {cell(one['install'])}" for one in figures["skipped"]]
    return [*systems_table(figures), "", *said, *skipped]


def summary(figures: Figures) -> list[str]:
    """The figures for people."""
    return [
        *systems_table(figures),
        f"fdatasync    p50 {shown(figures['fdatasync_p50_ms'], 2)} ms for small appends before each run",
        *(f"{one['name']:<12} answered: {one['durability_means']}" for one in figures["systems"]),
        *(f"skipped      {one['name']}: {one['install']}" for one in figures["skipped"]),
    ]


EXPERIMENT = Experiment(
    name="compare",
    question="How many durable writes a second, beside what one would pick instead, under the same load?",
    figure="kv_over_etcd",
    add_options=add_options,
    check=check,
    run=run,
    summary=summary,
    table=markdown,
    quick=(
        "--systems", "craft,craft-kv,etcd,redis,pysyncobj",
        "--repeats", "1", "--seconds", "2", "--warmup", "0.5",
    ),
)  # fmt: skip
