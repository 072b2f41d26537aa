"""A clock that nobody sets, and that knows when the machine slept.

Linux has four of them, and each is wrong for something: `CLOCK_MONOTONIC` and `CLOCK_BOOTTIME` are slewed by
whoever keeps the system's clock, `CLOCK_MONOTONIC_RAW` is not; only `CLOCK_BOOTTIME` goes on in a suspend.
What lies between `CLOCK_BOOTTIME` and `CLOCK_MONOTONIC` changes in a suspend, and never else.

Invariant: `read` never goes back, and jumps by the time asleep where `suspends` rises.

A virtual machine that is paused from outside may stop all four at once: from inside nobody can tell.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

Reading = Callable[[], int]
"""Nanoseconds of some clock."""

SUSPEND_NS_MIN = 10_000_000
"""A shorter sleep is told from a pause between two readings by reading again, and is not worth it."""

READ_AGAIN = 3
"""Readings of the gap of which the least counts: a pause between its two clocks makes it wider."""


def _of_linux(name: str) -> Reading:
    """A clock by its name, or the monotonic one where the platform has no such clock."""
    number = getattr(time, name, None)
    return time.monotonic_ns if number is None else lambda: time.clock_gettime_ns(number)


uncorrected_ns: Reading = _of_linux("CLOCK_MONOTONIC_RAW")
"""Steady: no time daemon speeds it up or slows it down. Stands still in a suspend."""

since_boot_ns: Reading = _of_linux("CLOCK_BOOTTIME")
"""As the monotonic clock, and goes on in a suspend."""


class Timeline:
    """`steady`, plus the time asleep."""

    def __init__(
        self,
        steady: Reading = uncorrected_ns,
        *,
        monotonic: Reading = time.monotonic_ns,
        since_boot: Reading = since_boot_ns,
    ) -> None:
        self._steady = steady
        self._monotonic = monotonic
        self._since_boot = since_boot
        self._lock = threading.Lock()  # of two threads that notice a suspend only one counts it
        self._gap_ns = min(self._gap() for _ in range(READ_AGAIN))
        self.suspends = 0
        self.asleep_ns = 0

    def read(self) -> int:
        """Nanoseconds since some moment. Notices a suspend. For any thread."""
        if self._gap() - self._gap_ns > SUSPEND_NS_MIN:
            self._look_again()
        return self._steady() + self.asleep_ns

    def _look_again(self) -> None:
        with self._lock:
            slept = min(self._gap() for _ in range(READ_AGAIN)) - self._gap_ns
            if slept > SUSPEND_NS_MIN:
                self.suspends += 1
                self.asleep_ns += slept
                self._gap_ns += slept

    def _gap(self) -> int:
        """How much longer the machine runs than it was awake. A pause in between makes it longer only."""
        monotonic = self._monotonic()
        return self._since_boot() - monotonic
