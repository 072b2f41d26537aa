"""Does a cluster that is offered twice what it can do still do it?

The peak is what closed-loop clients reach; behind it, and behind the overload, once more, since machines
drift. Then as many commands arrive as twice that, whether or not they are answered. What the library's limits
refuse is gone; what it takes must be answered at nearly the peak's rate, with bounded latency and memory.
"""

from __future__ import annotations

import argparse
from statistics import mean
from typing import Any

from bench.bulk import BATCH, SEED, add_task_option, bulk_load
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
from bench.processes import BenchError, Plan
from bench.setting import Setting, measure
from craft import EngineLimits
from craft.limits import MIB

FACTOR = 2
KEPT_MIN = 0.9
"""Of the peak's throughput."""

OFFERED_MIN = 0.9
"""Of what was to be offered: else the generator was too slow, and the run says less."""

LATENCY_FACTOR = 2.0
"""Over what the backlog that the limits allow takes at the peak's rate."""

MEMORY_FACTOR = 2.0
"""Over the bytes that the limits allow: a 64-byte command takes about 100 as an object of Python."""

PACKED_BYTES = 5
"""Beyond a command's own, in a call."""

HELD = ("proposals_bytes_max", "forwarded_bytes_max", "unmerged_bytes_max", "log_memory_bytes_max")
"""The limits of what a server may hold in memory."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    add_common_options(parser)
    add_group_option(parser)
    add_size_option(parser, 64)
    add_task_option(parser)
    parser.add_argument(
        "--batch",
        type=whole(1, 10_000),
        default=BATCH,
        metavar="N",
        help=f"commands in a call that arrives: single ones would measure their making (default: {BATCH})",
    )
    parser.add_argument(
        "--factor",
        type=whole(1, 20),
        default=FACTOR,
        metavar="N",
        help=f"times the peak: so much is offered (default: {FACTOR})",
    )
    add_window_options(parser, window=10, warmup=5)


def check(options: argparse.Namespace) -> None:
    """Raise OptionError for calls that no entry holds."""
    allowed = EngineLimits().entry_bytes_max
    size = options.batch * (options.bytes + PACKED_BYTES) + PACKED_BYTES
    if size > allowed:
        raise OptionError(
            f"--batch {options.batch} of --bytes {options.bytes} makes calls of {size} bytes;"
            f" allowed: {allowed}"
        )


async def run(options: argparse.Namespace, progress: Progress) -> tuple[Figures, list[str]]:
    """The peak, the overload, the peak again."""
    plan = Plan(servers=options.servers, groups=options.groups, directory=options.dir)
    closed = Setting(
        what={"load": "peak"}, plan=plan, load=bulk_load(options, [options.tasks] * options.servers)
    )
    before, failures = await measure(closed, progress)
    if not before["applied_per_second"]:
        raise BenchError("the peak is nothing: there is no twice of it")
    rate = options.factor * before["applied_per_second"]
    over, more = await measure(Setting(what={"load": "over"}, plan=plan, load=_over(options, rate)), progress)
    after, last = await measure(closed, progress)
    judged = judge(options, before, over, after)
    doubts = [*before.pop("doubts"), *over.pop("doubts"), *after.pop("doubts"), *doubtful(over, rate)]
    figures = {**judged, "peak": [before, after], "overload": over, "doubts": doubts}
    return figures, [*failures, *more, *last]


def _over(options: argparse.Namespace, rate: float) -> LoadPlan:
    return LoadPlan(
        mode="open",
        tasks=[1] * options.servers,
        batch=options.batch,
        size=options.bytes,
        warmup_s=options.warmup,
        window_s=options.seconds,
        seed=SEED,
        rate=rate,
    )


def judge(options: argparse.Namespace, before: Figures, over: Figures, after: Figures) -> dict[str, Any]:
    """What was kept, and the bounds of latency and memory that follow from the library's limits."""
    limits = EngineLimits()
    peak, kept = mean(one["applied_per_second"] for one in (before, after)), over["applied_per_second"]
    backlog = limits.proposals_bytes_max * options.servers / (options.bytes + PACKED_BYTES)
    latency_ms = round(LATENCY_FACTOR * backlog / peak * 1000, 1)
    held_mb = MEMORY_FACTOR * sum(getattr(limits, name) for name in HELD) / 1e6
    memory_mb = round(max(one["memory_mb_max"] for one in (before, after)) + held_mb, 1)
    share = round(kept / peak, 3)
    return {
        "peak_per_second": round(peak, 1),
        "kept_per_second": kept,
        "kept_share": share,
        "offered_per_second": over["offered_per_second"],
        "p99_ms": over["p99_ms"],
        "latency_bound_ms": latency_ms,
        "memory_mb_max": over["memory_mb_max"],
        "memory_bound_mb": memory_mb,
        "within_bound": share >= KEPT_MIN
        and over["p99_ms"] is not None
        and over["p99_ms"] <= latency_ms
        and over["memory_mb_max"] <= memory_mb,
    }


def doubtful(over: Figures, rate: float) -> list[str]:
    """Where the overload was none, or none that a limit met."""
    found = []
    if over["offered_per_second"] < OFFERED_MIN * rate:
        found.append(f"only {over['offered_per_second']:,.0f} a second were offered, not {rate:,.0f}")
    if not over["refused_per_second"]:
        found.append(
            "no limit refused anything within the window: a longer --warmup lets the backlog grow to"
            f" proposals_bytes_max ({EngineLimits().proposals_bytes_max // MIB} MiB a server)"
        )
    return found


def summary(figures: Figures) -> list[str]:
    """The figures for people."""
    f, over = figures, figures["overload"]
    peaks = ", ".join(f"{one['applied_per_second']:,.0f}" for one in f["peak"])
    return [
        f"peak         {f['peak_per_second']:,.0f} commands a second, closed loop ({peaks} before and after)",
        (
            f"offered      {f['offered_per_second']:,.0f} a second, whether answered or not;"
            f" {over['refused_per_second']:,.0f} refused, {over['turned_away_per_second']:,.0f} turned away"
        ),
        f"kept         {f['kept_per_second']:,.0f} a second: {f['kept_share']} of the peak, aim {KEPT_MIN}",
        (
            f"latency      p50 {over['p50_ms']} ms, p99 {f['p99_ms']} ms of those accepted, from their"
            f" planned arrival; bound {f['latency_bound_ms']} ms"
        ),
        f"memory       {f['memory_mb_max']:.0f} MB a server at most, bound {f['memory_bound_mb']:.0f} MB",
        f"written      log {over['log_bytes_per_payload_byte']} for a byte of payload applied",
        f"bounds       {'kept' if f['within_bound'] else 'MISSED'}",
    ]


EXPERIMENT = Experiment(
    name="overload",
    question="What is left of the throughput, of latency and memory when twice the peak is offered?",
    figure="kept_share",
    add_options=add_options,
    check=check,
    run=run,
    summary=summary,
    quick=("--seconds", "2", "--warmup", "1"),
)
