"""Simulated clocks: wrong in every way, and always of the same mind about the same instant."""

from __future__ import annotations

from craft.testing.clocks import EPOCH, SimulatedClock

SECOND = 1_000_000_000


def test_a_clock_that_is_left_alone_shows_true_time() -> None:
    """Which is virtual time since the epoch."""
    assert SimulatedClock().now(5 * SECOND) == EPOCH + 5 * SECOND


def test_a_clock_jumps_drifts_stops_and_is_repaired() -> None:
    """Each change begins at its own instant and keeps what went before."""
    clock = SimulatedClock()
    clock.jump(1 * SECOND, -10 * SECOND)
    assert clock.now(2 * SECOND) == EPOCH - 8 * SECOND
    clock.drift(2 * SECOND, 500_000)
    assert clock.now(4 * SECOND) == EPOCH - 5 * SECOND
    clock.stop(4 * SECOND)
    assert clock.now(9 * SECOND) == EPOCH - 5 * SECOND
    clock.repair(9 * SECOND)
    assert clock.now(10 * SECOND) == EPOCH + 10 * SECOND


def test_a_clock_runs_backwards() -> None:
    """A rate below minus a million parts in a million."""
    clock = SimulatedClock()
    clock.drift(0, -2_000_000)
    assert clock.now(3 * SECOND) == EPOCH - 3 * SECOND


def test_a_coarse_clock_shows_the_same_for_a_while() -> None:
    """So that stamps tie."""
    clock = SimulatedClock()
    clock.step_ns = SECOND
    assert clock.now(SECOND + 1) == clock.now(2 * SECOND - 1) == EPOCH + SECOND
