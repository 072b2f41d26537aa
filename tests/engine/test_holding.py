"""What may ride along with the next frame, and what may not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from craft.engine import holding
from craft.engine.state import EngineState
from craft.messages import AppendAccepted, AppendEntries, Message
from craft.raft import RaftState, replication
from craft.types import Entry
from tests.driver import MS, SECOND, Cluster


@pytest.fixture
def c() -> Cluster:
    """Three servers at rest; server 0 leads group 0 and follows server 1 in group 1."""
    cluster = Cluster()
    cluster.settle_evenly()
    for server in cluster.ids:  # the last has every group closed anew
        cluster.write_and_wait(server, b"%d" % server)
    cluster.run(SECOND)
    return cluster


def state(c: Cluster) -> EngineState:
    return c.servers[0].engine.state


def last_entry(c: Cluster, group: int) -> Entry:
    log = state(c).raft(group).log
    return log.entry(log.last_index)


def closing(c: Cluster) -> AppendEntries:
    """The last entry of group 0, as its leader sends it."""
    r, entry = state(c).raft(0), last_entry(c, 0)
    return AppendEntries(0, r.term, entry.index - 1, r.term, entry.index - 1, (entry,))


def acknowledgement(c: Cluster) -> AppendAccepted:
    r, index = state(c).raft(1), last_entry(c, 1).index
    return AppendAccepted(1, r.term, index, index)


def held(c: Cluster, message: Message) -> bool:
    """Is it kept back from server 1?"""
    e = state(c)
    peer = e.peers[1]
    peer.out = []
    holding.take(peer)
    holding.post(e, e.raft(0 if type(message) is AppendEntries else 1), peer, message)
    return not peer.out


def test_what_nobody_waits_for_is_held(c: Cluster) -> None:
    """All is merged; a closing entry and its acknowledgement change nothing for anybody."""
    assert held(c, closing(c)) and held(c, acknowledgement(c))


def test_a_closing_entry_that_our_own_commands_wait_for_is_not_held(c: Cluster) -> None:
    """They lie in another group that we lead, and merge once this one is committed."""
    state(c).led_command_timestamp = last_entry(c, 0).timestamp + 1
    assert not held(c, closing(c))


def test_nothing_is_held_while_a_demand_is_unexplained(c: Cluster) -> None:
    """Some command is beyond all that came here: whose it is we cannot tell."""
    state(c).demand = state(c).greatest_command_timestamp + 1
    assert not held(c, closing(c)) and not held(c, acknowledgement(c))


def test_the_answer_to_a_probe_is_not_held(c: Cluster) -> None:
    """Its leader sends nothing more before it has it. The next answer may wait again."""
    state(c).raft(1).probed = True
    assert not held(c, acknowledgement(c))
    assert held(c, acknowledgement(c))


def append(c: Cluster, *, prev_index: int, term: int = 0) -> None:
    """Server 1 sends group 1's last entry, if that is what follows; else nothing, which asks."""
    e = state(c)
    r = e.raft(1)
    prev_term = r.log.term_at(prev_index) or r.term
    entries = (last_entry(c, 1),) if prev_index + 1 == r.log.last_index else ()
    message = AppendEntries(1, term or r.term, prev_index, prev_term, r.commit_index, entries)
    replication.handle_append_entries(r, 1, message, e.now.monotonic_ns)


def repeat(c: Cluster) -> None:
    append(c, prev_index=last_entry(c, 1).index - 1)


def leave_a_gap(c: Cluster) -> None:
    append(c, prev_index=last_entry(c, 1).index + 5)


def begin_a_term(c: Cluster) -> None:
    append(c, prev_index=last_entry(c, 1).index, term=state(c).raft(1).term + 1)


def connect_anew(c: Cluster) -> None:
    c.servers[0].engine.link_up(1, state(c).now)


@pytest.mark.parametrize("event", [repeat, leave_a_gap, begin_a_term, connect_anew])
def test_a_leader_may_be_waiting_for_the_next_answer(c: Cluster, event: Callable[[Cluster], None]) -> None:
    """It has asked, or lost what it sent, or knows nothing of us yet."""
    r = state(c).raft(1)
    assert not r.probed
    event(c)
    assert r.probed


def test_an_acknowledgement_is_not_held_before_its_leader_could_count_its_commands(c: Cluster) -> None:
    """That we inferred a commit is not known there."""
    r = state(c).raft(1)
    r.leader_commit = r.log.last_command.index - 1
    assert not held(c, acknowledgement(c))


def test_what_waits_in_vain_is_brought_out(c: Cluster) -> None:
    """Its commit should have been inferred by now: a disk is slow. A newer one does not begin anew."""
    e, r = state(c), state(c).raft(1)
    beyond = AppendAccepted(1, r.term, r.commit_index + 1, r.commit_index + 1)
    assert held(c, beyond) and not holding.too_long(e, e.peers[1])
    assert e.wake_at <= e.now.monotonic_ns + holding.HELD_BACK_MS_MAX * MS
    for _ in range(holding.HELD_BACK_MS_MAX):
        e.now = e.now._replace(monotonic_ns=e.now.monotonic_ns + MS)
        holding.post(e, e.raft(1), e.peers[1], beyond)
    assert holding.too_long(e, e.peers[1]) and holding.take(e.peers[1]) == (beyond,)


def test_what_is_done_waits_for_the_heartbeat(c: Cluster) -> None:
    """The entry is on disk and committed: those who lack it lack nothing that anybody waits for."""
    e = state(c)
    assert held(c, closing(c)) and held(c, acknowledgement(c))
    e.now = e.now._replace(monotonic_ns=e.now.monotonic_ns + SECOND)
    assert not holding.too_long(e, e.peers[1])


def test_what_is_held_costs_a_turn_one_look(c: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat's worth of messages: each is looked at once, not in each turn."""
    e, looks = state(c), 0
    matters = holding._still_matters

    def counted(r: RaftState, message: AppendEntries | AppendAccepted) -> bool:
        nonlocal looks
        looks += 1
        return matters(r, message)

    monkeypatch.setattr(holding, "_still_matters", counted)
    for _ in range(100):
        holding.post(e, e.raft(1), e.peers[1], acknowledgement(c))
        holding.too_long(e, e.peers[1])
    assert looks == 100
