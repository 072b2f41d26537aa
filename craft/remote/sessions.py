"""What a client remembers of its session: which requests are not answered yet.

Knows numbers. Must not know connections, nor what the requests are.

Invariants
- Requests are numbered from 1; `below` is the first that is not answered. A call that was cancelled counts as
  answered: nobody waits for it any more.
- No request is numbered beyond the window that the servers keep.
"""

from __future__ import annotations

import trio

from craft.limits import CLIENT_WINDOW_REQUESTS_MAX


class Session:
    """One session of this client, open as far as we know."""

    def __init__(self, session_id: bytes, opened: int, now: float) -> None:
        self.id = session_id
        self.opened = opened
        self.active_at = now  # when the last request was sent whose answer came
        self._next = 1
        self._unanswered: dict[int, None] = {}  # in rising order
        self._moved = trio.Event()

    @property
    def below(self) -> int:
        """Every request below was answered."""
        return next(iter(self._unanswered), self._next)

    async def begin(self) -> int:
        """The number of a new request; waits where it would run too far ahead. `settle` it in any case."""
        while self._next - self.below >= CLIENT_WINDOW_REQUESTS_MAX:
            await self._moved.wait()
        number = self._next
        self._next += 1
        self._unanswered[number] = None
        return number

    def settle(self, number: int) -> None:
        """It is answered, or nobody waits for the answer."""
        del self._unanswered[number]
        self._moved.set()
        self._moved = trio.Event()
