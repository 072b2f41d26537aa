"""`python -m bench <experiment>`: run one experiment, print its figures, keep them as JSON.

Exit codes: 0 the run is valid, whatever its figures; 1 it failed (servers differ, one died, something was
written where nothing must be) and its figures mean nothing; 2 the options are wrong; 3 this machine lacks
what it takes; 128 + n signal n.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import trio

from bench import (
    catchup,
    ceiling,
    compare,
    failover,
    groups,
    growth,
    idle,
    latency,
    latency_load,
    machine,
    members,
    micro,
    multileader,
    overload,
    reads,
    recovery,
    report,
    restarts,
    servers,
    skew,
    snapshot,
    soak,
    targets,
    throughput,
)
from bench.beside import Beside, related
from bench.ending import unless_signalled
from bench.experiment import Experiment, OptionError, Progress, head, save
from bench.processes import BenchError, NotPossible


class Command(NamedTuple):
    """Something else than an experiment that this program does."""

    main: Callable[[list[str], Mapping[str, Experiment]], int]
    help: str


EXPERIMENTS: dict[str, Experiment] = {
    one.name: one
    for one in (
        throughput.EXPERIMENT,
        ceiling.EXPERIMENT,
        latency.EXPERIMENT,
        latency_load.EXPERIMENT,
        idle.EXPERIMENT,
        failover.EXPERIMENT,
        restarts.EXPERIMENT,
        members.EXPERIMENT,
        catchup.EXPERIMENT,
        recovery.EXPERIMENT,
        growth.EXPERIMENT,
        snapshot.EXPERIMENT,
        groups.EXPERIMENT,
        overload.EXPERIMENT,
        reads.EXPERIMENT,
        servers.EXPERIMENT,
        skew.EXPERIMENT,
        micro.EXPERIMENT,
        compare.EXPERIMENT,
        multileader.EXPERIMENT,
        soak.EXPERIMENT,
    )
}

COMMANDS: dict[str, Command] = {
    "report": Command(report.main, report.HELP),
    "targets": Command(targets.main, targets.HELP),
}
"""What is no experiment, but made of their results."""

FAILED, NOT_POSSIBLE = 1, 3


def parser() -> argparse.ArgumentParser:
    """All experiments with their questions."""
    top = argparse.ArgumentParser(
        prog="python -m bench",
        description="Experiments with real server processes, RocksDB with its syncs, and loopback sockets;"
        " and one in the simulator.",
        epilog="`python -m bench EXPERIMENT --help` shows an experiment's options;"
        " docs/how-to/benchmark.md says how to read the figures.",
    )
    names = top.add_subparsers(dest="experiment", required=True, metavar="EXPERIMENT")
    for experiment in EXPERIMENTS.values():
        experiment.add_options(
            names.add_parser(experiment.name, help=experiment.question, description=experiment.question)
        )
    for name, command in COMMANDS.items():
        names.add_parser(name, help=command.help)
    return top


def parse(arguments: list[str]) -> tuple[Experiment, argparse.Namespace, Beside | None]:
    """The experiment and its options; ends the program with a clear error where they are wrong."""
    top = parser()
    options = top.parse_args(arguments)
    experiment = EXPERIMENTS[options.experiment]
    beside = Beside(options.beside, options.beside_figure) if options.beside is not None else None
    try:
        if options.beside_figure is not None and beside is None:
            raise OptionError("--beside-figure says what to read from --beside, which is missing")
        if beside is not None:
            beside.check()
        experiment.check(options)
    except OptionError as error:
        top.error(str(error))
    return experiment, options, beside


async def run(experiment: Experiment, options: argparse.Namespace, beside: Beside | None) -> dict[str, Any]:
    """The whole result, with `failures` empty if the run is valid."""
    progress = Progress()
    result = head(experiment, options, options.dir or Path(tempfile.gettempdir()))
    runs = []
    if beside is not None:
        progress.stage("running the command beside, before")
        runs.append(await beside.run("before", options.dir))
    figures, failures = await experiment.run(options, progress)
    if beside is not None:
        progress.stage("running the command beside, after")
        runs.append(await beside.run("after", options.dir))
        figures["ratio_to_beside"] = related(figures[experiment.figure], runs)
    progress.clear()
    doubts = figures.pop("doubts")
    if not figures.get("virtual_time"):  # which no disk and no other program can disturb
        doubts = machine.warnings(result["machine"]) + doubts
    return {**result, **figures, "beside": runs, "doubts": doubts, "failures": failures}


def show(experiment: Experiment, result: dict[str, Any]) -> None:
    """The result for people."""
    print(f"{experiment.name}: {experiment.question}")
    host, versions = result["machine"], result["versions"]
    print(
        f"  on           {host['cores']} cores, {host['processor']}, {host['system']} {host['kernel']},"
        f" {host['file_system']}, Python {host['python']}; craft {versions['craft']} at"
        f" {(result['commit'] or 'no commit')[:12]}, {result['date']}"
    )
    for line in experiment.summary(result):
        print(f"  {line}")
    for one in result["beside"]:
        print(
            f"  beside, {one['when']}: {one['command']}"
            + (f" = {one['figure']:,.1f}" if one["figure"] else "")
        )
        print("".join(f"    | {line}\n" for line in one["output"].splitlines()), end="")
    if result.get("ratio_to_beside") is not None:
        print(
            f"  ratio        {result['ratio_to_beside']}: {experiment.figure} over the mean of the command's"
        )
    for doubt in result["doubts"]:
        print(f"  beware       {doubt}")
    for failure in result["failures"]:
        print(f"  FAILED       {failure}")


async def supervised(experiment: Experiment, options: argparse.Namespace, beside: Beside | None) -> int:
    """Run, show and keep; the exit code."""
    try:
        result = await run(experiment, options, beside)
    except NotPossible as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return NOT_POSSIBLE
    except BenchError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return FAILED
    show(experiment, result)
    if options.json is not None:
        save(result, options.json)
    return FAILED if result["failures"] else 0


def main(arguments: list[str]) -> int:
    """The program."""
    if arguments and arguments[0] in COMMANDS:
        return COMMANDS[arguments[0]].main(arguments[1:], EXPERIMENTS)
    return trio.run(unless_signalled, partial(supervised, *parse(arguments)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
