"""What the servers' clocks say, as one server can know it, and the time that a majority has reached.

Knows: readings, each carried forward on this server's own monotonic clock. Must not know: which clock is
right.

Invariants
- A reading is carried forward from the instant at which *we* sent what it answers, not from when it arrived:
  so it is too great by at most the round trip, and never too small (PROTOCOL 2, †: a stalled server that
  handles old frames must not believe that time stood still).
- A server never heard counts as minus infinity.

Reference: PROTOCOL 2.
"""

from __future__ import annotations

from craft import quorum
from craft.types import Configuration, Instant, ServerId, Timestamp

UNHEARD = -(2**63)


class Readings:
    """The newest reading of every peer's clock."""

    __slots__ = ("_readings", "_started")

    def __init__(self, started: int) -> None:
        self._started = started  # monotonic: an echo from before belongs to an earlier incarnation
        self._readings: dict[ServerId, tuple[int, int]] = {}  # peer → (our send time, clock - send time)

    def observe(self, peer: ServerId, clock: Timestamp, echo: int, now: Instant) -> None:
        """A frame said `clock`, answering what we sent at `echo` on our monotonic clock."""
        if not self._started <= echo <= now.monotonic_ns:
            return
        known = self._readings.get(peer)
        if known is None or echo > known[0]:  # of answers to one frame the first is the closest
            self._readings[peer] = (echo, clock - echo)

    def clocks(self, now: Instant, me: ServerId) -> dict[ServerId, int]:
        """Everyone's clock now, as far as heard."""
        clocks = {peer: now.monotonic_ns + offset for peer, (_, offset) in self._readings.items()}
        clocks[me] = now.clock_ns
        return clocks

    def reached(self, configuration: Configuration, now: Instant, me: ServerId) -> int:
        """`q`: the greatest time that a majority of voters have reached.

        Minus infinity if too few are heard.
        """
        return quorum.reached(configuration, self.clocks(now, me), unheard=UNHEARD)
