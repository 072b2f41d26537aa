"""A watched clock: steps, stops and suspends are counted, and nothing is changed."""

from __future__ import annotations

import itertools

import pytest

from craft.clock.manual import ManualClock
from craft.clock.timeline import Timeline
from craft.clock.watch import RATE_PPM_MAX, WatchedClock

MS = 1_000_000
SECOND_NS = 1_000 * MS


class Scene:
    """A clock and the machine's own, all moved by hand."""

    def __init__(self) -> None:
        self.monotonic = 100 * SECOND_NS
        self.asleep = 0
        self.pause = 0  # before the next reading that decides whether the machine slept
        self.clock = ManualClock(error=5)
        timeline = Timeline(
            lambda: self.monotonic, monotonic=lambda: self.monotonic, since_boot=self._since_boot
        )
        self.watched = WatchedClock(self.clock, timeline=timeline)

    def _since_boot(self) -> int:
        pause, self.pause = self.pause, 0
        return self.monotonic + self.asleep + pause

    def pass_time(self, ns: int, *, clock_ns: int | None = None) -> None:
        """Let the machine's time pass, and the clock's with it, or otherwise."""
        self.monotonic += ns
        self.clock.advance(ns if clock_ns is None else clock_ns)
        assert self.watched.now() == self.clock.now(), "it shows what the clock shows"

    @property
    def noticed(self) -> tuple[int, int, int]:
        status = self.watched.status()
        return status["steps"], status["stops"], status["suspends"]


def test_a_good_clock_is_not_complained_of() -> None:
    """Seldom read or often, and slewed at the allowed rate."""
    scene = Scene()
    for wait in [0, 1, 150 * MS, 10 * SECOND_NS, 3600 * SECOND_NS] * 5:
        scene.pass_time(wait, clock_ns=wait + wait * (RATE_PPM_MAX - 1) // 10**6)
    assert scene.noticed == (0, 0, 0)
    assert scene.watched.error() == 5


@pytest.mark.parametrize("by_ms", [-3_600_000, -20, 20, 3_600_000])
def test_a_step_is_counted_once(by_ms: int, caplog: pytest.LogCaptureFixture) -> None:
    """Forwards or backwards, it is one step, with its size, and logged."""
    scene = Scene()
    scene.pass_time(SECOND_NS)
    scene.clock.step(by_ms * MS)
    scene.pass_time(MS)
    scene.pass_time(SECOND_NS)
    assert scene.noticed == (1, 0, 0)
    assert scene.watched.status()["last_step_ns"] == by_ms * MS
    assert f"the clock stepped by_ms={by_ms}" in caplog.text


def test_a_clock_that_stands_still_is_one_stop(caplog: pytest.LogCaptureFixture) -> None:
    """Also where it is read so often that no single reading is far off; it ends when the clock goes again."""
    scene = Scene()
    for _ in range(100):
        scene.pass_time(MS, clock_ns=0)
    assert scene.noticed == (0, 1, 0)
    assert scene.watched.status()["stopped"]
    assert caplog.text.count("the clock stands still") == 1
    for _ in range(5):
        scene.pass_time(SECOND_NS)
    assert scene.noticed == (0, 1, 0)
    assert not scene.watched.status()["stopped"]


def test_a_clock_that_creeps_shows_as_steps() -> None:
    """Ten percent too slow is no slewing, though each single reading is near."""
    scene = Scene()
    for _ in range(2000):
        scene.pass_time(MS, clock_ns=MS * 9 // 10)
    assert scene.watched.steps > 5


def test_a_suspend_is_no_step(caplog: pytest.LogCaptureFixture) -> None:
    """The machine slept, and its clock is right after it."""
    scene = Scene()
    scene.pass_time(SECOND_NS)
    scene.asleep += 3600 * SECOND_NS
    scene.pass_time(MS, clock_ns=3600 * SECOND_NS + MS)
    scene.pass_time(SECOND_NS)
    assert scene.noticed == (0, 0, 1)
    assert scene.watched.status()["asleep_ns"] == 3600 * SECOND_NS
    assert "the machine was asleep" in caplog.text


def test_a_machine_that_wakes_with_a_stale_clock_is_both() -> None:
    """Asleep for an hour, and the clock goes on from where it was: a suspend, and a step backwards."""
    scene = Scene()
    scene.asleep += 3600 * SECOND_NS
    scene.pass_time(MS)
    assert scene.noticed == (1, 0, 1)
    assert scene.watched.status()["last_step_ns"] == -3600 * SECOND_NS


def test_a_pause_between_two_readings_is_no_suspend() -> None:
    """The process was held up just there: reading again tells."""
    scene = Scene()
    scene.pause = 5 * SECOND_NS
    scene.pass_time(MS)
    assert scene.noticed == (0, 0, 0)


class HeldUp:
    """A clock whose readings are held up now and then, after the machine's clock was read."""

    def __init__(self) -> None:
        self.monotonic = 0
        self.holds: list[int] = []

    def now(self) -> int:
        self.monotonic += self.holds.pop(0) if self.holds else 0
        return self.monotonic

    def error(self) -> int | None:
        return None


def test_a_pause_between_the_two_clocks_is_no_step() -> None:
    """The process was held up between reading time and reading the clock: it looks again."""
    clock = HeldUp()

    def read() -> int:
        return clock.monotonic

    watched = WatchedClock(clock, timeline=Timeline(read, monotonic=read, since_boot=read))
    for holds in ([500 * MS], [500 * MS, 500 * MS], [500 * MS] * 4):
        clock.holds = list(holds)
        clock.monotonic += 10 * MS
        watched.now()
        clock.monotonic += 10 * MS
        watched.now()
    assert watched.status()["steps"] == 0


def test_the_machines_own_timeline_never_goes_back() -> None:
    """Whichever of the four clocks of Linux it is made of."""
    timeline = Timeline()
    readings = [timeline.read() for _ in range(1000)]
    assert all(earlier <= later for earlier, later in itertools.pairwise(readings))
    assert timeline.suspends == 0


async def test_watching_runs_a_clock_that_runs_and_no_other() -> None:
    """A clock that asks others is run by the server through its watcher; another one has nothing to run."""

    class Running(ManualClock):
        runs = 0

        async def run(self) -> None:
            self.runs += 1

    clock = Running()
    await WatchedClock(clock).run()
    assert clock.runs == 1
    await WatchedClock(ManualClock()).run()
