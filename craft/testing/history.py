"""What clients saw: every operation with its interval and its outcome, in the order of invocation.

Knows: what was asked, when, and what the client was told. Must not know: what the servers did with it.

Invariants
- Operations are numbered 1, 2, 3, … in the order of their invocation, and invocations do not go back in time.
- An outcome is told once: an operation that has one keeps it. What nobody answers stays OPEN.
- An answer has one result a request, or none at all (a level that carries no results).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, NamedTuple, TypeAlias

from craft.types import Position, ServerId, Timestamp

Kind: TypeAlias = Literal["write", "read"]
KINDS = ("write", "read")


class ClientRequest(NamedTuple):
    """The name under which a remote client asks: a number in its session."""

    session: bytes
    opened: Position
    number: int


class WrongAnswer(ValueError):
    """An answer that cannot be one of what was asked: it is another's, or told twice."""


class Outcome(Enum):
    """What the client knows of its operation."""

    OPEN = "open"
    """Not answered: a write may or may not take effect, now or later."""
    OK = "ok"
    """Answered: a write took effect, a read was served, between invocation and return."""
    REJECTED = "rejected"
    """Refused: a write has no effect and never will."""
    UNKNOWN = "unknown"
    """The answer was lost: a write may or may not take effect, now or later."""


@dataclass(slots=True)
class Operation:
    """One call of one client. Times are ns of virtual time."""

    number: int
    client: int
    server: ServerId
    """The one that was asked."""
    kind: Kind
    requests: tuple[bytes, ...]
    """The commands of a write, which take effect together, in order, at one point; or the queries of a read,
    answered from one state."""
    invoked: int
    returned: int | None = None
    outcome: Outcome = Outcome.OPEN
    results: Sequence[Any] | None = None
    """One a request."""
    position: Position | None = None
    """Where in the merged log an answered write took effect."""
    at_least: Position | None = None
    """A read that wants no more than what its client has seen, up to there. None: it is linearizable."""
    committed_at: Timestamp | None = None
    """Where it was answered at the level `committed`, without a result: merged at this time or before."""
    ordered: bool = True
    """Did its answer promise that whatever starts later is ordered after it? At the level `committed` only
    within a stated bound of the clocks."""
    session: int = 0
    """The serial number of the server's incarnation that was asked: all its clients share one session."""
    names: tuple[ClientRequest, ...] = ()
    """Of a remote client's write: what it was asked as, in one session after the other. One takes effect."""
    told: Position | None = None
    """Where the answer of a remote client's write was merged: the write's place, or that of a repetition."""
    results_lost: bool = False
    """It took effect, and what it was answered then is no longer known."""


class History:
    """The operations of one run. It only grows."""

    def __init__(self) -> None:
        self._operations: list[Operation] = []

    def invoke(
        self, client: int, server: ServerId, kind: Kind, requests: Sequence[bytes], *, at: int
    ) -> Operation:
        """A client asks a server; what it asked is open until an outcome is told."""
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}; allowed are {KINDS}")
        last = self._operations[-1].invoked if self._operations else 0
        if at < last:
            raise ValueError(
                f"invoked at {at} ns, after an operation invoked at {last} ns; allowed: no earlier"
            )
        operation = Operation(len(self._operations) + 1, client, server, kind, tuple(requests), at)
        self._operations.append(operation)
        return operation

    def ok(
        self, operation: Operation, results: Sequence[Any] | None, position: Position | None, *, at: int
    ) -> None:
        """The client was answered. `position` is the write's place in the merged log, where it is known."""
        if results is not None and len(results) != len(operation.requests):
            raise WrongAnswer(
                f"operation {operation.number} has {len(results)} results;"
                f" allowed: one for each of its {len(operation.requests)} requests, or None"
            )
        self._end(operation, Outcome.OK, at)
        operation.results = results
        operation.position = position

    def committed(self, operation: Operation, timestamp: Timestamp, *, ordered: bool, at: int) -> None:
        """The client of a write was answered at the level `committed`."""
        self._end(operation, Outcome.OK, at)
        operation.committed_at, operation.ordered = timestamp, ordered

    def reject(self, operation: Operation, *, at: int) -> None:
        """The client was told that its operation has no effect and never will."""
        self._end(operation, Outcome.REJECTED, at)

    def unknown(self, operation: Operation, *, at: int) -> None:
        """The client was told that nobody knows, or has stopped waiting."""
        self._end(operation, Outcome.UNKNOWN, at)

    def _end(self, operation: Operation, outcome: Outcome, at: int) -> None:
        if operation.outcome is not Outcome.OPEN:
            raise WrongAnswer(
                f"operation {operation.number} is told {outcome.value} but is"
                f" {operation.outcome.value} already; allowed: one outcome"
            )
        if at < operation.invoked:
            raise ValueError(
                f"operation {operation.number} returned at {at} ns; allowed: from {operation.invoked} ns on,"
                " when it was invoked"
            )
        operation.outcome = outcome
        operation.returned = at

    def __iter__(self) -> Iterator[Operation]:
        return iter(self._operations)

    def __len__(self) -> int:
        return len(self._operations)

    def __getitem__(self, number: int) -> Operation:
        """By its number, which counts from 1."""
        if not 0 < number <= len(self._operations):
            raise KeyError(f"operation {number}; there are 1 to {len(self._operations)}")
        return self._operations[number - 1]
