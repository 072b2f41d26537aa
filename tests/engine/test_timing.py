"""What time a leader stamps by: its own clock, raised where it is slow and clamped where it is wild."""

from __future__ import annotations

from functools import partial

import pytest

from craft.engine import committing, timing
from craft.engine.state import Pending
from craft.ready import Ready
from tests.driver import EPOCH, MS, SECOND, Cluster

HOUR = 3_600 * SECOND


def settled(*offsets: int) -> Cluster:
    """Three servers whose clocks are off by so much, and have heard each other for a while."""
    c = Cluster()
    for i, offset in enumerate(offsets):
        c.clocks[i] = partial(shown, offset)
    c.settle()
    c.run(2 * SECOND)
    return c


def shown(offset: int, time: int) -> int:
    return EPOCH + time + offset


def reading(c: Cluster, i: int) -> int:
    """What server `i` would stamp by, less true time."""
    e = c.servers[i].engine.state
    return timing.reading(e, e.raft(0))[0] - e.now.clock_ns + c.clock_of(i) - shown(0, c.time)


@pytest.mark.parametrize("behind", [10 * MS, HOUR])
def test_a_slow_leader_stamps_by_a_majoritys_clocks(behind: int) -> None:
    """By a little or by an hour: nobody has to ask it for what its clock does not show yet."""
    c = settled(0, -behind, 0)
    assert abs(reading(c, 1)) < 5 * MS


def test_one_fast_clock_raises_nobody() -> None:
    """It is no majority."""
    c = settled(0, 100 * MS, 0)
    assert abs(reading(c, 0)) < 5 * MS and abs(reading(c, 2)) < 5 * MS


def test_a_wild_clock_is_clamped() -> None:
    """An hour ahead counts for no more than the bound, and what an answer may have been under way."""
    c = settled(0, HOUR, 0)
    bound = c.limits.clock_offset_ms_max * MS
    assert bound - 5 * MS < reading(c, 1) <= bound + 2 * c.limits.heartbeat_interval_ms * MS


def test_a_slow_server_takes_the_floor_of_a_client_of_another() -> None:
    """It reads the time for a floor as for a stamp, or it would refuse what it could stamp beyond."""
    c = settled(0, -HOUR, 0)
    e = c.servers[1].engine.state
    now = e.now.clock_ns + HOUR
    assert c.servers[1].engine.takes_floor(now - 10 * MS)
    assert not c.servers[1].engine.takes_floor(now + HOUR)


def test_who_waits_for_the_clocks_costs_a_turn_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand that are committed and wait for their timestamps: a turn looks at the first of them."""
    c = settled(0, 0, 0)
    e = c.servers[0].engine.state
    e.clock_error_ns = 50 * MS
    for number in range(1, 1001):
        pending = e.pending[10**6 + number] = Pending(number, 10**6 + number, b"")
        e.committed.append((e.now.clock_ns + number, pending.request, pending))
    looks = 0
    left = committing._left

    def counted(*args: object) -> int:
        nonlocal looks
        looks += 1
        return left(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(committing, "_left", counted)
    out = Ready()
    committing.turn(e, out)
    assert looks == 1 and not out.committed and len(e.committed) == 1000


def test_what_was_told_as_committed_is_a_floor_of_the_session() -> None:
    """The next request of this server is stamped beyond it, whoever leads it (PROTOCOL 2, 4)."""
    c = settled(0, 0, 0)
    e = c.servers[0].engine.state
    pending = e.pending[10**6] = Pending("token", 10**6, b"")
    told = e.now.clock_ns + 7
    e.committed.append((told, pending.request, pending))
    out = Ready()
    committing.turn(e, out)
    assert out.committed == [("token", told)]
    assert e.answered_timestamp == told


def test_a_clock_beyond_its_bound_tells_nobody() -> None:
    """Those who wait are answered when they are applied, and leave nothing behind (PROTOCOL 4)."""
    c = settled(0, 0, 0)
    e = c.servers[0].engine.state
    e.clock_breached = True
    pending = e.pending[10**6] = Pending("token", 10**6, b"")
    e.committed.append((e.now.clock_ns - SECOND, pending.request, pending))
    out = Ready()
    committing.turn(e, out)
    assert not out.committed and not e.committed and not pending.told
