"""Calls that the engine has taken, and what each of them is told in the end.

Invariant
- Each is told once: what it was answered, or what became of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import trio

from craft.applying import Answer
from craft.errors import ResultLost, Unknown
from craft.ready import Merged
from craft.server.calls import Call, Committed, note_merged, refusal
from craft.server.measures import Measures
from craft.types import Timestamp


class OpenCalls:
    """One server's."""

    def __init__(self, measures: Measures) -> None:
        self.woken = False  # callers were woken in the last turn
        self._measures = measures
        self._open: dict[Call, None] = {}

    def __bool__(self) -> bool:
        return bool(self._open)

    def add(self, call: Call) -> None:
        """The engine has taken it."""
        self._open[call] = None

    def applied(self, entries: list[Merged], answers: Sequence[Answer]) -> None:
        """These entries were applied, and answer these calls."""
        ended = trio.current_time()
        self.woken = self.woken or bool(answers)
        if any(call.level == "committed" for call, _ in answers):
            note_merged(entries)
        for call, results in answers:
            self._answer(call, results, ended)

    def committed(self, told: Iterable[tuple[Any, Timestamp]]) -> None:
        """These wanted no more than that, and are merged at these timestamps or before."""
        ended = trio.current_time()
        for call, timestamp in told:
            self.woken = True
            call.committed = Committed(timestamp)
            self._answer(call, None, ended)

    def settled(self, calls: Iterable[Call]) -> None:
        """They took effect within a peer's snapshot, which holds what they left, not what they were answered.

        (What clients with a session were answered it holds: they ask again, and are told.)
        """
        for call in calls:
            self.woken = True
            self._open.pop(call, None)
            call.fail(ResultLost("the commands took effect; what they were answered is not known here"))

    def _answer(self, call: Call, results: Any, ended: float) -> None:
        self._open.pop(call, None)
        count = len(call.commands)
        self._measures.commands_answered.value += count
        self._measures.propose_seconds.record_many(max(0.0, ended - call.started), count)
        call.answer(results)

    def end(self, rejected: Iterable[Call]) -> None:
        """The server ends; these were proposed nowhere."""
        without_effect = {id(call) for call in rejected}
        for call in self._open:
            if id(call) in without_effect:
                self._measures.rejected.value += 1
                call.fail(refusal("the server ended before the command was proposed anywhere"))
            else:
                self._measures.unknown.value += 1
                call.fail(Unknown("the server ended before the command was applied here; it may take effect"))
        self._open = {}
