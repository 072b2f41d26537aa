"""Stamping: the one rule by which a leader dates an entry.

Knows: a bounded reading of the clock, the log's last stamp and a floor. Must not know: who asks.

Invariants
- `timestamp > last`: stamps rise strictly along a group's log, whatever the clock does.
- Only the clock's reading is limited, never `last + 1` nor the floor: a wild clock is contained where it is
  read (PROTOCOL 2, †).
"""

from __future__ import annotations

from craft.types import Timestamp


def bounded(clock_ns: Timestamp, reached_ns: int, clock_offset_ns_max: int) -> tuple[Timestamp, bool]:
    """The clock's reading, clamped to a majority's clocks plus the allowed offset, and whether it was."""
    bound = max(0, reached_ns + clock_offset_ns_max)
    return (bound, True) if clock_ns > bound else (max(0, clock_ns), False)


def stamp(bounded_now: Timestamp, *, last: Timestamp, floor: Timestamp) -> Timestamp:
    """`max(bounded_now, last + 1, floor)`."""
    return max(bounded_now, last + 1, floor)
