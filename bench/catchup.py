"""A server was away for longer than logs are kept: how long until it is back, and what do writes pay?"""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from bench.experiment import (
    Experiment,
    Figures,
    OptionError,
    Progress,
    add_common_options,
    add_group_option,
    add_size_option,
    add_snapshot_options,
    seconds,
    whole,
)
from bench.figures import mean
from bench.loading import agree, settle, stop_load
from bench.processes import BenchError, Cluster, cluster
from bench.setting import snapshot_plan

BOUND = 0.8
"""Of the rate of writes before: so much must be left while a server catches up."""

SERVERS_MIN = 3

BATCH = 100
TASKS = 4
SEED = 1
POLL_S = 0.1

CATCH_UP_WITHIN_S = 300.0
COMPACTED_AFTER = 3
"""Snapshots of each server that stays: behind two of them its log ends."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    add_common_options(parser)
    add_group_option(parser)
    parser.add_argument(
        "--megabytes",
        type=whole(1, 100_000),
        default=200,
        metavar="N",
        help="payload that is written while one server is away (default: 200)",
    )
    add_size_option(parser, 1024)
    add_snapshot_options(parser, trailing_mib=16)
    parser.add_argument(
        "--window",
        type=seconds(0.5),
        default=5.0,
        metavar="S",
        help="over which the rates before and after are taken (default: 5)",
    )


def check(options: argparse.Namespace) -> None:
    """Raise OptionError where nothing goes on without one server."""
    if options.servers < SERVERS_MIN:
        raise OptionError(
            f"--servers {options.servers} is not allowed; allowed: at least {SERVERS_MIN}, one is taken away"
        )


class Watch:
    """The servers that stay, and how many commands they have answered."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def glance(self) -> list[dict[str, Any]]:
        """Of each server that stays."""
        return [await one.ask("glance") for one in self._cluster.processes[:-1]]

    async def rate(self, until: Callable[[], Awaitable[None]]) -> float:
        """Commands answered a second until a condition of theirs or a time is over."""
        before = await self.glance()
        await until()
        after = await self.glance()
        rates = [
            (late["answered"] - early["answered"]) / (late["at_s"] - early["at_s"])
            for early, late in zip(before, after, strict=True)
        ]
        return float(sum(rates))


async def run(options: argparse.Namespace, progress: Progress) -> tuple[Figures, list[str]]:
    """Load the others, take one away, bring it back, and watch the load."""
    plan = snapshot_plan(options)
    progress.stage(f"starting {plan.servers} servers")
    async with cluster(plan) as running:
        doubts = await settle(running, progress)
        watch, away = Watch(running), running.processes[-1]
        await _load(running, options)
        window = partial(trio.sleep, options.window)
        progress.stage(f"loading {plan.servers - 1} of them, all being there")
        await window()
        complete = await watch.rate(window)
        progress.stage(f"killing the last, and writing {options.megabytes} MB")
        await away.kill()
        without = await watch.rate(lambda: _written(watch, options, progress))
        progress.stage("starting it again")
        caught_up = CatchUp(running)
        during = await watch.rate(caught_up.run)
        progress.stage("all are there again")
        after = await watch.rate(window)
        loaded = await stop_load(running)
        agreed, failures = await agree(running, loaded, progress)
    if not caught_up.installed:
        failures.append("it caught up from logs: too little was written for these limits")
    figures = {
        "rate_complete": round(complete, 1),
        "rate_without": round(without, 1),
        "rate_during": round(during, 1),
        "rate_after": round(after, 1),
        "during_over_complete": round(during / complete, 3),
        "during_over_without": round(during / without, 3),
        "bound": BOUND,
        "within_bound": during >= BOUND * mean([complete, after]),
        "caught_up_s": round(caught_up.took_s, 3),
        "snapshots_installed": caught_up.installed,
        "agreed": agreed,
        "doubts": doubts,
    }
    return figures, failures


async def _load(running: Cluster, options: argparse.Namespace) -> None:
    """On all but the last."""
    shared = {"mode": "bulk", "batch": BATCH, "size": options.bytes, "seed": SEED}
    last = running.processes[-1]
    await running.ask_each(
        "start", [{**shared, "tasks": 0 if one is last else TASKS} for one in running.processes]
    )


async def _written(watch: Watch, options: argparse.Namespace, progress: Progress) -> None:
    """Until so much is written, and every log is compacted beyond what the missing server has."""
    first = await watch.glance()
    commands, began = options.megabytes * 10**6 // options.bytes, sum(one["answered"] for one in first)
    while True:
        await trio.sleep(POLL_S)
        now = await watch.glance()
        written = sum(one["answered"] for one in now) - began
        progress.bar(f"{written * options.bytes / 1e6:.0f} MB", written / commands)
        compacted = all(
            late["taken"] - early["taken"] >= COMPACTED_AFTER for early, late in zip(first, now, strict=True)
        )
        if written >= commands and compacted:
            return


class CatchUp:
    """From the start of its process until it has applied what the others had a moment before."""

    def __init__(self, running: Cluster) -> None:
        self._running = running
        self.took_s = 0.0
        self.installed = 0

    async def run(self) -> None:
        """Raises BenchError where it does not."""
        began, place = trio.current_time(), len(self._running.processes) - 1
        await self._running.restart(place)
        with trio.move_on_after(CATCH_UP_WITHIN_S):
            while True:
                goal = (await self._running.processes[0].ask("glance"))["position"]
                back = await self._running.processes[place].ask("glance")
                if back["position"] >= goal:
                    self.took_s, self.installed = trio.current_time() - began, back["installed"]
                    return
                await trio.sleep(POLL_S)
        raise BenchError(f"it did not catch up within {CATCH_UP_WITHIN_S:.0f} s")


def summary(figures: Figures) -> list[str]:
    """The figures for people."""
    verdict = "kept" if figures["within_bound"] else "MISSED"
    return [
        f"before       {figures['rate_complete']:,.0f} commands a second, all servers there",
        f"without it   {figures['rate_without']:,.0f}",
        (
            f"meanwhile    {figures['rate_during']:,.0f}: {figures['during_over_complete']} of before,"
            f" {figures['during_over_without']} of without it"
        ),
        f"after        {figures['rate_after']:,.0f}",
        f"bound        {BOUND} of the rate with all servers, before and after: {verdict}",
        f"caught up    in {figures['caught_up_s']} s, by {figures['snapshots_installed']} snapshots",
    ]


EXPERIMENT = Experiment(
    name="catchup",
    question="What do writes pay while a server catches up that was away for longer than logs are kept?",
    figure="rate_during",
    add_options=add_options,
    check=check,
    run=run,
    summary=summary,
    quick=("--megabytes", "24", "--snapshot-mib", "4", "--trailing-mib", "2", "--window", "1"),
)
