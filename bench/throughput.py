"""How many commands a second are applied, each answered to its caller once it is durable and applied?"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

from bench import bare
from bench.arrivals import OUTSTANDING_MAX
from bench.bulk import BATCH, SEED, add_task_option
from bench.experiment import (
    Experiment,
    Figures,
    OptionError,
    Progress,
    add_common_options,
    add_group_option,
    add_window_options,
    directory,
    whole,
    wholes,
)
from bench.loading import LoadPlan, evenly
from bench.plots import Plot, add_plot_option, check_plot, draw
from bench.processes import Plan
from bench.repeats import add_repeat_options, shown
from bench.setting import Points, Setting, curve, lines, measure, measure_in_turns
from bench.workload import KEY_BYTES, KEYS, SLOTS_MAX
from craft import EngineLimits

MSGPACK_BYTES = 5
"""What packing adds to a command or a list of commands, at most."""

RATE_MAX = 10_000_000


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    add_common_options(parser)
    add_group_option(parser)
    parser.add_argument(
        "--bytes",
        type=wholes(KEY_BYTES, 2**30),
        default="64",
        metavar="N,N,…",
        help=f"size of a command, at least {KEY_BYTES} (default: 64); several are measured in turns",
    )
    parser.add_argument(
        "--mode",
        choices=("bulk", "awaited", "open"),
        default="bulk",
        help="bulk: tasks that call propose_many; awaited: tasks that call propose; open: calls that arrive"
        " at a --rate, whether or not others were answered (default: bulk)",
    )
    parser.add_argument(
        "--clients",
        type=wholes(1, 100_000),
        default="1024",
        metavar="N,N,…",
        help="awaited: tasks, each with one propose outstanding, spread over the servers (default:"
        " 1024); several are measured in turns; bulk has --tasks instead",
    )
    add_task_option(parser)
    parser.add_argument(
        "--batch",
        type=whole(1, 1_000_000),
        metavar="N",
        help=f"commands a call (default: bulk: {BATCH}, or what an entry holds of large ones; open: 1)",
    )
    parser.add_argument(
        "--rate",
        type=whole(1, RATE_MAX),
        metavar="N",
        help="open: commands that arrive a second, over all servers, at random (a Poisson process)",
    )
    parser.add_argument(
        "--outstanding-max",
        type=whole(1, 1_000_000),
        default=OUTSTANDING_MAX,
        metavar="N",
        help="open: calls a server not answered yet, beyond which an arrival is turned away and counted"
        f" (default: {OUTSTANDING_MAX})",
    )
    add_window_options(parser, window=8, warmup=2)
    _add_rare_options(parser)
    add_repeat_options(parser, 1)
    add_plot_option(parser)


def _add_rare_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keys",
        choices=tuple(KEYS),
        default="reused",
        help="reused: a slot's next command overwrites its last in the servers' dicts; unique: every"
        " command has a key of its own, which costs memory (default: reused)",
    )
    bare.add_bare_option(parser)
    parser.add_argument(
        "--profile",
        type=directory,
        metavar="DIR",
        help="profile server 1 over the window into DIR/server-1.prof (it is slower then)",
    )
    parser.add_argument(
        "--plant-difference",
        action="store_true",
        help="falsify one command on the last server after the load: the run must fail",
    )


def check(options: argparse.Namespace) -> None:
    """Raise OptionError for options that do not fit together; fill in the batch where none is given."""
    check_plot(options)
    if options.mode != "awaited" and len(options.clients) > 1:
        raise OptionError(f"--clients with several numbers is for --mode awaited, not {options.mode}")
    if (options.mode == "open") != (options.rate is not None):
        raise OptionError("--mode open needs --rate, and no other mode takes one")
    if len(options.bytes) * len(options.clients) > 1 and options.profile is not None:
        raise OptionError("--profile is for one setting: give one size and one number of clients")
    allowed = EngineLimits().entry_bytes_max
    for size in options.bytes:
        if size > allowed - 2 * MSGPACK_BYTES:
            raise OptionError(
                f"--bytes {size} is not allowed; allowed: at most {allowed - 2 * MSGPACK_BYTES}"
            )
        if options.mode != "awaited":
            check_batch(options, size, batch_of(options, size))


def batch_of(options: argparse.Namespace, size: int) -> int:
    """Commands a call: as many as were asked for, or by default what an entry holds of this size at most."""
    if options.mode == "awaited":
        return 1
    if options.batch is not None:
        return int(options.batch)
    return min(BATCH, most_commands(size)) if options.mode == "bulk" else 1


def most_commands(size: int) -> int:
    """That one call may have."""
    return (EngineLimits().entry_bytes_max - MSGPACK_BYTES) // (size + MSGPACK_BYTES)


def check_batch(options: argparse.Namespace, size: int, batch: int) -> None:
    """Raise OptionError for a call that no entry holds, or more slots than can be told apart."""
    if batch > most_commands(size):
        call = batch * (size + MSGPACK_BYTES) + MSGPACK_BYTES
        raise OptionError(
            f"--batch {batch} of --bytes {size} makes calls of {call} bytes; entry_bytes_max"
            f" allows {EngineLimits().entry_bytes_max}: at most --batch {most_commands(size)}"
        )
    if options.mode != "open" and options.tasks * batch > SLOTS_MAX:
        raise OptionError(f"--tasks {options.tasks} times --batch {batch} exceeds {SLOTS_MAX} slots a server")


def settings(options: argparse.Namespace) -> list[Setting]:
    """Every size with every number of clients."""
    return [
        Setting(
            what=_what(options, size, clients),
            plan=Plan(
                servers=options.servers, groups=options.groups, keys=options.keys, directory=options.dir
            ),
            load=load_plan(options, size, clients),
            plant=options.plant_difference,
            bare_s=options.bare,
        )
        for size, clients in product(sorted(options.bytes), sorted(options.clients))
    ]


def _what(options: argparse.Namespace, size: int, clients: int) -> dict[str, int]:
    if options.mode == "awaited":
        return {"bytes": size, "clients": clients}
    return {"bytes": size, "batch": batch_of(options, size)}


def load_plan(options: argparse.Namespace, size: int, clients: int) -> LoadPlan:
    """The load that the options ask for."""
    profile: Path | None = options.profile
    tasks = {
        "bulk": [options.tasks] * options.servers,
        "awaited": evenly(clients, options.servers),
        "open": [1] * options.servers,
    }
    return LoadPlan(
        mode=options.mode,
        tasks=tasks[options.mode],
        batch=batch_of(options, size),
        size=size,
        warmup_s=options.warmup,
        window_s=options.seconds,
        seed=SEED,
        rate=options.rate,
        outstanding_max=options.outstanding_max,
        profile=None if profile is None else str(profile.absolute() / "server-1.prof"),
    )


async def run(options: argparse.Namespace, progress: Progress) -> tuple[Figures, list[str]]:
    """One setting: its figures. Several, or several times: a point a setting."""
    wanted = settings(options)
    if len(wanted) == 1 and options.repeats == 1:
        if options.plot is not None:
            progress.stage("one run is no curve: nothing is drawn")
        return await measure(wanted[0], progress)
    points, failures, doubts = await measure_in_turns(wanted, options, progress)
    if options.plot is not None:
        draw(picture(points), options.plot)
    figures = {
        "applied_per_second": max(one["applied_per_second"]["median"] or 0.0 for one in points),
        "points": points,
        "doubts": doubts,
    }
    return figures, failures


def picture(points: Points) -> Plot:
    """Throughput over the clients, a curve a size; over the sizes where the clients do not differ."""
    x = "clients" if len({one.get("clients") for one in points}) > 1 else "bytes"
    other = "bytes" if x == "clients" else "clients"
    return Plot(
        title=f"Throughput over {x}",
        x_label="size of a command, bytes" if x == "bytes" else "tasks with one command outstanding",
        y_label="commands a second",
        curves=[
            curve(
                f"{value} bytes" if other == "bytes" else "applied",
                [one for one in points if one.get(other) == value],
                x,
                "applied_per_second",
            )
            for value in sorted({one.get(other) for one in points}, key=lambda value: value or 0)
        ],
        x_log=True,
        x_ticks=sorted({one[x] for one in points}),
    )


def summary(figures: Figures) -> list[str]:
    """The figures for people."""
    return _points(figures["points"]) if "points" in figures else _one(figures)


def _points(points: Points) -> list[str]:
    what = [name for name in ("bytes", "batch", "clients") if name in points[0]]
    wires = [
        f"{', '.join(f'{name} {one[name]}' for name in what):<24}"
        f" log {shown(one['log_bytes_per_payload_byte'], 2)},"
        f" disk {shown(one['disk_bytes_per_payload_byte'], 2)},"
        f" wire {shown(one['wire_bytes_per_payload_byte'], 2)}"
        f" for a byte of payload; {shown(one['cpu_seconds_per_server'], 1)} s of CPU a server;"
        f" {shown(one['bare_ratio'], 2)} of what bare processes reach"
        for one in points
    ]
    return [*lines(points, *what), *wires]


def _arrived(figures: Figures) -> list[str]:
    """What became of what arrived: open loop alone."""
    if "offered_per_second" not in figures:
        return []
    f = figures
    return [
        (
            f"offered      {f['offered_per_second']:,.0f} commands a second; {f['refused_per_second']:,.0f}"
            f" refused as Overloaded, {f['turned_away_per_second']:,.0f} turned away at --outstanding-max"
        ),
        f"generator    p99 {f['generator_late_p99_ms']} ms late, which is part of the latencies",
    ]


def _one(figures: Figures) -> list[str]:
    """One run."""
    f, agreed = figures, figures["agreed"]
    log, disk, wire = (f[f"{what}_bytes_per_payload_byte"] for what in ("log", "disk", "wire"))
    servers = [
        f"server {one['server_id']:<5} {one['answered_per_second']:,.0f} answered a second,"
        f" {one['cores']} cores, leads {one['groups_led']}"
        for one in f["servers"]
    ]
    since = "from planned arrival to answer" if "offered_per_second" in f else "from call to answer"
    return [
        f"applied      {f['applied_per_second']:,.0f} commands a second, each counted once",
        f"latency      p50 {f['p50_ms']} ms, p99 {f['p99_ms']} ms, p99.9 {f['p999_ms']} ms, {since}",
        *_arrived(f),
        *servers,
        f"cpu          {f['cores_per_server']} cores a server, its part of the load included",
        f"memory       {f['memory_mb_max']:.0f} MB a server at most",
        f"turns        {f['turns_per_second']:,.0f} a second and server, p99.9 {f['turn_p999_ms']} ms",
        f"entries      {f['entries_per_second']:,.0f} a second and server",
        f"frames       {f['frames_per_second']:,.0f} a second and server",
        f"syncs        {f['syncs_per_second']:,.0f} a second and server, p50 {f['sync_p50_ms']} ms",
        f"fdatasync    p50 {f['fdatasync_p50_ms']} ms for small appends by one process, before the load",
        *bare.shown(f),
        f"bytes        log {log}, disk {disk}, wire {wire} for a byte of payload",
        f"compared     {agreed['answered']:,} commands answered, {agreed['applied']:,} applied by each",
    ]


EXPERIMENT = Experiment(
    name="throughput",
    question="How many commands a second are applied, each answered to its caller once durable and applied?",
    figure="applied_per_second",
    add_options=add_options,
    check=check,
    run=run,
    summary=summary,
    quick=("--seconds", "3", "--warmup", "1"),
)
