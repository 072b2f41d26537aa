"""Simulated clocks: wrong by an offset, a rate, or outright, and set by faults. True time is virtual time."""

from __future__ import annotations

EPOCH = 1_700_000_000_000_000_000
"""True time when a run begins, in ns since the Unix epoch."""


class SimulatedClock:
    """One server's clock: linear from its last setting on, and coarse if told so."""

    def __init__(self) -> None:
        self._since = 0  # virtual ns
        self._reading = EPOCH
        self._rate_ppm = 0
        self._stopped = False
        self.step_ns = 1  # readings are multiples of this

    def now(self, at: int) -> int:
        """What it shows at a virtual time."""
        passed = 0 if self._stopped else at - self._since
        reading = self._reading + passed + passed * self._rate_ppm // 1_000_000
        return max(0, reading - reading % self.step_ns)

    def jump(self, at: int, by_ns: int) -> None:
        """It is set forward or back."""
        self._anchor(at)
        self._reading += by_ns

    def drift(self, at: int, rate_ppm: int) -> None:
        """It goes too fast or too slow; below minus a million it runs backwards."""
        self._anchor(at)
        self._rate_ppm = rate_ppm

    def stop(self, at: int) -> None:
        """It shows the same for ever."""
        self._anchor(at)
        self._stopped = True

    def repair(self, at: int) -> None:
        """It shows true time again, at once."""
        self._since, self._reading, self._rate_ppm, self._stopped = at, EPOCH + at, 0, False

    def _anchor(self, at: int) -> None:
        passed = 0 if self._stopped else at - self._since
        self._reading += passed + passed * self._rate_ppm // 1_000_000
        self._since = at
