"""How far the peers' clocks are from ours: estimated from the frames that travel anyway.

A frame gives four times, as a question to a time server does: when we sent what it answers and when it
arrived, on our monotonic clock; how long the peer held it; and the peer's clock when it answered.

Knows: frames and our monotonic time. Must not know: which clock is right (`verdict` judges), what it means.

Invariants
- It is to be looked at, and a leader whose clock is slow stamps by it. What limits a stamp is
  `interval.Readings`, which is never too small (PROTOCOL 2); an estimate here may be wrong either way.
- The true difference lies within `Estimate.error_ns` of `Estimate.offset_ns`, whichever way the delay was
  spent, if no clock's rate is wrong by more than `DRIFT_PPM_MAX`.
- Of two samples the one counts whose error is less *now*. One that contradicts what is known replaces it at
  once: a clock was set, or runs wild.

Reference: RFC 5905, 8 (offset and delay) and 10 (the clock filter).
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from craft.messages import Frame
from craft.types import Instant, ServerId

DRIFT_PPM_MAX = 100
"""A peer's clock may gain or lose so much on our monotonic clock: what a quartz does that nobody corrects."""

WINDOW_NS = 10_000_000_000
"""The sample of the least delay counts for no longer than this: delays change, and clocks are slewed."""

SILENCE_NS_MAX = 2 * WINDOW_NS
"""Of a peer that is silent for longer nothing is said any more."""

LOOK_INTERVAL_NS = 1_000_000
"""At most one frame a peer in this time is looked at: a busy server's frames need not pay for it."""

_AGE_PER_DRIFT = 1_000_000 // DRIFT_PPM_MAX


class Estimate(NamedTuple):
    """One clock less another, in ns."""

    offset_ns: int
    error_ns: int
    delay_ns: int  # one way, and half of the round trip: from turn to turn, waiting for either turn included


_Sample: TypeAlias = tuple[int, int, int, int]
"""When it arrived, the error then, the one-way delay, and the peer's clock less our monotonic clock."""


class Offsets:
    """What one server can tell of its peers' clocks."""

    __slots__ = ("_look_at", "_samples")

    def __init__(self) -> None:
        self._look_at: dict[ServerId, int] = {}
        self._samples: dict[ServerId, _Sample] = {}

    def observe(self, peer: ServerId, frame: Frame, now_ns: int) -> None:
        """A frame arrived that answers one of this incarnation's, `now_ns` on our monotonic clock."""
        if now_ns < self._look_at.get(peer, now_ns):
            return
        held = frame.held
        delay = now_ns - frame.echo - held
        drift = held // _AGE_PER_DRIFT + 1  # the peer timed what it held on a clock of its own
        if delay < -drift:
            return  # it says that it held a frame for longer than that was away
        self._look_at[peer] = now_ns + LOOK_INTERVAL_NS
        way = max(0, delay) // 2
        new = (now_ns, way + drift, way, frame.clock - now_ns + way)
        known = self._samples.get(peer)
        if known is None or not _is_better(known, new):
            self._samples[peer] = new

    def ahead(self, now: Instant) -> dict[ServerId, int]:
        """By how much each peer's clock is ahead of ours, as far as frames have told of late."""
        here = now.clock_ns - now.monotonic_ns
        oldest = now.monotonic_ns - SILENCE_NS_MAX
        return {peer: ahead - here for peer, (at, _, _, ahead) in self._samples.items() if at >= oldest}

    def estimates(self, now: Instant) -> dict[ServerId, Estimate]:
        """Each peer's clock less ours, as far as frames have told of late."""
        here = now.clock_ns - now.monotonic_ns
        return {
            peer: Estimate(
                offset_ns=ahead - here,
                error_ns=error + (now.monotonic_ns - at) // _AGE_PER_DRIFT,
                delay_ns=way,
            )
            for peer, (at, error, way, ahead) in sorted(self._samples.items())
            if now.monotonic_ns - at <= SILENCE_NS_MAX
        }


def _is_better(known: _Sample, new: _Sample) -> bool:
    """Is what is known still of less error than this sample, and does it agree with it?"""
    at, error, _, ahead = known
    now_ns, new_error, _, new_ahead = new
    age = now_ns - at
    error += age // _AGE_PER_DRIFT
    return error < new_error and age < WINDOW_NS and abs(new_ahead - ahead) <= error + new_error
