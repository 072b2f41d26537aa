"""A write is answered where it was proposed, once, in one order, whatever the shape of the cluster."""

from __future__ import annotations

from functools import partial

import pytest

from craft.messages import Forward, ForwardRefused, Frame
from craft.types import EntryKind, is_command
from tests.driver import EPOCH, MS, SECOND, Cluster

SHAPES = [(1, 1), (1, 3), (2, 2), (3, 1), (3, 2), (3, 3), (3, 64), (5, 3), (5, 5)]


def kinds_since(c: Cluster, before: list[int]) -> list[list[EntryKind]]:
    """Per group, what its leader appended beyond these indexes."""
    return [
        [entry.kind for entry in c.raft(c.leading(group), group).log.entries if entry.index > before[group]]
        for group in range(c.groups)
    ]


def ends(c: Cluster) -> list[int]:
    return [c.raft(c.leading(group), group).log.last_index for group in range(c.groups)]


def test_three_servers_lead_a_group_each() -> None:
    """Groups' leaders spread over the servers from the first election on."""
    c = Cluster()
    c.settle()
    assert c.leaders() == [0, 1, 2]


@pytest.mark.parametrize(("servers", "groups"), SHAPES)
def test_any_shape_answers_everywhere(servers: int, groups: int) -> None:
    """Writes and reads on every server of any cluster; all of them apply the same."""
    c = Cluster(servers, groups, seed=servers * 100 + groups)
    c.settle()
    for turn in range(3):
        for i in c.ids:
            c.write_and_wait(i, b"%d-%d" % (turn, i), b"second of %d-%d" % (turn, i))
            c.read_and_wait(i)
    c.quiesce()
    c.check_answers()
    assert len({server.engine.state.digest for server in c.servers.values()}) == 1
    assert len(c.commands(0)) == 6 * servers


def test_an_idle_cluster_writes_nothing() -> None:
    """When everything is merged there is no demand: no entry, no disk write, for ever (PROTOCOL 3)."""
    c = Cluster()
    c.settle()
    c.write_and_wait(0, b"a")
    c.quiesce()
    writes, before = c.writes, ends(c)
    c.run(20 * SECOND)
    assert c.writes == writes and ends(c) == before


def test_one_write_costs_at_most_one_empty_entry_a_group() -> None:
    """A silent group closes on demand, once (PROTOCOL 3)."""
    c = Cluster()
    c.settle()
    c.quiesce()
    before = ends(c)
    c.write_and_wait(0, b"a")
    c.quiesce()
    kinds = kinds_since(c, before)
    assert sorted(kinds) == [[EntryKind.EMPTY], [EntryKind.EMPTY], [EntryKind.COMMAND]]


def test_only_elections_leave_a_cluster_quiet() -> None:
    """No-ops create no demand: after a change of leaders without any command nothing is closed."""
    c = Cluster()
    c.settle_evenly()
    c.quiesce()
    before = ends(c)
    c.restart(0)
    c.settle()
    c.run(10 * SECOND)
    opened = [kind for kinds in kinds_since(c, before) for kind in kinds if is_command(kind)]
    assert opened == [EntryKind.SESSION], "the restarted server's session is the only command"
    writes = c.writes
    c.run(10 * SECOND)
    assert c.writes == writes


def test_groups_that_have_commands_close_by_them() -> None:
    """Under load on all groups empty entries are the exception."""
    c = Cluster()
    c.settle()
    c.quiesce()
    before = ends(c)
    for turn in range(200):
        for i in c.ids:
            c.propose(i, b"%d-%d" % (turn, i))
        c.run(MS // 2)
    c.quiesce()
    c.check_answers()
    kinds = [kind for kinds in kinds_since(c, before) for kind in kinds]
    assert kinds.count(EntryKind.EMPTY) < kinds.count(EntryKind.COMMAND)


def test_writes_are_merged_in_real_time_order() -> None:
    """Each write starts after the one before was answered elsewhere, on clocks 200 ms apart."""
    c = Cluster()
    c.clocks = {0: lambda at: EPOCH + at + 100 * MS, 2: lambda at: EPOCH + at - 100 * MS}
    c.settle()
    asked = [b"%d" % number for number in range(30)]
    for number, command in enumerate(asked):
        c.write_and_wait(number * 7 % 3, command)
    c.quiesce()
    assert c.commands(0) == c.commands(1) == c.commands(2) == asked


def test_a_server_that_leads_nothing_forwards() -> None:
    """Fewer groups than servers: the odd one's writes are answered all the same."""
    c = Cluster(3, 2)
    c.settle()
    assert 2 not in c.leaders()
    for number in range(20):
        assert c.write_and_wait(2, b"%d" % number) < 10 * MS
    c.quiesce()
    c.check_answers()


def test_a_refused_forward_is_placed_again() -> None:
    """The leader to whom it was forwarded hands its group over: refused there, answered from elsewhere."""
    c = Cluster(3, 2)
    c.settle_evenly()
    server = c.servers[0]
    server.engine.hand_over(server.now())
    for number in range(20):
        c.write_and_wait(2, b"%d" % number, limit=2 * SECOND)
    c.quiesce()
    c.check_answers()


def test_who_is_refused_by_a_third_server_does_not_ask_the_same_leader_at_once() -> None:
    """Soak seed 89498: the leader that we know is none, and passes requests on to one that is none any more.

    That one's refusal says nothing new of whom we asked; it went round and round at the speed of the network.
    """
    c = Cluster(3, 1)
    c.settle_evenly()
    asked: list[Forward] = []

    def passed_on(sender: int, receiver: int, frame: Frame) -> Frame:
        forwards = [m for m in frame.messages if isinstance(m, Forward)]
        if (sender, receiver) != (2, 0) or not forwards:
            return frame
        for m in forwards:
            requests = tuple(one.request for one in m.proposals)
            c.at(MS, partial(c.inject, 1, 2, ForwardRefused(m.group, m.proposals[0].counter, requests)))
        asked.extend(forwards)
        return frame._replace(messages=tuple(m for m in frame.messages if not isinstance(m, Forward)))

    c.intercept = passed_on
    token = c.propose(2, b"a")
    c.run(120 * MS)
    assert 2 <= len(asked) <= 3
    c.pass_all()
    c.run_until(lambda: c.answered(2, token))


def test_forwards_take_effect_once_however_often_they_arrive() -> None:
    """Repeated, reordered and lost frames between a server that leads nothing and changing leaders."""
    c = Cluster(3, 2, loss=0.1, repeat=0.3, reorder=0.1)
    c.settle()
    tokens = []
    for number in range(60):
        tokens.append(c.propose(2, b"%d" % number))
        c.run(20 * MS)
        if number in {20, 40}:
            c.run_until(lambda: c.leader(0) is not None)
            leader = c.leading(0)
            if leader != 2:
                c.restart(leader)
    c.run_until(lambda: all(c.answered(2, token) for token in tokens), 60 * SECOND)
    c.loss = 0.0
    c.settle()
    c.quiesce()
    c.check_answers()


def test_a_forward_does_not_outgrow_a_message() -> None:
    """A long backlog travels in parts that a leader can take one by one."""
    c = Cluster(3, 2)
    c.settle()
    sizes: list[int] = []

    def note(_sender: int, _receiver: int, frame: Frame) -> Frame:
        sizes.extend(len(m.proposals) for m in frame.messages if isinstance(m, Forward))
        return frame

    c.intercept = note
    tokens = [c.propose(2, b"%d" % number) for number in range(40_000)]
    c.run_until(lambda: all(c.answered(2, token) for token in tokens[-100:]))
    c.quiesce()
    c.check_answers()
    assert len(sizes) > 2 and max(sizes) <= 2**14


def test_the_same_seed_tells_the_same_story() -> None:
    """Nothing in the engine depends on anything but its arguments."""
    stories = []
    for _ in range(2):
        c = Cluster(seed=7, loss=0.05)
        for number in range(20):
            c.propose(number % 3, b"%d" % number)
            c.run(10 * MS)
        c.run(5 * SECOND)
        stories.append((c.frames_sent, c.writes, c.history.merged, c.describe()))
    assert stories[0] == stories[1]


def test_everything_fits_through_the_wire() -> None:
    """What engines say to each other survives encoding, decoding and all its checks."""
    c = Cluster(wire=True)
    c.settle()
    c.cut(0, 1)
    for number in range(12):
        c.write_and_wait(number % 3, b"%d" % number)
        c.read_and_wait(number % 3)
    c.restart(2)
    c.heal()
    c.settle()
    c.quiesce()
    c.check_answers()
    assert not c.wire_errors
