"""What do more Raft groups than servers cost? They share a log, its syncs and the frames."""

from __future__ import annotations

import argparse
from typing import Any

from bench.bulk import add_task_option, bulk_load
from bench.experiment import (
    Experiment,
    Figures,
    OptionError,
    Progress,
    add_common_options,
    add_size_option,
    add_window_options,
    wholes,
)
from bench.plots import Plot, add_plot_option, check_plot, draw
from bench.processes import Plan
from bench.repeats import add_repeat_options, shown, spread
from bench.setting import Points, Setting, change, curve, lines, measure_in_turns
from craft.types import GROUPS_MAX

GROUPS = "1,3,8,16,64"
BASE = 3
"""As many as servers: the default, and what the others are compared with."""

COST_MAX = 0.25
"""Of the throughput with the base: so much may the most groups cost."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    add_common_options(parser)
    parser.add_argument(
        "--groups",
        type=wholes(1, GROUPS_MAX),
        default=GROUPS,
        metavar="N,N,…",
        help=f"numbers of Raft groups, at least two (default: {GROUPS})",
    )
    add_size_option(parser, 64)
    add_task_option(parser)
    add_window_options(parser, window=8, warmup=2)
    add_repeat_options(parser, 3)
    add_plot_option(parser)


def check(options: argparse.Namespace) -> None:
    """Raise OptionError where there is nothing to compare, or no way to draw it."""
    if len(options.groups) < 2:
        raise OptionError(f"--groups {options.groups[0]} is not allowed; allowed: at least two numbers")
    check_plot(options)


async def run(options: argparse.Namespace, progress: Progress) -> tuple[Figures, list[str]]:
    """The same load on clusters that differ in their groups alone."""
    settings = [
        Setting(
            what={"groups": groups},
            plan=Plan(servers=options.servers, groups=groups, directory=options.dir),
            load=bulk_load(options, [options.tasks] * options.servers),
        )
        for groups in sorted(options.groups)
    ]
    points, failures, doubts = await measure_in_turns(settings, options, progress)
    if options.plot is not None:
        draw(picture(points), options.plot)
    return {**compared(points), "points": points, "doubts": doubts}, failures


def compared(points: Points) -> dict[str, Any]:
    """What the most groups cost, against the base: three, or the least where three was not measured."""
    base = next((one for one in points if one["groups"] == BASE), points[0])
    most = points[-1] if points[-1] is not base else points[0]
    cost = spread(round(1 - one, 3) for one in change(base, most, "applied_per_second"))
    return {
        "base_groups": base["groups"],
        "most_groups": most["groups"],
        "cost": cost,
        "cost_median": cost["median"],
        "within_bound": cost["median"] is not None and cost["median"] <= COST_MAX,
    }


def picture(points: Points) -> Plot:
    """Throughput over the number of groups."""
    return Plot(
        title="Throughput over the number of Raft groups",
        x_label="Raft groups",
        y_label="commands a second",
        curves=[curve("applied", points, "groups", "applied_per_second")],
        x_log=True,
        x_ticks=[one["groups"] for one in points],
    )


def summary(figures: Figures) -> list[str]:
    """The figures for people."""
    return [
        *lines(figures["points"], "groups"),
        (
            f"cost         of {figures['most_groups']} groups against {figures['base_groups']}:"
            f" {shown(figures['cost'], 3)} of the throughput"
        ),
        f"bound        {COST_MAX}: {'kept' if figures['within_bound'] else 'MISSED'}",
    ]


EXPERIMENT = Experiment(
    name="groups",
    question="What do many Raft groups cost, at the same load on the same servers?",
    figure="cost_median",
    add_options=add_options,
    check=check,
    run=run,
    summary=summary,
    quick=("--groups", "3,64", "--repeats", "1", "--seconds", "3", "--warmup", "1"),
)
