"""What the servers' clocks say, as one server can know it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from craft.clock.interval import UNHEARD, Readings
from craft.types import Configuration, Instant

ME = 0
THREE = Configuration(frozenset({0, 1, 2}))
STARTED = 1000
EPOCH = 10**6
"""What good clocks read when our monotonic clock reads 0."""


def at(monotonic: int, clock: int | None = None) -> Instant:
    return Instant(monotonic, EPOCH + monotonic if clock is None else clock)


def reading(readings: Readings, peer: int, now: int) -> int:
    return readings.clocks(at(now), ME)[peer]


def test_a_reading_moves_with_our_own_monotonic_clock() -> None:
    """Said once, a clock goes on by itself."""
    readings = Readings(STARTED)
    readings.observe(1, EPOCH + 1000, 1000, at(1000))
    assert reading(readings, 1, 5000) == EPOCH + 5000


def test_a_reading_is_carried_from_when_we_asked() -> None:
    """(†) Sent at 1000, answered at 1010, handled at 1200: carried from 1000, so too great by the 10 of the
    way
    there, never too small by the 190 of the way back (protocol attack 15).
    """
    readings = Readings(STARTED)
    readings.observe(1, EPOCH + 1010, 1000, at(1200))
    assert reading(readings, 1, 1200) == EPOCH + 1200 + 10


def test_old_frames_do_not_make_time_stand_still() -> None:
    """(†) A server stalls for 200 and then handles what was buffered: q is not 200 behind (protocol attack
    15).
    """
    readings = Readings(STARTED)
    for peer in (1, 2):
        readings.observe(peer, EPOCH + 1001, 1000, at(1200))
    assert readings.reached(THREE, at(1200), ME) >= EPOCH + 1200


def test_a_peer_that_repeats_an_echo_does_not_run_ahead() -> None:
    """While we were stalled it went on speaking, always answering the same frame of ours: what it said first
    is the closest; the last would be too great by the whole stall.
    """
    readings = Readings(STARTED)
    for age in (1, 75, 150, 10_000):
        readings.observe(1, EPOCH + 1000 + age, 1000, at(11_000))
    assert reading(readings, 1, 11_000) == EPOCH + 11_000 + 1


def test_a_newer_answer_replaces_an_older_one() -> None:
    """A clock that was set is noticed with the next answer, forwards and backwards."""
    readings = Readings(STARTED)
    for echo, offset in ((1000, 0), (1100, 500), (1200, -500)):
        readings.observe(1, EPOCH + echo + offset, echo, at(1300))
        assert reading(readings, 1, 1300) == EPOCH + 1300 + offset


def test_an_older_answer_does_not_replace_a_newer_one() -> None:
    """Frames of an old connection may be handled late."""
    readings = Readings(STARTED)
    readings.observe(1, EPOCH + 1200, 1200, at(1300))
    readings.observe(1, EPOCH + 1100 + 77, 1100, at(1300))
    assert reading(readings, 1, 1300) == EPOCH + 1300


def test_an_echo_that_we_cannot_have_sent_is_ignored() -> None:
    """Of an earlier incarnation, from the future, or of a peer that has nothing from us yet."""
    readings = Readings(STARTED)
    for echo in (0, STARTED - 1, 2001):
        readings.observe(1, EPOCH, echo, at(2000))
    assert readings.clocks(at(2000), ME) == {ME: EPOCH + 2000}


def test_a_majority_must_be_heard() -> None:
    """A server never heard counts as minus infinity; oneself is always heard."""
    readings = Readings(STARTED)
    assert readings.reached(THREE, at(1000), ME) == UNHEARD
    readings.observe(2, EPOCH + 1000, 1000, at(1000))
    assert readings.reached(THREE, at(1000), ME) == EPOCH + 1000


def test_one_wild_clock_moves_nothing() -> None:
    """With a majority sane, q lies among the sane, whoever is wild: a peer, or this server."""
    readings = Readings(STARTED)
    readings.observe(1, EPOCH + 10**9, 1000, at(1000))
    readings.observe(2, EPOCH + 1000, 1000, at(1000))
    assert readings.reached(THREE, at(1000), ME) == EPOCH + 1000
    assert readings.reached(THREE, at(1000, clock=10**12), ME) == EPOCH + 10**9


def test_a_learners_own_clock_does_not_count() -> None:
    """Self counts where it is a voter."""
    readings = Readings(STARTED)
    others = Configuration(frozenset({1, 2, 3}), learners=frozenset({ME}))
    readings.observe(1, EPOCH + 1000, 1000, at(1000))
    assert readings.reached(others, at(1000), ME) == UNHEARD


def test_a_joint_majority_is_both() -> None:
    """While joint, q is what both sets have reached."""
    readings = Readings(STARTED)
    joint = Configuration(frozenset({0, 1, 2}), outgoing=frozenset({3, 4, 5}))
    for peer, clock in ((1, 500), (2, 500), (3, 300), (4, 200), (5, 100)):
        readings.observe(peer, clock, 1000, at(1000))
    assert readings.reached(joint, at(1000), ME) == 200


exchanges = st.lists(
    st.tuples(st.integers(1, 50), st.integers(0, 400), st.integers(0, 400)), min_size=1, max_size=20
)


@given(exchanges, st.integers(0, 500))
def test_a_good_clock_is_never_read_too_small_and_too_great_by_the_way_there(
    ways: list[tuple[int, int, int]], later: int
) -> None:
    """Each exchange: we send, the frame takes its way, the peer answers, the answer takes its way."""
    readings, sent, errors = Readings(STARTED), STARTED, dict[int, int]()
    arrivals = []
    for gap, there, back in ways:
        sent += gap
        arrivals.append((sent + there + back, sent, there))
    for arrival, echo, there in sorted(arrivals):
        readings.observe(1, EPOCH + echo + there, echo, at(arrival))
        errors[echo] = there
        for now in (arrival, arrival + later):
            error = reading(readings, 1, now) - (EPOCH + now)
            assert error == errors[max(errors)]
