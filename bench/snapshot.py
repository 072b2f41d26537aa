"""What does a snapshot cost while it is taken under load, and how long does a server take that is sent one?

The load writes over the keys of a state of some size. Then windows without a snapshot and windows in which
every server takes one, all at once, take turns. In the end the last server, which proposes nothing, is
killed, the logs are compacted beyond what it has, and it is started again.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import trio

from bench.catchup import COMPACTED_AFTER, CatchUp, Watch
from bench.catchup import check as check_servers
from bench.experiment import (
    Experiment,
    Figures,
    Progress,
    add_common_options,
    add_group_option,
    add_size_option,
    seconds,
    whole,
)
from bench.figures import milliseconds, percentile, spent
from bench.loading import LEAD_S, LoadPlan, agree, measure_window, settle, stop_load, window_latencies
from bench.processes import Cluster, Plan, cluster
from bench.repeats import add_repeat_options, shown, spread
from craft import EngineLimits
from craft.limits import MIB

BATCH = 100
TASKS = 4
SEED = 1
POLL_S = 0.1
NEVER_BYTES = 2**40
CAPTURE_AFTER = 0.2
"""Of the window: then the snapshots are taken."""

CAPTURE_WITHIN_S = 300.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    add_common_options(parser)
    add_group_option(parser)
    parser.add_argument(
        "--megabytes", type=whole(1, 10_000), default=100, metavar="N", help="of state (default: 100)"
    )
    add_size_option(parser, 1024)
    parser.add_argument(
        "--window", type=seconds(0.5), default=5.0, metavar="S", help="each window (default: 5)"
    )
    add_repeat_options(parser, 3)


def check(options: argparse.Namespace) -> None:
    """Raise OptionError where nothing goes on without one server."""
    check_servers(options)


def load_plan(options: argparse.Namespace) -> LoadPlan:
    """On all servers but the last, over as many keys as the state shall have."""
    loading = options.servers - 1
    commands = options.megabytes * 10**6 // options.bytes
    calls = max(1, round(commands / (loading * TASKS * BATCH)))
    return LoadPlan(
        mode="bulk",
        tasks=[TASKS] * loading + [0],
        batch=BATCH,
        size=options.bytes,
        warmup_s=0.0,
        window_s=options.window,
        seed=SEED,
        slots=calls * BATCH,
    )


async def run(options: argparse.Namespace, progress: Progress) -> tuple[Figures, list[str]]:
    """Fill, windows in turns, and a server that is sent a snapshot."""
    limits = EngineLimits(snapshot_log_bytes=NEVER_BYTES, log_trailing_bytes=MIB)
    plan = Plan(
        servers=options.servers, groups=options.groups, directory=options.dir, engine=limits, snapshots=True
    )
    load, rounds = load_plan(options), []
    progress.stage(f"starting {plan.servers} servers")
    async with cluster(plan) as running:
        doubts = await settle(running, progress)
        await running.ask_each("start", load.starts(running.directory))
        await _fill(running, load, progress)
        for number in range(options.repeats):
            progress.stage(f"round {number + 1} of {options.repeats}: without a snapshot, and with one")
            calm = await _window(running, load, progress)
            rounds.append({"calm": calm, "snapshot": await _capturing(running, load, progress)})
        back = await _send(running, progress)
        loaded = await stop_load(running)
        agreed, failures = await agree(running, loaded, progress)
    if not back.installed:
        failures.append("the server that was away was sent no snapshot")
    if any(one["snapshot"]["captured_s"] > options.window * (1 - CAPTURE_AFTER) for one in rounds):
        doubts.append("a snapshot took longer than the window: a longer --window shows all of it")
    figures = {
        **compared(rounds),
        "state_mb": round(agreed["keys"] * options.bytes / 1e6, 1),
        "installed_s": round(back.took_s, 3),
        "snapshots_installed": back.installed,
        "rounds": rounds,
        "agreed": agreed,
        "doubts": doubts,
    }
    return figures, failures


async def _fill(running: Cluster, load: LoadPlan, progress: Progress) -> None:
    """Until every key has been written, or nearly: the tasks walk over their keys alike."""
    keys = sum(load.tasks) * (load.slots or load.batch)
    progress.stage(f"writing {keys:,} keys")
    written = 0
    while written < keys:
        await trio.sleep(POLL_S)
        written = sum(one["answered"] for one in await running.ask_all("glance"))
        progress.bar(f"{written:,}", written / keys)


async def _window(running: Cluster, load: LoadPlan, progress: Progress) -> dict[str, Any]:
    """The rate and the calls' latencies over one window."""
    measured = await measure_window(running, load, progress)
    latencies = sorted(one for each in window_latencies(running) for one in each)
    return {
        "applied_per_second": round(sum(spent(one, "answered") / spent(one, "at_s") for one in measured), 1),
        "p50_ms": milliseconds(percentile(latencies, 0.5)),
        "p99_ms": milliseconds(percentile(latencies, 0.99)),
        "longest_ms": milliseconds(percentile(latencies, 1.0)),
    }


async def _capturing(running: Cluster, load: LoadPlan, progress: Progress) -> dict[str, Any]:
    at = time.monotonic() + LEAD_S + CAPTURE_AFTER * load.window_s
    await running.ask_all("capture_at", at_s=at)
    figures = await _window(running, load, progress)
    took = await running.ask_all("captured", patience_s=CAPTURE_WITHIN_S)
    return {**figures, "captured_s": round(max(one["took_s"] for one in took), 3)}


async def _send(running: Cluster, progress: Progress) -> CatchUp:
    """Kill the last server, compact the logs beyond it, start it: it is sent a snapshot under load."""
    progress.stage("killing the last server, and compacting the logs beyond what it has")
    await running.processes[-1].kill()
    watch = Watch(running)
    for _ in range(COMPACTED_AFTER):
        before = sum(one["answered"] for one in await watch.glance())
        while before == sum(  # noqa: ASYNC110  # other processes
            one["answered"] for one in await watch.glance()
        ):
            await trio.sleep(POLL_S)
        for one in running.processes[:-1]:
            await one.ask("capture", patience_s=CAPTURE_WITHIN_S)
    progress.stage("starting it again")
    back = CatchUp(running)
    await back.run()
    return back


def compared(rounds: list[dict[str, Any]]) -> Figures:
    """With a snapshot against without one, round by round."""
    dip = spread(
        round(1 - one["snapshot"]["applied_per_second"] / one["calm"]["applied_per_second"], 3)
        for one in rounds
        if one["calm"]["applied_per_second"]
    )
    return {
        "dip": dip,
        "dip_median": dip["median"],
        "captured_s": spread(one["snapshot"]["captured_s"] for one in rounds),
        **{
            f"{name}_{kind}": spread(one[kind][name] for one in rounds)
            for name in ("applied_per_second", "p99_ms", "longest_ms")
            for kind in ("calm", "snapshot")
        },
    }


def summary(figures: Figures) -> list[str]:
    """The figures for people."""
    f = figures
    return [
        f"state        {f['state_mb']:,.0f} MB; snapshots took {shown(f['captured_s'], 2)} s, all at once",
        (
            f"throughput   {shown(f['applied_per_second_calm'])} a second without,"
            f" {shown(f['applied_per_second_snapshot'])} in windows with one: less by {shown(f['dip'], 3)}"
        ),
        f"calls        p99 {shown(f['p99_ms_calm'], 1)} ms without, {shown(f['p99_ms_snapshot'], 1)} ms with",
        f"longest      {shown(f['longest_ms_calm'], 1)} ms, and {shown(f['longest_ms_snapshot'], 1)} ms with",
        (
            f"sent         to a server that was away: {f['installed_s']} s from its start to the end,"
            f" by {f['snapshots_installed']} snapshots"
        ),
    ]


EXPERIMENT = Experiment(
    name="snapshot",
    question="What does taking a snapshot cost under load, and how long does a server take that is sent one?",
    figure="dip_median",
    add_options=add_options,
    check=check,
    run=run,
    summary=summary,
    quick=("--megabytes", "20", "--window", "2", "--repeats", "1"),
)
