"""The operating system's clock, kept by chrony, ntpd, PTP or the hypervisor, or by nobody."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from craft.clock import kernel
from craft.clock.kernel import Kept
from craft.types import Timestamp

REFRESH_NS = 1_000_000_000
"""The kernel is asked at most once a second: its own figure changes no more often."""

GROWTH_PPM = 500
"""The kernel lets its bound grow at this rate between corrections; so do we between two questions."""


class SystemClock:
    """`time.time_ns`, and the error that the kernel states for it: unknown where nobody tells the kernel.

    Who keeps the clock is not asked: `state` says only whether somebody does.
    """

    def __init__(
        self,
        *,
        ask: Callable[[], kernel.KernelState | str] = kernel.ask,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._ask = ask
        self._monotonic = monotonic
        self._kept = Kept(None, "")
        self._asked_ns: int | None = None

    def now(self) -> Timestamp:
        """Nanoseconds since the Unix epoch, as the operating system reads them."""
        return time.time_ns()

    def error(self) -> int | None:
        """Nanoseconds, as the kernel states them; None where it says that nobody keeps its clock."""
        age_ns = self._refreshed()
        if self._kept.error_ns is None:
            return None
        return self._kept.error_ns + -(-age_ns * GROWTH_PPM // 1_000_000)

    def status(self) -> dict[str, Any]:
        """Whether the clock is kept, in words."""
        error_ns = self.error()
        return {"source": "system", "state": self._kept.state, "error_ns": error_ns}

    def _refreshed(self) -> int:
        """Ask if the last answer is old. Returns the answer's age, in ns."""
        now = self._monotonic()
        if self._asked_ns is None or now - self._asked_ns >= REFRESH_NS:
            self._kept, self._asked_ns = kernel.interpret(self._ask()), now
        return now - self._asked_ns
