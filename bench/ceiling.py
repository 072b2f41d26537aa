"""How much of a ceiling is reached: a cluster of craft beside bare processes of the same design, in turns.

The bare ones (`ceiling_member`) do what no server of this design can do without, and keep none of craft's
promises. What craft loses against them is what elections, checksums, exactly-once, limits and recovery cost.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import mean

import trio

from bench.bare import environment
from bench.bulk import BATCH, add_task_option, bulk_load
from bench.ceiling_member import Settings
from bench.experiment import (
    Experiment,
    Figures,
    Progress,
    add_common_options,
    add_size_option,
    add_window_options,
)
from bench.processes import BenchError, Plan, free_ports
from bench.repeats import add_repeat_options, repeated, shown, spread, spreads
from bench.setting import Setting, change, measure

CRAFT, BARE = "craft", "bare"

ANSWER_WITHIN_S = 30.0
"""Beyond its window: a process that says nothing for so long is stuck."""

SHARE_MIN = 0.75

TOLD = ("applied_per_second", "cores_per_server")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    add_common_options(parser)
    add_size_option(parser, 64)
    add_task_option(parser)
    add_window_options(parser, window=6, warmup=2)
    add_repeat_options(parser, 3)


async def run(options: argparse.Namespace, progress: Progress) -> tuple[Figures, list[str]]:
    """The same load on both, in turns."""
    runs, failures = await repeated(
        [CRAFT, BARE], partial(_measure, options, progress=progress), options=options, progress=progress
    )
    points = {
        name: {**spreads(own, TOLD), "runs": own} for name, own in zip((CRAFT, BARE), runs, strict=True)
    }
    share = spread(round(one, 3) for one in change(points[BARE], points[CRAFT], "applied_per_second"))
    doubts = [doubt for one in runs[0] for doubt in one.pop("doubts")]
    return {**points, "share": share, "share_median": share["median"], "doubts": doubts}, failures


async def _measure(options: argparse.Namespace, which: str, progress: Progress) -> tuple[Figures, list[str]]:
    if which == BARE:
        return await bare_cluster(options), []
    plan = Plan(servers=options.servers, directory=options.dir)
    load = bulk_load(options, [options.tasks] * options.servers)
    return await measure(Setting(what={"system": CRAFT}, plan=plan, load=load), progress)


async def bare_cluster(options: argparse.Namespace) -> Figures:
    """Start the bare processes, wait for their figures, end them. Raises BenchError where one has none."""
    ports = free_ports(options.servers)
    processes: list[trio.Process] = []
    told: list[Figures] = []
    with tempfile.TemporaryDirectory(prefix="craft-bench-", dir=options.dir) as place:
        try:
            with trio.fail_after(options.warmup + options.seconds + ANSWER_WITHIN_S):
                for me in range(options.servers):
                    process = await _start(_settings(options, me, ports, Path(place)))
                    processes.append(process)
                told += [await _hear(process) for process in processes]
                for process in processes:  # all have told: none misses another
                    await _end(process)
        except trio.TooSlowError:
            raise BenchError(f"{len(told)} of {options.servers} bare processes answered in time") from None
        finally:
            with trio.CancelScope(shield=True):  # their directory is removed next
                for process in processes:
                    process.kill()
                    await process.wait()
    return {
        "applied_per_second": round(mean(one["applied_per_second"] for one in told), 1),
        "cores_per_server": round(mean(one["cores"] for one in told), 3),
        "servers": told,
    }


def _settings(options: argparse.Namespace, me: int, ports: list[int], place: Path) -> Settings:
    return Settings(
        me=me,
        ports=ports,
        directory=str(place / f"bare-{me}"),
        batch=BATCH,
        size=options.bytes,
        tasks=options.tasks,
        warmup_s=options.warmup,
        window_s=options.seconds,
    )


async def _start(settings: Settings) -> trio.Process:
    words = [sys.executable, "-m", "bench.ceiling_member", json.dumps(settings._asdict())]
    return await trio.lowlevel.open_process(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    )


async def _hear(process: trio.Process) -> Figures:
    """Its one line."""
    assert process.stdout is not None
    said = b""
    while not said.endswith(b"\n"):
        more = await process.stdout.receive_some()
        if not more:
            raise BenchError(f"a bare process ended with {await process.wait()}, and told nothing")
        said += more
    figures: Figures = json.loads(said)
    return figures


async def _end(process: trio.Process) -> None:
    assert process.stdin is not None
    await process.stdin.aclose()
    await process.wait()


def summary(figures: Figures) -> list[str]:
    """The figures for people."""
    return [
        *(
            f"{name:<12} {shown(figures[name]['applied_per_second'])} commands a second,"
            f" {shown(figures[name]['cores_per_server'], 2)} cores a server"
            for name in (CRAFT, BARE)
        ),
        f"share        {shown(figures['share'], 3)} of what bare processes of the same design reach",
        f"bound        {SHARE_MIN}: {'kept' if (figures['share_median'] or 0) >= SHARE_MIN else 'MISSED'}",
    ]


EXPERIMENT = Experiment(
    name="ceiling",
    question="How much does craft reach of what bare processes of its design reach, which promise nothing?",
    figure="share_median",
    add_options=add_options,
    run=run,
    summary=summary,
    quick=("--repeats", "1", "--seconds", "3", "--warmup", "1"),
)
