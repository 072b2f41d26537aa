"""The one rule by which a leader dates an entry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craft.clock.interval import UNHEARD
from craft.clock.stamper import bounded, stamp

times = st.integers(0, 2**62)


@given(times, times, times)
def test_a_stamp_rises_and_respects_its_floor(now: int, last: int, floor: int) -> None:
    """Beyond the log's last stamp, at least the floor, and nothing else but the clock moves it."""
    stamped = stamp(now, last=last, floor=floor)
    assert stamped > last
    assert stamped >= floor
    assert stamped >= now
    assert stamped in (now, last + 1, floor)


@given(st.lists(st.tuples(times, times), min_size=1))
def test_stamps_rise_whatever_the_clock_does(readings: list[tuple[int, int]]) -> None:
    """Steps back, standstill and leaps: each entry of a log is stamped beyond the one before (PROTOCOL 2)."""
    stamps = [0]
    for now, floor in readings:
        stamps.append(stamp(now, last=stamps[-1], floor=floor))
    assert stamps == sorted(set(stamps))


@given(st.integers(-(2**62), 2**62), st.integers(-(2**62), 2**62), st.integers(0, 10**9))
def test_a_reading_never_leads_the_majority_by_more_than_the_offset(
    now: int, reached: int, offset: int
) -> None:
    """(†) A wild clock is contained where it is read; a slow one is taken as it is."""
    reading, clamped = bounded(now, reached, offset)
    assert 0 <= reading <= max(0, reached + offset)
    assert clamped == (now > max(0, reached + offset))
    assert clamped or reading == max(0, now)


def test_a_leader_that_heard_no_majority_has_no_time() -> None:
    """Minus infinity plus the offset: the stamp then follows from the log and the floor alone."""
    reading, clamped = bounded(1000, UNHEARD, 250)
    assert (reading, clamped) == (0, True)
    assert stamp(reading, last=41, floor=0) == 42


@pytest.mark.parametrize(("last", "floor", "expected"), [(10**9, 0, 10**9 + 1), (0, 10**9, 10**9)])
def test_only_the_clock_is_limited(last: int, floor: int, expected: int) -> None:
    """(†) `last + 1` and the floor pass any bound: a log that ran ahead can always be continued (protocol
    attack 1).
    """
    reading, _ = bounded(10**12, 1000, 250)
    assert stamp(reading, last=last, floor=floor) == expected


def test_a_floor_behind_an_answer_orders_across_groups() -> None:
    """(†) Answered at 100 in group 2, the session's next write in group 1 is stamped 101, not 100: a tie
    sorts by
    group and would invert the two (protocol attack 7).
    """
    answered = (100, 2)
    following = (stamp(95, last=90, floor=answered[0] + 1), 1)
    assert answered < following
