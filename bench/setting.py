"""One cluster under one load, measured from its start to the comparison of its servers; and several in turns.

What a figure of a loaded cluster means is decided here, once, for every experiment that asks for one.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench import bare, machine
from bench.experiment import Figures, Progress, snapshot_limits
from bench.figures import cluster_figures, mean, milliseconds, percentile, ratio
from bench.loading import LoadPlan, agree, run_load, settle
from bench.plots import Curve
from bench.processes import Plan, cluster
from bench.repeats import repeated, shown, spreads

SPREAD = (
    "applied_per_second",
    "p50_ms",
    "p99_ms",
    "p999_ms",
    "cpu_seconds_per_server",
    "cores_per_server",
    "cpu_us_per_command",
    "memory_mb_max",
    "log_bytes_per_payload_byte",
    "disk_bytes_per_payload_byte",
    "wire_bytes_per_payload_byte",
    "fdatasync_p50_ms",
    "bare_per_second",
    "bare_ratio",
    "turn_p999_ms",
)
"""The figures of which a setting's runs are told as median, least and greatest."""

Points = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A cluster and its load."""

    what: Mapping[str, Any]
    """What tells it from the others, as its point has it in the result."""

    plan: Plan
    load: LoadPlan
    probe_after: bool = False
    """The disk alone is measured behind the load, too, not only before it."""

    bare_s: float | None = None
    """For so long bare processes append and sync the same bytes behind the load."""

    plant: bool = False
    """Falsify one command on the last server after the load."""

    @property
    def name(self) -> str:
        """For people."""
        return ", ".join(f"{name} {value}" for name, value in self.what.items())


async def measure(setting: Setting, progress: Progress) -> tuple[Figures, list[str]]:
    """Start the cluster, load it, compare its servers; as an experiment's `run` returns it."""
    load = setting.load
    progress.stage(f"starting {setting.plan.servers} servers")
    async with cluster(setting.plan) as running:
        doubts = await settle(running, progress)
        probe = machine.sync_seconds(running.directory)
        loaded = await run_load(running, load, progress)
        agreed, failures = await agree(running, loaded, progress, plant=setting.plant)
        if setting.probe_after:
            probe += machine.sync_seconds(running.directory)
        figures = cluster_figures(loaded.measured, loaded.latencies, load.size)
        if setting.bare_s is not None:
            applied = figures["applied_per_second"]
            figures |= await bare.beside(
                running.directory, loaded.measured, applied, setting.bare_s, progress
            )
    add_calls(figures, loaded.by_server)
    if not loaded.latencies:
        failures.append(f"nothing was answered within the window of {load.window_s:g} s")
    if loaded.overloaded and load.rate is None:
        doubts.append(f"{loaded.overloaded} calls were refused as Overloaded, and paused for it")
    if figures["elections"]:
        doubts.append(f"{figures['elections']} elections within the window")
    if load.profile is not None:
        doubts.append("server 1 ran under the profiler")
    return {
        **figures,
        **loaded.arrivals,
        "cpu_us_per_command": cpu_us_per_command(figures),
        "calls_per_second": ratio(len(loaded.latencies), figures["servers"][0]["window_s"], 1),
        "reads_behind": loaded.behind,
        "rungs_ms": rungs_ms(loaded.measured),
        "overloaded_calls": loaded.overloaded,
        "fdatasync_p50_ms": round(machine.sync_p50_ms(probe), 3),
        "agreed": agreed,
        "doubts": doubts,
    }, failures


def snapshot_plan(options: argparse.Namespace) -> Plan:
    """A cluster that takes snapshots, as `add_common_options` and `add_snapshot_options` describe it."""
    return Plan(
        servers=options.servers,
        groups=options.groups,
        directory=options.dir,
        engine=snapshot_limits(options),
        snapshots=True,
    )


def add_calls(figures: Figures, latencies: Sequence[Sequence[float]]) -> None:
    """To each server's figures: the calls that were made there."""
    for server, own in zip(figures["servers"], latencies, strict=True):
        server["calls_per_second"] = ratio(len(own), server["window_s"], 1)
        server["p50_ms"] = milliseconds(percentile(own, 0.5))
        server["p99_ms"] = milliseconds(percentile(own, 0.99))


def rungs_ms(measured: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """By rung and quantile: the mean over the servers that know it, since each server's start."""
    found = [one["after"]["rungs"] for one in measured]

    def over_servers(rung: str, name: str) -> float | None:
        values = [one[rung][name] for one in found if one[rung][name] is not None]
        return round(mean(values), 3) if values else None

    names = {"p50": "p50_ms", "p99": "p99_ms", "p999": "p999_ms"}
    return {
        rung: {short: over_servers(rung, name) for short, name in names.items()}
        for rung, one in found[0].items()
        if "p999_ms" in one
    }


def cpu_us_per_command(figures: Mapping[str, Any]) -> float | None:
    """CPU time that a command costs a server, the mean over the servers: each applies all of them."""
    return ratio(1e6 * figures["cores_per_server"], figures["applied_per_second"])


async def measure_in_turns(
    settings: Sequence[Setting],
    options: argparse.Namespace,
    progress: Progress,
    more: Sequence[str] = (),
) -> tuple[Points, list[str], list[str]]:
    """A point a setting, what went wrong, what is doubtful; `options` as `add_repeat_options` has them.

    `more` are figures to be told beside the usual ones.
    """
    runs, failures = await repeated(
        settings,
        partial(measure, progress=progress),
        options=options,
        progress=progress,
        name_of=lambda one: one.name,
    )
    doubts = [
        f"{setting.name}: {doubt}"
        for setting, own in zip(settings, runs, strict=True)
        for one in own
        for doubt in one.pop("doubts")
    ]
    return (
        [point(setting.what, own, more) for setting, own in zip(settings, runs, strict=True)],
        failures,
        doubts,
    )


def point(what: Mapping[str, Any], runs: Sequence[Figures], more: Sequence[str] = ()) -> dict[str, Any]:
    """What a setting's runs say together, and the runs themselves."""
    return {**what, **spreads(runs, (*SPREAD, *more)), "runs": list(runs)}


def curve(name: str, points: Sequence[Mapping[str, Any]], x: str, y: str) -> Curve:
    """Medians of a figure over what was set, with the range of the runs."""
    return Curve(
        name=name,
        x=[one[x] for one in points],
        y=[one[y]["median"] for one in points],
        least=[one[y]["least"] for one in points],
        greatest=[one[y]["greatest"] for one in points],
    )


def lines(points: Sequence[Mapping[str, Any]], *what: str) -> list[str]:
    """A line a point, for people."""
    return [
        f"{', '.join(f'{name} {one[name]}' for name in what):<24}"
        f" {shown(one['applied_per_second'])} a second, p50 {shown(one['p50_ms'], 1)} ms,"
        f" p99 {shown(one['p99_ms'], 1)} ms, {shown(one['cores_per_server'], 2)} cores a server"
        for one in points
    ]


def change(base: Mapping[str, Any], other: Mapping[str, Any], name: str) -> list[float]:
    """A figure of one setting over that of another, round by round: of runs that lie close together."""
    return [
        late[name] / early[name]
        for early, late in zip(base["runs"], other["runs"], strict=True)
        if early[name] and late[name]
    ]
