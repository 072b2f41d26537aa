"""The whole client history: is there one order that explains it, and is it the merged log's?"""

from __future__ import annotations

import typing
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from craft.applying import unpack
from craft.marks import mark
from craft.ready import Merged
from craft.state_machine import Batch
from craft.testing.checkers.base import Checker, Violation
from craft.testing.checkers.ledger import Ledger
from craft.testing.history import Operation, Outcome
from craft.testing.linearizability import Verdict, check
from craft.testing.model import Model
from craft.testing.sameness import same, sight

if typing.TYPE_CHECKING:
    from craft.testing.world import World


RUN_STATES_MAX = 5_000
"""Of one search. Beyond it a run would cost more than ten others, which find more; a mark counts these."""


class Linearizable(Checker):
    """Writes, reads from any server and unknown outcomes fit one order, each within its interval.

    Judged by a model and by what clients saw, nothing else; that the merged log's order is tried first makes
    the search short.
    """

    PROPERTY = "linearizability"

    def __init__(self, model: Model, ledger: Ledger, *, states_max: int = RUN_STATES_MAX) -> None:
        self._model = model
        self._ledger = ledger
        self._states_max = states_max
        self.gave_up = ""
        """Why the search gave up, where it did: that is no verdict."""

    def ended(self, world: World) -> None:
        """Search for an order."""
        places = self._places(world.history)
        history = [one for one in world.history if one.at_least is None]  # those others promise less
        result = check(history, self._model, states_max=self._states_max, places=places)
        if result.verdict is Verdict.VIOLATED:
            raise Violation(self.PROPERTY, str(result))
        self.gave_up = result.gave_up
        if self.gave_up:
            mark("history too wide to be judged")

    def _places(self, history: Iterable[Operation]) -> dict[int, int]:
        """In which order operations probably took effect: of those that look alike the first is taken for the
        first.
        """
        merged = [
            (one.position, tuple(unpack(request.body)))
            for one in self._ledger.merged
            for request in one.requests
        ]
        at: dict[object, deque[int]] = {}
        for number, (position, commands) in enumerate(merged):
            at.setdefault((position, commands), deque()).append(number)
        writes = [one for one in history if one.kind == "write"]
        places = {
            one.number: at[one.position, one.requests].popleft()
            for one in writes
            if at.get((one.position, one.requests))
        }
        left: dict[object, deque[int]] = {}
        for number in sorted(number for numbers in at.values() for number in numbers):
            left.setdefault(merged[number][1], deque()).append(number)
        for one in writes:
            if one.position is None and left.get(one.requests):
                places[one.number] = left[one.requests].popleft()
        return places


class Replay(Checker):
    """Every result is what a fresh state machine gives at that place of the merged log.

    So it needs no model: for user's own state machines.
    """

    PROPERTY = "results are those of the merged log"

    def __init__(self, ledger: Ledger, machine: Callable[[], Any]) -> None:
        self._ledger = ledger
        self._machine = machine

    def ended(self, world: World) -> None:
        """Apply the merged log once more, and ask at each position what was asked there."""
        asked: dict[int, list[Operation]] = {}
        for operation in world.history:
            if operation.outcome is Outcome.OK and operation.position is not None:
                asked.setdefault(operation.position, []).append(operation)
        machine = self._machine()
        self._reads(machine, asked.get(0, ()))
        for merged in self._ledger.merged:
            results = self._apply(machine, merged)
            here = asked.get(merged.position, ())
            self._writes(merged, results, here)
            self._reads(machine, here)

    def _apply(self, machine: Any, merged: Merged) -> Sequence[Any] | None:
        commands = [command for request in merged.requests for command in unpack(request.body)]
        if not merged.requests:
            return None
        try:
            results: Sequence[Any] | None = machine.apply_batch(
                Batch(merged.position, merged.timestamp, commands)
            )
        except Exception as error:
            raise Violation(
                self.PROPERTY,
                f"apply_batch raised {error!r} at position {merged.position}, and on no server",
            ) from error
        return results

    def _writes(self, merged: Merged, results: Sequence[Any] | None, operations: Sequence[Operation]) -> None:
        if not operations:
            return
        parts: list[tuple[tuple[bytes, ...], Sequence[Any] | None]] = []
        start = 0
        for request in merged.requests:
            commands = tuple(unpack(request.body))
            part = None if results is None else list(results[start : start + len(commands)])
            parts.append((commands, part))
            start += len(commands)
        for operation in operations:
            if operation.kind == "write" and not operation.results_lost:
                expected = [part for commands, part in parts if commands == operation.requests]
                if not any(_alike(operation.results, part) for part in expected):
                    self._fail(operation, expected)

    def _reads(self, machine: Any, operations: Sequence[Operation]) -> None:
        query = getattr(machine, "query", None)
        for operation in operations:
            if operation.kind == "read":
                expected = [query(request) if query else None for request in operation.requests]
                if operation.results is None or not _alike(operation.results, expected):
                    self._fail(operation, expected)

    def _fail(self, operation: Operation, expected: object) -> None:
        raise Violation(
            self.PROPERTY,
            f"{operation.kind} {operation.number} of {operation.requests} on server {operation.server} was"
            f" answered {operation.results!r} at position {operation.position}; the merged log gives"
            f" {expected!r} there",
        )


def _alike(results: Sequence[Any] | None, expected: Sequence[Any] | None) -> bool:
    return same(*(sight(None if one is None else list(one)) for one in (results, expected)))
