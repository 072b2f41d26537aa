"""Quorum reads: from any server, no leader, no lease, no clock, no disk (PROTOCOL 6).

That a read sees every write answered before it began is checked by the driver, at every read of every test.
"""

from __future__ import annotations

from craft.messages import AppendEntries, Fetch, FetchResult, Frame, Heartbeats, ReadQuery
from tests.driver import MS, SECOND, Cluster


def test_reads_everywhere_see_what_was_answered_anywhere() -> None:
    """Right after each answer every server is asked, under load and with one link cut."""
    c = Cluster()
    c.settle()
    c.cut(0, 2)
    for number in range(30):
        c.write_and_wait(number % 3, b"%d" % number)
        for i in c.ids:
            c.read_and_wait(i)


def test_an_idle_cluster_reads_without_writing() -> None:
    """One round trip to a majority, and not a byte on a disk."""
    c = Cluster()
    c.settle()
    c.write_and_wait(0, b"a")
    c.quiesce()
    writes = c.writes
    for i in c.ids:
        assert c.read_and_wait(i) <= 2 * MS
    assert c.writes == writes


def test_all_waiting_reads_share_a_round() -> None:
    """A hundred reads ask once; those that arrive meanwhile take the next round."""
    c = Cluster()
    c.settle()
    c.quiesce()
    queries: list[int] = []

    def count(_sender: int, _receiver: int, frame: Frame) -> Frame:
        queries.extend(m.round for m in frame.messages if isinstance(m, ReadQuery))
        return frame

    c.intercept = count
    tokens = [c.read(0) for _ in range(100)]
    c.run(50_000)
    tokens += [c.read(0) for _ in range(100)]
    c.run_until(lambda: set(tokens) <= set(c.servers[0].served))
    assert len(set(queries)) == 2


def test_reads_wait_until_the_merge_is_where_the_state_machine_is() -> None:
    """A state machine that keeps its data itself is ahead after a restart: it shows what is not merged."""
    c = Cluster()
    c.settle()
    c.quiesce()
    c.servers[0].engine.state.snapshots.ahead = c.servers[0].position + 3
    token = c.read(0)
    for number in range(2):
        c.write_and_wait(1, b"%d" % number)
    c.run(SECOND)
    assert token not in c.servers[0].served
    c.write_and_wait(1, b"the third")
    c.run_until(lambda: token in c.servers[0].served)


def test_a_read_without_a_majority_waits_and_then_completes() -> None:
    """A server that is cut off serves nothing; a round that was lost is begun afresh."""
    c = Cluster()
    c.settle()
    for other in (1, 2):
        c.cut(0, other)
    token = c.read(0)
    c.write_and_wait(1, b"behind its back")
    c.run(5 * SECOND)
    assert token not in c.servers[0].served
    c.heal()
    c.run_until(lambda: token in c.servers[0].served)
    assert b"behind its back" in c.commands(0)


def test_a_discarded_read_is_not_served() -> None:
    """The caller went away before the reports came."""
    c = Cluster()
    c.settle()
    token = c.read(0)
    c.servers[0].engine.discard_read(token)
    c.run(SECOND)
    assert token not in c.servers[0].served


def orphan(c: Cluster) -> None:
    """Server 0 led group 0 and appended a command that nobody else has; another leads it now."""
    c.settle_evenly()
    for other in (1, 2):
        c.cut(0, other)
    c.propose(0, b"orphan")
    c.run(10 * MS)
    c.run_until(lambda: c.leader(0) not in {0, None})
    c.run(SECOND)


def test_an_overwritten_orphan_blocks_no_read() -> None:
    """It is reported, never committed, and passed by the next leader's no-op: nothing need be written."""
    c = Cluster(3, 1)
    orphan(c)
    c.drop(AppendEntries, Heartbeats, FetchResult, Fetch, to=0)  # it keeps its orphan
    c.heal()
    c.cut(1, 2)  # the reader hears the orphan's keeper and nobody else
    reader = 3 - c.leading(0)
    writes = c.writes
    assert c.read_and_wait(reader, limit=5 * SECOND) < SECOND
    assert c.raft(0, 0).log.last_command > c.raft(reader, 0).log.last_command, "the orphan was reported"
    assert c.writes == writes


def test_a_lagging_server_reads_the_newest() -> None:
    """It was away for a hundred writes: its first read waits until it has caught up."""
    c = Cluster()
    c.settle()
    c.crash(2)
    for number in range(100):
        c.write_and_wait(number % 2, b"%d" % number)
    c.start(2)
    c.read_and_wait(2)
    assert len(c.commands(2)) == 100


def test_reads_do_not_pile_up_while_a_group_has_no_leader() -> None:
    """Rounds complete and wait; when the group has a leader again all are served."""
    c = Cluster()
    c.settle_evenly()
    c.write_and_wait(0, b"a")
    c.propose(1, b"b")
    c.run(300_000)
    c.crash(1, refused=False)
    tokens = []
    for _ in range(50):
        tokens.append(c.read(0))
        c.run(5 * MS)
    c.run_until(lambda: set(tokens) <= set(c.servers[0].served))
