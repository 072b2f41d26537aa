"""The axis of time, and what finds room beside what. Pure arithmetic, in ns and in pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from craft.testing.trace import MS

TICKS_MAX = 10
STEPS = (1, 2, 5)

US = 1000
SECOND = 1000 * MS


def step(span: int) -> int:
    """The distance of ticks: 1, 2 or 5 times a power of ten, at most TICKS_MAX of them."""
    power = 1
    while True:
        for factor in STEPS:
            if span <= factor * power * TICKS_MAX:
                return factor * power
        power *= 10


def time_words(ns: int, unit: int = MS) -> str:
    """Exactly, with as many decimals as needed."""
    whole, rest = divmod(ns, unit)
    decimals = f"{rest:0{len(str(unit)) - 1}d}".rstrip("0") if unit > 1 else ""
    name = {1: "ns", US: "µs", MS: "ms", SECOND: "s"}[unit]
    return f"{whole:,}{'.' if decimals else ''}{decimals} {name}"


def about(ns: int) -> str:
    """For people, with two decimals at most: of s from 10 s on, of µs below 1 ms."""
    unit = next((unit for unit, least in ((SECOND, 10 * SECOND), (MS, MS), (US, US)) if ns >= least), 1)
    part = max(unit // 100, 1)
    return time_words(ns // part * part, unit if ns else MS)


@dataclass(frozen=True)
class Scale:
    """From virtual time to the right place."""

    begin: int
    end: int
    left: float
    right: float

    def x(self, at: int) -> float:
        """Where a time stands; outside the window: at its edge."""
        at = min(max(at, self.begin), self.end)
        return self.left + (at - self.begin) * (self.right - self.left) / (self.end - self.begin)

    def far(self, at: int) -> float:
        """Where a time stands, even outside the window."""
        return self.left + (at - self.begin) * (self.right - self.left) / (self.end - self.begin)

    def shows(self, begin: int, end: int | None = None) -> bool:
        """Is any of it in the window? No `end`: it goes on."""
        return begin <= self.end and (end is None or end >= self.begin)

    def ticks(self) -> Iterator[tuple[int, str]]:
        """Round times in the window, and their words."""
        distance = step(self.end - self.begin)
        unit = next(unit for unit in (SECOND, MS, US, 1) if distance >= unit)
        for at in range(-(-self.begin // distance) * distance, self.end + 1, distance):
            yield at, time_words(at, unit)


class Rows:
    """What overlaps goes into different rows."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._ends: list[float] = []

    @property
    def count(self) -> int:
        """How many rows are needed so far."""
        return len(self._ends)

    def place(self, left: float, right: float) -> int | None:
        """The first row with room from `left` to `right`; None where all are full."""
        for row, end in enumerate(self._ends):
            if end <= left:
                self._ends[row] = right
                return row
        if len(self._ends) >= self._most:
            return None
        self._ends.append(right)
        return len(self._ends) - 1


def side_by_side(wanted: list[float], width: float, left: float, right: float) -> list[float]:
    """Places for boxes of one width in a given order, near where each wants to begin, none over another."""
    places: list[float] = []
    for want in wanted:
        places.append(max(want, left, places[-1] + width if places else left))
    limit = right
    for number in reversed(range(len(places))):
        places[number] = min(places[number], limit - width)
        limit = places[number]
    return places
