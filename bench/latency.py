"""How long does one client wait for one command while nothing else goes on, beside the disk's own sync?"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from bench.experiment import (
    Experiment,
    Figures,
    Progress,
    add_common_options,
    add_group_option,
    add_window_options,
    whole,
)
from bench.loading import LoadPlan
from bench.processes import Plan
from bench.setting import Setting, measure
from bench.workload import KEY_BYTES
from craft import EngineLimits

SYNCS_BOUND = 3
"""A command waits for a majority's sync; the other groups' closing entries, which it asks for, for another.
The third is for a sync that had just begun."""

BOUND_MS = 2.0
"""For everything that is not the disk."""

SEED = 2


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    add_common_options(parser)
    add_group_option(parser)
    parser.add_argument(
        "--bytes",
        type=whole(KEY_BYTES, EngineLimits().entry_bytes_max // 2),
        default=64,
        metavar="N",
        help=f"size of a command, at least {KEY_BYTES} (default: 64)",
    )
    add_window_options(parser, window=5, warmup=1)
    parser.add_argument(
        "--alone",
        action="store_true",
        help="only this cluster: not beside it answers at the level committed, and a cluster of one group",
    )


async def run(options: argparse.Namespace, progress: Progress) -> tuple[Figures, list[str]]:
    """The cluster itself, then the two that it is compared with."""
    figures, failures = await _lone_client(options, progress, "awaited", options.groups)
    if options.alone:
        return figures, failures
    for name, mode, groups in (("committed", "committed", options.groups), ("single_leader", "awaited", 1)):
        beside, more = await _lone_client(options, progress, mode, groups)
        figures[f"{name}_p50_ms"] = beside["p50_ms"]
        failures += [f"{name}: {failure}" for failure in more]
    single = figures["single_leader_p50_ms"]
    for name, mine in (("ratio", figures["p50_ms"]), ("committed_ratio", figures["committed_p50_ms"])):
        figures[name] = round(mine / single, 2) if mine and single else None
    return figures, failures


async def _lone_client(
    options: argparse.Namespace, progress: Progress, mode: str, groups: int | None
) -> tuple[Figures, list[str]]:
    """One client at server 1; the disk alone before and after, while the servers are idle."""
    plan = Plan(servers=options.servers, groups=groups, directory=options.dir)
    load = LoadPlan(
        mode=mode,
        tasks=[1] + [0] * (options.servers - 1),
        batch=1,
        size=options.bytes,
        warmup_s=options.warmup,
        window_s=options.seconds,
        seed=SEED,
    )
    figures, failures = await measure(Setting(what={}, plan=plan, load=load, probe_after=True), progress)
    bound = SYNCS_BOUND * figures["fdatasync_p50_ms"] + BOUND_MS
    return {
        **figures,
        "rungs_p50_ms": figures["servers"][0]["rungs_p50_ms"],  # the client's server leads what it proposes
        "bound_ms": round(bound, 3),
        "within_bound": figures["p50_ms"] is not None and figures["p50_ms"] <= bound,
    }, failures


def summary(figures: Figures) -> list[str]:
    """The figures for people."""
    verdict = "kept" if figures["within_bound"] else "MISSED"
    return [
        f"latency      p50 {figures['p50_ms']} ms, p99 {figures['p99_ms']} ms, {figures['calls']:,} commands",
        f"fdatasync    p50 {figures['fdatasync_p50_ms']} ms for small appends, same file system, same run",
        f"bound        {SYNCS_BOUND} x fdatasync + {BOUND_MS:g} ms = {figures['bound_ms']} ms: {verdict}",
        f"rungs        {_rungs(figures['rungs_p50_ms'])} (medians, ms)",
        f"inside       sync p50 {figures['sync_p50_ms']} ms; {figures['cores_per_server']} cores a server",
        *_beside(figures),
    ]


def _beside(figures: Figures) -> list[str]:
    if "ratio" not in figures:
        return []
    return [
        f"committed    p50 {figures['committed_p50_ms']} ms, answered before the merge",
        (
            f"one leader   p50 {figures['single_leader_p50_ms']} ms, with one group and nothing to merge;"
            f" {figures['ratio']} times that is the latency, {figures['committed_ratio']} times committed"
        ),
    ]


def _rungs(medians: Mapping[str, float | None]) -> str:
    """Where a command's time goes, from rung to rung."""
    return ", ".join(f"{rung} {'-' if ms is None else ms}" for rung, ms in medians.items())


EXPERIMENT = Experiment(
    name="latency",
    question="How long does one client wait for one command, nothing else going on, beside the disk's sync?",
    figure="p50_ms",
    add_options=add_options,
    run=run,
    summary=summary,
    quick=("--seconds", "2", "--warmup", "0.5"),
)
