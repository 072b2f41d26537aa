"""Every queue has a bound, and no bound holds back what all wait for; a wrong peer disturbs nothing."""

from __future__ import annotations

from typing import Any

import pytest

from craft.engine import proposing
from craft.errors import CommandTooLarge, Overloaded, WireError
from craft.limits import KIB, EngineLimits
from craft.messages import (
    AppendAccepted,
    AppendEntries,
    AppendRejected,
    Fetch,
    FetchResult,
    Forward,
    ForwardRefused,
    Frame,
    GroupReport,
    Heartbeats,
    Message,
    ReadReport,
    RequestVote,
    RequestVoteResult,
    TimeoutNow,
)
from craft.sessions import decode_payload
from craft.types import NOWHERE, EntryKind, Proposal, is_command, make_entry
from tests.driver import EPOCH, MS, SECOND, Cluster

# -- overload -------------------------------------------------------------------------------------


def test_unanswered_bytes_are_bounded() -> None:
    """Beyond proposals_bytes_max a call is refused, by name, and nothing of it was taken."""
    c = Cluster(limits=EngineLimits(proposals_bytes_max=KIB))
    c.settle()
    c.propose(0, bytes(900))
    with pytest.raises(Overloaded, match="proposals_bytes_max = 1024"):
        c.propose(0, bytes(900))
    assert c.servers[0].engine.status(c.servers[0].now())["pending_requests"] == 1
    c.run(SECOND)
    c.write_and_wait(0, bytes(901))


def test_unanswered_requests_are_bounded() -> None:
    """Beyond proposals_max a call is refused, by name."""
    c = Cluster(limits=EngineLimits(proposals_max=3))
    c.settle()
    for number in range(3):
        c.propose(0, b"%d" % number)
    with pytest.raises(Overloaded, match="proposals_max = 3"):
        c.propose(0, b"one too many")
    c.run(SECOND)
    c.write_and_wait(0, b"room again")


def test_a_request_that_waits_at_a_leader_does_not_wait_twice() -> None:
    """Soak seed 7580: origins repeat what takes long, and all repetitions would fill the queue for ever."""
    c = Cluster(limits=EngineLimits(uncommitted_entries_max=1))
    c.settle_evenly()
    e = c.servers[0].engine.state
    once = Proposal(1, 1, 7, 7, 0, bytes(100))
    queue = e.queues[0]
    for _ in range(3):
        proposing.enqueue(e, 0, once)
    proposing.enqueue(e, 0, once._replace(request=8))
    assert [one.request for one in queue.proposals] == [7, 8]
    assert queue.bytes == queue.foreign_bytes == 2 * proposing.cost(once)
    proposing.note_taken(e, queue, queue.proposals.popleft())
    proposing.enqueue(e, 0, once)  # it may have been lost since
    assert [one.request for one in queue.proposals] == [8, 7]


def test_no_command_is_taken_below_the_disks_reserve() -> None:
    """Refused by the shell's word;

    what was taken before goes on, and others' commands come through all the same.
    """
    c = Cluster()
    c.settle()
    c.propose(0, b"before")
    engine = c.servers[0].engine
    engine.state.disk_low = "7 bytes are free on this server's disk; disk_free_bytes_min = 1000"
    with pytest.raises(Overloaded, match="7 bytes are free .* disk_free_bytes_min = 1000"):
        c.propose(0, b"after")
    c.run(SECOND)
    assert engine.status(c.servers[0].now())["pending_requests"] == 0
    c.write_and_wait(1, b"elsewhere")
    engine.state.disk_low = ""
    c.write_and_wait(0, b"room again")


def test_one_call_is_bounded() -> None:
    """More than entry_bytes_max in one call cannot become one entry."""
    c = Cluster(limits=EngineLimits(entry_bytes_max=100))
    c.settle()
    with pytest.raises(CommandTooLarge, match="entry_bytes_max allows 100"):
        c.propose(0, bytes(100))
    c.write_and_wait(0, bytes(90))


def test_tiny_requests_do_not_make_a_large_entry() -> None:
    """What a request costs besides its commands counts too: thousands of empty ones are not free."""
    c = Cluster(limits=EngineLimits(entry_bytes_max=4 * KIB))
    c.settle()
    tokens = [c.propose(0, b"%d" % number) for number in range(3000)]
    c.run_until(lambda: c.answered(0, tokens[-1]))
    assert max(entry.size for group in range(3) for entry in c.raft(0, group).log.entries) <= 4 * KIB + 100
    c.quiesce()
    c.check_answers()


def test_command_entries_in_flight_are_bounded() -> None:
    """Without acknowledgements a leader appends uncommitted_entries_max of them, and then batches."""
    c = Cluster(5, 3, limits=EngineLimits(uncommitted_entries_max=2))
    c.settle_evenly()
    c.quiesce()
    c.drop(AppendAccepted)
    before = c.raft(0, 0).log.last_index
    tokens = []
    for number in range(20):
        tokens.append(c.propose(0, b"%d" % number))
        c.run(MS)
    commands = [e.kind for e in c.raft(0, 0).log.entries if e.index > before].count(EntryKind.COMMAND)
    assert commands == 2
    c.pass_all()
    c.run_until(lambda: all(c.answered(0, token) for token in tokens))


def stuck_group(c: Cluster, group: int) -> None:
    """A group whose entries reach nobody: it commits nothing, and everyone waits for it."""

    def intercept(_sender: int, _receiver: int, frame: Frame) -> Frame:
        kept = (m for m in frame.messages if not (isinstance(m, AppendEntries) and m.group == group))
        return frame._replace(messages=tuple(kept))

    c.intercept = intercept


def test_unmerged_bytes_are_bounded_and_the_group_all_wait_for_still_closes() -> None:
    """Attack 8: commands wait at the bound, closing entries pass it, and everything is answered later (†)."""
    limits = EngineLimits(unmerged_bytes_max=8 * KIB, entry_bytes_max=KIB)
    c = Cluster(limits=limits)
    c.settle_evenly()
    stuck_group(c, 1)
    tokens: list[tuple[int, Any]] = []
    for number in range(60):
        tokens += [(i, c.propose(i, b"%d-%d" % (number, i) + bytes(400))) for i in c.ids]
        c.run(3 * MS)
    for i in c.ids:
        held = c.servers[i].engine.state.merger.bytes
        assert held <= 8 * KIB + 2 * limits.uncommitted_entries_max * 2 * KIB
    c.pass_all()
    c.run_until(lambda: all(c.answered(i, token) for i, token in tokens))
    c.quiesce()
    c.check_answers()


def test_a_server_that_lags_in_one_group_holds_back_no_more_than_the_bound() -> None:
    """The others merge on; it keeps a bounded part, lets the rest go to disk, and catches up from there."""
    limits = EngineLimits(unmerged_bytes_max=8 * KIB, log_memory_bytes_max=8 * KIB, load_bytes_max=2 * KIB)
    c = Cluster(limits=limits)
    c.settle_evenly()
    c.quiesce()

    def intercept(_sender: int, receiver: int, frame: Frame) -> Frame:
        if receiver != 2:
            return frame
        kept = (m for m in frame.messages if not isinstance(m, AppendEntries | FetchResult) or m.group != 0)
        return frame._replace(messages=tuple(kept))

    c.intercept = intercept
    for number in range(300):
        c.write_and_wait(number % 2, b"%d" % number + bytes(200))
    state = c.servers[2].engine.state
    assert state.merger.bytes <= 8 * KIB + 2 * KIB + KIB
    assert sum(raft.state.log.bytes for raft in state.replicas) <= 16 * KIB
    c.pass_all()
    c.run_until(lambda: len(c.commands(2)) == 300)
    c.quiesce()
    c.check_answers()


def test_entries_leave_memory_many_at_a_time() -> None:
    """The list's front goes as slowly as all that stay: a steady trickle would move them with every entry."""
    limits = EngineLimits(log_memory_bytes_max=192 * KIB)
    c = Cluster(limits=limits)
    c.settle_evenly()
    c.quiesce()
    state = c.servers[0].engine.state
    log = state.raft(0).log
    offsets = set()
    for number in range(600):
        c.write_and_wait(0, b"%d" % number)
        offsets.add(log.offset.index)
        assert sum(raft.state.log.bytes for raft in state.replicas) <= limits.log_memory_bytes_max + 2 * KIB
    assert max(offsets) > 250, "most of them left"
    assert len(offsets) < max(offsets) // 16


def test_what_is_of_no_help_is_not_fetched_again_at_once() -> None:
    """A peer whose answers leave a gap is asked now and then, not as fast as the network is."""
    c = Cluster()
    c.settle_evenly()
    c.quiesce()
    asked = 0

    def intercept(sender: int, receiver: int, frame: Frame) -> Frame:
        nonlocal asked
        asked += sum(isinstance(m, Fetch) for m in frame.messages) if sender == 2 else 0
        if receiver != 2:
            return frame
        kept = (m for m in frame.messages if not isinstance(m, AppendEntries))
        holed = (m._replace(entries=m.entries[1:]) if isinstance(m, FetchResult) else m for m in kept)
        return frame._replace(messages=tuple(m for m in holed if not isinstance(m, FetchResult) or m.entries))

    for number in range(5):
        c.write_and_wait(0, b"before %d" % number)
    c.intercept = intercept
    for number in range(5):
        c.write_and_wait(0, b"%d" % number)
    c.run(SECOND)
    assert 0 < asked <= 6 * (SECOND // (c.limits.fetch_after_ms * MS) + 1)
    c.pass_all()
    c.quiesce()
    c.check_answers()


def test_a_network_that_repeats_does_not_multiply_fetches() -> None:
    """Each answer that comes again is no reason to ask again: else questions and answers would breed."""
    c = Cluster(repeat=0.7)
    c.settle_evenly()
    c.cut(0, 2)
    asked = 0

    def intercept(_sender: int, _receiver: int, frame: Frame) -> Frame:
        nonlocal asked
        asked += sum(isinstance(m, Fetch) for m in frame.messages)
        return frame

    c.intercept = intercept
    for number in range(30):
        c.write_and_wait(number % 2, b"%d" % number)
    c.run_until(lambda: len(c.commands(2)) == 30)
    assert 0 < asked <= 2 * 3 * 30
    c.heal()
    c.quiesce()
    c.check_answers()


def test_a_backlog_larger_than_the_forwarding_bound_drains() -> None:
    """A leader refuses what does not fit, part by part; the rest is taken."""
    limits = EngineLimits(forwarded_bytes_max=2 * KIB, entry_bytes_max=KIB)
    c = Cluster(3, 2, limits=limits)
    c.settle_evenly()
    tokens = [c.propose(2, b"%d" % number + bytes(100)) for number in range(200)]
    c.run_until(lambda: all(c.answered(2, token) for token in tokens), 10 * SECOND)
    for i in (0, 1):
        assert all(not queue.foreign_bytes for queue in c.servers[i].engine.state.queues)
    c.quiesce()
    c.check_answers()


def test_what_is_stuck_is_proposed_more_and_more_seldom() -> None:
    """While a group cannot commit, retries do not fill the logs of the others."""
    c = Cluster()
    c.settle_evenly()
    stuck_group(c, 1)
    c.propose(0, b"a")
    c.run(20 * SECOND)
    commands = [e.kind for g in (0, 2) for e in c.raft(0, g).log.entries].count(EntryKind.COMMAND)
    assert 1 <= commands <= 5
    c.pass_all()
    c.quiesce()
    assert c.commands(1) == [b"a"]


def test_a_merge_that_is_slower_than_our_patience_is_not_made_slower() -> None:
    """Soak seed 81939: what waits to be merged was proposed again and again, faster than it could be merged.

    The merge was later with each repetition, so more was late: it stayed so when all clients were gone.
    """
    limits = EngineLimits(proposal_retry_ms=10, apply_bytes_max=1)
    c = Cluster(limits=limits, apply=(10 * MS, 10 * MS))
    c.settle_evenly()
    c.quiesce()
    proposals = 0
    before = [c.raft(0, group).log.last_index for group in range(3)]
    tokens = []
    for number in range(60):
        tokens.append((number % 3, c.propose(number % 3, b"%d" % number)))
        c.run(MS)
    c.run_until(lambda: all(c.answered(i, token) for i, token in tokens), 10 * SECOND)
    for group in range(3):
        entries = [one for one in c.raft(0, group).log.entries if one.index > before[group]]
        proposals += sum(len(decode_payload(one.payload)) for one in entries if is_command(one.kind))
    assert proposals == len(tokens)
    c.quiesce()
    c.check_answers()


def test_what_is_lost_while_the_merge_is_behind_is_proposed_again_when_it_has_come() -> None:
    """The merge has passed everything that may hold it, and it was not there."""
    limits = EngineLimits(proposal_retry_ms=10, entry_bytes_max=KIB, apply_bytes_max=1)
    c = Cluster(3, 1, limits=limits, apply=(10 * MS, 10 * MS))
    c.settle_evenly()
    early = [c.propose(0, b"%d" % number + bytes(800)) for number in range(20)]
    forwarded_at: list[int] = []

    def first_is_lost(sender: int, _receiver: int, frame: Frame) -> Frame | None:
        forwards = sender == 2 and any(isinstance(m, Forward) for m in frame.messages)
        forwarded_at.extend([c.time] * forwards)
        return None if forwards and len(forwarded_at) == 1 else frame

    c.run(5 * MS)
    c.intercept = first_is_lost
    lost = c.propose(2, b"lost")
    c.run_until(lambda: c.answered(2, lost), 2 * SECOND)
    assert all(c.answered(0, token) for token in early)
    first, second = forwarded_at
    assert second - first > 150 * MS
    c.quiesce()
    c.check_answers()


def test_what_was_cut_off_a_log_is_not_waited_for() -> None:
    """A request that was lost is proposed again although the log's end at that time never merges."""
    c = Cluster(3, 1, limits=EngineLimits(proposal_retry_ms=10))
    c.settle_evenly()
    c.quiesce()
    c.intercept = lambda _sender, _receiver, frame: None if any_forward(frame) else frame
    lost = c.propose(2, b"lost")
    c.run(MS)
    c.intercept = lambda _sender, _receiver, frame: frame
    engine = c.servers[2].engine.state
    (pending,) = engine.pending.values()
    pending.upto = c.raft(2, 0).log.last_index + 1000  # entries of a former leader, replaced by now
    c.run_until(lambda: c.answered(2, lost), SECOND)
    c.quiesce()
    c.check_answers()


def any_forward(frame: Frame) -> bool:
    """Does it carry a request?"""
    return any(isinstance(message, Forward) for message in frame.messages)


def test_nobody_moves_the_clusters_time_by_a_floor() -> None:
    """Attack 7: a session that claims an answer from the far future waits, bounded, and is refused."""
    c = Cluster(3, 2)
    c.settle_evenly()
    refused: list[ForwardRefused] = []

    def note(_sender: int, _receiver: int, frame: Frame) -> Frame:
        refused.extend(m for m in frame.messages if isinstance(m, ForwardRefused))
        return frame

    c.intercept = note
    poison = Proposal(2, 1, 77, 1, EPOCH * 4, b"\x91\xc4\x01x")
    c.inject(2, 0, Forward(0, (poison,)))
    c.write_and_wait(0, b"not held up")
    c.run(2 * SECOND)
    c.write_and_wait(1, b"nor moved")
    assert max(c.history.timestamps()) < EPOCH + c.time
    assert refused == [ForwardRefused(0, 1, (77,))]


def test_parts_of_a_forward_hold_a_bounded_number() -> None:
    """However small the requests."""
    c = Cluster()
    proposals = [Proposal(0, 1, number, 1, 0, b"") for number in range(40_000)]
    parts = list(proposing.parts(c.servers[0].engine.state, proposals))
    assert [p for part in parts for p in part] == proposals
    assert max(map(len, parts)) <= proposing.REQUESTS_PER_MESSAGE_MAX


# -- wrong peers ----------------------------------------------------------------------------------

ENTRY = make_entry(0, index=1, term=1, timestamp=1, kind=EntryKind.EMPTY)
WRONG: list[Message] = [
    RequestVote(3, 9, 9, 9, pre=False, transfer=False),
    RequestVoteResult(3, 9, granted=True, pre=False),
    AppendEntries(3, 9, 0, 0, 0, ()),
    AppendAccepted(3, 9, 1, 1),
    AppendRejected(3, 9, 1, 1, 1),
    TimeoutNow(3, 9),
    Heartbeats(1, ((3, 9),), 0, ()),
    Heartbeats(1, None, 0, ((3, 9),)),
    Fetch(3, 1),
    Fetch(0, 0),
    FetchResult(3, (ENTRY,)),
    Forward(3, ()),
    ForwardRefused(3, 1, (1,)),
]


@pytest.mark.parametrize("message", WRONG, ids=lambda m: type(m).__name__)
def test_a_group_that_does_not_exist_is_the_peers_fault(message: Message) -> None:
    """WireError names the peer; nothing changes, and the cluster goes on."""
    c = Cluster()
    c.settle()
    c.quiesce()
    before = c.describe()
    with pytest.raises(WireError, match="server 1"):
        c.inject(1, 0, message)
    assert c.describe() == before
    assert c.write_and_wait(0, b"goes on") < 10 * MS


def test_a_commit_of_a_group_that_does_not_exist_is_the_peers_fault() -> None:
    """The commits in a frame's header are checked like its messages."""
    c = Cluster()
    c.settle()
    frame = Frame(EPOCH, c.time, 0, 0, 0, (), ((3, 1, 1),), ())
    with pytest.raises(WireError, match="group 3"):
        c.servers[0].engine.receive(1, frame, c.servers[0].now())
    c.write_and_wait(0, b"goes on")


def test_a_stranger_is_refused() -> None:
    """A frame from an id that is no member, or from our own."""
    c = Cluster()
    c.settle()
    for sender in (0, 7):
        with pytest.raises(WireError, match="not a member"):
            c.inject(sender, 0, ReadReport(1, ()))
    c.write_and_wait(0, b"goes on")


def test_a_message_that_is_refused_half_way_leaves_no_wrong_leader() -> None:
    """Its term was higher and its entries out of line: the server steps down and goes on working."""
    c = Cluster()
    c.settle_evenly()
    out_of_line = make_entry(0, index=90, term=9, timestamp=1, kind=EntryKind.EMPTY)
    with pytest.raises(WireError, match="out of line"):
        c.inject(1, 0, AppendEntries(0, 9, 0, 0, 0, (out_of_line,)))
    c.write_and_wait(0, b"goes on", limit=5 * SECOND)


def test_two_messages_of_one_frame_may_depose_and_acknowledge() -> None:
    """A higher term and an old acknowledgement in one turn: what was just lost is not counted."""
    c = Cluster()
    c.settle_evenly()
    state = c.servers[0].engine.state
    term = state.raft(0).term + 1
    c.inject(
        1,
        0,
        AppendEntries(0, term, 0, 0, 0, ()),
        Heartbeats(1, ((0, term),), state.leads_version, ()),
    )
    assert not state.raft(0).leads
    c.write_and_wait(0, b"goes on", limit=5 * SECOND)


def test_a_report_of_the_wrong_length_counts_for_nothing() -> None:
    """A report has one line a group; another one is ignored."""
    c = Cluster()
    c.settle()
    c.quiesce()
    c.drop(ReadReport, to=0)
    token = c.read(0)
    c.run(MS)
    report = GroupReport(NOWHERE, NOWHERE, NOWHERE, c.raft(0, 0).configuration)
    c.inject(1, 0, ReadReport(c.servers[0].engine.state.reads.round, (report,)))
    c.run(MS)
    assert token not in c.servers[0].served
    c.pass_all()
    c.run_until(lambda: token in c.servers[0].served)


def test_a_demand_from_beyond_all_time_is_the_peers_fault() -> None:
    """Stamps must have room above every demand: a broken peer's is refused, and nobody's time moves."""
    c = Cluster()
    c.settle_evenly()
    server = c.servers[0]
    frame = Frame(clock=0, sent=1, echo=0, held=0, demand=2**62 + 1, links=(), commits=(), messages=())
    with pytest.raises(WireError, match="demands timestamp 4611686018427387905"):
        server.engine.receive(1, frame, server.now())
    c.write_and_wait(0, b"goes on")
    assert server.engine.state.greatest_timestamp < 2**62
