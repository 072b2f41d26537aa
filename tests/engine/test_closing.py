"""How soon the other groups close for a command: at once where somebody waits for its merge (PROTOCOL 3)."""

from __future__ import annotations

import pytest

from craft.engine import closing
from tests.driver import MS, SECOND, Cluster


@pytest.fixture
def c(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Three leaders at rest, with a patience that nothing else in here takes as long as."""
    monkeypatch.setattr(closing, "PATIENCE_MS", 100)
    cluster = Cluster()
    cluster.settle_evenly()
    for server in cluster.ids:
        cluster.write_and_wait(server, b"%d" % server)
    cluster.run(SECOND)
    return cluster


def commit(c: Cluster, server: int, command: bytes) -> int:
    """Propose at the level `committed`; returns how long that took."""
    token = c.propose(server, command, committed=True)
    return c.run_until(lambda: token in c.servers[server].committed)


def lasts(c: Cluster) -> list[int]:
    """Where the groups' logs end, by what their leaders have."""
    return [c.raft(c.leading(group), group).log.last_index for group in range(c.groups)]


def merged(c: Cluster, command: bytes) -> list[int]:
    """The servers that have merged it."""
    return [i for i in c.ids if command in c.commands(i)]


def test_who_waits_for_the_commit_alone_has_no_other_group_close(c: Cluster) -> None:
    """Its answer costs what a lone group's would: no entry of anybody else is on its way meanwhile."""
    before = lasts(c)
    for number in range(5):
        assert commit(c, 0, b"c%d" % number) < 5 * MS
    assert [after - was for was, after in zip(before, lasts(c), strict=True)] == [5, 0, 0]


def test_what_nobody_waits_for_is_merged_all_the_same(c: Cluster) -> None:
    """Within the patience and a round, elsewhere a heartbeat later at most; and then all fall silent."""
    commit(c, 1, b"c")
    assert not merged(c, b"c")
    assert c.run_until(lambda: 1 in merged(c, b"c")) < 110 * MS
    assert c.run_until(lambda: merged(c, b"c") == c.ids) < c.limits.heartbeat_interval_ms * MS
    before = lasts(c)
    c.run(SECOND)
    assert lasts(c) == before


def test_the_patience_is_that_of_the_first_not_of_the_last(c: Cluster) -> None:
    """Who commits on and on puts nobody off for ever."""
    commit(c, 0, b"first")
    until, number = c.time + 110 * MS, 0
    while c.time < until:
        commit(c, 0, b"c%d" % number)
        number += 1
    assert 0 in merged(c, b"first")


@pytest.mark.parametrize("reader", [0, 1])
def test_a_reader_does_not_wait_for_the_patience(c: Cluster, reader: int) -> None:
    """A read must see what was answered, so it asks for the merge; on any server."""
    commit(c, 0, b"c")
    assert c.read_and_wait(reader) < 10 * MS
    assert b"c" in c.commands(reader)


def test_a_session_read_does_not_wait_for_the_patience(c: Cluster) -> None:
    """It names a position that only the merge gives."""
    before = c.servers[1].position
    commit(c, 0, b"c")
    c.run(2 * MS)
    c.servers[1].engine.read("mine", before + 1)
    c.servers[1].engine.ready(c.servers[1].now())
    assert c.servers[1].engine.state.demand


def test_who_waits_for_the_merge_has_all_groups_close_at_once(c: Cluster) -> None:
    """Even where others, who do not, stand in the same entry."""
    c.propose(0, b"c", committed=True)
    assert c.write_and_wait(0, b"a") < 10 * MS


def test_a_write_elsewhere_merges_what_stands_before_it(c: Cluster) -> None:
    """Its stamp is behind those of the commands that are waiting."""
    commit(c, 0, b"c")
    assert c.write_and_wait(1, b"a") < 10 * MS
    assert b"c" in c.commands(1)


def test_with_a_stated_bound_the_merge_may_be_the_faster(c: Cluster) -> None:
    """Then a commit has to wait for the clocks: so all groups close at once."""
    for server in c.servers.values():
        server.engine.state.clock_error_ns = 50 * MS
    token = c.propose(0, b"c", committed=True)
    assert c.run_until(lambda: c.answered(0, token) or token in c.servers[0].committed) < 10 * MS


def test_the_others_merge_what_a_dead_leader_left_unhurried(c: Cluster) -> None:
    """Each server has its own patience: whom nobody tells of a demand finds it."""
    commit(c, 0, b"c")
    c.crash(0)
    c.run_until(lambda: b"c" in c.commands(1) and b"c" in c.commands(2), limit=5 * SECOND)
