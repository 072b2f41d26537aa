"""A thread for work that blocks: done in order, one piece at a time, and taken by the server's next turn.

Invariants
- What a piece of work came to is told on the event loop, at the begin of a turn, in the order of the work.
- A piece that raises ends the server; one that was `Stopped` because the server ends says nothing.
- The end of the server waits for the piece that runs: nothing touches a disk or a state machine that its
  owner has already taken back. What is submitted behind its end is not done, and nobody is told.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import trio

from craft.types import Instant

T = TypeVar("T")


class Stopped(BaseException):
    """The server ends: whatever runs in a thread leaves its work where it is.

    No `Exception`, so that no user's code on the way takes it for an error of its own.
    """


class Worker:
    """One thread's work."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """`wake`: let there be a turn."""
        self._wake = wake
        self._send, self._work = trio.open_memory_channel[tuple[Callable[[], Any], Any]](math.inf)
        self._done: list[Callable[[Instant], None]] = []

    def submit(self, work: Callable[[], T], done: Callable[[T, Instant], None]) -> None:
        """Do this behind what was submitted before; `done` is given what it returned.

        Whoever submits sees to it that only so much is under way.
        """
        self._send.send_nowait((work, done))

    def pass_on(self, now: Instant) -> None:
        """Tell what was done since the last turn."""
        done, self._done = self._done, []
        for tell in done:
            tell(now)

    async def run(self) -> None:
        """Until cancelled. Raises what a piece of work raises."""
        own = trio.CapacityLimiter(1)  # a program may keep all of Trio's shared threads busy
        # The channel stays open: a turn that is due already runs once more behind the cancellation.
        async for work, done in self._work:
            try:
                result = await trio.to_thread.run_sync(work, limiter=own)
            except Stopped:
                return
            self._done.append(partial(done, result))
            self._wake()
