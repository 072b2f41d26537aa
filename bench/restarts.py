"""How long does anybody wait while all servers are restarted, one after the other?

SIGTERM, wait for the end, start again, wait until it is ready, the next one: under the load of remote
clients, of which no call may fail, and no write be lost or take effect twice.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import trio

from bench.callers import Callers, calling
from bench.experiment import (
    Experiment,
    Figures,
    Progress,
    add_common_options,
    add_group_option,
    seconds,
    whole,
)
from bench.failover import MS_NS, SETTLE_WITHIN_S, add_load_options, worst
from bench.figures import percentile
from bench.served import Served, ServedCluster, served


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    add_common_options(parser)
    add_group_option(parser)
    add_load_options(parser)
    parser.add_argument(
        "--rounds", type=whole(1, 1000), default=3, metavar="N", help="restarts of each server (default: 3)"
    )
    parser.add_argument(
        "--pause",
        type=seconds(),
        default=1.0,
        metavar="S",
        help="from a server that is ready again to the next that is stopped (default: 1)",
    )


async def run(options: argparse.Namespace, progress: Progress) -> tuple[Figures, list[str]]:
    """Round after round; then the leaders come home, and the servers are compared."""
    progress.stage(f"starting {options.servers} servers")
    restarts: list[dict[str, Any]] = []
    async with served(options.servers, options.groups, options.dir) as cluster:
        async with calling(cluster.addresses, clients=options.clients, tasks=options.tasks) as callers:
            home = await cluster.settled(SETTLE_WITHIN_S)
            await trio.sleep(options.pause)
            progress.stage(f"restarting each server {options.rounds} times")
            turns = cluster.servers * options.rounds
            for number, server in enumerate(turns, start=1):
                restarts.append(await _restart(cluster, server, callers, options.pause))
                progress.bar(f"{restarts[-1]['waited_ms']:8.1f} ms", number / len(turns))
            terms = await cluster.terms()
            home = await cluster.settled(SETTLE_WITHIN_S) and home
            await trio.sleep(options.pause)
            came_home = await cluster.terms() - terms
        failures = await cluster.agree(callers.answered, len(callers.failed))
    return _figures(restarts, callers, came_home, home=home), failures + callers.wrong()


async def _restart(
    cluster: ServedCluster, server: Served, callers: Callers, pause_s: float
) -> dict[str, Any]:
    others = [one for one in cluster.servers if one is not server]
    at = time.monotonic_ns()
    stopping_s = await server.terminate()
    stopped = time.monotonic_ns()
    await server.restart()
    ready = time.monotonic_ns()
    await trio.sleep(pause_s)
    until = time.monotonic_ns()
    pulses = [cluster.pulses(one) for one in others]
    return {
        "server": server.server_id,
        "stopping_ms": round(stopping_s * 1000, 1),
        "starting_ms": round((ready - stopped) / MS_NS, 1),
        "stall_stopping_ms": worst(pulses, at, stopped),
        "stall_starting_ms": worst(pulses, stopped, ready),
        "stall_after_ms": worst(pulses, ready, until),
        "waited_stopping_ms": round(callers.longest(from_ns=at, to_ns=stopped) / MS_NS, 1),
        "waited_ms": round(callers.longest(from_ns=at, to_ns=until) / MS_NS, 1),
    }


def _figures(restarts: list[dict[str, Any]], callers: Callers, came_home: int, *, home: bool) -> Figures:
    waits = sorted(one.took_ns / MS_NS for one in callers.waits)
    return {
        "waited_ms_max": max(one["waited_ms"] for one in restarts),
        "waited_ms_p999": percentile(waits, 0.999),
        "waited_ms_p50": percentile(waits, 0.5),
        "stall_ms_max": max(
            max(one["stall_stopping_ms"], one["stall_starting_ms"], one["stall_after_ms"]) for one in restarts
        ),
        "terms_until_home": came_home,
        "restarts": restarts,
        "answered": len(callers.answered),
        "failed_calls": callers.failed,
        "doubts": [] if home else ["leaders did not come home"],
    }


def summary(figures: Figures) -> list[str]:
    """The figures for people."""
    restarts = figures["restarts"]
    return [
        (
            f"waited       {figures['waited_ms_max']} ms at most; p50 {figures['waited_ms_p50']:.1f} ms,"
            f" p99.9 {figures['waited_ms_p999']:.1f} ms, of {figures['answered']} calls"
        ),
        f"failed       {len(figures['failed_calls'])} calls",
        f"stall        {figures['stall_ms_max']} ms at most without a merged batch on a server that stayed",
        (
            f"stopping     {max(one['stopping_ms'] for one in restarts):.0f} ms at most;"
            f" starting {max(one['starting_ms'] for one in restarts):.0f} ms at most"
        ),
        f"afterwards   {figures['terms_until_home']} elections until the leaders were home",
        "each waited  " + ", ".join(f"{one['waited_ms']:g}" for one in restarts),
    ]


EXPERIMENT = Experiment(
    name="restarts",
    question="How long does a write wait while all servers are restarted one after the other, under load?",
    figure="waited_ms_max",
    add_options=add_options,
    run=run,
    summary=summary,
    quick=("--rounds", "1", "--pause", "1"),
)
