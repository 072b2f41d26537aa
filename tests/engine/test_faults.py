"""Cut links, wild clocks, dead servers, stalled disks: what is answered stays, and answers go on."""

from __future__ import annotations

import pytest

from craft.engine import placing
from craft.limits import KIB, EngineLimits
from craft.messages import RequestVote, TimeoutNow
from tests.driver import EPOCH, MS, SECOND, Cluster

HOUR = 3600 * SECOND
TINY_MEMORY = EngineLimits(log_memory_bytes_max=0, load_bytes_max=500, append_bytes_max=4 * KIB)


def leader_changes(c: Cluster, duration: int) -> int:
    """How often any group's leader changed while this time passed."""
    changes, before = 0, c.leaders()
    for _ in range(duration // (50 * MS)):
        c.run(50 * MS)
        now = c.leaders()
        changes += sum(a != b for a, b in zip(before, now, strict=True))
        before = now
    return changes


# -- links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("one_way", [False, True])
def test_one_cut_link_stalls_nobody(one_way: bool) -> None:
    """What a server cannot hear from its leader it fetches from a peer; after the first fetch at once (9)."""
    c = Cluster()
    c.settle()
    if one_way:
        c.cut_one_way(0, 1)
    else:
        c.cut(0, 1)
    for i in c.ids * 3:
        c.write_and_wait(i, b"first %d" % c.time, limit=2 * SECOND)
    c.run(2 * SECOND)  # by then leaders only probe where no acknowledgement comes from
    for i in c.ids * 3:
        c.write_and_wait(i, b"then %d" % c.time, limit=2 * SECOND)
    slowest = max(c.write_and_wait(n % 3, b"%d" % n, limit=2 * SECOND) for n in range(60))
    assert slowest < 20 * MS
    c.quiesce()
    c.check_answers()


def test_a_cut_link_moves_no_leader_again_and_again() -> None:
    """Attack 10: terms stay quiet, and leadership does not go to and fro."""
    c = Cluster()
    c.settle()
    c.cut(0, 1)
    assert leader_changes(c, 60 * SECOND) <= 2


def test_preference_does_not_flap_where_a_majority_needs_the_one_that_hears_all() -> None:
    """Attack 10: of five servers two are down and a link is cut; one server alone hears a majority."""
    c = Cluster(5, 3)
    c.settle()
    c.crash(3)
    c.crash(4)
    c.cut(0, 1)
    c.run(5 * SECOND)
    assert leader_changes(c, 60 * SECOND) <= 2
    for i in (0, 1, 2):
        c.write_and_wait(i, b"%d" % i, limit=2 * SECOND)


def test_a_leader_whose_frames_arrive_nowhere_stops_leading() -> None:
    """It hears its follower repeat an old acknowledgement: that is no contact (CheckQuorum)."""
    c = Cluster(2, 1)
    c.settle()
    c.cut_one_way(0, 1)
    c.run(3 * SECOND)
    assert c.leader(0) is None


def test_a_lost_connection_loses_no_request() -> None:
    """Links break and come back, again and again, without anyone refusing."""
    c = Cluster()
    c.settle()
    tokens = []
    for number in range(60):
        tokens.append((number % 3, c.propose(number % 3, b"%d" % number)))
        a, b = number % 3, (number + 1) % 3
        c.run(3 * MS)
        c.unlink(a, b)
        c.run(10 * MS)
        c.link(a, b)
    c.run_until(lambda: all(c.answered(i, token) for i, token in tokens), 20 * SECOND)
    c.quiesce()
    c.check_answers()


# -- clocks ---------------------------------------------------------------------------------------


def stepping_back(at: int) -> int:
    return EPOCH + at - at // SECOND * 2 * SECOND


WILD = {
    "an hour ahead": {0: lambda at: EPOCH + at + HOUR},
    "an hour behind": {1: lambda at: EPOCH + at - HOUR},
    "stepping back every second": {2: stepping_back},
    "ahead and behind": {0: lambda at: EPOCH + at + HOUR, 1: lambda at: EPOCH + at - HOUR},
    "running at double speed": {0: lambda at: EPOCH + 2 * at},
    "standing still": {1: lambda _at: EPOCH},
}


@pytest.mark.parametrize("which", sorted(WILD))
def test_a_wild_clock_harms_nobody(which: str) -> None:
    """Order and answers are right, nothing stalls, and stamps stay near a majority's clocks (2)."""
    c = Cluster(seed=3)
    c.settle()
    c.write_and_wait(0, b"before")
    c.clocks = dict(WILD[which])
    worst = 0
    for number in range(60):
        c.write_and_wait(number % 3, b"%d" % number, limit=SECOND)
        c.read_and_wait(number % 3, limit=SECOND)
        worst = max(worst, c.history.merged[-1][1] - EPOCH - c.time)
        c.run(50 * MS)
    assert worst <= c.limits.clock_offset_ms_max * MS + 200 * MS
    assert c.servers[0].engine.state.now.clock_ns - c.history.merged[-1][1] < 2 * HOUR
    c.quiesce()
    c.check_answers()


@pytest.mark.parametrize("shift", [-HOUR, HOUR])
def test_all_clocks_may_be_set_at_once(shift: int) -> None:
    """Set back, time runs as a logical clock until it catches up; set on, stamps follow: no answer waits."""
    c = Cluster()
    c.settle()
    c.write_and_wait(0, b"before")
    c.clocks = dict.fromkeys(c.ids, lambda at: EPOCH + at + shift)
    for number in range(30):
        assert c.write_and_wait(number % 3, b"%d" % number, limit=SECOND) < 100 * MS


def test_a_leader_with_a_wild_clock_hands_over_and_stays_away() -> None:
    """Attack 21: it is clamped, hands over, and is given nothing back while it is wild; then it is."""
    c = Cluster()
    c.settle_evenly()
    c.clocks = {0: lambda at: EPOCH + at + HOUR}
    c.write_and_wait(0, b"clamped")
    c.run(3 * SECOND)
    assert 0 not in c.leaders()
    assert leader_changes(c, 30 * SECOND) == 0
    c.clocks.clear()
    c.run_until(lambda: c.leader(0) == 0, 60 * SECOND)


def test_an_idle_leader_knows_that_its_clock_is_wild() -> None:
    """It stamps nothing, and hands over all the same."""
    c = Cluster()
    c.settle_evenly()
    c.quiesce()
    c.clocks = {0: lambda at: EPOCH + at + HOUR}
    c.run(3 * SECOND)
    assert 0 not in c.leaders()


# -- leaders --------------------------------------------------------------------------------------


def test_a_dead_leader_costs_a_short_pause() -> None:
    """Its host refuses connections: survivors stand at once, in turn (PROTOCOL 9)."""
    c = Cluster()
    c.settle_evenly()
    c.write_and_wait(1, b"before")
    c.crash(0)
    assert c.write_and_wait(1, b"after") < 200 * MS


def test_leaders_return_to_a_server_that_came_back() -> None:
    """Once it is caught up and looked well for a while; then they stay."""
    c = Cluster()
    c.settle_evenly()
    c.crash(0)
    c.run_until(lambda: c.leader(0) not in {0, None})
    for number in range(50):
        c.write_and_wait(1, b"%d" % number)
    c.start(0)
    c.run_until(lambda: c.leaders() == [0, 1, 2], 20 * SECOND)
    assert leader_changes(c, 20 * SECOND) == 0


def test_a_server_that_stops_hands_over_first() -> None:
    """Nobody notices, nothing is lost, and it is given nothing back while it is stopping."""
    c = Cluster()
    c.settle_evenly()
    pending = [c.propose(0, b"%d" % number) for number in range(20)]
    server = c.servers[0]
    server.engine.hand_over(server.now())
    c.run_until(lambda: not server.engine.leads_any, 2 * SECOND)
    c.run_until(lambda: all(c.answered(0, token) for token in pending), SECOND)
    assert c.write_and_wait(1, b"meanwhile") < 20 * MS
    assert leader_changes(c, 20 * SECOND) == 0
    assert not server.engine.leads_any
    c.stop(0)
    c.start(0)
    c.run_until(lambda: c.leaders() == [0, 1, 2], 20 * SECOND)
    c.check_answers()


def test_two_servers_that_stop_do_not_hand_to_each_other() -> None:
    """The one that stays gets everything."""
    c = Cluster(3, 6)
    c.settle_evenly()
    for i in (0, 1):
        c.servers[i].engine.hand_over(c.servers[i].now())
    c.run_until(lambda: set(c.leaders()) == {2}, 5 * SECOND)


def test_a_hand_over_that_fails_does_not_stall_its_group_for_ever() -> None:
    """The preferred server looks well and cannot win an election: each attempt waits longer than the last."""
    c = Cluster()
    c.settle_evenly()
    c.crash(0)
    c.run_until(lambda: c.leader(0) not in {0, None})
    c.start(0)
    c.settle()
    c.drop(RequestVote, sender=0)
    waits = []
    for number in range(100):
        waits.append(c.write_and_wait(1, b"%d" % number, limit=2 * SECOND))
        c.run(200 * MS)
    assert sum(wait > 100 * MS for wait in waits) <= 4


def test_a_leader_whose_disk_stalls_hands_over() -> None:
    """It could lead on by its followers' disks, but its own callers would wait (PROTOCOL 9)."""
    c = Cluster()
    c.settle_evenly()
    c.held.add(0)
    c.propose(0, b"stuck")
    c.run(4 * SECOND)
    assert 0 not in c.leaders()
    assert c.write_and_wait(1, b"goes on") < 20 * MS
    assert leader_changes(c, 10 * SECOND) == 0
    c.held.clear()
    c.run_until(lambda: c.leaders() == [0, 1, 2], 60 * SECOND)
    c.quiesce()
    c.check_answers()


def test_a_leader_whose_disk_hangs_steps_down_whoever_looks_well() -> None:
    """No hand-over works; its heartbeats would keep the others from electing one of them for ever."""
    c = Cluster()
    c.settle_evenly()
    c.drop(TimeoutNow, sender=0)
    c.held.add(0)
    c.propose(0, b"stuck")
    c.run(c.limits.disk_stall_ms_max * MS + 3 * SECOND)
    assert 0 not in {c.leader(group) for group in range(3)}
    assert c.write_and_wait(1, b"goes on") < 20 * MS
    assert leader_changes(c, 10 * SECOND) == 0, "a server whose disk hangs stands for nothing"


def test_a_disk_that_stalls_again_and_again_is_given_its_groups_ever_later() -> None:
    """Leaving for it counts as a loss (PROTOCOL 9, †): nobody takes it for a server that stops."""
    c = Cluster()
    c.settle_evenly()
    changes = 0
    for number in range(10):
        c.held.add(0)
        c.propose(0, b"%d" % number)
        changes += leader_changes(c, 2 * SECOND)
        c.held.clear()
        changes += leader_changes(c, 7 * SECOND)
    assert 2 <= changes <= 8


def test_a_slow_disk_of_a_leader_that_works_moves_no_leader() -> None:
    """Each sync takes long, and ends: that is slow, not stalled."""
    c = Cluster()
    c.settle_evenly()
    c.syncs[0] = (800 * MS, 1000 * MS)
    changes = 0
    for number in range(20):
        c.propose(0, b"%d" % number)
        changes += leader_changes(c, SECOND)
    assert changes == 0


def test_a_slow_disk_of_a_follower_moves_no_leader() -> None:
    """Beyond the election timeout a sync: heartbeats do not wait behind the disk (reliability A12)."""
    c = Cluster()
    c.settle_evenly()
    c.syncs[2] = (800 * MS, 800 * MS)
    for number in range(20):
        c.write_and_wait(0, b"%d" % number)
    assert c.leaders()[:2] == [0, 1]


def test_what_looks_well_is_told_by_the_server_itself() -> None:
    """A server advertises whom it hears; a stopping one nobody, so that it is given no group."""
    c = Cluster()
    c.settle_evenly()
    r, e = c.raft(0, 0), c.servers[0].engine.state
    assert placing.best_target(e, r, must_be_well=True) in {1, 2}
    for i in (1, 2):
        c.servers[i].engine.hand_over(c.servers[i].now())
    c.run(200 * MS)
    assert placing.best_target(e, r, must_be_well=True) is None


# -- restarts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [EngineLimits(), TINY_MEMORY], ids=["in memory", "from disk"])
def test_one_server_restarts_and_has_everything(limits: EngineLimits) -> None:
    """Its merged log is rebuilt from its own disk, entries that had left memory included."""
    c = Cluster(limits=limits, tail_bytes_max=300)
    c.settle()
    for number in range(60):
        c.write_and_wait(number % 3, b"%d" % number + bytes(100))
    c.restart(1)
    c.settle()
    c.quiesce()
    c.check_answers()
    assert len(c.commands(1)) == 60


@pytest.mark.parametrize("limits", [EngineLimits(), TINY_MEMORY], ids=["in memory", "from disk"])
def test_all_servers_restart_and_have_everything(limits: EngineLimits) -> None:
    """A power cut of all: what was answered is there, and the first reads see it."""
    c = Cluster(limits=limits, tail_bytes_max=300)
    c.settle()
    for number in range(60):
        c.write_and_wait(number % 3, b"%d" % number + bytes(100))
    for i in c.ids:
        c.crash(i)
    for i in c.ids:
        c.start(i)
    for i in c.ids:
        c.read_and_wait(i)
        assert len(c.commands(i)) == 60
    c.settle()
    c.write_and_wait(0, b"goes on")
    c.quiesce()
    c.check_answers()


@pytest.mark.parametrize("size", [10, 400, 2000])
def test_a_follower_far_behind_is_served_from_disk(size: int) -> None:
    """Also where one entry fills a whole read, as two large ones in a row do."""
    c = Cluster(limits=TINY_MEMORY)
    c.settle_evenly()
    c.crash(2)
    c.run_until(lambda: None not in c.leaders())
    for number in range(60):
        c.write_and_wait(number % 2, b"%d" % number + bytes(size))
    c.start(2)
    loads = c.loads
    c.run_until(lambda: len(c.commands(2)) == 60)
    assert loads < c.loads < loads + 2000, "read in circles"
    c.settle()
    c.quiesce()
    c.check_answers()


def test_a_server_that_was_cut_off_fetches_from_disk_too() -> None:
    """It lacks its leader for long, and its peer no longer has the entries in memory."""
    c = Cluster(limits=TINY_MEMORY)
    c.settle_evenly()
    for other in (1, 2):
        c.cut(0, other)
    c.run_until(lambda: c.leader(0) not in {0, None})
    for number in range(60):
        c.write_and_wait(1 + number % 2, b"%d" % number + bytes(100))
    c.heal()
    c.cut(0, 1)
    c.run_until(lambda: len(c.commands(0)) == 60)


def test_a_process_that_slept_steps_down_and_catches_up() -> None:
    """SIGSTOP of a leader: others take over, and nobody reads stale when it wakes (reliability E1)."""
    c = Cluster()
    c.settle_evenly()
    c.pause(0)
    c.write_and_wait(1, b"while it slept", limit=5 * SECOND)
    token = c.read(0)
    c.resume(0)
    c.run_until(lambda: token in c.servers[0].served)
    assert b"while it slept" in c.commands(0)
