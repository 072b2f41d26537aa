"""How many commands a second are applied, each answered to its caller once it is durable and applied?"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import bare, machine
from bench.experiment import (
    Experiment,
    Figures,
    OptionError,
    Progress,
    add_common_options,
    add_group_option,
    directory,
    seconds,
    whole,
)
from bench.figures import cluster_figures
from bench.loading import LoadPlan, agree, run_load, settle
from bench.processes import Plan, cluster
from bench.workload import KEY_BYTES, KEYS, SLOTS_MAX
from craft import EngineLimits

MSGPACK_BYTES = 5
"""What packing adds to a command or a list of commands, at most."""

BATCH = 1000
"""Large enough that a call's cost (a wake-up of 10 µs) is small beside its commands', small enough that an
entry holds many calls of 64-byte commands (70 kB)."""

TASKS = 6
"""While one batch is on the disks the next ones are on the wire and in the queue; more only wait longer."""

SEED = 1


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    add_common_options(parser)
    add_group_option(parser)
    parser.add_argument(
        "--bytes",
        type=whole(KEY_BYTES, 2**30),
        default=64,
        metavar="N",
        help=f"size of a command, at least {KEY_BYTES} (default: 64)",
    )
    parser.add_argument(
        "--mode",
        choices=("bulk", "awaited"),
        default="bulk",
        help="bulk: tasks that call propose_many; awaited: tasks that call propose (default: bulk)",
    )
    parser.add_argument(
        "--clients",
        type=whole(1, 100_000),
        default=1024,
        metavar="N",
        help="awaited: tasks, each with one propose outstanding, spread over the servers (default:"
        " 1024); bulk has --tasks instead",
    )
    parser.add_argument(
        "--tasks",
        type=whole(1, 10_000),
        default=TASKS,
        metavar="N",
        help=f"bulk: tasks a server, each with one propose_many outstanding (default: {TASKS})",
    )
    parser.add_argument(
        "--batch",
        type=whole(1, 1_000_000),
        default=BATCH,
        metavar="N",
        help=f"bulk: commands a call (default: {BATCH})",
    )
    parser.add_argument(
        "--seconds", type=seconds(0.1), default=8.0, metavar="S", help="the window (default: 8)"
    )
    parser.add_argument(
        "--warmup",
        type=seconds(),
        default=2.0,
        metavar="S",
        help="load before the window, not counted (default: 2)",
    )
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
    """Raise OptionError for options that do not fit together."""
    allowed = EngineLimits().entry_bytes_max
    if options.bytes > allowed - 2 * MSGPACK_BYTES:
        raise OptionError(
            f"--bytes {options.bytes} is not allowed; allowed: at most {allowed - 2 * MSGPACK_BYTES}"
        )
    if options.mode == "awaited":
        return
    size = options.batch * (options.bytes + MSGPACK_BYTES) + MSGPACK_BYTES
    if size > allowed:
        most = (allowed - MSGPACK_BYTES) // (options.bytes + MSGPACK_BYTES)
        raise OptionError(
            f"--batch {options.batch} of --bytes {options.bytes} makes calls of {size} bytes; entry_bytes_max"
            f" allows {allowed}: at most --batch {most}"
        )
    if options.tasks * options.batch > SLOTS_MAX:
        raise OptionError(
            f"--tasks {options.tasks} times --batch {options.batch} exceeds {SLOTS_MAX} slots a server"
        )


def spread(clients: int, servers: int) -> list[int]:
    """Clients a server, as even as can be."""
    return [clients // servers + (number < clients % servers) for number in range(servers)]


def load_plan(options: argparse.Namespace) -> LoadPlan:
    """The load that the options ask for."""
    bulk = options.mode == "bulk"
    profile: Path | None = options.profile
    return LoadPlan(
        mode=options.mode,
        tasks=[options.tasks] * options.servers if bulk else spread(options.clients, options.servers),
        batch=options.batch if bulk else 1,
        size=options.bytes,
        warmup_s=options.warmup,
        window_s=options.seconds,
        seed=SEED,
        profile=None if profile is None else str(profile.absolute() / "server-1.prof"),
    )


async def run(options: argparse.Namespace, progress: Progress) -> tuple[Figures, list[str]]:
    """Load, measure, compare."""
    plan = Plan(servers=options.servers, groups=options.groups, keys=options.keys, directory=options.dir)
    progress.stage(f"starting {plan.servers} servers")
    async with cluster(plan) as running:
        doubts = await settle(running, progress)
        probe = machine.sync_seconds(running.directory)
        loaded = await run_load(running, load_plan(options), progress)
        agreed, failures = await agree(running, loaded, progress, plant=options.plant_difference)
        figures = cluster_figures(loaded.measured, loaded.latencies, options.bytes)
        figures |= await bare.beside(
            running.directory, loaded.measured, figures["applied_per_second"], options.bare, progress
        )
    if not loaded.latencies:
        failures.append(f"nothing was answered within the window of {options.seconds:g} s")
    if loaded.overloaded:
        doubts.append(f"{loaded.overloaded} calls were refused as Overloaded, and paused for it")
    if figures["elections"]:
        doubts.append(f"{figures['elections']} elections within the window")
    if options.profile is not None:
        doubts.append("server 1 ran under the profiler")
    return {
        **figures,
        "overloaded_calls": loaded.overloaded,
        "fdatasync_p50_ms": round(machine.sync_p50_ms(probe), 3),
        "agreed": agreed,
        "doubts": doubts,
    }, failures


def summary(figures: Figures) -> list[str]:
    """The figures for people."""
    f, agreed = figures, figures["agreed"]
    log, disk, wire = (f[f"{what}_bytes_per_payload_byte"] for what in ("log", "disk", "wire"))
    servers = [
        f"server {one['server_id']:<5} {one['answered_per_second']:,.0f} answered a second,"
        f" {one['cores']} cores, leads {one['groups_led']}"
        for one in f["servers"]
    ]
    return [
        f"applied      {f['applied_per_second']:,.0f} commands a second, each counted once",
        f"latency      p50 {f['p50_ms']} ms, p99 {f['p99_ms']} ms, from call to answer",
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
)
