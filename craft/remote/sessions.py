"""What a client remembers of its session: which requests are not answered yet.

Knows numbers. Must not know connections, nor what the requests are.

Invariants
- Requests are numbered from 1; `below` is the first that is not answered. A call that was cancelled counts as
  answered: nobody waits for it any more.
- No request is numbered beyond the window that the servers keep.
"""

from __future__ import annotations

import trio

from craft.insisting import Window


class Session:
    """One session of this client, open as far as we know."""

    def __init__(self, session_id: bytes, opened: int, now: float) -> None:
        self.id = session_id
        self.opened = opened
        self.active_at = now  # when the last request was sent whose answer came
        self._window = Window()
        self._moved = trio.Event()

    @property
    def below(self) -> int:
        """Every request below was answered."""
        return self._window.below

    async def begin(self) -> int:
        """The number of a new request; waits where it would run too far ahead. `settle` it in any case."""
        while self._window.full:
            await self._moved.wait()
        return self._window.begin()

    def settle(self, number: int) -> None:
        """It is answered, or nobody waits for the answer."""
        self._window.settle(number)
        self._moved.set()
        self._moved = trio.Event()
