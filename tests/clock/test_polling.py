"""How often a time server is asked: politely, whatever it answers."""

from __future__ import annotations

import itertools
from random import Random

import pytest

from craft.clock.polling import FIRST_POLL_S, FIRST_POLLS, JITTER, POLL_S_MAX, Polling


def waits(polling: Polling, events: str) -> list[float]:
    """Play `.` (answered) and `x` (failed); each wait without its jitter."""
    found: list[float] = []
    for event in events:
        if event == ".":
            polling.answered()
        else:
            polling.failed()
        wait = polling.wait_s()
        found.append(round(wait / (1 + JITTER / 2)))
        assert found[-1] * 0.9 <= wait <= POLL_S_MAX * (1 + JITTER)
    return found


def test_the_first_questions_come_close_and_then_the_interval_holds() -> None:
    """Four in a row to know the time soon, then one a minute."""
    assert waits(Polling(64, Random(1)), "......")[:FIRST_POLLS] == [2, 2, 2, pytest.approx(64, rel=JITTER)]


def test_a_server_that_is_silent_is_asked_ever_more_seldom() -> None:
    """Doubling from the first question on, to a quarter of an hour; one answer ends it."""
    polling = Polling(64, Random(1))
    found = waits(polling, "xxxxxxxxxx")
    assert all(later >= earlier * 0.9 for earlier, later in itertools.pairwise(found))
    assert found[0] == 2 * FIRST_POLL_S
    assert found[-1] >= POLL_S_MAX * 0.9
    polling.answered()
    assert polling.wait_s() <= 64 * (1 + JITTER)


def test_rate_halves_the_pace_for_good() -> None:
    """Kiss-o'-death RATE: the first questions end, and good answers do not bring the old pace back."""
    polling = Polling(64, Random(1))
    polling.failed("RATE")
    assert polling.wait_s() >= 128
    polling.answered()
    assert polling.wait_s() >= 128
    for _ in range(10):
        polling.failed("RATE")
    polling.answered()
    assert polling.wait_s() >= POLL_S_MAX
    polling.restart()
    assert polling.wait_s() >= 128, "nor does a suspend"


@pytest.mark.parametrize("kiss", ["DENY", "RSTR"])
def test_a_server_that_does_not_want_us_is_left_alone(kiss: str) -> None:
    """Kiss-o'-death DENY and RSTR end it, until the server is started anew."""
    polling = Polling(64, Random(1))
    before = polling.ended
    polling.failed(kiss)
    assert (before, polling.ended, polling.refused) == (False, True, kiss)


def test_nobody_may_be_asked_more_often_than_every_two_seconds() -> None:
    """A configuration cannot make us rude."""
    polling = Polling(0.01, Random(1))
    for _ in range(FIRST_POLLS + 2):
        polling.answered()
        assert polling.wait_s() >= FIRST_POLL_S
