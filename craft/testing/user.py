"""`simulate`: a user's own state machine in the simulator, in one call, with the verdict in words.

Knows: what a user gives and wants to read. Must not know: how a world works.

Invariants
- What is wrong with the arguments raises TypeError or ValueError before anything runs.
- Whatever the user's functions raise comes back as the cause of a `Violated`, with the seed.
- A seed decides a run where the user's functions draw from nothing but the `random.Random` that they get.
"""

from __future__ import annotations

import typing
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from craft.applying import unpack
from craft.errors import ApplyFailed, RestoreFailed
from craft.state_machine import StateMachine
from craft.testing import arguments, determinism, elsewhere, report, swarm
from craft.testing import checkers as standard_checkers
from craft.testing.arguments import Asked, Raised, guarded, guarded_machine
from craft.testing.checkers.base import Violation
from craft.testing.checkers.histories import Linearizable, Replay
from craft.testing.checkers.ledger import Ledger
from craft.testing.checkers.merging import ResultsAgree, StatesAgree
from craft.testing.history import History, Outcome
from craft.testing.model import Model
from craft.testing.plan import SECOND, Plan
from craft.testing.replays import CHECKS, Finding, Recording, Step
from craft.testing.run import Result, Run
from craft.testing.trace import Trace
from craft.testing.workloads import CustomWorkload

if typing.TYPE_CHECKING:
    from random import Random

SEEDS_DEFAULT = 100

REPLAYED_SEEDS = 3
"""Of how many seeds that pass the merged logs are replayed."""

REPLAYED_COMMANDS_MAX = 5_000
"""Of one seed: what is behind them is not replayed."""

LAST_QUERIES_MAX = 50
"""Different queries of a run that are asked once more at the end of a replay."""

SNAPSHOT_PIECE_BYTES = 64 * 1024

EVENTS_TOLD = 15
"""The last events of a failed run that are told with it."""

USER_RAISED = "machine, query, digest, snapshot, commands, queries and model raise nothing"
SEEN_TOLD = 400
"""Characters of what was seen in a run, where replays have found out more."""

NOT_THE_USERS = "craft promises this, not your state machine: please report it, with all of this message"
ANOTHER_COURSE = (
    "a second run of this seed took another course: commands or queries draw from more than the rng they get,"
    " or the machine is not deterministic"
)

DISAGREEMENTS = (ResultsAgree.PROPERTY, StatesAgree.PROPERTY, Replay.PROPERTY, Linearizable.PROPERTY)
"""Where one of these does not hold, the machine is asked first whether it is deterministic."""


class Violated(AssertionError):
    """A property does not hold. An AssertionError, so that test runners show its message as it is.

    `seed`: repeats the run. `property`: what does not hold, in words. `detail`: what was seen. `events`: the
    last events of the run, a line each. `trace`: the run's hash, 16 hexadecimal digits, equal in any process
    for an equal run. `repeat`: the call that repeats it.
    """

    __module__ = "craft.testing"  # as it is imported, and as a test runner shows it

    def __init__(
        self, seed: int, property_: str, detail: str, *, events: Sequence[str], trace: str, repeat: str
    ) -> None:
        super().__init__(seed, property_, detail)
        self.seed, self.property, self.detail = seed, property_, detail
        self.events, self.trace, self.repeat = tuple(events), trace, repeat

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: {self.property}", *(f"  {line}" for line in self.detail.splitlines())]
        if self.events:
            lines += ["  last events:", f"  {report.COLUMNS}"]
            lines += [f"  {report.first_line(line)}" for line in self.events]
        return "\n".join([*lines, f"  repeat: {self.repeat}", f"  trace: {self.trace}"])

    def __reduce__(self) -> tuple[Any, ...]:
        """It travels between processes."""
        state = {"events": self.events, "trace": self.trace, "repeat": self.repeat}
        return _violated, (self.seed, self.property, self.detail, state)


def _violated(seed: int, property_: str, detail: str, state: dict[str, Any]) -> Violated:
    return Violated(seed, property_, detail, **state)


@dataclass(frozen=True)
class Report:
    """What was run, where every property held. `str()` of it is a sentence or two."""

    seeds: int
    operations: int
    """Reads and writes that clients began."""
    answered: int
    """Of these, those that were answered; the others were refused, or their outcome is unknown."""
    merged: int
    """Entries of the merged logs."""
    virtual_ns: int
    """Nanoseconds of virtual time that passed in all clusters."""
    faults: Mapping[str, int]
    """How many were injected, by kind."""
    replayed: int
    """Seeds of which the merged log was replayed in other surroundings."""
    left_out: tuple[str, ...]
    """What could not be checked there, and why."""

    def __str__(self) -> str:
        total, kinds = sum(self.faults.values()), sum(count > 0 for count in self.faults.values())
        told = (
            f"{self.seeds} seed{'s' * (self.seeds != 1)}: every property held; {self.answered:,} of"
            f" {self.operations:,} operations answered, {self.merged:,} entries merged,"
            f" {self.virtual_ns / SECOND:,.0f} s of virtual time, {total:,} faults of {kinds} kinds"
        )
        return "\n".join([told, *(f"not checked: {one}" for one in self.left_out)])


def simulate(
    machine: Callable[[], StateMachine],
    *,
    commands: Callable[[Random], bytes],
    queries: Callable[[Random], bytes] | None = None,
    model: Model | None = None,
    seeds: int | Iterable[int] = SEEDS_DEFAULT,
    seed_start: int | None = None,
    only: str | Collection[str] | None = None,
    without: str | Collection[str] = (),
    skip: str | Collection[str] = (),
) -> Report:
    """Run a state machine in simulated clusters, with crashes, cut links, bad disks and wrong clocks.

    `machine` makes a new, empty state machine: a class, or a function without arguments. `commands(rng)` and
    `queries(rng)` make one command or query, as bytes; they draw from the `random.Random` that they get and
    from nothing else, so that a seed repeats a run. Without `queries` nothing is read. `model` judges what
    clients saw in addition to the merged log, which judges it in any case.

    `seeds` is how many, from `seed_start` (by default 1) on, or the seeds themselves. `only` and `without`
    name kinds of fault, or classes of them, as for `craft simulate`. `skip` names ways of replaying the
    merged log that are left out: `again`, `clock`, `random`, `entropy`, `batches`, `queries`, `snapshots`,
    `hash`.

    Returns a `Report`. Raises `Violated` at the first seed in which a property does not hold: among others,
    that the machine answers the same everywhere, in any process, at any time. TypeError and ValueError name
    what is wrong with an argument.
    """
    __tracebackhide__ = True
    elsewhere.refuse_to_run_again()
    asked = Asked(
        arguments.checked_machine(machine, queries),
        arguments.checked_function("commands", commands),
        None if queries is None else arguments.checked_function("queries", queries),
        None if model is None else arguments.checked_model(model),
        arguments.kinds_of_fault(only, without),
        arguments.checked_names("skip", skip, CHECKS),
        arguments.options_shown(only, without, skip),
    )
    search = _Search(asked)
    for seed in arguments.checked_seeds(seeds, seed_start):
        search.run(seed)
    return search.end()


# -- running ---------------------------------------------------------------------------------------


@dataclass
class _Search:
    """Seeds one by one, and what they came to."""

    asked: Asked
    results: list[Result] = field(default_factory=list)
    recordings: list[Recording] = field(default_factory=list)
    judged: tuple[str, ...] | None = None
    """What was left out, once the recordings were judged."""
    replayed: int = 0
    gave_up: list[str] = field(default_factory=list)
    """Of each seed, why the model could not judge its history; empty where it could."""

    def run(self, seed: int) -> None:
        """One seed. Raises Violated."""
        __tracebackhide__ = True
        run, result = self._run(seed, Trace())
        recording = _recording(seed, _ledger(run), run.world.history)
        if result.violation is not None:
            self._fail(seed, result, recording)
        self.results.append(replace(result, trace=Trace()))
        self.gave_up += [one.gave_up for one in run.world.checkers if isinstance(one, Linearizable)]
        if self.judged is None:
            self.recordings.append(recording)
            if len(self.recordings) == REPLAYED_SEEDS:
                self._judge()

    def end(self) -> Report:
        """After the last seed."""
        __tracebackhide__ = True
        if self.judged is None:
            self._judge()
        faults: Counter[str] = sum((one.faults for one in self.results), Counter())
        return Report(
            seeds=len(self.results),
            operations=sum(one.operations for one in self.results),
            answered=sum(one.answered for one in self.results),
            merged=sum(one.merged for one in self.results),
            virtual_ns=sum(one.virtual_ns for one in self.results),
            faults=faults,
            replayed=self.replayed,
            left_out=(*(self.judged or ()), *self._not_judged()),
        )

    def _run(self, seed: int, trace: Trace) -> tuple[Run, Result]:
        __tracebackhide__ = True
        asked = self.asked
        machine = guarded_machine(asked.machine)
        workload = CustomWorkload(
            machine,
            guarded("commands", asked.commands),
            None if asked.queries is None else guarded("queries", asked.queries),
        )
        plan = _plan(seed, asked.kinds, workload.name)
        checkers = standard_checkers.standard(model=asked.model, machine=machine)
        run = Run(plan, workload=workload, checkers=checkers, trace=trace)
        try:
            return run, run.run()
        except Raised as error:
            repeat, digest = self.asked.repeat(seed), trace.digest
            raise Violated(
                seed, USER_RAISED, str(error), events=(), trace=digest, repeat=repeat
            ) from error.__cause__

    def _judge(self) -> None:
        """Replay what was recorded."""
        __tracebackhide__ = True
        judgement = determinism.judge(self.asked.machine, self.recordings, skip=self.asked.skip)
        self.judged, self.replayed = judgement.left_out, judgement.replayed
        if judgement.finding is not None:
            self._not_deterministic(judgement.finding, self._digest(judgement.finding.seed), "")

    def _not_judged(self) -> Iterator[str]:
        given_up = [one for one in self.gave_up if one]
        if given_up:
            yield f"{len(given_up)} of {len(self.gave_up)} histories by the model (the first {given_up[0]})"

    def _digest(self, seed: int) -> str:
        return next(one.digest for one in self.results if one.plan.seed == seed)

    def _not_deterministic(self, finding: Finding, digest: str, seen: str) -> typing.NoReturn:
        __tracebackhide__ = True
        verdict, *lines = determinism.words(finding)
        detail = "\n".join([*(line.removeprefix("  ") for line in lines), *filter(None, [seen])])
        repeat = self.asked.repeat(finding.seed)
        raise Violated(finding.seed, verdict, detail, events=(), trace=digest, repeat=repeat)

    def _fail(self, seed: int, result: Result, recording: Recording) -> typing.NoReturn:
        """A property does not hold. Where servers disagreed, the machine may be why."""
        __tracebackhide__ = True
        violation = result.violation
        assert violation is not None
        users = isinstance(violation.__cause__, ApplyFailed | RestoreFailed)
        notes = []
        if violation.property in DISAGREEMENTS:
            notes = self._explain(violation, result, recording)
        elif not users:
            notes = [NOT_THE_USERS]
        trace = Trace(keep=True)
        _, again = self._run(seed, trace)
        alike = again.digest == result.digest and (not users or str(again.violation) == str(violation))
        if not alike:
            notes.append(ANOTHER_COURSE)
        raise Violated(
            seed,
            violation.property,
            "\n".join([violation.detail, *notes]),
            events=() if users else [event.line() for event in trace][-EVENTS_TOLD:],
            trace=result.digest,
            repeat=self.asked.repeat(seed),
        ) from _cause(violation)

    def _explain(self, violation: Violation, result: Result, recording: Recording) -> list[str]:
        """Replay what was merged until then. Raises Violated where that tells why; else it is noted."""
        __tracebackhide__ = True
        judgement = determinism.judge(self.asked.machine, [recording], skip=self.asked.skip)
        if judgement.finding is not None:
            seen = f"in the run: {violation.property}: {violation.detail:.{SEEN_TOLD}}"
            self._not_deterministic(judgement.finding, result.digest, seen)
        return [
            "no replay of the merged log shows it",
            *(f"not checked: {one}" for one in judgement.left_out),
        ]


def _plan(seed: int, kinds: tuple[str, ...], workload: str) -> Plan:
    """The swarm sends snapshots slowly, in tiny pieces, as its own are small: a user's may be of megabytes.
    And no machine of a user's keeps its own data here, at one snapshot a batch.
    """
    plan = swarm.draw(seed, only=kinds, workload=workload)
    limits = replace(
        plan.limits, snapshot_chunk_bytes=SNAPSHOT_PIECE_BYTES, snapshot_bytes_per_second_max=10**9
    )
    snapshots = None if plan.snapshots is None else replace(plan.snapshots, kept=None)
    return replace(plan, limits=limits, snapshots=snapshots)


def _cause(violation: Violation) -> BaseException | None:
    """What the user's code raised, where it did."""
    cause = violation.__cause__
    return cause.__cause__ if isinstance(cause, ApplyFailed | RestoreFailed) else cause


# -- recording -------------------------------------------------------------------------------------


def _ledger(run: Run) -> Ledger:
    [ledger] = [one for one in run.world.checkers if isinstance(one, Ledger)]
    return ledger


def _recording(seed: int, ledger: Ledger, history: History) -> Recording:
    """What a run merged and asked."""
    asked: dict[int, list[bytes]] = {}
    for operation in history:
        if operation.kind == "read" and operation.outcome is Outcome.OK and operation.position is not None:
            asked.setdefault(operation.position, []).extend(operation.requests)
    every = dict.fromkeys(query for queries in asked.values() for query in queries)
    return Recording(seed, tuple(_steps(ledger, asked)), tuple(every)[-LAST_QUERIES_MAX:])


def _steps(ledger: Ledger, asked: Mapping[int, list[bytes]]) -> Iterator[Step]:
    count = 0
    for merged in ledger.merged:
        commands = tuple(command for request in merged.requests for command in unpack(request.body))
        queries = tuple(asked.get(merged.position, ()))
        count += len(commands)
        if count > REPLAYED_COMMANDS_MAX:
            return
        if commands or queries:
            yield Step(merged.position, merged.timestamp, commands, queries)
