"""The merged log of a run, applied again and again: what must not change an answer is changed, one at a time.

Knows: a state machine's factory and what was applied and asked. Must not know: servers, processes, seeds of
string hashes (another process is needed for that: `craft.testing.elsewhere`).

Invariants
- All replays but one kind see the same clock, random numbers and entropy at the same place, so that a
  difference has one cause.
- Answers are compared, and digests where there are some; nothing else of a state machine is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from craft.restoring import checked_chunk
from craft.state_machine import Batch, Snapshots
from craft.testing.sameness import Sight, same, sight
from craft.testing.surroundings import Controls, Surroundings
from craft.testing.touches import touches
from craft.testing.workloads import digest

Factory = Callable[[], Any]

PLACES_PER_STEP = 1 << 12
"""Calls of one step that differ in their surroundings."""

COMMAND, STATE, QUERY = "command", "state", "query"
ORDER = {COMMAND: 0, STATE: 1, QUERY: 2}


class Step(NamedTuple):
    """One entry of the merged log, and the queries that were answered behind it."""

    position: int
    timestamp: int
    commands: tuple[bytes, ...]
    queries: tuple[bytes, ...]


class Recording(NamedTuple):
    """What one run applied and asked."""

    seed: int
    steps: tuple[Step, ...]
    last: tuple[bytes, ...]
    """Queries for the end."""


class Place(NamedTuple):
    """Of an answer: the step, in it what was asked, and its number there (from 0)."""

    step: int
    order: int
    number: int


Answers = dict[Place, Sight]


class Style(NamedTuple):
    """How a replay goes."""

    surroundings: Surroundings = Surroundings()
    one_by_one: bool = False
    """Every command in a batch of its own."""
    silent: bool = False
    """No queries before the end."""
    restored: bool = False
    """Now and then a snapshot takes the machine's place, if it can be captured."""


PLAIN = Style()

OTHERS = range(1, 7)
"""Other surroundings: so many, because the same number is thrown by chance, too."""

STYLES = {
    "clock": [Style(Surroundings(clock=other)) for other in OTHERS],
    "random": [Style(Surroundings(random=other)) for other in OTHERS],
    "entropy": [Style(Surroundings(entropy=other)) for other in OTHERS],
    "batches": [Style(one_by_one=True)],
    "queries": [Style(silent=True)],
    "snapshots": [Style(restored=True)],
}
"""What is varied alone."""

RESTORES_MAX = 20
"""In one replay, evenly spread: a state may be large."""

AGAIN, HASH = "again", "hash"
CHECKS = (AGAIN, *STYLES, HASH)
"""Everything that is varied; by these names it is left out."""


@dataclass(frozen=True)
class Finding:
    """Two replays of one merged log that differ, in their first difference."""

    seed: int
    cause: str
    position: int
    what: str
    request: bytes
    number: int
    count: int
    answers: tuple[str, str]
    touches: tuple[str, ...] = ()
    """Lines that asked for what should not matter."""
    replays: tuple[str, str] | None = None
    """How these two replays differed, where the cause does not say it."""


@dataclass(frozen=True)
class Examined:
    """What came of a machine in one process."""

    answers: tuple[Answers, ...] = ()
    """Of the first replay of each recording."""
    finding: Finding | None = None
    left_out: str = ""
    """Why nothing could be said."""


# -- one replay ------------------------------------------------------------------------------------


class _Raised(Exception):
    """The machine raised: the replay is over."""


class _Player:
    """One machine, on its way through a recording."""

    def __init__(self, factory: Factory, recording: Recording, style: Style, controls: Controls) -> None:
        self._factory = factory
        self._recording, self._style, self._controls = recording, style, controls
        self._restores = 0
        self.answers: Answers = {}
        self.raised = ""
        self._machine: Any = None
        try:
            self._machine = self._make()
        except Exception as error:  # noqa: BLE001  # whatever the user's code raises
            self.raised = f"machine() raised {error!r}"

    def _make(self) -> Any:
        with self._controls.around(self._style.surroundings, 0):
            return self._factory()

    def step(self, number: int) -> None:
        """Go one step on, unless the machine raised."""
        if not self.raised:
            step = self._recording.steps[number]
            try:
                chunks = self._capture(number, step)
                self._step(number, step)
                if chunks is not None:
                    self._restore(number, chunks)
                    self._step(number, step)
            except _Raised as error:
                self.raised = str(error)

    def end(self) -> None:
        """The last queries."""
        if not self.raised:
            try:
                self._ask(len(self._recording.steps), self._recording.last)
            except _Raised as error:
                self.raised = str(error)

    def _capture(self, number: int, step: Step) -> Callable[[], Iterable[bytes]] | None:
        """A snapshot's fork before this step, where its turn has come."""
        every = max(1, len(self._recording.steps) // RESTORES_MAX)
        wanted = self._style.restored and step.commands and number % every == 0
        if not wanted or not isinstance(self._machine, Snapshots):
            return None
        place = Place(number, ORDER[COMMAND], 0)
        forked: Callable[[], Iterable[bytes]] = self._told(place, self._machine.snapshot, "snapshot()")
        return forked

    def _restore(self, number: int, chunks: Callable[[], Iterable[bytes]]) -> None:
        """Go back to where the fork was: in this machine, as when a peer sends a snapshot, or in a new one,
        as at a start. The fork is read only now: on a server, too, the machine goes on meanwhile.
        """
        place = Place(number, ORDER[COMMAND], 0)
        pieces = self._told(
            place, lambda: [checked_chunk(one) for one in chunks()], "what snapshot() returned"
        )
        self._restores += 1
        if self._restores % 2:
            self._machine = self._make()
        self._told(place, lambda: self._machine.restore(iter(pieces)), "restore()")

    def _step(self, number: int, step: Step) -> None:
        commands = list(step.commands)
        parts = [[command] for command in commands] if self._style.one_by_one else [commands]
        at = 0
        if not commands:  # as on a server: such an entry is only where something was asked
            parts = []
        for part in parts:
            for answer in self._apply(number, at, step, part):
                self.answers[Place(number, ORDER[COMMAND], at)] = answer
                at += 1
        place = Place(number, ORDER[STATE], 0)
        state = self._call(place, partial(digest, self._machine))
        if state is not None:
            self.answers[place] = sight(state)
        if not self._style.silent:
            self._ask(number, step.queries)

    def _apply(self, number: int, at: int, step: Step, commands: list[bytes]) -> list[Sight]:
        batch = Batch(step.position, step.timestamp, commands)
        place = Place(number, ORDER[COMMAND], at)
        results = self._call(place, partial(self._machine.apply_batch, batch))
        if results is None:
            return [sight(None)] * len(commands)
        if len(results) != len(commands):
            self._stop(place, f"{len(results)} results for {len(commands)} commands")
        return [sight(result) for result in results]

    def _ask(self, number: int, queries: Sequence[bytes]) -> None:
        for at, query in enumerate(queries):
            place = Place(number, ORDER[QUERY], at)
            self.answers[place] = sight(self._call(place, partial(self._machine.query, query)))

    def _call(self, place: Place, call: Callable[[], Any]) -> Any:
        count = 1 + place.step * PLACES_PER_STEP + place.order * PLACES_PER_STEP // 2 + place.number

        def within() -> Any:
            with self._controls.around(self._style.surroundings, count):
                return call()

        return self._told(place, within)

    def _told(self, place: Place, call: Callable[[], Any], who: str = "") -> Any:
        """In the surroundings as they are: within those that are held still no datetime can be pickled."""
        try:
            return call()
        except Exception as error:  # noqa: BLE001  # whatever the user's code raises is what it answers
            return self._stop(place, f"{who} raised {error!r}".strip())

    def _stop(self, place: Place, why: str) -> None:
        self.answers[place] = Sight(why)
        raise _Raised(why)


def replay(factory: Factory, recording: Recording, style: Style, controls: Controls) -> _Player:
    """One machine alone."""
    player = _Player(factory, recording, style, controls)
    _play([player], recording)
    return player


def _play(players: list[_Player], recording: Recording) -> None:
    """All machines side by side, step by step."""
    for number in range(len(recording.steps)):
        for player in players:
            player.step(number)
    for player in players:
        player.end()


# -- comparing -------------------------------------------------------------------------------------


def difference(one: Answers, other: Answers) -> Place | None:
    """The first answer that both gave, and not alike."""
    for place in sorted(one.keys() & other.keys()):
        if not same(one[place], other[place]):
            return place
    return None


def finding(recording: Recording, cause: str, place: Place, one: Answers, other: Answers) -> Finding:
    """What differs there."""
    what = next(name for name, order in ORDER.items() if order == place.order)
    at_end = place.step == len(recording.steps)
    step = recording.steps[-1 if at_end else place.step]
    requests = recording.last if at_end else step.queries if what == QUERY else step.commands
    return Finding(
        recording.seed,
        cause,
        step.position,
        what,
        b"" if what == STATE else requests[place.number],
        place.number + 1,
        len(requests),
        (one[place].text, other[place].text),
    )


def examine(factory: Factory, recordings: Sequence[Recording], *, checks: Collection[str]) -> Examined:
    """Replay each recording plainly, and then with one thing changed at a time, until two replays differ."""
    controls = Controls()
    plain = []
    for recording in recordings:
        first = replay(factory, recording, PLAIN, controls)
        if first.raised:
            return Examined(left_out=f"a replay of seed {recording.seed} {first.raised}")
        plain.append(first.answers)
    for recording, answers in zip(recordings, plain, strict=True):
        for cause, other in _others(factory, recording, controls, checks):
            place = difference(answers, other)
            if place is not None:
                return Examined(tuple(plain), finding(recording, cause, place, answers, other))
    return Examined(tuple(plain))


def _others(
    factory: Factory, recording: Recording, controls: Controls, checks: Collection[str]
) -> Iterator[tuple[str, Answers]]:
    """Other replays. First the same once more: where that differs, the rest says nothing."""
    if AGAIN in checks:
        yield AGAIN, replay(factory, recording, PLAIN, controls).answers
        pair = [_Player(factory, recording, PLAIN, controls) for _ in range(2)]
        _play(pair, recording)
        for player in pair:
            yield AGAIN, player.answers
    for cause, styles in STYLES.items():
        if cause in checks:
            for style in styles:
                yield cause, replay(factory, recording, style, controls).answers


def touched(factory: Factory, recording: Recording) -> dict[str, list[str]]:
    """Which lines of the machine ask for what should not matter: by kind (`craft.testing.touches`)."""

    def run() -> None:
        machine = factory()
        for step in recording.steps:
            try:
                if step.commands:
                    machine.apply_batch(Batch(step.position, step.timestamp, list(step.commands)))
                for query in step.queries:
                    machine.query(query)
            except Exception:  # noqa: BLE001  # a hint only: what was seen until then is enough
                return

    return touches(run)
