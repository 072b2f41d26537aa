"""Threads for work that blocks: done in order, one piece at a time, and taken by the server's next turn.

Invariants
- What a piece of work came to is told on the event loop, at the begin of a turn, in the order of the work.
- A piece that raises ends the server; one that was `Stopped` because the server ends says nothing.
- The end of the server waits for the piece that runs: nothing touches a disk or a state machine that its
  owner has already taken back. What is submitted behind its end is not done, and nobody is told.
- A disk may hang for ever. Its threads are waited for `STOP_WAIT_S` at most; then it stays ours until they
  come back, and the server ends without it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import trio

from craft.types import Instant

T = TypeVar("T")

STOP_WAIT_S = 30
"""What takes a disk longer than this has hung."""


class Stopped(BaseException):
    """The server ends: whatever runs in a thread leaves its work where it is.

    No `Exception`, so that no user's code on the way takes it for an error of its own.
    """


class DiskThread:
    """One thread at a time, of one task at a time, for what a disk may hold up for ever."""

    def __init__(self) -> None:
        self._own = trio.CapacityLimiter(1)  # a program may keep all of Trio's shared threads busy
        self._busy = threading.Lock()
        self._scope = trio.CancelScope(shield=True)
        self._ended = False

    async def run(self, work: Callable[[], T]) -> T:
        """Do this, to its end: who is cancelled waits for it. Raises Stopped where the server ends first."""
        with trio.CancelScope(shield=True) as self._scope:
            if self._ended:
                self._scope.cancel()
            return await trio.to_thread.run_sync(self._alone, work, limiter=self._own, abandon_on_cancel=True)
        raise Stopped

    def _alone(self, work: Callable[[], T]) -> T:
        with self._busy:
            return work()

    def end(self) -> None:
        """The server ends: nobody waits for the piece that runs, but `rest`."""
        self._ended = True
        self._scope.cancel()

    async def rest(self) -> None:
        """After the end: wait for the piece that runs."""
        async with self._own:
            pass

    def wait(self) -> None:
        """The same, for a thread; when no event loop runs any more, too."""
        with self._busy:
            pass


async def rested(threads: Sequence[DiskThread]) -> bool:
    """After the end: do none of them run any more, so that the disk may be closed?"""
    with trio.move_on_after(STOP_WAIT_S) as scope:
        scope.shield = True
        for thread in threads:
            await thread.rest()
        return True
    return False


class Worker:
    """One thread's work."""

    def __init__(self, wake: Callable[[], None], thread: DiskThread | None = None) -> None:
        """`wake`: let there be a turn. `thread`: what the work is done in, where a disk may hold it up."""
        self._wake = wake
        self._thread = thread
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
                if self._thread is None:
                    result = await trio.to_thread.run_sync(work, limiter=own)
                else:
                    result = await self._thread.run(work)
            except Stopped:
                return
            self._done.append(partial(done, result))
            self._wake()
