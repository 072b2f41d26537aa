"""Who waits to read the state machine, and when it may be read.

Invariants
- The state machine is read between two applies only, never while it changes.
- A read is served once, or told that it never will be. A reader that was cancelled leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import trio

from craft.clock import Clock
from craft.engine import Engine
from craft.errors import NotReady, Overloaded
from craft.types import Position, Timestamp

T = TypeVar("T")


class Stale(NamedTuple, Generic[T]):
    """What a stale read saw, and how old that may be."""

    value: T
    position: Position
    """Everything up to this position of the merged log is in it, and nothing else."""

    timestamp: Timestamp
    """Everything that is merged at this timestamp or before is in it."""

    age_ns: int
    """This server's clock, less the timestamp. As far as the clocks are right, it is no older than that."""


class Read:
    """A task that waits until the state machine may be read."""

    __slots__ = ("query", "result", "task")

    def __init__(self, query: Callable[[Any], Any]) -> None:
        self.query = query
        self.task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
        self.result: Callable[[], Any] | None = None

    def ask(self, machine: Any) -> None:
        """Read; what that raises is the reader's own, and raised where it waits."""
        try:
            answer = self.query(machine)
        except Exception as error:  # noqa: BLE001
            self.result = _raiser(error)
        else:
            self.result = lambda: answer


class Reads:
    """All reads of one server."""

    def __init__(self, engine: Engine, clock: Clock, machine: Any, *, reads_max: int) -> None:
        self._engine = engine
        self._clock = clock
        self._machine = machine
        self._max = reads_max
        self._ready: list[Read] = []
        self._open: set[Read] = set()

    @property
    def waiting(self) -> bool:
        """Does anybody wait?"""
        return bool(self._open)

    def add(self, query: Callable[[Any], Any], at_least: Position | None) -> Read:
        """A linearizable read, or one at a position or later. Raises Overloaded."""
        read = Read(query)
        self._engine.read(read, at_least)
        self._open.add(read)
        return read

    def add_stale(self, query: Callable[[Any], Any]) -> Read:
        """A read of what is applied now. Raises Overloaded."""
        if len(self._ready) >= self._max:
            raise Overloaded(f"reads that wait would exceed reads_max = {self._max}")
        read = Read(lambda machine: self._stale(query(machine)))
        self._ready.append(read)
        self._open.add(read)
        return read

    def _stale(self, value: T) -> Stale[T]:
        timestamp = self._engine.complete_to
        age = max(0, self._clock.now() - timestamp)
        return Stale(value, self._engine.state.applied_position, timestamp, age)

    async def wait(self, read: Read) -> Any:
        """What the query returned, once it is served. Raises NotReady if the server ends first."""

        def abort(_: Any) -> trio.lowlevel.Abort:
            read.task = None
            self._open.discard(read)
            self._engine.discard_read(read)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        if read.result is None:
            raise NotReady("the server ended before the read was served")
        return read.result()

    def serve(self, reached: Sequence[Any], *, applying: bool) -> int:
        """The engine lets these be served, now or between the next two applies; returns how many were."""
        self._ready += reached
        if applying or not self._ready:
            return 0
        ready, self._ready = self._ready, []
        ready = [read for read in ready if read.task is not None]
        for read in ready:
            read.ask(self._machine)
            self._pass(read)
        self._open.difference_update(ready)
        return len(ready)

    def end(self) -> None:
        """Nobody will be served any more."""
        for read in self._open:
            self._pass(read)
        self._open, self._ready = set(), []

    @staticmethod
    def _pass(read: Read) -> None:
        if read.task is not None:
            trio.lowlevel.reschedule(read.task)


def _raiser(error: Exception) -> Callable[[], Any]:
    def raise_it() -> Any:
        raise error

    return raise_it
