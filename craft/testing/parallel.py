"""Many runs, in processes of their own; and what came of all of them, added up.

Knows: recipes (from a seed to a plan), processes, CPU seconds. Must not know: what is printed.

Invariants
- A run depends on its plan alone. Time is taken here for the figures, and for giving up on a run that never
  ends; no simulation sees it.
- Every seed that was begun is accounted for: a process that dies on one, or never comes back from one, is
  reported as that seed's failure, and the seeds behind it go to another process.
- Processes are started afresh (`spawn`): no state leaks into them, and each lane has a PYTHONHASHSEED of its
  own. They end when this process does, however it ends.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import time
import traceback
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import NamedTuple, Self

from craft.testing import light, run, swarm
from craft.testing.checkers.base import Violation
from craft.testing.faults import FAULTS
from craft.testing.plan import Plan
from craft.testing.trace import Trace

CHUNK_SEEDS = 4
"""Seeds that a process gets at once: it seldom waits, and at the end none has much more left than another."""

RUN_SECONDS_MAX = 600.0
"""Of real time, for one run: far above any. What takes longer runs in circles."""

LOOK_SECONDS = 1.0
"""How often this process looks for one that hangs."""

EVENTS_TOLD = 30
"""The last events of a failed run that are told with it."""

HASH_SEEDS = ("1", "2")
"""PYTHONHASHSEED of the two lanes of a comparison."""


# -- one run ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """How a seed becomes a plan. `plan`: always this one, whatever the seed."""

    only: tuple[str, ...] | None = None
    workload: str | None = None
    light: bool = False
    plan: Plan | None = None

    @property
    def kinds(self) -> Sequence[str]:
        """The faults that its plans may have."""
        if self.plan is not None:
            return sorted({fault.kind for fault in self.plan.faults})
        if self.light:
            return ()
        return tuple(FAULTS) if self.only is None else self.only

    def draw(self, seed: int) -> Plan:
        """The plan of a seed."""
        if self.plan is not None:
            return self.plan
        if self.light:
            return light.plan(seed, workload=self.workload)
        return swarm.draw(seed, only=self.only, workload=self.workload)


@dataclass(frozen=True)
class Outcome:
    """What came of one seed: what is told of a result between processes."""

    seed: int
    digest: str
    virtual_ns: int
    cpu_ns: int
    operations: int
    answered: int
    merged: int
    faults: Counter[str]
    marks: Counter[str]
    violation: Violation | None = None
    events: tuple[str, ...] = ()
    """The last events as lines, where a property was violated."""


def attempt(plan: Plan, *, trace: Trace | None = None) -> run.Result:
    """Run a plan with the standard checkers. Whatever is raised is a finding, not the end of the search."""
    trace = trace or Trace()
    try:
        return run.run(plan, trace=trace)
    except Exception as error:  # noqa: BLE001  # anything that a run raises is what we are looking for
        last = traceback.extract_tb(error.__traceback__)[-1]
        detail = f"{error!r} at {last.filename}:{last.lineno} in {last.name}"
        violation = Violation("nothing raises what nobody expects", detail)
        return run.Result(plan, trace.digest, 0, 0, 0, 0, violation, Counter(), Counter(), trace)


def examine(plan: Plan, *, seed: int) -> Outcome:
    """Run a plan; where it fails, run it once more to know its last events."""
    began = time.process_time_ns()
    result = attempt(plan)
    cpu_ns = time.process_time_ns() - began
    trace = None if result.violation is None else attempt(plan, trace=Trace(keep=True)).trace
    return outcome_of(result, seed=seed, cpu_ns=cpu_ns, trace=trace)


def outcome_of(result: run.Result, *, seed: int, cpu_ns: int, trace: Trace | None = None) -> Outcome:
    """What is told of a result; the last events are those of `trace`."""
    last = deque(trace or (), maxlen=EVENTS_TOLD)
    return Outcome(
        seed,
        result.digest,
        result.virtual_ns,
        cpu_ns,
        result.operations,
        result.answered,
        result.merged,
        result.faults,
        result.marks,
        result.violation,
        tuple(event.line() for event in last),
    )


# -- the sum ---------------------------------------------------------------------------------------


@dataclass
class Summary:
    """What came of many seeds."""

    seeds: int = 0
    first_seed: int | None = None
    last_seed: int | None = None
    virtual_ns: int = 0
    cpu_ns: int = 0
    operations: int = 0
    answered: int = 0
    merged: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    marks: Counter[str] = field(default_factory=Counter)
    failures: list[Outcome] = field(default_factory=list)
    compared: int = 0
    differences: list[tuple[Outcome, Outcome]] = field(default_factory=list)
    """Seeds whose two runs, in two processes, went apart."""

    def add(self, outcome: Outcome) -> None:
        """One more seed."""
        seed = outcome.seed
        self.seeds += 1
        self.first_seed = seed if self.first_seed is None else min(self.first_seed, seed)
        self.last_seed = seed if self.last_seed is None else max(self.last_seed, seed)
        self.virtual_ns += outcome.virtual_ns
        self.cpu_ns += outcome.cpu_ns
        self.operations += outcome.operations
        self.answered += outcome.answered
        self.merged += outcome.merged
        self.faults += outcome.faults
        self.marks += outcome.marks
        if outcome.violation is not None:
            self.failures.append(outcome)

    def compare(self, one: Outcome, other: Outcome) -> bool:
        """The same seed in two processes: was it the same run?"""
        self.compared += 1
        same = (one.digest, one.virtual_ns) == (other.digest, other.virtual_ns)
        if not same:
            self.differences.append((one, other))
        return same

    @property
    def sound(self) -> bool:
        """Did every property hold in every run?"""
        return not self.failures and not self.differences

    @property
    def speed(self) -> float:
        """Virtual hours of clusters for each hour of CPU."""
        return self.virtual_ns / self.cpu_ns if self.cpu_ns else 0.0


# -- the processes ---------------------------------------------------------------------------------


class Told(NamedTuple):
    """One outcome, and the lane in which the seed ran."""

    lane: int
    outcome: Outcome


def _work(pipe: Connection, recipe: Recipe) -> None:
    """The life of a process: seeds in, an outcome for each out, until nobody is there any more."""
    try:
        while True:
            for seed in pipe.recv():
                pipe.send(examine(recipe.draw(seed), seed=seed))
    except (EOFError, OSError):
        return


@dataclass
class _Worker:
    """One process, and what it is at."""

    lane: int
    process: BaseProcess
    pipe: Connection
    seeds: deque[int] = field(default_factory=deque)  # given to it, the first of them under way
    since: float = 0.0

    def give(self, seeds: Iterable[int]) -> bool:
        """More work; was there any?"""
        self.seeds.extend(seeds)
        self.since = time.monotonic()
        if self.seeds:
            with suppress(OSError):  # it died meanwhile: that is noticed where its outcome is awaited
                self.pipe.send(list(self.seeds))
        return bool(self.seeds)

    def died(self) -> Outcome:
        """It is gone, and its first seed with it."""
        self.process.join()
        seed = self.seeds.popleft()
        return _lost(seed, f"the process that ran it ended with exit code {self.process.exitcode}")


def _lost(seed: int, detail: str) -> Outcome:
    violation = Violation("every run comes to its end", detail)
    return Outcome(seed, "", 0, 0, 0, 0, 0, Counter(), Counter(), violation)


class Sweep:
    """Runs seeds in `jobs` processes. Iterate over it once; leave its `with` block to end the processes.

    `lanes` are values of PYTHONHASHSEED (None: as it is here): each lane runs every seed.
    """

    def __init__(
        self,
        recipe: Recipe,
        seeds: Iterable[int],
        *,
        jobs: int,
        lanes: Sequence[str | None] = (None,),
        seconds_max: float = RUN_SECONDS_MAX,
    ) -> None:
        self._recipe, self._seconds_max = recipe, seconds_max
        self._lanes = lanes
        self._seeds = [iter(one) for one in itertools.tee(seeds, len(lanes))]
        self._returned: list[list[int]] = [[] for _ in lanes]  # seeds of a process that died
        self._jobs = max(jobs, len(lanes))
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            self._end(worker)
        self._workers.clear()

    def __iter__(self) -> Iterator[Told]:
        """Outcomes as they come."""
        for number in range(self._jobs):
            self._begin(number % len(self._lanes))
        while self._workers:
            ready = wait([worker.pipe for worker in self._workers], LOOK_SECONDS)
            for worker in list(self._workers):
                if worker.pipe in ready:
                    yield self._take(worker)
                elif time.monotonic() - worker.since > self._seconds_max:
                    yield self._give_up(worker)

    def _begin(self, lane: int) -> None:
        """Start a process, if there is something to do for it."""
        seeds = self._next(lane)
        if not seeds:
            return
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self._recipe), daemon=True)
        with _hash_seed(self._lanes[lane]), _no_interrupts():
            process.start()
        theirs.close()
        worker = _Worker(lane, process, ours)
        self._workers.append(worker)
        worker.give(seeds)

    def _next(self, lane: int) -> list[int]:
        returned, self._returned[lane] = self._returned[lane], []
        return returned or list(itertools.islice(self._seeds[lane], CHUNK_SEEDS))

    def _take(self, worker: _Worker) -> Told:
        try:
            outcome: Outcome = worker.pipe.recv()
        except (EOFError, OSError):
            return self._replace(worker, worker.died())
        worker.seeds.popleft()
        worker.since = time.monotonic()
        if not worker.seeds and not worker.give(self._next(worker.lane)):
            self._workers.remove(worker)
            self._end(worker)
        return Told(worker.lane, outcome)

    def _give_up(self, worker: _Worker) -> Told:
        worker.process.kill()
        return self._replace(worker, _lost(worker.seeds.popleft(), f"no end within {self._seconds_max:g} s"))

    def _replace(self, worker: _Worker, lost: Outcome) -> Told:
        """What a process had before it goes to another."""
        self._workers.remove(worker)
        self._end(worker)
        self._returned[worker.lane] += worker.seeds
        self._begin(worker.lane)
        return Told(worker.lane, lost)

    @staticmethod
    def _end(worker: _Worker) -> None:
        worker.pipe.close()
        worker.process.kill()
        worker.process.join()


@contextmanager
def _hash_seed(value: str | None) -> Iterator[None]:
    """What is started meanwhile hashes strings by this."""
    if value is None:
        yield
        return
    before = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONHASHSEED"]
        else:
            os.environ["PYTHONHASHSEED"] = before


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """What is started meanwhile never hears of Ctrl-C: this process ends it.

    Nor is it left half started, without what it is to do. (Python's resource tracker, which the first process
    brings along, lets signals through again once it runs: so it is started before.)
    """
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
