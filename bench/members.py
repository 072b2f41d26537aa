"""How long does anybody wait while a cluster grows from one server to five, and shrinks to one again?

One server alone; two more, which know its address only; two more; the last two go; two of the three go,
the first among them. Under the load of remote clients that were told the first server's address and learn
the others': no call may fail, and no write be lost or take effect twice.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import trio

from bench.callers import Callers, calling
from bench.experiment import Experiment, Figures, Progress, add_common_options, add_group_option, seconds
from bench.failover import MS_NS, SETTLE_WITHIN_S, add_load_options, worst
from bench.figures import percentile
from bench.served import ServedCluster, served

GROUPS = 5
"""So that each of five servers leads one."""

STEPS = (
    ("1 to 3", (2, 3), ()),
    ("3 to 5", (4, 5), ()),
    ("5 to 3", (), (4, 5)),
    ("3 to 1", (), (1, 3)),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    add_common_options(parser, servers=False)
    add_group_option(parser, GROUPS)
    add_load_options(parser)
    parser.add_argument(
        "--pause",
        type=seconds(),
        default=3.0,
        metavar="S",
        help="between two changes (default: 3)",
    )


async def run(options: argparse.Namespace, progress: Progress) -> tuple[Figures, list[str]]:
    """Step after step; then the server that is left is asked what it has."""
    progress.stage("starting one server")
    steps: list[dict[str, Any]] = []
    failures: list[str] = []
    async with served(1, options.groups, options.dir) as cluster:
        load = calling(cluster.addresses, clients=options.clients, tasks=options.tasks, learn=True)
        async with load as callers:
            await trio.sleep(options.pause)
            for name, coming, going in STEPS:
                progress.stage(f"from {name} servers")
                step, members = await _step(cluster, coming, going, callers, options.pause)
                steps.append({"step": name, **step})
                expected = sorted(one.server_id for one in cluster.servers)
                if members != expected:
                    failures.append(f"{name}: the members are {members}, not {expected}")
            home = await cluster.settled(SETTLE_WITHIN_S)
        failures += await cluster.agree(callers.answered, len(callers.failed))
    return _figures(steps, callers, home=home), failures + callers.wrong()


async def _step(
    cluster: ServedCluster, coming: tuple[int, ...], going: tuple[int, ...], callers: Callers, pause_s: float
) -> tuple[dict[str, Any], list[int]]:
    """One change, and what callers and the servers that stay saw of it."""
    stays = [one for one in cluster.servers if one.server_id not in going]
    at = time.monotonic_ns()
    add = [await cluster.join(server_id) for server_id in coming]
    remove = [one for one in cluster.servers if one.server_id in going]
    members = await cluster.change(add=add, remove=remove)
    done = time.monotonic_ns()
    await trio.sleep(pause_s)
    until = time.monotonic_ns()
    pulses = [cluster.pulses(one) for one in stays]
    return {
        "took_s": round((done - at) / 1e9, 2),
        "stall_ms": worst(pulses, at, until),
        "waited_ms": round(callers.longest(from_ns=at, to_ns=until) / MS_NS, 1),
    }, members


def _figures(steps: list[dict[str, Any]], callers: Callers, *, home: bool) -> Figures:
    waits = sorted(one.took_ns / MS_NS for one in callers.waits)
    return {
        "waited_ms_max": max(one["waited_ms"] for one in steps),
        "waited_ms_p999": percentile(waits, 0.999),
        "waited_ms_p50": percentile(waits, 0.5),
        "stall_ms_max": max(one["stall_ms"] for one in steps),
        "steps": steps,
        "answered": len(callers.answered),
        "failed_calls": callers.failed,
        "doubts": [] if home else ["leaders did not come home"],
    }


def summary(figures: Figures) -> list[str]:
    """The figures for people."""
    return [
        (
            f"waited       {figures['waited_ms_max']} ms at most; p50 {figures['waited_ms_p50']:.1f} ms,"
            f" p99.9 {figures['waited_ms_p999']:.1f} ms, of {figures['answered']} calls"
        ),
        f"failed       {len(figures['failed_calls'])} calls",
        f"stall        {figures['stall_ms_max']} ms at most without a merged batch on a server that stayed",
        *(
            f"{one['step']:12} done after {one['took_s']} s; waited {one['waited_ms']:g} ms at most,"
            f" stall {one['stall_ms']:g} ms"
            for one in figures["steps"]
        ),
    ]


EXPERIMENT = Experiment(
    name="members",
    question="How long does a write wait while a cluster grows from 1 server to 5 and back, under load?",
    figure="waited_ms_max",
    add_options=add_options,
    run=run,
    summary=summary,
    quick=("--pause", "1"),
)
