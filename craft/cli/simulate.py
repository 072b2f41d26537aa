"""`craft simulate`: run the deterministic simulator, repeat what it found, make it smaller."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import time
from collections.abc import Iterable
from pathlib import Path

from craft.cli import values
from craft.cli.common import EXIT_OK, Commands, add_command
from craft.cli.progress import Progress
from craft.errors import CraftError
from craft.testing import report, shrink, swarm, timeline
from craft.testing.faults import FAULTS
from craft.testing.members import KINDS, LATER_KINDS
from craft.testing.moments import ALL_MOMENTS
from craft.testing.parallel import (
    HASH_SEEDS,
    Outcome,
    Recipe,
    Summary,
    Sweep,
    attempt,
    outcome_of,
)
from craft.testing.plan import MS, Plan
from craft.testing.trace import Trace
from craft.testing.workloads import WORKLOADS

DESCRIPTION = """\
Runs real engines in a simulated world: a whole cluster, its clients, disks,
clocks and links in one process, minutes of its life in a second. A seed decides
everything: its number is all that is needed to see a run again.

Without --seed and --replay it runs many seeds, goes on after a failure, and
tells the figures at the end."""

EPILOG = """\
examples:
  craft simulate --seeds 1000
  craft simulate --minutes 10 --without clocks
  craft simulate --seed 123 --trace | less
  craft simulate --seed 123 --svg run.svg --svg-window 500..900
  craft simulate --seed 123 --shrink --out small.json
  craft simulate --replay small.json --trace
  craft simulate --light --seeds 4          how much life an hour of CPU covers

The exit code is 1 where a property was violated, or two runs went apart.
"""

SEEDS_DEFAULT = 100
SEED_MAX = 2**63 - 1
JOBS_MAX = 1024
FAILURES_TOLD = 10
"""In full; of further ones the seed and the property."""

CLASSES = swarm.SWITCHES
"""Names for several kinds of fault at once."""


class SimulationFailed(CraftError):
    """A property does not hold, or a file cannot be read or written."""


def add_to(commands: Commands, common: argparse.ArgumentParser) -> None:
    """The subcommand's own arguments."""
    command = add_command(
        commands,
        common,
        "simulate",
        help="search for bugs in simulated clusters, and repeat what was found",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    _add_search(command)
    _add_world(command)
    _add_single(command)
    _add_picture(command)
    command.set_defaults(run=_run, usage_error=command.error)


def _add_search(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("many seeds")
    group.add_argument(
        "--seeds", type=values.whole(1, SEED_MAX), metavar="N", help=f"how many (default: {SEEDS_DEFAULT})"
    )
    group.add_argument(
        "--seed-start", type=values.whole(0, SEED_MAX), metavar="S", help="the first of them (default: 1)"
    )
    group.add_argument(
        "--minutes",
        type=values.minutes,
        metavar="M",
        help="stop after so long; any number of seeds, unless given",
    )
    group.add_argument(
        "--jobs", type=values.whole(1, JOBS_MAX), metavar="J", help="processes (default: as many as cores)"
    )
    group.add_argument("--stop-first", action="store_true", help="stop at the first seed that fails")
    group.add_argument(
        "--twice",
        action="store_true",
        help="run each seed in two processes with different PYTHONHASHSEED, and compare",
    )
    group.add_argument("--json", type=values.file, metavar="FILE", help="write the figures to this file too")


def _add_picture(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("a picture")
    group.add_argument(
        "--svg",
        type=values.file,
        metavar="FILE",
        help="draw the run as a timeline: the one of --seed or --replay, else the first that fails",
    )
    group.add_argument(
        "--svg-window",
        type=values.window,
        metavar="FROM..TO",
        help="this part of it, in virtual ms; '..' is all (default: the end of a run that fails, else around"
        " its first fault)",
    )


def _add_world(command: argparse.ArgumentParser) -> None:
    kinds = f"A KIND of fault, or all of one class:\n{', '.join(CLASSES)}."
    group = command.add_argument_group("the world", kinds)
    group.add_argument("--only", type=_kinds, metavar="KIND[,KIND]", help="no other faults than these")
    group.add_argument("--without", type=_kinds, metavar="KIND[,KIND]", help="no such faults")
    group.add_argument("--workload", choices=sorted(WORKLOADS), help="what clients do (default: by the seed)")
    group.add_argument(
        "--light",
        action="store_true",
        help="no faults; 3 servers, 3 groups, an operation a second, for 10 virtual minutes",
    )


def _add_single(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("one run")
    which = group.add_mutually_exclusive_group()
    which.add_argument("--seed", type=values.whole(0, SEED_MAX), metavar="S", help="run this seed alone")
    which.add_argument("--replay", type=Path, metavar="FILE", help="run a plan that --shrink wrote")
    group.add_argument("--trace", action="store_true", help="print one line an event")
    group.add_argument("--shrink", action="store_true", help="look for a smaller plan that fails alike")
    group.add_argument("--out", type=values.file, metavar="FILE", help="where to (default: seed-S.json)")
    group.add_argument(
        "--runs",
        type=values.whole(1, SEED_MAX),
        metavar="N",
        help=f"runs that --shrink may take (default: {shrink.RUNS_MAX})",
    )


# -- values ----------------------------------------------------------------------------------------


def _kinds(text: str) -> tuple[str, ...]:
    """Kinds of fault, in the order in which the swarm knows them."""
    named: set[str] = set()
    for word in text.split(","):
        if word in CLASSES:
            named.update(CLASSES[word])
        elif word in FAULTS:
            named.add(word)
        else:
            allowed = ", ".join([*CLASSES, *FAULTS])
            raise argparse.ArgumentTypeError(f"{word!r} is not allowed; allowed: {allowed}")
    return tuple(kind for kind in FAULTS if kind in named)


# -- which options go together ---------------------------------------------------------------------

Together = tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]

CONFLICTS: Together = (
    (("seed", "replay"), ("seeds", "seed_start", "minutes", "jobs", "stop_first")),
    (("replay",), ("only", "without", "workload", "light")),
    (("light",), ("only", "without")),
    (("twice",), ("trace", "shrink", "svg")),
    (("shrink",), ("trace", "svg")),
)
NEEDS: Together = (
    (("trace", "shrink"), ("seed", "replay")),
    (("out", "runs"), ("shrink",)),
    (("svg_window",), ("svg",)),
)


def _check(options: argparse.Namespace) -> None:
    """Refuse options that contradict each other."""

    def given(names: Iterable[str]) -> list[str]:
        return [name for name in names if getattr(options, name) not in {None, False}]

    for some, others in CONFLICTS:
        for one, other in itertools.product(given(some), given(others)):
            options.usage_error(f"{_option(other)} is not allowed with {_option(one)}")
    for some, others in NEEDS:
        if given(some) and not given(others):
            options.usage_error(f"{_option(given(some)[0])} needs {' or '.join(map(_option, others))}")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _run(options: argparse.Namespace) -> int:
    _check(options)
    task = Task(options)
    if task.single is None or options.twice:
        Search(task).run()
    elif options.shrink:
        _shrink(task, task.single)
    else:
        _single(task, task.single)
    return EXIT_OK


class Task:
    """What was asked for."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        only = None
        if options.only is not None or options.without is not None:
            only = tuple(kind for kind in options.only or FAULTS if kind not in (options.without or ()))
        replayed = None if options.replay is None else _read(options.replay)
        self.recipe = Recipe(only, options.workload, options.light, replayed)
        self.single: Plan | None = replayed
        if options.seed is not None:
            self.single = self.recipe.draw(options.seed)

    def repeat(self, seed: int) -> str:
        """The one command that runs a seed of this task again."""
        options = self.options
        if options.replay is not None:
            return shlex.join(["craft", "simulate", "--replay", str(options.replay)])
        words = ["craft", "simulate", "--seed", str(seed)]
        for name in ("only", "without"):
            if getattr(options, name) is not None:
                words += [_option(name), ",".join(getattr(options, name))]
        if options.workload is not None:
            words += ["--workload", options.workload]
        if options.light:
            words.append("--light")
        return shlex.join(words)


# -- many seeds ------------------------------------------------------------------------------------


class Search:
    """One search over many seeds."""

    def __init__(self, task: Task) -> None:
        options = task.options
        self._task, self._options = task, options
        self._total = Summary()
        self._progress = Progress()
        self._began = time.monotonic()
        self._first: dict[int, dict[int, Outcome]] = {}  # seed -> lane -> outcome, until both are there
        lanes = len(HASH_SEEDS) if options.twice else 1
        self._count = options.seeds or (None if options.minutes is not None else SEEDS_DEFAULT)
        if task.single is not None:
            self._count = 1
        self._jobs = max(options.jobs or _cores(), lanes)
        if self._count is not None:
            self._jobs = min(self._jobs, self._count * lanes)

    def run(self) -> None:
        """Search, tell what came of it. Raises SimulationFailed where something does not hold."""
        interrupted = None
        try:
            self._search()
        except KeyboardInterrupt as error:
            interrupted = error
        self._progress.close()
        seconds = time.monotonic() - self._began
        if interrupted is not None:
            print("ended by Ctrl-C; what was reached so far:")
        kinds = self._task.recipe.kinds
        for line in report.summary(self._total, seconds=seconds, jobs=self._jobs, kinds=kinds):
            print(line)
        self.draw()
        _finish(self._task, self._total, seconds, self._jobs)
        if interrupted is not None:
            raise interrupted

    def _search(self) -> None:
        start = 1 if self._options.seed_start is None else self._options.seed_start
        if self._task.single is not None:
            start = self._task.single.seed
        seeds = itertools.count(start) if self._count is None else range(start, start + self._count)
        lanes = HASH_SEEDS if self._options.twice else (None,)
        processes = "1 process" if self._jobs == 1 else f"{self._jobs} processes"
        self._progress.say(f"craft simulate: seeds from {start} in {processes}")
        with Sweep(self._task.recipe, seeds, jobs=self._jobs, lanes=lanes) as sweep:
            for lane, outcome in sweep:
                self.take(lane, outcome)
                if self._over():
                    return

    def take(self, lane: int, outcome: Outcome) -> None:
        """An outcome has come in."""
        if lane == 0:
            self._total.add(outcome)
            if outcome.violation is not None:
                self._tell_failure(outcome)
        if self._options.twice:
            pair = self._first.setdefault(outcome.seed, {})
            pair[lane] = outcome
            if len(pair) == len(HASH_SEEDS):
                del self._first[outcome.seed]
                self._compare(pair[0], pair[1])
        self._show()

    def _compare(self, one: Outcome, other: Outcome) -> None:
        if not self._total.compare(one, other):
            for line in report.difference(one, other, self._task.repeat):
                self._progress.say(line)

    def _tell_failure(self, outcome: Outcome) -> None:
        lines = list(report.failure(outcome, self._task.repeat))
        if len(self._total.failures) > FAILURES_TOLD:
            del lines[1:]
        for line in lines:
            self._progress.say(line)

    def draw(self) -> None:
        """The first failing seed as a picture, if one is wanted. It is run once more for that, here."""
        file = self._options.svg
        if file is None:
            return
        drawable = next((one for one in self._total.failures if one.digest), None)
        if drawable is None:
            print(f"{file} is not written: no seed failed that can be drawn")
            return
        plan = self._task.recipe.draw(drawable.seed)
        _picture(self._task, plan, attempt(plan, trace=Trace(keep=True)).trace)

    def _show(self) -> None:
        seconds = time.monotonic() - self._began
        total = self._total
        wanted = "" if self._count is None else f" of {self._count}"
        share = total.seeds / self._count if self._count else 0.0
        if self._options.minutes is not None:
            share = max(share, seconds / (60 * self._options.minutes))
        failed = len(total.failures) + len(total.differences)
        rate = f"{total.seeds / seconds:.1f} a second, {total.virtual_ns / report.HOUR_NS:.2f} cluster-hours"
        self._progress.show(share, f"{total.seeds}{wanted} seeds, {rate}, {failed} failed")

    def _over(self) -> bool:
        minutes = self._options.minutes
        late = minutes is not None and time.monotonic() - self._began > 60 * minutes
        return late or (self._options.stop_first and not self._total.sound)


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _finish(task: Task, total: Summary, seconds: float, jobs: int) -> None:
    if task.options.json is not None:
        figures = report.as_json(total, task.repeat, seconds=seconds, jobs=jobs)
        _write(task.options.json, json.dumps(figures, indent=1) + "\n")
    if not total.sound:
        raise SimulationFailed(report.verdict(total))


# -- one run ---------------------------------------------------------------------------------------


def _single(task: Task, plan: Plan) -> None:
    """One seed or script, in this process."""
    options = task.options
    began, cpu_began = time.monotonic(), time.process_time_ns()
    result = attempt(plan, trace=Trace(keep=options.trace or options.svg is not None))
    cpu_ns, seconds = time.process_time_ns() - cpu_began, time.monotonic() - began
    if options.trace:
        print(report.COLUMNS)
        for event in result.trace:
            print(report.first_line(event.line()))
    last = None
    if result.violation is not None and not options.trace:
        last = result.trace if result.trace.keep else attempt(plan, trace=Trace(keep=True)).trace
    outcome = outcome_of(result, seed=plan.seed, cpu_ns=cpu_ns, trace=last)
    for line in report.course(outcome):
        print(line)
    if outcome.violation is not None:
        for line in report.failure(outcome, task.repeat):
            print(line)
    if options.svg is not None:
        _picture(task, plan, result.trace)
    total = Summary()
    total.add(outcome)
    _finish(task, total, seconds, 1)


def _picture(task: Task, plan: Plan, trace: Trace) -> None:
    """A run as a timeline, in the file that was asked for."""
    events, options = list(trace), task.options
    begin, end = options.svg_window or timeline.telling_window(events)
    last = events[-1].at if events else 0
    if begin is not None and begin >= max(last, 1):
        raise SimulationFailed(
            f"--svg-window begins at {begin // MS} ms: the run has ended at {last // MS} ms"
        )
    end = None if end is None else min(end, max(last, 1))
    title = task.repeat(plan.seed)
    text = timeline.render(
        events, servers=plan.servers, groups=plan.groups, title=title, begin=begin, end=end
    )
    _write(options.svg, text)
    print(f"picture       {options.svg}")


def _shrink(task: Task, plan: Plan) -> None:
    """A failing plan, cut down, and written to a file."""
    out: Path = task.options.out or _default_out(plan)
    found = attempt(plan).violation
    if found is None:
        raise SimulationFailed(f"seed {plan.seed} violates nothing: there is nothing to shrink")
    print(f"seed {plan.seed}: VIOLATED: {found.property}", flush=True)

    def fails(candidate: Plan) -> bool:
        violation = attempt(candidate).violation
        return violation is not None and violation.property == found.property

    smallest = plan

    def tell(smaller: Plan, runs: int) -> None:
        nonlocal smallest
        what = report.changes(smallest, smaller)
        smallest = smaller
        print(f"run {runs}, smaller {what}: {next(report.plan_words(smaller))}", flush=True)

    runs_max = task.options.runs or shrink.RUNS_MAX
    try:
        shrunk = shrink.shrink(plan, fails, runs_max=runs_max, tell=tell)
        end = "nothing can be left out" if shrunk.finished else "--runs are used up"
        print(f"after {shrunk.runs} runs: {end}")
    finally:
        _write(out, smallest.to_json() + "\n")
        for line in report.plan_words(smallest):
            print(line)
        print(f"repeat: {shlex.join(['craft', 'simulate', '--replay', str(out), '--trace'])}")


def _default_out(plan: Plan) -> Path:
    """Where a shrunk plan goes. Known before the search, as `--out` is: hours shall not end with an error."""
    try:
        return values.file(f"seed-{plan.seed}.json")
    except argparse.ArgumentTypeError as error:
        raise SimulationFailed(f"--out is not given, and its default {error}") from error


# -- files -----------------------------------------------------------------------------------------


def _read(path: Path) -> Plan:
    """A plan from a file. Raises SimulationFailed naming what is wrong."""
    try:
        plan = Plan.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SimulationFailed(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SimulationFailed(f"{path}: {error}") from error
    _known(path, "workload", [plan.workload], WORKLOADS)
    _known(path, "fault kind", [fault.kind for fault in plan.faults], FAULTS)
    _known(path, "kind of change", [change.kind for change in plan.changes], (*KINDS, *LATER_KINDS))
    _known(path, "moment", [fault.on for fault in plan.faults if fault.on], ALL_MOMENTS)
    return plan


def _known(path: Path, what: str, found: Iterable[str], known: Iterable[str]) -> None:
    for one in found:
        if one not in known:
            raise SimulationFailed(f"{path}: {what} {one!r} is not allowed; allowed: {', '.join(known)}")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SimulationFailed(f"{path}: cannot be written: {error.strerror}") from error
