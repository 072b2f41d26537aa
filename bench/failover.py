"""How long does the merge stand still when a leader is killed?

SIGKILL of a server that leads, again and again, under the load of remote clients. The stall is the longest
time without a merged batch on a survivor, of which some lies behind the kill; the worst survivor's counts.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from statistics import median
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
from bench.processes import BenchError
from bench.pulse import longest_gap
from bench.served import LIMITS, Served, ServedCluster, served

MEDIAN_MS_MAX = 100.0
LONGEST_MS_MAX = 1000.0
"""What is aimed at on loopback."""

SETTLE_WITHIN_S = 90.0
"""Leaders come home some seconds after a server is back."""

HOME_SOON = dataclasses.replace(LIMITS, leader_return_ms_max=LIMITS.leader_return_ms)
"""By default each involuntary loss doubles the wait, up to a minute: the next kill would wait for that."""

GO_ON_WITHIN_S = 30.0
"""A merge that stands still for longer is not a stall any more."""

MS_NS = 1_000_000


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    add_common_options(parser)
    add_group_option(parser)
    add_load_options(parser)
    parser.add_argument(
        "--kills", type=whole(1, 1000), default=30, metavar="N", help="how many (default: 30)"
    )
    parser.add_argument(
        "--watch",
        type=seconds(0.2),
        default=1.5,
        metavar="S",
        help="watch before and after each kill for so long; then the server is started again (default: 1.5)",
    )


def add_load_options(parser: argparse.ArgumentParser) -> None:
    """The load from outside."""
    parser.add_argument(
        "--clients", type=whole(1, 256), default=6, metavar="N", help="remote clients (default: 6)"
    )
    parser.add_argument(
        "--tasks", type=whole(1, 256), default=2, metavar="N", help="callers of each client (default: 2)"
    )


async def run(options: argparse.Namespace, progress: Progress) -> tuple[Figures, list[str]]:
    """Kill, watch, start again, wait until the leaders are back; so many times."""
    progress.stage(f"starting {options.servers} servers")
    kills: list[dict[str, Any]] = []
    async with served(options.servers, options.groups, options.dir, HOME_SOON) as cluster:
        async with calling(cluster.addresses, clients=options.clients, tasks=options.tasks) as callers:
            progress.stage(f"killing a leader {options.kills} times")
            for number in range(options.kills):
                began = trio.current_time()
                home = await cluster.settled(SETTLE_WITHIN_S)
                settled_s = round(trio.current_time() - began, 1)
                victim = await _victim(cluster, number)
                kill = await _kill(cluster, victim, callers, options.watch)
                progress.bar(f"{kill['stall_ms']:8.1f} ms", (number + 1) / options.kills)
                began = trio.current_time()
                await victim.restart()
                starting_s = round(trio.current_time() - began, 1)
                kills.append({"home": home, "settled_s": settled_s, **kill, "starting_s": starting_s})
            await cluster.settled(SETTLE_WITHIN_S)
        failures = await cluster.agree(callers.answered, len(callers.failed))
    return _figures(kills, callers), failures


async def _victim(cluster: ServedCluster, number: int) -> Served:
    """The next one in turn that leads something."""
    leading = {leader for leader, _ in await cluster.leaders()}
    first = number % len(cluster.servers)
    turn = [*cluster.servers[first:], *cluster.servers[:first]]
    return next(one for one in turn if one.server_id in leading)


async def _kill(cluster: ServedCluster, victim: Served, callers: Callers, watch_s: float) -> dict[str, Any]:
    """One kill, and what the survivors' merges did before and after."""
    survivors = [one for one in cluster.servers if one is not victim]
    led = sum(leader == victim.server_id for leader, _ in await cluster.leaders())
    await trio.sleep(watch_s)
    at = time.monotonic_ns()
    await victim.kill()
    await trio.sleep(watch_s)
    until = await _merging_again(cluster, survivors, at)
    calm_from = at - int(watch_s * 1e9)
    pulses = [cluster.pulses(one) for one in survivors]
    return {
        "server": victim.server_id,
        "groups_led": led,
        "stall_ms": worst(pulses, at, until),
        "calm_ms": worst([[one for one in each if one < at] for each in pulses], calm_from, at),
        "waited_ms": round(callers.longest(from_ns=at, to_ns=until) / MS_NS, 1),
    }


def worst(pulses: list[list[int]], from_ns: int, to_ns: int) -> float:
    """The longest gap of the worst of several, in ms."""
    return round(max(longest_gap(one, from_ns=from_ns, to_ns=to_ns) for one in pulses) / MS_NS, 1)


async def _merging_again(cluster: ServedCluster, survivors: list[Served], at: int) -> int:
    """Now, as soon as every survivor has merged something since the kill."""
    with trio.move_on_after(GO_ON_WITHIN_S):
        while not all(  # noqa: ASYNC110  # other processes
            any(one > at for one in cluster.pulses(server)[-1:]) for server in survivors
        ):
            await trio.sleep(0.05)
        return time.monotonic_ns()
    raise BenchError(f"nothing was merged for {GO_ON_WITHIN_S:.0f} s after a kill")


def _figures(kills: list[dict[str, Any]], callers: Callers) -> Figures:
    stalls = [one["stall_ms"] for one in kills]
    away = sum(not one["home"] for one in kills)
    return {
        "stall_ms_median": round(median(stalls), 1),
        "stall_ms_max": max(stalls),
        "calm_ms_median": round(median(one["calm_ms"] for one in kills), 1),
        "waited_ms_max": max(one["waited_ms"] for one in kills),
        "within_bound": median(stalls) <= MEDIAN_MS_MAX and max(stalls) <= LONGEST_MS_MAX,
        "kills": kills,
        "answered": len(callers.answered),
        "failed_calls": callers.failed,
        "doubts": [f"before {away} kills leaders were not where they belong"] if away else [],
    }


def summary(figures: Figures) -> list[str]:
    """The figures for people."""
    verdict = "kept" if figures["within_bound"] else "MISSED"
    shown = ", ".join(f"{one['stall_ms']:g}" for one in figures["kills"])
    return [
        (
            f"stall        median {figures['stall_ms_median']} ms, longest {figures['stall_ms_max']} ms,"
            f" of {len(figures['kills'])} kills; without a kill {figures['calm_ms_median']} ms"
        ),
        f"bound        median {MEDIAN_MS_MAX:g} ms, longest {LONGEST_MS_MAX:g} ms: {verdict}",
        f"each         {shown}",
        (
            f"clients      waited {figures['waited_ms_max']} ms at most; {len(figures['failed_calls'])} of"
            f" {figures['answered'] + len(figures['failed_calls'])} calls failed"
        ),
    ]


EXPERIMENT = Experiment(
    name="failover",
    question="How long does the merge stand still on the survivors when a leader is killed under load?",
    figure="stall_ms_median",
    add_options=add_options,
    run=run,
    summary=summary,
    quick=("--kills", "2"),
)
