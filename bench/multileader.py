"""How much more do several leaders take than one, where one leader's network or processor is scarce?

Servers on one machine share its cores and its loopback, so a second leader brings nothing there. Here each
has a network of its own with a limited egress (`namespaces`), or a share of a core (`quotas`), and the
machine itself idles. As many groups as servers are compared with one group of the same engine: the same
commands, as many of them outstanding in all. With one group the clients are spread over all servers, whose
proposals then travel to the leader, or are all at the leader: the better of the two counts, round by round.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from bench import namespaces, quotas
from bench.experiment import (
    SERVERS_MAX,
    Experiment,
    Figures,
    OptionError,
    Progress,
    add_common_options,
    seconds,
    whole,
)
from bench.figures import cluster_figures
from bench.loading import LoadPlan, agree, run_load, settle
from bench.multileader_figures import (
    CPU,
    EGRESS,
    FORMS,
    LEADER,
    Setting,
    comparison,
    payload_bound,
    picture,
    summary,
    sustained,
    used,
)
from bench.plots import add_plot_option, check_plot, draw
from bench.processes import Cluster, Host, NotPossible, Plan, cluster
from bench.quotas import Quotas
from bench.repeats import add_repeat_options, repeated
from bench.workload import KEY_BYTES
from craft import EngineLimits, TransportLimits
from craft.limits import KIB

SEED = 3

LIMITS = {EGRESS: (EGRESS,), CPU: (CPU,), "both": (EGRESS, CPU)}

QUOTA_SHARE_MAX = 0.9
"""Of the machine's cores, all quotas together: else the machine is the limit."""


SIZES = {EGRESS: 1024, CPU: 64}
BATCHES = {EGRESS: 8, CPU: 500}
CPU_TASKS = 12
"""Sizes of commands, commands a call, and calls outstanding a server, unless told otherwise."""

BACKLOG_S = 2.5
"""What is outstanding in all with egress limited, as the time that one leader's link takes for it. Several
leaders wait for a part of it each, which must still be long beside a sync and a merge."""

NARROW = EngineLimits(
    entry_bytes_max=16 * KIB,
    append_bytes_max=32 * KIB,
    inflight_bytes_max=192 * KIB,
    uncommitted_entries_max=16,
    load_bytes_max=32 * KIB,
    snapshot_chunk_bytes=32 * KIB,
    fetch_after_ms=10_000,
    proposal_retry_ms=60_000,
)
NARROW_TRANSPORT = TransportLimits(frame_bytes_max=112 * KIB, burst_bytes_max=32 * KIB)
"""For narrow links, in every form alike. The defaults are for links that carry an entry of a MiB in
milliseconds. Here heartbeats would wait behind it until somebody stands for election, and what is merely on
its way would be taken for lost and sent, fetched or proposed once more. That waste is the one leader's, whose
backlog is longest, and would make several look better than they are. And a frame must be small beside what is
in flight: else all of that is in one frame, and the link idles until it is acknowledged."""

ENGINES = {EGRESS: NARROW, CPU: EngineLimits()}
TRANSPORTS = {EGRESS: NARROW_TRANSPORT, CPU: TransportLimits()}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The commands of a load, and how many are outstanding."""

    size: int
    batch: int
    tasks: int
    """A server."""


def numbers(least: int, greatest: int) -> Callable[[str], list[int]]:
    """The type of an option that is a list of different whole numbers, separated by commas."""
    one = whole(least, greatest)

    def parse(text: str) -> list[int]:
        return sorted({one(part) for part in text.split(",")})

    return parse


def share_of_core(text: str) -> float:
    """The type of an option that is a quota."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.05 <= value <= SERVERS_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: 0.05 to {SERVERS_MAX} cores")
    return value


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    add_common_options(parser, servers=False)
    parser.add_argument(
        "--limit",
        choices=tuple(LIMITS),
        default="both",
        help="what each server has little of (default: both, one after the other)",
    )
    parser.add_argument(
        "--servers",
        type=numbers(2, SERVERS_MAX),
        default=[3, 5],
        metavar="LIST",
        help="egress: server processes, separated by commas (default: 3,5)",
    )
    parser.add_argument(
        "--cpu-servers",
        type=numbers(2, SERVERS_MAX),
        default=[3],
        metavar="LIST",
        help="cpu: the same (default: 3)",
    )
    parser.add_argument(
        "--rate",
        type=whole(10, 1_000_000),
        default=2000,
        metavar="KB",
        help="egress: what a server may send, in kB (1,000 bytes) a second (default: 2000)",
    )
    parser.add_argument(
        "--quota",
        type=share_of_core,
        default=0.2,
        metavar="CORES",
        help="cpu: what a server may use (default: 0.2)",
    )
    _add_load_options(parser)
    add_repeat_options(parser, 3)
    add_plot_option(parser)


def _add_load_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mode",
        choices=("bulk", "awaited"),
        default="bulk",
        help="bulk: tasks that call propose_many; awaited: tasks that call propose (default: bulk)",
    )
    for name, least, greatest, what in (
        (
            "bytes",
            KEY_BYTES,
            2**18,
            f"size of a command (default: {SIZES[EGRESS]} for egress, {SIZES[CPU]} for cpu)",
        ),
        (
            "batch",
            1,
            10_000,
            f"bulk: commands a call (default: {BATCHES[EGRESS]} for egress, {BATCHES[CPU]} for cpu)",
        ),
        (
            "tasks",
            1,
            10_000,
            f"calls outstanding, a server on average (default: --backlog's for egress, {CPU_TASKS} for cpu)",
        ),
    ):
        parser.add_argument(f"--{name}", type=whole(least, greatest), metavar="N", help=what)
    parser.add_argument(
        "--backlog",
        type=seconds(0.1),
        default=BACKLOG_S,
        metavar="S",
        help="egress: as many calls outstanding as one leader can send in S seconds; spread over the servers"
        f" (default: {BACKLOG_S:g})",
    )
    parser.add_argument(
        "--seconds", type=seconds(0.1), default=8.0, metavar="S", help="the window (default: 8)"
    )
    parser.add_argument(
        "--warmup",
        type=seconds(),
        default=2 * BACKLOG_S,
        metavar="S",
        help=f"load before the window, not counted (default: {2 * BACKLOG_S:g})",
    )


def check(options: argparse.Namespace) -> None:
    """Raise OptionError for options that do not fit together."""
    check_plot(options)
    for setting in settings_of(options):
        shape = shape_of(options, setting)
        size = shape.batch * (shape.size + 5) + 5
        allowed = ENGINES[setting.limit].entry_bytes_max
        if size > allowed:
            raise OptionError(
                f"--batch {shape.batch} of --bytes {shape.size} makes calls of {size} bytes; entry_bytes_max"
                f" allows {allowed} with {setting.limit} limited"
            )
    cores = os.cpu_count() or 1
    most = max(options.cpu_servers) * options.quota
    if CPU in LIMITS[options.limit] and most > QUOTA_SHARE_MAX * cores:
        raise OptionError(
            f"--quota {options.quota:g} for {max(options.cpu_servers)} servers is {most:g} of this machine's"
            f" {cores} cores, so the machine would be the limit; allowed: at most --quota"
            f" {QUOTA_SHARE_MAX * cores / max(options.cpu_servers):.2f}"
        )


def shape_of(options: argparse.Namespace, setting: Setting) -> Shape:
    """The load of a setting. It does not depend on the setting's form."""
    limit, servers = setting.limit, setting.servers
    size = options.bytes or SIZES[limit]
    batch = 1 if options.mode == "awaited" else options.batch or BATCHES[limit]
    tasks = CPU_TASKS
    if limit == EGRESS:
        rate = payload_bound(rate=capacity_of(options, limit), servers=servers, size=size, leaders=1)
        tasks = max(1, round(options.backlog * rate / (servers * batch)))
    return Shape(size=size, batch=batch, tasks=options.tasks or tasks)


def settings_of(options: argparse.Namespace) -> list[Setting]:
    """All that is measured in a round."""
    return [
        Setting(limit=limit, servers=servers, form=form)
        for limit in LIMITS[options.limit]
        for servers in (options.servers if limit == EGRESS else options.cpu_servers)
        for form in FORMS
    ]


# -- running ---------------------------------------------------------------------------------------


def able(limits: Sequence[str]) -> None:
    """Raise NotPossible where this machine cannot limit what is to be limited."""
    for limit, lacking in ((EGRESS, namespaces.missing), (CPU, quotas.missing)):
        if limit in limits and (why := lacking()) is not None:
            other = CPU if limit == EGRESS else EGRESS
            raise NotPossible(f"--limit {limit} is not possible here: {why}; or try --limit {other}")


async def run(options: argparse.Namespace, progress: Progress) -> tuple[Figures, list[str]]:
    """Every setting in turns; then the ratios."""
    able(LIMITS[options.limit])
    settings = settings_of(options)
    runs, failures = await repeated(
        settings,
        partial(_measure, options, progress),
        options=options,
        progress=progress,
        name_of=lambda setting: setting.name,
    )
    by_setting = dict(zip(settings, runs, strict=True))
    compared = [
        comparison(
            limit,
            servers,
            {form: by_setting[Setting(limit=limit, servers=servers, form=form)] for form in FORMS},
            capacity=capacity_of(options, limit),
            size=options.bytes or SIZES[limit],
        )
        for limit, servers in dict.fromkeys((one.limit, one.servers) for one in settings)
    ]
    figures: Figures = {
        "ratio": compared[0]["ratio"]["median"],
        "comparisons": compared,
        "doubts": [doubt for one in compared for doubt in one["doubts"]],
    }
    if options.plot is not None:
        figures["plots"] = [str(file) for file in draw(picture(compared), options.plot)]
    return figures, failures


@contextlib.contextmanager
def _surroundings(
    options: argparse.Namespace, setting: Setting
) -> Iterator[tuple[list[Host], Quotas | None]]:
    """Where the servers run, and what limits their processors."""
    if setting.limit == EGRESS:
        with namespaces.network(setting.servers, options.rate * 1000) as hosts:
            yield hosts, None
    else:
        with quotas.quotas(setting.servers) as limited:
            yield limited.hosts, limited


async def _measure(
    options: argparse.Namespace, progress: Progress, setting: Setting
) -> tuple[Figures, list[str]]:
    """One cluster, loaded and compared."""
    with _surroundings(options, setting) as (hosts, limited):
        plan = Plan(
            servers=setting.servers,
            groups=setting.groups,
            directory=options.dir,
            hosts=tuple(hosts),
            engine=ENGINES[setting.limit],
            transport=TRANSPORTS[setting.limit],
        )
        async with cluster(plan) as running:
            doubts = await settle(running, progress)
            load = await _load(options, setting, running)
            if limited is not None:
                limited.limit(options.quota)
            loaded = await run_load(running, load, progress)
            if limited is not None:
                limited.lift()
            _, failures = await agree(running, loaded, progress)
    figures = cluster_figures(loaded.measured, loaded.latencies, load.size)
    if not loaded.latencies:
        failures.append(f"nothing was answered within the window of {options.seconds:g} s")
    if figures["elections"]:
        doubts.append(f"{figures['elections']} elections within the window")
    if loaded.overloaded:
        doubts.append(f"{loaded.overloaded} calls were refused as Overloaded, and paused for it")
    capacity = capacity_of(options, setting.limit)
    return {
        **figures,
        "sustained_per_second": round(sustained(figures), 1),
        "used": [round(one / capacity, 4) for one in used(loaded.measured, setting.limit)],
        "doubts": doubts,
    }, failures


async def _load(options: argparse.Namespace, setting: Setting, running: Cluster) -> LoadPlan:
    """As many calls in all, wherever the clients are."""
    shape = shape_of(options, setting)
    tasks = [shape.tasks] * setting.servers
    if setting.form == LEADER:
        led = [reading["led"] for reading in await running.ask_all("read")]
        tasks = [sum(tasks) if place == led.index(max(led)) else 0 for place in range(len(led))]
    return LoadPlan(
        mode=options.mode,
        tasks=tasks,
        batch=shape.batch,
        size=shape.size,
        warmup_s=options.warmup,
        window_s=options.seconds,
        seed=SEED,
    )


def capacity_of(options: argparse.Namespace, limit: str) -> float:
    """What a server has of it, a second: bytes to send, or seconds of a core."""
    return float(options.rate * 1000 if limit == EGRESS else options.quota)


EXPERIMENT = Experiment(
    name="multileader",
    question="How much more do several leaders take than one, where each server's network or CPU is limited?",
    figure="ratio",
    add_options=add_options,
    check=check,
    run=run,
    summary=summary,
    quick=("--seconds", "2", "--warmup", "1", "--backlog", "0.6", "--repeats", "1"),
)
