"""Who waits for an answer: one wake-up a call, however many commands it carries.

Invariants
- A call is answered once, with results or with an error. A caller that went away (was cancelled) is not
  woken.
- Commands that several tasks propose one by one between two turns travel as one request.
- A call wants one level of answer, so callers of different levels do not share one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import msgpack
import trio

from craft.engine import Engine
from craft.errors import CommandTooLarge, CraftError, NotReady, Overloaded, Rejected
from craft.limits import EngineLimits
from craft.ready import Merged
from craft.types import Timestamp

Level: TypeAlias = Literal["applied", "committed"]
"""What a caller wants to wait for (PROTOCOL 4)."""

LEVELS: tuple[Level, ...] = get_args(Level)


class Committed(NamedTuple):
    """The answer at the level `committed`: the commands take effect, and will never be lost."""

    timestamp: Timestamp
    """They are merged at this timestamp or before."""


COMMAND_OVERHEAD_BYTES = 5
"""What msgpack adds to a command, at most."""


class Call:
    """One request of the engine, and the tasks that wait for it: one a command, or one for all commands."""

    __slots__ = ("commands", "committed", "error", "level", "many", "results", "size", "started", "tasks")

    def __init__(
        self, commands: list[bytes], *, many: bool, started: float, level: Level = "applied"
    ) -> None:
        self.commands = commands
        self.many = many
        self.level = level
        self.started = started
        self.size = 0
        self.tasks: list[trio.lowlevel.Task | None] = []
        self.results: Sequence[Any] | None = None
        self.committed: Committed | None = None
        self.error: CraftError | None = None

    def body(self) -> bytes:
        """What travels."""
        return pack(self.commands)

    def propose(self, engine: Engine) -> None:
        """Ask the engine for it; it is the token."""
        engine.propose(self, self.body(), self.floor, committed=self.level == "committed")

    @property
    def floor(self) -> Timestamp:
        """What it must be stamped beyond, where that is not for this server to know."""
        return 0

    async def wait(self) -> int:
        """Wait until the call is answered; returns the waiter's number.

        Cancellation leaves nothing behind.
        """
        tasks = self.tasks
        slot = len(tasks)
        tasks.append(trio.lowlevel.current_task())

        def abort(_: Any) -> trio.lowlevel.Abort:
            tasks[slot] = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        if self.error is not None:
            # Each waiter gets an exception of its own: tracebacks must not pile up on a shared one.
            raise type(self.error)(*self.error.args)
        return slot

    def answer(self, results: Sequence[Any] | None) -> None:
        """The commands were applied, with these results (None: without any)."""
        self.results = results
        self._wake_all()

    def fail(self, error: CraftError) -> None:
        """The commands were not applied, or nobody knows."""
        self.error = error
        self._wake_all()

    def _wake_all(self) -> None:
        reschedule = trio.lowlevel.reschedule
        for task in self.tasks:
            if task is not None:
                reschedule(task)


class Singles:
    """Commands proposed one by one since the last turn."""

    def __init__(self, limits: EngineLimits) -> None:
        self._limits = limits
        self._last: dict[Level, Call] = {}
        self._calls: list[Call] = []
        self.bytes = 0
        self.count = 0

    def add(self, command: bytes, *, pending_bytes: int, level: Level = "applied") -> Call:
        """Let a command travel with the next request.

        The caller must wait for the call before anything else runs.
        """
        limits = self._limits
        size = len(command) + COMMAND_OVERHEAD_BYTES
        bytes_after = self.bytes + size
        if pending_bytes + bytes_after > limits.proposals_bytes_max or self.count >= limits.proposals_max:
            raise self._overloaded(size)
        call = self._last.get(level)
        if call is None or call.size + size > limits.entry_bytes_max - COMMAND_OVERHEAD_BYTES:
            call = self._begin(size, level)
        call.commands.append(command)
        call.size += size
        self.bytes = bytes_after
        self.count += 1
        return call

    def take(self) -> list[Call]:
        """The requests of this turn."""
        calls, self._calls, self._last = self._calls, [], {}
        self.bytes = self.count = 0
        return calls

    def _begin(self, size: int, level: Level) -> Call:
        """A request of its own for a command of this size, and for those that follow it."""
        if size > self._limits.entry_bytes_max:
            raise too_large(size, self._limits)
        call = self._last[level] = Call([], many=False, started=trio.current_time(), level=level)
        self._calls.append(call)
        return call

    def _overloaded(self, size: int) -> Rejected:
        """Why a command of this size cannot be taken now, or ever."""
        limits = self._limits
        if size > limits.entry_bytes_max:
            return too_large(size, limits)
        if self.count >= limits.proposals_max:
            return Overloaded(
                f"commands waiting for a turn would exceed proposals_max = {limits.proposals_max}"
            )
        return Overloaded(
            f"unanswered proposals would exceed proposals_bytes_max = {limits.proposals_bytes_max}"
        )


def checked_level(level: Level) -> Level:
    """A level of answer, or ValueError naming what is allowed."""
    if level not in LEVELS:
        raise ValueError(f"level is {level!r}; allowed are {', '.join(map(repr, LEVELS))}")
    return level


def too_large(size: int, limits: EngineLimits) -> CommandTooLarge:
    """The error for a call that no entry can carry."""
    return CommandTooLarge(f"{size} bytes in one call; entry_bytes_max allows {limits.entry_bytes_max}")


def pack(commands: list[bytes]) -> bytes:
    """The body of a request."""
    body: bytes = msgpack.packb(commands)
    return body


def checked(commands: Sequence[bytes]) -> list[bytes]:
    """The commands as a list, or TypeError naming what is not bytes. Costs one copy, not a look at each."""
    listed = list(commands)
    try:
        b"".join(listed)
    except TypeError as error:
        raise TypeError(f"commands must be bytes: {error}") from None
    return listed


def refusal(reason: str) -> Rejected:
    """The error of a request that certainly has no effect."""
    return NotReady(reason)


def note_merged(entries: list[Merged]) -> None:
    """The merge was faster than the wait for the clocks: it answers, and knows the timestamp."""
    for merged in entries:
        for request in merged.requests:
            if request.token is not None and request.token.level == "committed":
                request.token.committed = Committed(merged.timestamp)
