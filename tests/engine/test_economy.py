"""What a command costs, counted: frames, turns and writes, where they are exact; and what must never wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from craft.engine import Engine
from craft.limits import KIB, EngineLimits
from craft.ready import Ready
from craft.types import Instant, is_command
from tests.driver import EPOCH, MS, SECOND, Cluster

COMMANDS = 50


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Every engine's turns, frames and writes."""
    counts: Counter[str] = Counter()
    original = Engine.ready

    def ready(self: Engine, now: Instant) -> Ready:
        out = original(self, now)
        counts["turns"] += 1
        counts["frames"] += len(out.frames)
        counts["writes"] += out.write is not None
        return out

    monkeypatch.setattr(Engine, "ready", ready)
    return counts


def test_one_write_at_a_time_costs_six_frames(counted: Counter[str]) -> None:
    """Out to two peers, each closes its group for us and says when that is durable: nobody else is told."""
    c = Cluster()
    c.settle_evenly()
    c.quiesce()
    c.run(3 * SECOND)
    counted.clear()
    began = c.time
    for number in range(COMMANDS):
        c.write_and_wait(0, b"%d" % number)
    heartbeats = 6 * ((c.time - began) // (c.limits.heartbeat_interval_ms * MS) + 1)
    assert counted["frames"] <= 6 * COMMANDS + heartbeats
    assert counted["turns"] <= 14 * COMMANDS + 2 * heartbeats
    assert counted["writes"] <= 5 * COMMANDS + heartbeats


def test_a_reader_elsewhere_does_not_wait_for_a_heartbeat() -> None:
    """What nobody waited for comes with the answers to the reader's question."""
    c = Cluster()
    c.settle_evenly()
    c.quiesce()
    for number in range(10):
        c.write_and_wait(0, b"%d" % number)
        assert c.read_and_wait(1 + number % 2, limit=10 * MS) is not None


def test_a_writer_elsewhere_does_not_wait_for_a_heartbeat() -> None:
    """Each write by another server finds what was held back from it when nobody there waited."""
    c = Cluster()
    c.settle_evenly()
    c.quiesce()
    for number in range(30):
        assert c.write_and_wait(number % 3, b"%d" % number) < 10 * MS


def ahead(by: int, time: int) -> int:
    """A clock's reading."""
    return EPOCH + time + by


@pytest.mark.parametrize("skew_ms", [(0, -1, 0), (0, -10, 0), (0, 10, 0), (100, -100, 100)])
def test_a_writer_with_another_clock_does_not_wait_for_a_heartbeat(skew_ms: tuple[int, ...]) -> None:
    """Who is behind finds the other groups closed beyond its stamp already: all it lacks is being told so."""
    c = Cluster()
    c.clocks = {i: partial(ahead, skew_ms[i] * MS) for i in c.ids}
    c.settle_evenly()
    c.quiesce()
    for number in range(60):
        c.run(number % 7 * MS)
        assert c.write_and_wait(number % 3, b"%d" % number) < 10 * MS


def test_a_new_leaders_first_entry_does_not_wait() -> None:
    """It commits what earlier terms left: until then every merge stands still. Here a leader comes home."""
    c = Cluster()
    c.settle_evenly()
    c.restart(2)
    c.settle()
    c.run_until(lambda: c.leaders()[2] == 2)
    assert c.run_until(lambda: c.raft(2, 2).commit_place.term == c.raft(2, 2).term) < 10 * MS


def break_a_link(c: Cluster) -> None:
    """Both connect again at once, and each leader asks anew what the other holds."""
    c.unlink(0, 1)
    c.link(0, 1)


def restart_a_server(c: Cluster) -> None:
    """Another leads its group meanwhile, beside its own, and asks everybody what they hold."""
    c.restart(2, keep=1)
    c.run_until(c.open)


def stop_a_server(c: Cluster) -> None:
    """It falls behind without knowing, and its group goes to another."""
    c.pause(2)
    c.run(3 * SECOND)
    c.resume(2)
    c.settle()


def break_a_link_of_the_slow(c: Cluster) -> None:
    """Its disk is slow, so the leader that asks what it holds has no answer for long."""
    c.syncs[2] = (100 * MS, 100 * MS)
    c.unlink(0, 2)
    c.link(0, 2)


def restart_with_a_slow_disk(c: Cluster) -> None:
    """Another leads its group and cannot count on it."""
    c.syncs[2] = (100 * MS, 100 * MS)
    restart_a_server(c)


TROUBLES = (break_a_link, break_a_link_of_the_slow, restart_a_server, restart_with_a_slow_disk, stop_a_server)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("groups", [3, 6])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_after_trouble_a_write_does_not_wait_for_a_heartbeat(
    trouble: Callable[[Cluster], None], groups: int, seed: int
) -> None:
    """A leader that asks what somebody holds sends no more until it hears: no such answer is held back.

    And nobody holds back what lets a leader merge that leads two groups, or whose entries do not arrive yet.
    """
    c = Cluster(groups=groups, seed=seed, sync=(1, 300_000))
    c.settle_evenly()
    c.run(SECOND)
    trouble(c)
    for number in range(12):
        assert c.write_and_wait(number % 2, b"%d" % number) < 50 * MS


def test_the_odd_one_catches_up_with_the_next_heartbeat() -> None:
    """Without load the others' state machines lag behind by a heartbeat, and by no more."""
    c = Cluster()
    c.settle_evenly()
    c.quiesce()
    c.write_and_wait(0, b"last")
    c.run(3 * c.limits.heartbeat_interval_ms * MS)
    assert all(c.commands(i)[-1] == b"last" for i in c.ids)


def test_a_turns_requests_share_an_entry_however_many_groups_are_led() -> None:
    """An entry has its price on every server; a full one is followed by one in another group."""
    c = Cluster(1, 8, limits=EngineLimits(entry_bytes_max=KIB))
    c.settle_evenly()
    c.quiesce()
    logs = [raft.state.log for raft in c.servers[0].engine.state.replicas]
    before = [log.last_index for log in logs]
    for number in range(20):
        c.propose(0, bytes([number]) * 40)
    c.run(MS)
    added = [
        log.entry(n)
        for log, last in zip(logs, before, strict=True)
        for n in range(last + 1, log.last_index + 1)
    ]
    carried = [entry for entry in added if is_command(entry.kind)]
    assert len(carried) == 2
