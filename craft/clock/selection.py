"""Several servers' words and one time: the interval that a majority allows, and who is outside of it.

Knows: intervals by name. Must not know: where they come from.

Invariant: if the true value is inside the intervals of at least `needed` sources, it is inside the result.
So `needed` is a majority of all servers that were *configured*, whether or not they answer: those that lie
and those that are lost may together be a minority.

NTP looks for the smallest number of falsetickers that leaves an intersection. That is sharper, and wrong
where more of the minority lie. Here a bound is promised, so the majority alone counts.

Reference: Marzullo and Owicki, 1983; RFC 5905, 11.2.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Agreement(NamedTuple):
    """What a majority allows: from the least to the greatest value that `needed` intervals share."""

    low: int
    high: int
    falsetickers: tuple[str, ...]

    @property
    def middle(self) -> int:
        """The value of which the true one is least far, at worst."""
        return (self.low + self.high) // 2

    @property
    def error(self) -> int:
        """How far at worst."""
        return self.high - self.middle


def majority(sources: int) -> int:
    """More than half."""
    return sources // 2 + 1


def intersect(intervals: Mapping[str, tuple[int, int]], needed: int) -> Agreement | None:
    """Where at least `needed` intervals agree, or None: nowhere."""
    low = _edge([low for low, _ in intervals.values()], intervals, needed, first=True)
    high = _edge([high for _, high in intervals.values()], intervals, needed, first=False)
    if low is None or high is None:
        return None
    outside = (name for name, (least, most) in intervals.items() if most < low or high < least)
    return Agreement(low, high, tuple(sorted(outside)))


def _edge(
    candidates: list[int], intervals: Mapping[str, tuple[int, int]], needed: int, *, first: bool
) -> int | None:
    """The first (or last) of the candidates that enough intervals contain."""
    for value in sorted(candidates, reverse=not first):
        if sum(low <= value <= high for low, high in intervals.values()) >= needed:
            return value
    return None
