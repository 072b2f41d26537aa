"""The port of the user's state machine: what craft calls, and what it promises.

Floor 0. A state machine must be deterministic: the same batches in the same order give the same state and
results on every server. It must not read a clock, a random source or the environment; the position and
timestamp of each batch are given to it for that.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from craft.types import Position, Timestamp


class Batch:
    """The commands of one entry of the merged log, in order. All share its position and timestamp.

    Iterate over it, or use `commands`. Iterating costs nothing a command and lets an error name the command
    it arose at.
    """

    __slots__ = ("_iterator", "commands", "position", "timestamp")

    def __init__(self, position: Position, timestamp: Timestamp, commands: list[bytes]) -> None:
        self.position = position
        """The entry's place in the merged log: 1, 2, 3, … Equal on all servers."""
        self.timestamp = timestamp
        """Nanoseconds since the Unix epoch, rising along the merged log (equal only between groups)."""
        self.commands = commands
        self._iterator: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        self._iterator = iter(self.commands)
        return self._iterator

    def __len__(self) -> int:
        return len(self.commands)

    def reached(self) -> int | None:
        """The command (counted from 0) that the last iteration handed out last; None if none was."""
        if self._iterator is None:
            return None
        return len(self.commands) - operator.length_hint(self._iterator) - 1


class StateMachine(Protocol):
    """What a user writes."""

    def apply_batch(self, batch: Batch) -> Sequence[Any] | None:
        """Apply the batch's commands in order.

        Return one result a command, or None where there are no results.

        Results stay on this server: they go to the callers of `propose` here. Raising stops the server before
        its position advances: refuse a bad command by a result, not by an exception, or every server stops at
        the same command.
        """


@runtime_checkable
class Queryable(Protocol):
    """A state machine that remote clients may read through `craft read`."""

    def query(self, query: bytes) -> Any:
        """Answer from the state as it stands, changing nothing. The answer must be what msgpack can pack."""


class LastApplied(NamedTuple):
    """How far a state machine's own data go: the last batch in them. 0, 0: there is none."""

    position: Position = 0
    timestamp: Timestamp = 0


@runtime_checkable
class Durable(Protocol):
    """A state machine that keeps its data by itself: a restart gives it only what they lack.

    It writes each batch's position and timestamp in one atomic write with what the batch changed. That write
    need not be synced: what a power cut takes of it is given again, from the log or from a snapshot. Both are
    part of its snapshots, too; and a `restore` that is cut short must leave data whose `last_applied` is
    0, 0.
    """

    def last_applied(self) -> LastApplied:
        """Of the data as they are now. Asked once, at the start, before anything else."""


@runtime_checkable
class Snapshots(Protocol):
    """A state machine that can be captured and restored at a position."""

    def snapshot(self) -> Callable[[], Iterable[bytes]]:
        """Fork the state cheaply, between two applies; return a function that yields it as chunks.

        The function runs later, in a worker thread, while the state machine goes on: it may use the fork.
        """

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Replace the state by a snapshot's chunks."""
