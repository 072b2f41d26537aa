"""The disciplined clock in a simulated world: right within its bound, slewed, and honest when it is not."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from craft.clock.discipline import SAMPLES_MAX, SLEW_PPM_MAX, UNSYNCHRONISED_S_MAX, Discipline
from craft.clock.samples import DRIFT_PPM_MAX, SECOND_NS, Sample

MS = 1_000_000
HOUR_S = 3600


def sample(offset_ms: float, *, at_s: float, error_ms: float = 1, delay_ms: float = 1) -> Sample:
    return Sample(int(at_s * SECOND_NS), int(offset_ms * MS), int(delay_ms * MS), int(error_ms * MS))


def agreed(offset_ms: float = 0, servers: int = 1) -> Discipline:
    """One that has agreed at once on an offset."""
    names = [f"s{number}" for number in range(servers)]
    discipline = Discipline(names, offset_ns=77, now_ns=0)
    for name in names:
        discipline.observe(name, sample(offset_ms, at_s=0), 0)
    return discipline


def test_before_the_first_agreement_nothing_is_known() -> None:
    """It runs with the offset it was given, and follows the clock that it is told to, at once."""
    discipline = Discipline(["a", "b", "c"], offset_ns=5 * MS, now_ns=0)
    assert (discipline.now(SECOND_NS), discipline.error(SECOND_NS)) == (SECOND_NS + 5 * MS, None)
    discipline.follow(9 * MS, SECOND_NS)
    assert discipline.now(SECOND_NS) == SECOND_NS + 9 * MS
    discipline.observe("a", sample(100, at_s=1), SECOND_NS)
    assert discipline.error(SECOND_NS) is None, "one of three is no majority"


def test_the_first_agreement_sets_the_clock_and_later_ones_slew_it() -> None:
    """A clock that starts may jump; one that runs may not."""
    discipline = agreed(1000)
    assert discipline.now(0) == SECOND_NS
    assert discipline.error(0) == MS
    for number in range(SAMPLES_MAX):
        discipline.observe("s0", sample(1010, at_s=1 + number / 10), 2 * SECOND_NS)
    assert discipline.slewing_ns(2 * SECOND_NS) == 10 * MS
    assert discipline.now(2 * SECOND_NS) == 3 * SECOND_NS
    assert discipline.now(12 * SECOND_NS) == 13 * SECOND_NS + 10 * SECOND_NS * SLEW_PPM_MAX // 10**6
    assert discipline.slewing_ns(22 * SECOND_NS) == 0


def test_the_error_holds_what_is_left_to_slew_and_the_drift() -> None:
    """What is known to be wrong is part of the bound, and so is what may have gone wrong since."""
    discipline = agreed(0)
    for _ in range(SAMPLES_MAX):
        discipline.observe("s0", sample(20, at_s=0), 0)
    assert discipline.error(0) == 21 * MS
    slewed, drifted = 10 * SECOND_NS * SLEW_PPM_MAX // 10**6, 10 * SECOND_NS * DRIFT_PPM_MAX // 10**6
    assert discipline.error(10 * SECOND_NS) == 21 * MS - slewed + drifted


def test_of_a_servers_samples_the_quickest_counts() -> None:
    """A delayed answer does not spoil what a quick one said before; age makes room for it."""
    discipline = Discipline(["a"], offset_ns=0, now_ns=0)
    discipline.observe("a", sample(5, at_s=0, error_ms=1), 0)
    discipline.observe("a", sample(90, at_s=1, error_ms=100, delay_ms=200), SECOND_NS)
    assert discipline.server_status("a", SECOND_NS)["delay_ns"] == MS
    discipline.observe("a", sample(7, at_s=100, error_ms=5), 100 * SECOND_NS)
    assert discipline.server_status("a", 100 * SECOND_NS)["error_ns"] == 5 * MS, "1 ms and 10 ms of drift"


def test_a_minority_of_liars_is_named_and_moves_nothing() -> None:
    """Ten seconds off, and outvoted."""
    discipline = agreed(0, servers=3)
    discipline.observe("s2", sample(10_000, at_s=1, error_ms=0.1), SECOND_NS)
    for number in range(SAMPLES_MAX):
        discipline.observe("s2", sample(10_000, at_s=2, error_ms=0.1 + number), 2 * SECOND_NS)
    assert discipline.status(2 * SECOND_NS)["falsetickers"] == ["s2"]
    assert abs(discipline.now(2 * SECOND_NS) - 2 * SECOND_NS) <= MS


def test_without_a_majority_the_clock_coasts_and_then_falls_back() -> None:
    """Servers that contradict each other correct nothing: the error grows, and after an hour is unknown."""
    discipline = agreed(0, servers=2)
    for number in range(SAMPLES_MAX):
        discipline.observe("s1", sample(5_000, at_s=1 + number), 10 * SECOND_NS)
    assert discipline.agreement is None
    assert discipline.now(10 * SECOND_NS) == 10 * SECOND_NS
    last = UNSYNCHRONISED_S_MAX * SECOND_NS
    assert discipline.error(last) is not None
    assert not discipline.falls_back(last)
    assert discipline.error(last + 2 * SECOND_NS) is None
    assert discipline.falls_back(last + 2 * SECOND_NS)


def test_falling_back_is_slewed_too() -> None:
    """After an hour without time servers the system's clock is followed, without a step."""
    discipline = agreed(0)
    later = (UNSYNCHRONISED_S_MAX + 1) * SECOND_NS
    discipline.follow(SECOND_NS, later)
    assert discipline.now(later) == later
    assert discipline.now(later + 2000 * SECOND_NS) == later + 2001 * SECOND_NS
    assert discipline.error(later) is None


def test_a_good_clock_follows_no_other() -> None:
    """To fall back while the time is known would be a bug."""
    with pytest.raises(AssertionError):
        agreed(0).follow(0, SECOND_NS)


def test_after_a_suspend_nothing_is_known_and_the_clock_may_be_set_once() -> None:
    """The steady clock was away: its readings from before say nothing now."""
    discipline = agreed(0)
    discipline.restart(SECOND_NS)
    assert discipline.error(SECOND_NS) is None
    assert discipline.now(SECOND_NS) == SECOND_NS, "it goes on as it was"
    discipline.observe("s0", sample(3000, at_s=1), SECOND_NS)
    assert discipline.now(SECOND_NS) == 4 * SECOND_NS
    assert discipline.error(SECOND_NS) == MS


def test_another_server_under_the_same_name_starts_anew() -> None:
    """What the one said is not held for the other's word."""
    discipline = agreed(0)
    discipline.forget("s0")
    assert discipline.server_status("s0", 0)["offset_ns"] is None


# -- a world ---------------------------------------------------------------------------------------


class World:
    """A steady clock that drifts, honest servers behind uneven delays, and a minority of liars."""

    def __init__(self, seed: int, servers: int, liars: int) -> None:
        self.rng = Random(seed)
        self.true_ns = 1_700_000_000 * SECOND_NS
        self.steady_ns = 1000 * SECOND_NS
        self.liars = liars
        self.names = [f"s{number}" for number in range(servers)]
        # the system's clock at the start is half a second off
        offset = self.true_ns - self.steady_ns + 500 * MS
        self.clock = Discipline(self.names, offset_ns=offset, now_ns=self.steady_ns)
        self.drift_ppm = 0

    def pass_time(self, ns: int) -> None:
        self.true_ns += ns
        self.steady_ns += ns + ns * self.drift_ppm // 10**6

    def ask(self, number: int) -> None:
        """An answer whose error is what it admits; of a liar, anything."""
        there, back = self.rng.randrange(50 * MS), self.rng.randrange(50 * MS)
        sent = self.steady_ns
        self.pass_time(there)
        root = self.rng.randrange(1, 5 * MS)
        word = self.true_ns + self.rng.randint(-root, root)
        self.pass_time(back)
        if number < self.liars:
            word += self.rng.choice([-10_000, 10_000, 40, -40]) * MS
        away = self.steady_ns - sent
        offset = word - (sent + self.steady_ns) // 2
        error = away // 2 + root + away * DRIFT_PPM_MAX // 10**6 + 2
        self.clock.observe(self.names[number], Sample(sent, offset, away, error), self.steady_ns)


@given(
    seed=st.integers(0, 2**32),
    shape=st.sampled_from([(1, 0), (2, 0), (3, 0), (3, 1), (4, 1), (5, 2), (7, 3)]),
    rounds=st.integers(1, 60),
)
@settings(max_examples=150)
def test_the_stated_error_is_never_less_than_the_true_one(
    seed: int, shape: tuple[int, int], rounds: int
) -> None:
    """Drift that changes within its bound, lost answers, delays and liars: the bound holds, nothing steps."""
    world = World(seed, *shape)
    rng, clock = world.rng, world.clock
    known = 0
    for number in range(len(world.names)):
        world.ask(number)
    for _ in range(rounds):
        world.drift_ppm = rng.randint(-DRIFT_PPM_MAX, DRIFT_PPM_MAX)
        for number in range(len(world.names)):
            if rng.random() < 0.7:
                world.ask(number)
        steady, reading, error = world.steady_ns, clock.now(world.steady_ns), clock.error(world.steady_ns)
        for wait in (1, rng.randrange(MS), rng.randrange(100 * SECOND_NS)):
            world.pass_time(wait)
            if error is not None:
                passed, shown = world.steady_ns - steady, clock.now(world.steady_ns) - reading
                assert abs(shown - passed) <= passed * SLEW_PPM_MAX // 10**6 + 1, "slewed, never stepped"
                assert shown >= 0
            now_error = clock.error(world.steady_ns)
            if now_error is not None:
                known += 1
                assert abs(clock.now(world.steady_ns) - world.true_ns) <= now_error
    assert known, "a majority was heard"
