"""Good, fair, or wild, and whose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craft.clock.offsets import Estimate
from craft.clock.verdict import Grade, Verdict, duration, judge

MS = 1_000_000
HOUR = 3_600_000 * MS
BOUND = 250 * MS
DELAY = 200_000


def rows_of(clocks: dict[int, int], *, asked: tuple[int, ...] = (1,)) -> dict[int, dict[int, Estimate]]:
    """What servers see of each other, if their clocks are wrong by so much and the network is even."""
    return {
        a: {b: Estimate(clocks[b] - clocks[a], DELAY, DELAY) for b in clocks if b != a}
        for a in asked
        if a in clocks
    }


def verdict(clocks: dict[int, int], *, servers: int = 3, asked: tuple[int, ...] = (1,)) -> Verdict:
    return judge(rows_of(clocks, asked=asked), range(1, servers + 1), offset_ns_max=BOUND)


def test_clocks_closer_than_a_frame_takes_are_good() -> None:
    """The rule of the first page: the error is smaller than the one-way delay between any two."""
    found = verdict({1: 0, 2: 50_000, 3: -100_000})
    assert str(found) == "good: every error is below the one-way delay"


def test_beyond_the_delay_a_clock_is_fair() -> None:
    """The pair that is furthest apart is named; a row of another server may tell more."""
    clocks = {1: 0, 2: 2 * MS, 3: -3 * MS}
    assert str(verdict(clocks)) == "fair: servers 1 and 3 differ by 3.000 ms; a frame takes 0.200 ms"
    assert str(verdict(clocks, asked=(1, 2))).startswith("fair: servers 2 and 3 differ by 5.000 ms")


@pytest.mark.parametrize("asked", [(1,), (2,), (3,), (1, 2, 3)])
@pytest.mark.parametrize(("off", "words"), [(HOUR, "ahead of"), (-HOUR, "behind")])
def test_a_wild_clock_is_named_by_whoever_looks(asked: tuple[int, ...], off: int, words: str) -> None:
    """Its own server included, to which all others seem wrong."""
    found = verdict({1: 0, 2: off, 3: 1 * MS}, asked=asked)
    assert found.grade is Grade.WILD and set(found.wild) == {2}
    assert found.reason.startswith(f"server 2 is {words} a majority by 3,")


def test_several_wild_clocks_are_all_named() -> None:
    """Two of five, to either side."""
    found = verdict({1: 0, 2: HOUR, 3: 0, 4: -HOUR, 5: 0}, servers=5)
    assert found.wild == {2: HOUR, 4: -HOUR}


def test_without_a_majority_nobody_is_named() -> None:
    """Of two, or of two halves, each may be right; nor does a server that is not heard make a majority."""
    for clocks, servers in (({1: 0, 2: HOUR}, 2), ({1: 0, 2: HOUR, 3: 0, 4: HOUR}, 4), ({1: 0, 2: HOUR}, 3)):
        found = verdict(clocks, servers=servers)
        assert found.grade is Grade.WILD and not found.wild
        assert found.reason == "servers 1 and 2 differ by 3,600.000 s; no majority says which is wrong"


def test_who_hears_nobody_says_so() -> None:
    """A row without estimates, or no row at all."""
    nothing: list[dict[int, dict[int, Estimate]]] = [{}, {1: {}}]
    for rows in nothing:
        assert str(judge(rows, [1, 2, 3], offset_ns_max=BOUND)) == "unknown: no other clock is heard"


def test_durations_are_readable() -> None:
    """Milliseconds to the microsecond, and seconds once there are any."""
    assert [duration(n) for n in (41_000, -3 * MS, HOUR)] == ["0.041 ms", "-3.000 ms", "3,600.000 s"]


@given(st.lists(st.integers(-2 * HOUR, 2 * HOUR), min_size=1, max_size=7), st.integers(0, 6))
def test_less_than_half_are_wild_to_either_side(clocks: list[int], viewer: int) -> None:
    """A majority is never wild, whoever looks; and all viewers agree."""
    by_id = dict(enumerate(clocks, start=1))
    seen = [verdict(by_id, servers=len(clocks), asked=(one,)) for one in by_id]
    assert len({str(one) for one in seen if one.grade is Grade.WILD and one.wild}) <= 1
    for one in seen:
        assert sum(off > 0 for off in one.wild.values()) <= (len(clocks) - 1) // 2
        assert sum(off < 0 for off in one.wild.values()) <= (len(clocks) - 1) // 2
