"""How far the peers' clocks are, as the frames that travel anyway tell."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from craft.clock.offsets import LOOK_INTERVAL_NS, SILENCE_NS_MAX, WINDOW_NS, Estimate, Offsets
from craft.messages import Frame
from craft.types import Instant

MS = 1_000_000
EPOCH = 1_700_000_000 * 1000 * MS
PEER = 2


@dataclass
class Exchange:
    """One server and its peer, whose clock is `wrong` by so much. Our clock reads EPOCH at monotonic zero."""

    wrong: int = 0
    now: int = 0

    def __post_init__(self) -> None:
        self.offsets = Offsets()

    def go(self, *, there: int, held: int = 0, back: int, pause: int = LOOK_INTERVAL_NS) -> None:
        """A frame goes there, is held, and is answered."""
        echo, answered = self.now + pause, self.now + pause + there + held
        clock = EPOCH + answered + self.wrong
        self.now = answered + back
        self.offsets.observe(PEER, Frame(clock, 7, echo, held, 0, (), (), ()), self.now)

    @property
    def estimate(self) -> Estimate:
        return self.offsets.estimates(Instant(self.now, EPOCH + self.now))[PEER]


def test_a_round_trip_tells_the_offset_and_its_error() -> None:
    """Both ways alike: the offset is exact, however long the peer held it; the error is half the trip."""
    exchange = Exchange(wrong=3 * MS)
    exchange.go(there=100_000, held=50_000, back=100_000)
    assert exchange.estimate == Estimate(3 * MS, 100_006, 100_000)  # 6 ns that the peer may have mistimed


def test_nothing_is_known_of_who_was_never_heard() -> None:
    """No guess is made."""
    assert Offsets().estimates(Instant(1, EPOCH)) == {}


def test_the_sample_of_the_least_delay_counts() -> None:
    """A frame that waited behind others does not spoil what is known."""
    exchange = Exchange()
    exchange.go(there=100_000, back=100_000)
    exchange.go(there=100_000, back=30 * MS)
    assert abs(exchange.estimate.offset_ns) < 10
    assert exchange.estimate.delay_ns == 100_000
    exchange.go(there=80_000, back=90_000)
    assert exchange.estimate.delay_ns == 85_000


def test_a_sample_ages() -> None:
    """Clocks drift: the error grows, until a sample of more delay is the better one."""
    exchange = Exchange()
    exchange.go(there=100_000, back=100_000)
    fresh = exchange.estimate.error_ns
    exchange.now += 1000 * MS
    assert exchange.estimate.error_ns == fresh + 100_000
    exchange.go(there=150_000, back=150_000)
    assert exchange.estimate.error_ns == 150_001


def test_a_window_ends_the_best_sample() -> None:
    """The way has become longer: after a while that is what is shown."""
    exchange = Exchange()
    exchange.go(there=100_000, back=100_000)
    exchange.go(there=90 * MS, back=90 * MS)
    assert exchange.estimate.delay_ns == 100_000
    exchange.go(there=90 * MS, back=90 * MS, pause=WINDOW_NS)
    assert exchange.estimate.delay_ns == 90 * MS


def test_of_a_silent_peer_nothing_is_said() -> None:
    """Its clock may have been set since."""
    exchange = Exchange()
    exchange.go(there=100_000, back=100_000)
    exchange.now += SILENCE_NS_MAX + 1
    assert exchange.offsets.estimates(Instant(exchange.now, EPOCH + exchange.now)) == {}


def test_a_clock_that_was_set_is_noticed_at_once() -> None:
    """A sample that contradicts what is known replaces it, though its delay is greater."""
    exchange = Exchange()
    exchange.go(there=100_000, back=100_000)
    for wrong in (3_600_000 * MS, -3_600_000 * MS, 2 * MS):
        exchange.wrong = wrong
        exchange.go(there=400_000, back=400_000)
        assert exchange.estimate.offset_ns == wrong


def test_our_own_clock_may_be_set_too() -> None:
    """Samples live on our monotonic clock: the offset follows our clock without another frame."""
    exchange = Exchange()
    exchange.go(there=100_000, back=100_000)
    ours = Instant(exchange.now, EPOCH + exchange.now + 5 * MS)
    assert exchange.offsets.estimates(ours)[PEER].offset_ns == -5 * MS


def test_a_peer_cannot_hold_a_frame_for_longer_than_it_was_away() -> None:
    """What cannot be is not believed."""
    exchange = Exchange()
    exchange.offsets.observe(PEER, Frame(EPOCH, 7, 1 * MS, 5 * MS, 0, (), (), ()), 2 * MS)
    assert exchange.offsets.estimates(Instant(2 * MS, EPOCH)) == {}


def test_a_flood_of_frames_is_not_looked_at() -> None:
    """One frame a millisecond tells enough, and the others cost next to nothing."""
    exchange = Exchange()
    exchange.go(there=100_000, back=100_000)
    exchange.go(there=10_000, back=10_000, pause=0)
    assert exchange.estimate.delay_ns == 100_000


ways = st.integers(0, 200 * MS)


@given(
    st.integers(-(10**18), 10**18), st.lists(st.tuples(ways, ways, ways, ways), min_size=1, max_size=20), ways
)
def test_the_truth_is_within_the_error(
    wrong: int, trips: list[tuple[int, int, int, int]], later: int
) -> None:
    """Whichever way the delay was spent, and however old the sample is."""
    exchange = Exchange(wrong=wrong)
    for there, held, back, pause in trips:
        exchange.go(there=there, held=held, back=back, pause=pause)
    exchange.now += later
    estimate = exchange.estimate
    assert abs(estimate.offset_ns - wrong) <= estimate.error_ns
