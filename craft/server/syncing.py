"""The thread that syncs: asked by the turn, it answers on the event loop.

Why not `trio.to_thread`: a sync is on the way of every write. This costs two thread switches and no task
switch, and there is nothing to set up or tear down a call.

Invariants
- At most one sync at a time, and only when asked (PROTOCOL 10).
- `done` runs on the event loop, once a request, unless the run has ended meanwhile.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

import trio

STOP_WAIT_S = 30
"""A sync that takes longer than this has hung."""


class Syncer:
    """One storage's syncs, in a thread of their own."""

    def __init__(self, sync: Callable[[], None], done: Callable[[float, BaseException | None], None]) -> None:
        """`done(seconds, error)` is told how long the sync took in its thread, and what it raised."""
        self._sync = sync
        self._done = done
        self._requests: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._token = trio.lowlevel.current_trio_token()
        # A daemon: a disk that hangs for ever must not keep the process.
        self._thread = threading.Thread(target=self._run, name="craft sync", daemon=True)
        self._thread.start()

    def request(self) -> None:
        """Sync what has been written so far."""
        self._requests.put(True)

    async def stop(self) -> bool:
        """End the thread, after the sync that is under way; has it ended, so that the storage may be closed?

        Waits `STOP_WAIT_S` at most: a disk may hang for ever.
        """
        self._requests.put(False)
        with trio.move_on_after(STOP_WAIT_S) as scope:
            scope.shield = True
            # A limiter of its own: a program may keep all of Trio's shared threads busy.
            await trio.to_thread.run_sync(
                self._thread.join, limiter=trio.CapacityLimiter(1), abandon_on_cancel=True
            )
        return not self._thread.is_alive()

    def _run(self) -> None:
        while self._requests.get():
            started = time.perf_counter()
            error: BaseException | None = None
            try:
                self._sync()
            except BaseException as raised:  # noqa: BLE001  # it is raised on the event loop; a panic too
                error = raised
            try:
                self._token.run_sync_soon(self._done, time.perf_counter() - started, error)
            except trio.RunFinishedError:
                return
