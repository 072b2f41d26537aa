"""What to make of the servers' clocks: good, fair, or wild, and whose.

Knows: rows of estimates, one a server that was asked: how far each other clock is from its own. Must not
know: where they come from, what is done about it.

The rule: good clocks differ by less than a frame takes from one server to another. Then no clock can be told
from another's by who says what first. Beyond that a clock is fair, until it is further from a majority's
clocks than stamps are allowed to be: then it is wild.

Invariant: no clock is called wild but against a majority of all servers, those unheard included.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum
from typing import NamedTuple, TypeAlias

from craft.clock.offsets import Estimate
from craft.types import ServerId

MS_NS = 1_000_000
SECOND_NS = 1000 * MS_NS

Rows: TypeAlias = Mapping[ServerId, Mapping[ServerId, Estimate]]
"""For each server that was asked: each other clock less its own."""


class Grade(Enum):
    """From best to worst; `unknown` where too little is heard."""

    GOOD = "good"
    FAIR = "fair"
    WILD = "wild"
    UNKNOWN = "unknown"


class Verdict(NamedTuple):
    """A grade, the reason in plain words, and the wild clocks: how far each is from a majority's."""

    grade: Grade
    reason: str
    wild: Mapping[ServerId, int]

    def __str__(self) -> str:
        return f"{self.grade.value}: {self.reason}"


def judge(rows: Rows, servers: Collection[ServerId], *, offset_ns_max: int) -> Verdict:
    """The verdict on the clocks of `servers`, from all rows that there are."""
    pairs = [(a, b, one) for a, row in sorted(rows.items()) for b, one in sorted(row.items())]
    if not pairs:
        return Verdict(Grade.UNKNOWN, "no other clock is heard", {})
    wild = _wild(rows, servers, offset_ns_max)
    if wild:
        return Verdict(Grade.WILD, "; ".join(_words(server, off) for server, off in wild.items()), wild)
    furthest = max(pairs, key=lambda pair: abs(pair[2].offset_ns))
    if abs(furthest[2].offset_ns) > offset_ns_max:
        return Verdict(Grade.WILD, f"{_apart(furthest)}; no majority says which is wrong", {})
    worst = max(pairs, key=lambda pair: abs(pair[2].offset_ns) / max(1, pair[2].delay_ns))
    if abs(worst[2].offset_ns) > worst[2].delay_ns:
        return Verdict(Grade.FAIR, f"{_apart(worst)}; a frame takes {duration(worst[2].delay_ns)}", {})
    return Verdict(Grade.GOOD, "every error is below the one-way delay", {})


def _apart(pair: tuple[ServerId, ServerId, Estimate]) -> str:
    a, b, one = pair
    return f"servers {a} and {b} differ by {duration(abs(one.offset_ns))}"


def duration(nanoseconds: int) -> str:
    """For people: in seconds from one second on, else in milliseconds to the microsecond."""
    if abs(nanoseconds) >= SECOND_NS:
        return f"{nanoseconds / SECOND_NS:,.3f} s"
    return f"{nanoseconds / MS_NS:.3f} ms"


def _words(server: ServerId, off: int) -> str:
    side = "ahead of" if off > 0 else "behind"
    return f"server {server} is {side} a majority by {duration(abs(off))}"


def _wild(rows: Rows, servers: Collection[ServerId], offset_ns_max: int) -> dict[ServerId, int]:
    """The clocks that are too far from a majority's, as the server sees it that hears the most others."""
    viewer = max(sorted(rows), key=lambda server: len(rows[server]))
    clocks = {viewer: 0, **{server: one.offset_ns for server, one in rows[viewer].items()}}
    missing = len(set(servers) - set(clocks))
    # The clock that a majority is at or behind, and the one that a majority is at or ahead of: unheard clocks
    # may be anywhere, so they stand at the far end of either ranking.
    ranked, middle = sorted(clocks.values()), (len(clocks) + missing) // 2
    if middle >= len(ranked):
        return {}
    low, high = ranked[middle], ranked[-1 - middle]
    off = {server: clock - low if clock > low else min(0, clock - high) for server, clock in clocks.items()}
    return {server: by for server, by in sorted(off.items()) if abs(by) > offset_ns_max}
