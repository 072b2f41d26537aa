"""What a close reading of the rules found: slow disks, long round trips, deposed leaders, wild floors."""

from __future__ import annotations

import pytest

from craft.errors import Overloaded
from craft.limits import KIB, EngineLimits
from craft.messages import (
    AppendAccepted,
    AppendEntries,
    Fetch,
    FetchResult,
    Forward,
    ForwardRefused,
    Frame,
    Heartbeats,
    TimeoutNow,
)
from craft.raft import Role, replication
from craft.types import HardState, Proposal
from tests.driver import EPOCH, MS, SECOND, Cluster
from tests.raft.harness import GROUP, entries
from tests.raft.harness import Cluster as Group

HOUR = 3600 * SECOND


# -- elections ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sync_ms", [20, 60, 150])
def test_slow_disks_elect_a_leader_while_a_server_is_gone(sync_ms: int) -> None:
    """A vote costs two syncs: no candidate may give up sooner, though it knows that a server is dead."""
    c = Cluster(sync=(sync_ms * MS, sync_ms * MS))
    c.settle_evenly()
    c.crash(0)
    assert c.run_until(lambda: None not in c.leaders()) < (100 + 4 * sync_ms) * MS
    c.write_and_wait(1, b"goes on", limit=SECOND)


def test_a_later_election_beside_a_dead_server_is_won_too() -> None:
    """A server is dead for long when another one falls silent, and disks are slow."""
    c = Cluster(5, sync=(80 * MS, 80 * MS))
    c.settle_evenly()
    c.crash(4)
    c.run(5 * SECOND)
    c.crash(0, refused=False)
    assert c.write_and_wait(1, b"goes on", limit=5 * SECOND) < 3 * SECOND


# -- reads ----------------------------------------------------------------------------------------


def test_reads_are_served_where_a_round_trip_is_longer_than_an_attempt() -> None:
    """Servers on two continents, turns all the time: what answers an earlier attempt still counts."""
    c = Cluster(delay=(110 * MS, 120 * MS))
    c.settle()
    token = c.read(0)
    for number in range(100):
        c.propose(0, b"%d" % number)
        c.run(10 * MS)
    assert token in c.servers[0].served


def test_a_cluster_starts_where_a_round_trip_is_long() -> None:
    """A session opens behind a read: a read that is never served would keep everyone out."""
    c = Cluster(delay=(160 * MS, 170 * MS))
    c.settle()
    c.write_and_wait(2, b"across the world", limit=5 * SECOND)


def test_orphans_beyond_the_next_leaders_log_block_no_read() -> None:
    """Term first (PROTOCOL 6): their indexes are never reached, and the next leader's no-op passes them."""
    c = Cluster(3, 1)
    c.settle_evenly()
    for other in (1, 2):
        c.cut(0, other)
    for number in range(5):
        c.propose(0, b"orphan %d" % number)
        c.run(5 * MS)
    c.run_until(lambda: c.leader(0) not in {0, None})
    c.run(SECOND)
    c.drop(AppendEntries, Heartbeats, FetchResult, Fetch, to=0)  # it keeps its orphans
    c.heal()
    c.cut(1, 2)  # the reader hears the orphans' keeper and nobody else
    reader = 3 - c.leading(0)
    assert c.raft(0, 0).log.last_command.index > c.raft(reader, 0).log.last_index
    c.read_and_wait(reader, limit=SECOND)


# -- a leader that was deposed unheard --------------------------------------------------------------


def deposed_unheard() -> Group:
    """Server 1 leads term 2 and holds 2@2; server 2 follows it and holds 1@2, which term 3 commits elsewhere.

    Neither has heard of term 3.
    """
    logs = {1: "1@1", 2: "1@1 1@2", 3: "1@1 1@2", 4: "1@1", 5: "1@1"}
    group = Group(5, logs=logs, hard_states={i: HardState(1, None, 0) for i in logs})
    group.elapse(group.limits.election_timeout_ms_max)
    group.campaign(1)
    while not group.state(1).leads:
        group.deliver()
        group.persist()
    group.take()  # its no-op reaches nobody
    group.heartbeat(1)
    group.propose(1, "orphan")
    group.persist()
    group.partition(3, 4, 5)
    group.elapse(group.limits.election_timeout_ms_max)
    group.campaign(3)
    group.settle()
    assert group.state(3).leads and group.state(3).commit_index == 3
    assert (group.log(1), group.log(2)) == ("1@1 2@2 2@3:orphan", "1@1 1@2")
    assert group.state(1).leads and group.state(2).leader_id == 1
    return group


def test_a_follower_keeps_nothing_of_a_leader_that_lacks_what_is_committed() -> None:
    """It learnt from a peer that its own 1@2 is committed: 2@3 cannot follow, nor be acknowledged."""
    group = deposed_unheard()
    replication.learn_commit(group.state(2), 4, 2, 1, group.time)
    group.take()
    group.step(1, 2, AppendEntries(GROUP, 2, 1, 1, 1, entries("2@2 2@3:orphan")))
    group.persist()
    group.expect_log(2, "1@1 1@2")
    assert not group.sent(AppendAccepted)


def test_a_follower_acknowledges_no_more_than_its_leader_can_hold() -> None:
    """It knows more committed than a leader whose log is shorter: that is no fault of its own."""
    group = deposed_unheard()
    replication.learn_commit(group.state(2), 4, 2, 1, group.time)
    group.take()
    group.step(1, 2, AppendEntries(GROUP, 2, 1, 1, 1, ()))
    assert all(m.match_index <= 1 for m in group.sent(AppendAccepted))


def test_a_leader_that_lacks_what_is_committed_leads_no_more() -> None:
    """It fetched the entry from a peer: it must not cut the log that it leads by, and go on writing there."""
    group = deposed_unheard()
    group.take()
    group.step(4, 1, FetchResult(GROUP, entries("1@1 1@2")))
    group.expect_role(1, Role.FOLLOWER)
    group.expect_log(1, "1@1 1@2")


# -- bounds ---------------------------------------------------------------------------------------


def test_a_stalled_disk_does_not_fill_the_memory_by_fetching() -> None:
    """The leaders' windows hold back what is not durable here; it is not fetched past them from the peers."""
    limits = EngineLimits(inflight_bytes_max=64 * KIB, append_bytes_max=16 * KIB, entry_bytes_max=8 * KIB)
    c = Cluster(limits=limits)
    c.settle_evenly()
    c.held.add(2)
    c.propose(2, b"stuck")
    c.run_until(lambda: 2 not in c.leaders())
    for number in range(200):
        c.propose(number % 2, b"%d" % number + bytes(4000))
        c.run(10 * MS)
    assert all(raft.state.log.bytes < 100 * KIB for raft in c.servers[2].engine.state.replicas)
    c.held.clear()
    c.quiesce()
    c.check_answers()


def test_a_wild_clock_takes_up_no_floor_again_and_again() -> None:
    """It has passed the claimed floor, a majority has not: the proposal waits, bounded, and is refused."""
    c = Cluster(3, 2)
    c.settle_evenly()
    refused: list[ForwardRefused] = []

    def note(_sender: int, _receiver: int, frame: Frame) -> Frame:
        refused.extend(m for m in frame.messages if isinstance(m, ForwardRefused))
        return frame

    c.intercept = note
    c.drop(TimeoutNow)  # it would hand over
    c.clocks = {0: lambda at: EPOCH + at + HOUR}
    c.inject(2, 0, Forward(0, (Proposal(2, 1, 77, 1, EPOCH + HOUR // 2, b"\x91\xc4\x01x"),)))
    c.run(c.limits.floor_wait_ms_max * MS + SECOND)
    assert refused == [ForwardRefused(0, 1, (77,))]
    assert not c.servers[0].engine.state.floor_waiting


def test_a_leader_whose_disk_stalls_takes_no_more_than_its_window() -> None:
    """Without a better server it leads on; what its disk has not taken is bounded all the same."""
    limits = EngineLimits(inflight_bytes_max=64 * KIB, append_bytes_max=16 * KIB, entry_bytes_max=8 * KIB)
    c = Cluster(limits=limits)
    c.settle_evenly()
    c.drop(TimeoutNow)  # nobody takes its group over
    c.held.add(0)
    for number in range(200):
        c.propose(0, b"%d" % number + bytes(4000))
        c.run(5 * MS)
    assert all(raft.state.log.unsynced_bytes() < 100 * KIB for raft in c.servers[0].engine.state.replicas)
    c.held.clear()
    c.pass_all()
    c.quiesce()
    c.check_answers()


def test_a_forward_lost_with_its_link_is_placed_again_at_once() -> None:
    """Not after the retry's time: the link is known to be broken."""
    c = Cluster(3, 2)
    c.settle_evenly()
    c.drop(Forward, sender=2)
    token = c.propose(2, b"lost")
    c.run(5 * MS)
    (pending,) = c.servers[2].engine.state.pending.values()
    leader = c.leading(pending.group)
    c.pass_all()
    c.unlink(2, leader)
    c.link(2, leader)
    c.run_until(lambda: c.answered(2, token), 50 * MS)


def test_a_restored_link_is_used_at_once() -> None:
    """What was in flight on the old one is sent again, not waited for until it counts as stalled."""
    c = Cluster()
    c.settle_evenly()
    c.drop(AppendEntries, sender=0)
    token = c.propose(0, b"in flight")
    c.run(5 * MS)
    assert not c.answered(0, token)
    c.pass_all()
    for peer in (1, 2):
        c.unlink(0, peer)
        c.link(0, peer)
    c.run_until(lambda: c.answered(0, token), 50 * MS)


def test_reads_that_wait_are_bounded() -> None:
    """Without a majority nothing is served; beyond the bound a read is refused, and the others stay."""
    c = Cluster(limits=EngineLimits(reads_max=10))
    c.settle()
    for peer in (1, 2):
        c.cut(0, peer)
    tokens = [c.read(0) for _ in range(10)]
    with pytest.raises(Overloaded, match="reads_max = 10"):
        c.servers[0].engine.read("one too many")
    c.heal()
    c.run_until(lambda: set(tokens) <= set(c.servers[0].served))
