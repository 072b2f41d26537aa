"""A clock that stands still until it is told otherwise: for tests of craft, and for its users' tests.

Invariant: `0 <= now() <= TIMESTAMP_MAX`; what would leave that range is refused and changes nothing.
"""

from __future__ import annotations

from craft.types import TIMESTAMP_MAX, Timestamp

START: Timestamp = 1_600_000_000_000_000_000
"""A September day of 2020: far from zero, so that a test can step back as well as on."""


class ManualClock:
    """Reads what it was set to. Servers of one test may share one, or each be wrong in its own way."""

    def __init__(self, start: Timestamp = START, *, error: int | None = None) -> None:
        self.set(start)
        self.set_error(error)

    def now(self) -> Timestamp:
        """Nanoseconds since the Unix epoch, as last set."""
        return self._now

    def error(self) -> int | None:
        """The bound that the test states, or None: unknown."""
        return self._error

    def set(self, timestamp: Timestamp) -> None:
        """Read `timestamp` (ns since the epoch) from now on. Raises ValueError outside 0..TIMESTAMP_MAX."""
        if not 0 <= timestamp <= TIMESTAMP_MAX:
            raise ValueError(f"a clock cannot read {timestamp}; allowed: 0 to {TIMESTAMP_MAX} ns")
        self._now = timestamp

    def advance(self, nanoseconds: int) -> None:
        """Let time pass, as on a good clock. Raises ValueError for less than 0: that is a `step`."""
        if nanoseconds < 0:
            raise ValueError(f"time does not pass by {nanoseconds} ns; allowed: 0 or more, or use step()")
        self.set(self._now + nanoseconds)

    def step(self, nanoseconds: int) -> None:
        """Jump, forwards or backwards, as a clock does that is corrected or broken."""
        self.set(self._now + nanoseconds)

    def set_error(self, nanoseconds: int | None) -> None:
        """State another bound (ns, 0 or more), or None: unknown. It need not be true."""
        if nanoseconds is not None and nanoseconds < 0:
            raise ValueError(f"a clock's error cannot be {nanoseconds} ns; allowed: 0 or more, or None")
        self._error = nanoseconds
