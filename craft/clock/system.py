"""The operating system's clock, kept by chrony, ntpd, the hypervisor, or by nothing."""

from __future__ import annotations

import time

from craft.types import Timestamp


class SystemClock:
    """`time.time_ns`, with an unknown error: the system does not say how well its clock is kept."""

    def now(self) -> Timestamp:
        """Nanoseconds since the Unix epoch, as the operating system reads them."""
        return time.time_ns()

    def error(self) -> int | None:
        """Unknown."""
        return None
