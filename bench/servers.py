"""What do more servers cost, all of them on this machine?

Every server writes and executes every command. On machines of their own that costs each of them the same
work; here they share the cores and the disk, so the throughput falls about as one over their number. What
says something about other machines is the CPU time that a command costs a server, and the bytes on the wire.
"""

from __future__ import annotations

import argparse

from bench.bulk import add_task_option, bulk_load
from bench.experiment import (
    SERVERS_MAX,
    Experiment,
    Figures,
    Progress,
    add_common_options,
    add_group_option,
    add_size_option,
    add_window_options,
    wholes,
)
from bench.loading import evenly
from bench.plots import Curve, Plot, add_plot_option, check_plot, draw
from bench.processes import Plan
from bench.repeats import add_repeat_options, shown
from bench.setting import Points, Setting, curve, lines, measure_in_turns

SERVERS = "1,3,5,7"
TASKS = 18
"""Over all servers: the cluster's load is the same however many there are."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    parser.add_argument(
        "--servers",
        type=wholes(1, SERVERS_MAX),
        default=SERVERS,
        metavar="N,N,…",
        help=f"numbers of server processes (default: {SERVERS})",
    )
    add_common_options(parser, servers=False)
    add_group_option(parser)
    add_size_option(parser, 64)
    add_task_option(parser, TASKS, "tasks over all servers")
    add_window_options(parser, window=8, warmup=2)
    add_repeat_options(parser, 3)
    add_plot_option(parser)


async def run(options: argparse.Namespace, progress: Progress) -> tuple[Figures, list[str]]:
    """The same load on clusters of several sizes."""
    settings = [
        Setting(
            what={"servers": servers},
            plan=Plan(servers=servers, groups=options.groups, directory=options.dir),
            load=bulk_load(options, evenly(options.tasks, servers)),
        )
        for servers in sorted(options.servers)
    ]
    points, failures, doubts = await measure_in_turns(settings, options, progress)
    if options.plot is not None:
        draw(picture(points), options.plot)
    figures = {
        "applied_per_second_least": min(one["applied_per_second"]["median"] or 0.0 for one in points),
        "points": points,
        "doubts": doubts,
    }
    return figures, failures


def picture(points: Points) -> Plot:
    """Throughput over the number of servers, beside what would be left if all work were each server's own."""
    first = points[0]
    whole = (first["applied_per_second"]["median"] or 0.0) * first["servers"]
    return Plot(
        title="Throughput over the number of servers, all on one machine",
        x_label="servers",
        y_label="commands a second",
        curves=[
            curve("applied", points, "servers", "applied_per_second"),
            Curve(
                name=f"that of {first['servers']}, shared by all",
                x=[one["servers"] for one in points],
                y=[whole / one["servers"] for one in points],
                dashed=True,
            ),
        ],
        x_ticks=[one["servers"] for one in points],
    )


def summary(figures: Figures) -> list[str]:
    """The figures for people."""
    return [
        *lines(figures["points"], "servers"),
        *(
            f"servers {one['servers']:<4} {shown(one['cpu_us_per_command'], 2)} µs of CPU a command,"
            f" wire {shown(one['wire_bytes_per_payload_byte'], 2)} for a byte of payload"
            for one in figures["points"]
        ),
        "on one       machine: all share its cores and its disk, and each does all of the work",
    ]


EXPERIMENT = Experiment(
    name="servers",
    question="What do more servers cost, at the same load, all of them on this machine?",
    figure="applied_per_second_least",
    add_options=add_options,
    check=check_plot,
    run=run,
    summary=summary,
    quick=("--servers", "1,3", "--repeats", "1", "--seconds", "3", "--warmup", "1"),
)
