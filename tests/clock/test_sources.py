"""The clock sources: each keeps the port's promises, and the manual one does as it is told."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from craft.clock import Clock, clock_status
from craft.clock.chrony import ChronyClock
from craft.clock.manual import START, ManualClock
from craft.clock.ntp import NtpClock
from craft.clock.system import SystemClock
from craft.clock.watch import WatchedClock
from craft.types import TIMESTAMP_MAX

SOURCES = {
    "system": SystemClock(),
    "manual": ManualClock(),
    "chrony": ChronyClock(),
    "ntp": NtpClock([("127.0.0.1", 1)]),
    "watched": WatchedClock(SystemClock()),
}


@pytest.mark.parametrize("clock", SOURCES.values(), ids=SOURCES)
def test_every_source_reads_nanoseconds_since_the_epoch(clock: Clock) -> None:
    """A reading is a whole number of nanoseconds of our era, and so is an error that is known."""
    assert isinstance(clock.now(), int)
    assert START <= clock.now() <= TIMESTAMP_MAX
    error = clock.error()
    assert error is None or error >= 0


@pytest.mark.parametrize("clock", SOURCES.values(), ids=SOURCES)
def test_every_source_says_how_it_is(clock: Clock) -> None:
    """Status is plain values, with the source, its state in words and the error, for a user's clock too."""
    status = clock_status(clock)
    json.dumps(status)
    assert status["source"] and status["state"]
    assert status["error_ns"] is None or status["error_ns"] >= 0


def test_manual_clock_stands_still_until_told() -> None:
    """Nothing but the test moves a manual clock."""
    clock = ManualClock(100)
    assert [clock.now(), clock.now()] == [100, 100]
    clock.advance(5)
    assert clock.now() == 105
    clock.step(-50)
    assert clock.now() == 55
    clock.set(7)
    assert clock.now() == 7


def test_manual_clock_states_the_error_it_is_given() -> None:
    """A test may state any bound, a wrong one too."""
    clock = ManualClock(error=2_000)
    assert clock.error() == 2_000
    clock.set_error(None)
    assert clock.error() is None


@pytest.mark.parametrize(
    ("move", "complaint"),
    [
        (lambda clock: clock.set(-1), "cannot read -1"),
        (lambda clock: clock.set(2**63), f"cannot read {2**63}"),
        (lambda clock: clock.step(-101), "cannot read -1"),
        (lambda clock: clock.advance(-1), r"does not pass by -1 ns.*use step\(\)"),
        (lambda clock: clock.set_error(-3), "error cannot be -3"),
    ],
)
def test_an_impossible_reading_is_refused_and_changes_nothing(
    move: Callable[[ManualClock], None], complaint: str
) -> None:
    """A refused move names the value and what is allowed, and leaves the clock as it was."""
    clock = ManualClock(100, error=1)
    with pytest.raises(ValueError, match=complaint):
        move(clock)
    assert (clock.now(), clock.error()) == (100, 1)
