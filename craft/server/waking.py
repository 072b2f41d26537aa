"""When the next turn is due: somebody asks for one, or the engine's alarm goes off.

Invariants
- However often a turn is asked for between two turns, one follows.
- Between two turns everybody else runs; whom the last turn answered has run before the next one, so that
  what they propose next joins it.
"""

from __future__ import annotations

from typing import Any

import trio

SECOND_NS = 1_000_000_000


class Waker:
    """Wakes the one task that takes the turns. Costs no object a turn: no event, and no scope of its own."""

    def __init__(self) -> None:
        self._due = False
        self._sleeping: trio.lowlevel.Task | None = None

    def wake(self) -> None:
        """A turn is due."""
        self._due = True
        if self._sleeping is not None:
            trio.lowlevel.reschedule(self._sleeping)
            self._sleeping = None

    async def until_due(self, *, answered: bool) -> None:
        """Wait until a turn is due; `answered`: the last turn woke callers."""
        if not self._due:
            self._sleeping = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._stop_sleeping)
        else:
            await trio.lowlevel.checkpoint()
            if answered:
                # They run now, in any order with this task; after another checkpoint all of them have.
                await trio.lowlevel.cancel_shielded_checkpoint()

    def begin(self) -> None:
        """The turn begins: what is asked for from now on is for the next."""
        self._due = False

    def _stop_sleeping(self, _: Any) -> trio.lowlevel.Abort:
        self._sleeping = None
        return trio.lowlevel.Abort.SUCCEEDED


def set_alarm(scope: trio.CancelScope, wake_at_ns: int) -> None:
    """Let a scope end at this monotonic instant; setting it to what it is costs nothing.

    A microsecond late: floats round, and a turn that comes a nanosecond early would do nothing.
    """
    deadline = wake_at_ns / SECOND_NS + 1e-6
    if scope.deadline != deadline:
        scope.deadline = deadline
