"""A clock made of a steady one and time servers' samples: right within a stated error, and never stepped.

Knows: samples by server, and readings of a steady clock that come in as arguments. Must not know: sockets,
Trio, or which clock is the steady one.

Invariants
- The output rises wherever the steady clock does. It is corrected by at most `SLEW_PPM_MAX`; only the first
  correction, and the first after `restart`, sets it at once.
- While the steady clock keeps to `DRIFT_PPM_MAX`, and a majority of the configured servers answers and is as
  good as it says, `now` is off by at most `error`. That bound holds what the servers admit, half of the
  delay, the drift since, and what is still to be slewed.
- No majority, no correction: the output goes on as it was, and its error grows.

Reference: RFC 5905, 10 (the clock filter) and 11; PROTOCOL 2.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from craft.clock.samples import SECOND_NS, Sample, drift_ns
from craft.clock.selection import Agreement, intersect, majority

SAMPLES_MAX = 8
"""Samples remembered of a server. The best of them counts (RFC 5905, 10: the clock filter)."""

SLEW_PPM_MAX = 500
"""The output is corrected by half a millisecond a second at most: the rate of NTP, and of the kernel."""

UNSYNCHRONISED_S_MAX = 3600
"""After this long without an agreement the output is no longer said to be right within anything."""


class Target(NamedTuple):
    """Where the output should be: the offset that a majority allowed at `at_ns`, and its error then."""

    at_ns: int
    offset_ns: int
    error_ns: int


class Discipline:
    """The pure part of a clock that asks time servers."""

    def __init__(self, servers: Sequence[str], *, offset_ns: int, now_ns: int) -> None:
        """`offset_ns`: what to add to the steady clock until something better is known."""
        self._samples: dict[str, deque[Sample]] = {server: deque(maxlen=SAMPLES_MAX) for server in servers}
        self._needed = majority(len(servers))
        self._offset_ns = offset_ns  # of the output, at `_as_of`
        self._as_of = now_ns
        self._aim = offset_ns  # what the output is slewed to
        self._target: Target | None = None  # the last agreement; None: nothing is known
        self._agreed_ns: int | None = None  # when that was, or a restart after it
        self._may_set = True
        self.agreement: Agreement | None = None  # of the last attempt; None: no majority agreed

    # -- what comes in ----------------------------------------------------------------------------

    def observe(self, server: str, sample: Sample, now_ns: int) -> None:
        """A server answered."""
        self._samples[server].append(sample)
        self.select(now_ns)

    def forget(self, server: str) -> None:
        """What was this server is now another one: its samples say nothing of it."""
        self._samples[server].clear()

    def restart(self, now_ns: int) -> None:
        """The steady clock was away (a suspend): nothing is known, and the next agreement sets the output."""
        for samples in self._samples.values():
            samples.clear()
        self._target, self.agreement, self._may_set = None, None, True
        if self._agreed_ns is not None:
            self._agreed_ns = now_ns  # it may ask for an hour before it falls back

    def follow(self, offset_ns: int, now_ns: int) -> None:
        """Fall back to another clock: at once before the first agreement, later in the same slow way."""
        assert self.falls_back(now_ns), "a clock that knows the time follows no other"
        self._steer(offset_ns, now_ns, at_once=self._agreed_ns is None)

    # -- what goes out ----------------------------------------------------------------------------

    def now(self, now_ns: int) -> int:
        """The output: nanoseconds since the Unix epoch."""
        return now_ns + self._output_offset(now_ns)

    def error(self, now_ns: int) -> int | None:
        """How far the output is off at most; None: unknown."""
        if self._target is None or self.falls_back(now_ns):
            return None
        left = abs(self._output_offset(now_ns) - self._target.offset_ns)
        return self._target.error_ns + drift_ns(now_ns - self._target.at_ns) + left

    def falls_back(self, now_ns: int) -> bool:
        """Is the last agreement so old that it says nothing any more, or was there none?"""
        return self._agreed_ns is None or now_ns - self._agreed_ns > UNSYNCHRONISED_S_MAX * SECOND_NS

    @property
    def agreed(self) -> bool:
        """Has a majority ever agreed?"""
        return self._agreed_ns is not None

    def slewing_ns(self, now_ns: int) -> int:
        """What is still to be corrected."""
        return self._aim - self._output_offset(now_ns)

    def status(self, now_ns: int) -> dict[str, Any]:
        """What it knows, as plain values."""
        return {
            "agreed_s_ago": None if self._agreed_ns is None else (now_ns - self._agreed_ns) // SECOND_NS,
            "slewing_ns": self.slewing_ns(now_ns),
            "falsetickers": list(self.agreement.falsetickers) if self.agreement else [],
        }

    def server_status(self, server: str, now_ns: int) -> dict[str, Any]:
        """What one server's best sample says: its time less the output's, and how far that may be off."""
        best = self._best(server, now_ns)
        if best is None:
            return {"offset_ns": None, "error_ns": None, "delay_ns": None}
        return {
            "offset_ns": best.offset_ns - self._output_offset(now_ns),
            "error_ns": best.error_at(now_ns),
            "delay_ns": best.delay_ns,
        }

    # -- inside -----------------------------------------------------------------------------------

    def select(self, now_ns: int) -> None:
        """Ask the majority."""
        bests = {server: self._best(server, now_ns) for server in self._samples}
        intervals = {server: best.interval(now_ns) for server, best in bests.items() if best is not None}
        self.agreement = intersect(intervals, self._needed)
        if self.agreement is not None:
            self._target = Target(now_ns, self.agreement.middle, self.agreement.error)
            self._steer(self._target.offset_ns, now_ns, at_once=self._may_set)
            self._agreed_ns, self._may_set = now_ns, False

    def _best(self, server: str, now_ns: int) -> Sample | None:
        """The sample with the least delay, near enough: ageing counts as the drift that it allows."""
        fresh = (
            sample
            for sample in self._samples[server]
            if now_ns - sample.at_ns <= UNSYNCHRONISED_S_MAX * SECOND_NS
        )
        return min(fresh, key=lambda sample: sample.error_at(now_ns), default=None)

    def _steer(self, offset_ns: int, now_ns: int, *, at_once: bool) -> None:
        self._offset_ns = offset_ns if at_once else self._output_offset(now_ns)
        self._as_of, self._aim = now_ns, offset_ns

    def _output_offset(self, now_ns: int) -> int:
        left = self._aim - self._offset_ns
        step = max(0, now_ns - self._as_of) * SLEW_PPM_MAX // 1_000_000
        if abs(left) <= step:
            return self._aim
        return self._offset_ns + (step if left > 0 else -step)
