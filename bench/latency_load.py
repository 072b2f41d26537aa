"""How does latency grow with load, and on which rung of a command is the time spent?

Open loop: commands arrive at some percent of the rate that closed-loop clients reach on this machine, each by
itself, and count from their planned arrival.
"""

from __future__ import annotations

import argparse
from typing import Any

from bench.bulk import SEED
from bench.experiment import (
    Experiment,
    Figures,
    Progress,
    add_common_options,
    add_group_option,
    add_size_option,
    add_window_options,
    whole,
    wholes,
)
from bench.loading import LoadPlan, evenly
from bench.plots import Plot, add_plot_option, check_plot, draw
from bench.processes import BenchError, Plan
from bench.repeats import add_repeat_options, shown, spread
from bench.setting import Points, Setting, curve, measure, measure_in_turns

PERCENTS = "5,10,25,50,75"
CLIENTS = 1024

FIGURES = ("offered_per_second", "refused_per_second", "generator_late_p99_ms")
QUANTILES = ("p50", "p99", "p999")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    add_common_options(parser)
    add_group_option(parser)
    add_size_option(parser, 64)
    parser.add_argument(
        "--clients",
        type=whole(1, 100_000),
        default=CLIENTS,
        metavar="N",
        help=f"closed-loop tasks, over all servers, whose rate is the peak (default: {CLIENTS})",
    )
    parser.add_argument(
        "--percents",
        type=wholes(1, 99),
        default=PERCENTS,
        metavar="N,N,…",
        help=f"loads, in percent of the peak (default: {PERCENTS})",
    )
    add_window_options(parser, window=8, warmup=2)
    add_repeat_options(parser, 3)
    add_plot_option(parser)


async def run(options: argparse.Namespace, progress: Progress) -> tuple[Figures, list[str]]:
    """The peak, then the loads in turns."""
    peak, failures = await measure(_setting(options, None, 0), progress)
    rate = peak["applied_per_second"]
    if not rate:
        raise BenchError("the peak is nothing: there is no part of it")
    settings = [_setting(options, rate * percent / 100, percent) for percent in sorted(options.percents)]
    points, more, doubts = await measure_in_turns(settings, options, progress, more=FIGURES)
    for one in points:
        one["rungs_ms"] = rungs(one["runs"])
    if options.plot is not None:
        draw(picture(points), options.plot)
    figures = {
        "p99_ms_least_load": points[0]["p99_ms"]["median"],
        "peak_per_second": rate,
        "points": points,
        "doubts": [*peak["doubts"], *doubts],
    }
    return figures, failures + more


def _setting(options: argparse.Namespace, rate: float | None, percent: int) -> Setting:
    return Setting(
        what={"percent": percent},
        plan=Plan(servers=options.servers, groups=options.groups, directory=options.dir),
        load=LoadPlan(
            mode="awaited" if rate is None else "open",
            tasks=evenly(options.clients, options.servers) if rate is None else [1] * options.servers,
            batch=1,
            size=options.bytes,
            warmup_s=options.warmup,
            window_s=options.seconds,
            seed=SEED,
            rate=rate,
        ),
    )


def rungs(runs: list[Figures]) -> dict[str, dict[str, Any]]:
    """By rung and quantile, over the runs: the mean over the servers, since each server's start."""
    return {
        rung: {name: spread(run["rungs_ms"][rung][name] for run in runs) for name in QUANTILES}
        for rung in runs[0]["rungs_ms"]
    }


def picture(points: Points) -> Plot:
    """Latency over what arrives."""
    x = [{**one, "offered": one["offered_per_second"]["median"]} for one in points]
    return Plot(
        title="Latency over load, open loop, from the planned arrival",
        x_label="commands that arrive a second",
        y_label="ms",
        curves=[
            curve(name, x, "offered", figure)
            for name, figure in (("p50", "p50_ms"), ("p99", "p99_ms"), ("p99.9", "p999_ms"))
        ],
        y_log=True,
    )


def summary(figures: Figures) -> list[str]:
    """The figures for people."""
    lines = [f"peak         {figures['peak_per_second']:,.0f} commands a second, closed loop"]
    for one in figures["points"]:
        steps = ", ".join(
            f"{rung} {'/'.join(shown(found[name], 1) for name in QUANTILES)}"
            for rung, found in one["rungs_ms"].items()
        )
        lines += [
            (
                f"{one['percent']:>2} %         {shown(one['offered_per_second'])} arrive a second:"
                f" p50 {shown(one['p50_ms'], 1)} ms, p99 {shown(one['p99_ms'], 1)} ms,"
                f" p99.9 {shown(one['p999_ms'], 1)} ms"
            ),
            f"             {steps} (p50/p99/p99.9, ms)",
        ]
    return lines


EXPERIMENT = Experiment(
    name="latency-load",
    question="How does latency grow with the load, and on which rung of a command is the time spent?",
    figure="p99_ms_least_load",
    add_options=add_options,
    check=check_plot,
    run=run,
    summary=summary,
    quick=("--percents", "10,50", "--repeats", "1", "--seconds", "2", "--warmup", "0.5"),
)
