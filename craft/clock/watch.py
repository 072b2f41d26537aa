"""A clock, watched: does it step, stand still, or was the machine asleep?

Each reading is compared with a clock that nobody sets. What is noticed is counted, logged and shown; nothing
else changes, for nothing but waiting depends on a clock (PROTOCOL 2).

Invariants
- `now` and `error` are the watched clock's own, untouched.
- Watching costs two more clock readings, and no allocation where all is well.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from craft import logs
from craft.clock import Clock, RunningClock, clock_status
from craft.clock.timeline import Timeline
from craft.types import Timestamp

log = logging.getLogger("craft.clock")

STEP_NS_MIN = 10_000_000
"""A smaller jump is not told from slewing and coarse clocks."""

RATE_PPM_MAX = 1000
"""A clock may be corrected at this rate without being said to step: twice what NTP does."""

WINDOW_NS = 1_000_000_000
"""Readings are compared with one about this old at most: so a clock that stands still or creeps shows."""

LOOK_AGAIN = 3
"""Tries to read both clocks in one go. Where none succeeds the next reading will tell."""

MS_NS = 1_000_000

COMPLAINT_INTERVAL_MS = 60_000
"""At most one line of each kind is logged in this time."""


class WatchedClock:
    """Any clock, with an eye on it."""

    def __init__(self, clock: Clock, *, timeline: Timeline | None = None) -> None:
        self._clock = clock
        # Not the uncorrected one: the system's clock is slewed together with the monotonic one.
        self._timeline = timeline or Timeline(time.monotonic_ns)
        self._anchor = (self._timeline.read(), clock.now())
        self._last = self._anchor[1]
        self._standing = False
        self._suspends_seen = 0
        self.steps = 0
        self.stops = 0
        self.last_step_ns = 0
        self._complaints = logs.RateLimited(
            log, interval_ms=COMPLAINT_INTERVAL_MS, monotonic_s=time.monotonic
        )

    @property
    def clock(self) -> Clock:
        """The clock that is watched."""
        return self._clock

    def now(self) -> Timestamp:
        """As the clock reads."""
        at, reading = self._timeline.read(), self._clock.now()
        if self._timeline.suspends != self._suspends_seen:
            self._suspends_seen = self._timeline.suspends
            self._complain("the machine was asleep", asleep_ms=self._timeline.asleep_ns // MS_NS)
        if not self._on_time(at, reading):
            self._look_again()
        elif at - self._anchor[0] > WINDOW_NS:
            self._anchor, self._standing = (at, reading), False
        self._last = reading
        return reading

    def error(self) -> int | None:
        """As the clock states."""
        return self._clock.error()

    async def run(self) -> None:
        """Run the clock, if it is one that runs."""
        if isinstance(self._clock, RunningClock):
            await self._clock.run()

    def status(self) -> dict[str, Any]:
        """The clock's own status, and what was noticed of it."""
        return {
            **clock_status(self._clock),
            "steps": self.steps,
            "last_step_ns": self.last_step_ns,
            "stops": self.stops,
            "stopped": self._standing,
            "suspends": self._timeline.suspends,
            "asleep_ns": self._timeline.asleep_ns,
        }

    def _ahead(self, at: int, reading: Timestamp) -> int:
        """How much further the clock went than time did, since the anchor."""
        return (reading - self._anchor[1]) - (at - self._anchor[0])

    def _on_time(self, at: int, reading: Timestamp) -> bool:
        allowed = STEP_NS_MIN + (at - self._anchor[0]) * RATE_PPM_MAX // 1_000_000
        return -allowed <= self._ahead(at, reading) <= allowed

    def _look_again(self) -> None:
        """The clock, or this process: it may have been held up between the two readings."""
        for _ in range(LOOK_AGAIN):
            before, reading, after = self._timeline.read(), self._clock.now(), self._timeline.read()
            if after - before < STEP_NS_MIN // 10:
                if not self._on_time(before, reading):
                    self._notice(before, reading)
                return

    def _notice(self, at: int, reading: Timestamp) -> None:
        """It is not where it should be: it stands still, or has stepped."""
        ahead, self._anchor = self._ahead(at, reading), (at, reading)
        stands, before = reading == self._last, self._standing
        self._standing = stands
        if stands and not before:
            self.stops += 1
            self._complain("the clock stands still")
        elif not stands:
            self.steps += 1
            self.last_step_ns = ahead
            self._complain("the clock stepped", by_ms=ahead // MS_NS)

    def _complain(self, message: str, **fields: Any) -> None:
        self._complaints.event(message, logging.WARNING, message, **fields)
