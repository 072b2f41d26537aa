"""What does a cluster cost that nobody uses: CPU of all its servers, and what is written to disk?"""

from __future__ import annotations

import argparse
import time
from typing import Any

import trio

from bench.experiment import Experiment, Figures, Progress, add_common_options, add_group_option, seconds
from bench.figures import counted, spent, written
from bench.loading import LEAD_S, settle
from bench.processes import BenchError, Cluster, Plan, cluster

BOUND_PERCENT = 3.0
"""Of one core, for 3 servers with 64 groups."""

QUIET_WITHIN_S = 60.0
"""Elections, sessions and leaders that come home write; after this it should be over."""

QUIET_POLL_S = 0.5


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    add_common_options(parser)
    add_group_option(parser, default=64)
    parser.add_argument(
        "--seconds", type=seconds(0.1), default=10.0, metavar="S", help="the window (default: 10)"
    )
    parser.add_argument(
        "--quiet",
        type=seconds(),
        default=3.0,
        metavar="S",
        help="measure after this long without a write (default: 3)",
    )


async def quiet(running: Cluster, quiet_s: float, progress: Progress) -> None:
    """Wait until no server has written anything for a while. Raises BenchError if one goes on writing."""
    progress.stage("waiting until nothing is written any more")
    writes, since = -1, time.monotonic()
    with trio.move_on_after(QUIET_WITHIN_S + quiet_s):
        while True:
            readings = await running.ask_all("read")
            now = sum(reading["metrics"]["craft_writes_total"] for reading in readings)
            if now != writes:
                writes, since = now, time.monotonic()
            if time.monotonic() - since >= quiet_s:
                return
            await trio.sleep(QUIET_POLL_S)
    raise BenchError(f"an unused cluster still wrote after {QUIET_WITHIN_S:.0f} s ({writes} writes)")


async def run(options: argparse.Namespace, progress: Progress) -> tuple[Figures, list[str]]:
    """Start, wait until it is quiet, and look on."""
    plan = Plan(servers=options.servers, groups=options.groups, directory=options.dir)
    progress.stage(f"starting {plan.servers} servers with {options.groups} groups")
    async with cluster(plan) as running:
        doubts = await settle(running, progress)
        await quiet(running, options.quiet, progress)
        progress.stage(f"looking on for {options.seconds:g} s")
        from_s = time.monotonic() + LEAD_S
        measured = await running.ask_all(
            "measure", from_s=from_s, to_s=from_s + options.seconds, patience_s=options.seconds
        )
    servers = [{"server_id": number, **_server(one)} for number, one in enumerate(measured, start=1)]
    figures = {
        "cpu_percent": round(sum(server["cpu_percent"] for server in servers), 3),
        "cpu_seconds_per_server": round(sum(server["cpu_seconds"] for server in servers) / len(servers), 3),
        "bound_percent": BOUND_PERCENT,
        "within_bound": sum(server["cpu_percent"] for server in servers) <= BOUND_PERCENT,
        "writes": sum(server["writes"] for server in servers),
        "syncs": sum(server["syncs"] for server in servers),
        "bytes_written": _sum([server["bytes_written"] for server in servers]),
        "frames_per_second": round(sum(server["frames_per_second"] for server in servers), 1),
        "memory_mb_max": max(server["memory_mb_max"] for server in servers),
        "servers": servers,
        "doubts": doubts,
    }
    return figures, _failures(figures)


def _server(measured: dict[str, Any]) -> dict[str, Any]:
    window, cpu = spent(measured, "at_s"), spent(measured, "cpu_s")
    return {
        "window_s": round(window, 3),
        "cpu_seconds": round(cpu, 4),
        "cpu_percent": round(100 * cpu / window, 3),
        "writes": int(counted(measured, "craft_writes_total")),
        "syncs": int(counted(measured, "craft_sync_seconds")),
        "bytes_written": written(measured),
        "turns_per_second": round(counted(measured, "craft_turns_total") / window, 1),
        "frames_per_second": round(counted(measured, "craft_frames_sent_total") / window, 1),
        "memory_mb_max": round(measured["after"]["memory_bytes_max"] / 1e6, 1),
        "groups_led": measured["after"]["led"],
        "elections": int(spent(measured, "terms")),
    }


def _sum(values: list[int | None]) -> int | None:
    return None if None in values else sum(value or 0 for value in values)


def _failures(figures: Figures) -> list[str]:
    wrote = {name: figures[name] for name in ("writes", "syncs", "bytes_written") if figures[name]}
    return (
        [f"an idle cluster wrote: {', '.join(f'{name} {count}' for name, count in wrote.items())}"]
        if wrote
        else []
    )


def summary(figures: Figures) -> list[str]:
    """The figures for people."""
    verdict = "kept" if figures["within_bound"] else "MISSED"
    counted_bytes = figures["bytes_written"]
    shown = "not counted by this kernel" if counted_bytes is None else f"{counted_bytes} bytes"
    return [
        f"cpu          {figures['cpu_percent']} % of one core, all servers together",
        f"bound        {BOUND_PERCENT:g} % for 3 servers with 64 groups: {verdict}",
        f"disk         {figures['writes']} writes, {figures['syncs']} syncs, by the kernel: {shown}",
        f"network      {figures['frames_per_second']:,.0f} frames a second, all servers together",
        f"memory       {figures['memory_mb_max']:.0f} MB at most a server",
    ]


EXPERIMENT = Experiment(
    name="idle",
    question="What does a cluster cost that nobody uses: CPU of all servers, and what is written to disk?",
    figure="cpu_percent",
    add_options=add_options,
    run=run,
    summary=summary,
    quick=("--seconds", "4", "--quiet", "2"),
)
