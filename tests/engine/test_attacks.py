"""The counterexamples that made the rules marked (†): each schedule passes, and bites where a rule is broken.

A mutant is the plausible rule that a small model broke. Attacks that concern the `committed` level,
membership, snapshots and damaged disks belong to what does not exist yet.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from craft.clock import stamper
from craft.clock.interval import Readings
from craft.engine import dispatch, leading, linking, merging, placing, proposing, reading
from craft.limits import KIB, EngineLimits
from craft.messages import (
    AppendEntries,
    Fetch,
    FetchResult,
    Forward,
    Frame,
    GroupReport,
    Heartbeats,
    LeaderPersisted,
    ReadReport,
)
from craft.placement import Placement
from craft.raft import Raft, RaftState, election, replication
from craft.raft import core as raft_core
from craft.reads import QuorumReads
from craft.sessions import Session, Sessions
from craft.types import (
    NOWHERE,
    Configuration,
    EntryKind,
    HardState,
    Instant,
    Place,
    Proposal,
    RecoveredGroup,
    Term,
    make_entry,
)
from tests.driver import EPOCH, MS, SECOND, Cluster, Server

HOUR = 3600 * SECOND
Mutant = Callable[[pytest.MonkeyPatch], None]


def intact(_patch: pytest.MonkeyPatch) -> None:
    """The rule as it is."""


def check(attack: Callable[[], None], mutant: Mutant, patch: pytest.MonkeyPatch) -> None:
    """The schedule passes with the rule, and fails with the mutant."""
    mutant(patch)
    if mutant is intact:
        attack()
    else:
        with pytest.raises(AssertionError):
            attack()


# -- 1: wild clocks -------------------------------------------------------------------------------


def no_clamp(patch: pytest.MonkeyPatch) -> None:
    """Stamp by the clock as it reads."""
    patch.setattr(stamper, "bounded", lambda clock, _reached, _offset: (max(0, clock), False))


def followers_refuse(patch: pytest.MonkeyPatch) -> None:
    """A follower refuses entries stamped far ahead of its own clock."""
    original = merging.turn
    accept = replication.handle_append_entries
    clock = [0]

    def note_clock(e: Any, out: Any) -> None:
        clock[0] = e.now.clock_ns
        original(e, out)

    def refuse(r: RaftState, sender: int, m: AppendEntries, now: int) -> None:
        if not any(entry.timestamp > clock[0] + 250 * MS for entry in m.entries):
            accept(r, sender, m, now)

    patch.setattr(merging, "turn", note_clock)
    patch.setitem(raft_core._HANDLERS, AppendEntries, refuse)


def a_wild_leader_drags_nobody() -> None:
    """(a) Its reading is contained where it is read: no stamp is far from the majority's clocks."""
    c = Cluster()
    c.settle_evenly()
    c.clocks = {0: lambda at: EPOCH + at + 100_000 * SECOND}
    for number in range(20):
        c.write_and_wait(number % 3, b"%d" % number)
        c.run(50 * MS)
    assert max(c.history.timestamps()) <= EPOCH + c.time + c.limits.clock_offset_ms_max * MS


def all_clocks_step_back() -> None:
    """(b) `last + 1` is beyond every clock, and nobody minds."""
    c = Cluster()
    c.settle_evenly()
    c.write_and_wait(0, b"before")
    c.clocks = dict.fromkeys(c.ids, lambda at: EPOCH + at - 10_000 * SECOND)
    for number in range(6):
        c.write_and_wait(number % 3, b"%d" % number, limit=5 * SECOND)


@pytest.mark.parametrize("mutant", [intact, no_clamp])
def test_a_wild_leader(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack 1a."""
    check(a_wild_leader_drags_nobody, mutant, monkeypatch)


@pytest.mark.parametrize("mutant", [intact, followers_refuse])
def test_clocks_that_step_back(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack 1b."""
    check(all_clocks_step_back, mutant, monkeypatch)


# -- 2: the latest configuration that anyone names ------------------------------------------------


def own_configuration(patch: pytest.MonkeyPatch) -> None:
    """A majority of the reader's own configuration completes the round."""

    def covered(self: QuorumReads, group: int) -> bool:
        reports = self._reports
        own = reports[0][group].configuration
        return sum(voter in reports for voter in own.voters) > len(own.voters) // 2

    patch.setattr(QuorumReads, "_covered", covered)


def a_stale_pair_reads() -> None:
    """Server 0 knows {0,1,2}; 2 knows that it became {1,3,4}, where a write was answered."""
    old, new = Configuration(frozenset({0, 1, 2})), Configuration(frozenset({1, 3, 4}))
    write = Place(2, 9)
    reads = QuorumReads(0)
    reads.add("read")
    assert reads.begin(0, MS)

    def report(server: int, configuration: Configuration, at: Place, last: Place) -> None:
        line = GroupReport(last, NOWHERE, at, configuration)
        reads.report(server, ReadReport(reads.round, (line,)), 1)

    report(0, old, Place(1, 1), NOWHERE)
    report(2, new, Place(2, 5), NOWHERE)
    assert not reads.completed
    report(1, new, Place(2, 5), write)
    report(3, new, Place(2, 5), write)
    (waiting,) = reads.completed
    assert waiting.targets == {0: write}


@pytest.mark.parametrize("mutant", [intact, own_configuration])
def test_a_stale_configuration(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack 2, as far as there is a configuration to change."""
    check(a_stale_pair_reads, mutant, monkeypatch)


# -- 3: sessions ----------------------------------------------------------------------------------


def auto_created(patch: pytest.MonkeyPatch) -> None:
    """A request of an unknown session creates it."""
    original = Sessions.admit

    def admit(self: Sessions, proposal: Proposal) -> bool:
        session = self.current(proposal.server_id)
        if session is None or session.counter != proposal.counter:
            self._open[proposal.server_id] = Session(proposal.counter, b"")
        return original(self, proposal)

    patch.setattr(Sessions, "admit", admit)


def a_delayed_copy_arrives() -> None:
    """The copy of a forwarded request, after its session was ended by the next incarnation's."""
    c = Cluster(3, 2)
    c.settle_evenly()
    copies: list[tuple[int, Forward]] = []

    def copy(sender: int, receiver: int, frame: Frame) -> Frame:
        copies.extend((receiver, m) for m in frame.messages if isinstance(m, Forward) and sender == 2)
        return frame

    c.intercept = copy
    c.write_and_wait(2, b"once")
    c.pass_all()
    c.restart(2)
    c.settle()
    for receiver, forward in copies:
        c.inject(2, receiver, forward)
    c.run(SECOND)
    c.quiesce()
    c.check_answers()


@pytest.mark.parametrize("mutant", [intact, auto_created])
def test_a_session_that_ended(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack 3."""
    check(a_delayed_copy_arrives, mutant, monkeypatch)


def last_number(patch: pytest.MonkeyPatch) -> None:
    """A session keeps the last request's number instead of a window."""

    def admit(self: Sessions, proposal: Proposal) -> bool:
        session = self.current(proposal.server_id)
        if session is None or session.counter != proposal.counter or proposal.request < session.below:
            return False
        session.below = proposal.request + 1
        return True

    patch.setattr(Sessions, "admit", admit)


def pipelined_requests() -> None:
    """Request 6 merges before 5: both take effect."""
    c = Cluster(3, 9, delay=(100_000, 3 * MS))
    c.settle()
    tokens = []
    for number in range(30):  # a turn's requests share an entry: those of the next turns overtake them
        tokens += [(i, c.propose(i, b"%d-%d" % (number, i))) for i in c.ids]
        c.run(100_000)
    c.run_until(lambda: all(c.answered(i, token) for i, token in tokens), 10 * SECOND)
    c.quiesce()
    c.check_answers()


@pytest.mark.parametrize("mutant", [intact, last_number])
def test_pipelining(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session's window (PROTOCOL 5)."""
    check(pipelined_requests, mutant, monkeypatch)


# -- 7: floors ------------------------------------------------------------------------------------


def unbounded_floor(patch: pytest.MonkeyPatch) -> None:
    """Any claimed floor is taken at once."""

    class Greatest(int):
        def __gt__(self, _other: int) -> bool:
            return False

    original = proposing.handle_forward

    def believe(e: Any, sender: int, m: Forward) -> None:
        claims = tuple(p._replace(answered_timestamp=Greatest(p.answered_timestamp)) for p in m.proposals)
        original(e, sender, m._replace(proposals=claims))

    patch.setitem(dispatch.HANDLERS, Forward, believe)


def a_poisoned_floor() -> None:
    """A forwarded request claims an answer from the far future."""
    c = Cluster(3, 2)
    c.settle_evenly()
    c.inject(2, 0, Forward(0, (Proposal(2, 1, 77, 1, EPOCH * 4, b"\x91\xc4\x01x"),)))
    c.write_and_wait(1, b"a")
    c.run(3 * SECOND)
    c.write_and_wait(0, b"b")
    assert max(c.history.timestamps()) < 2 * EPOCH


@pytest.mark.parametrize("mutant", [intact, unbounded_floor])
def test_poison(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack 7, second part."""
    check(a_poisoned_floor, mutant, monkeypatch)


# -- 8: back-pressure -----------------------------------------------------------------------------


def closing_waits(patch: pytest.MonkeyPatch) -> None:
    """A group that has commands waiting closes by them, and not by an empty entry."""
    original = leading._append

    def append(e: Any, r: RaftState, kind: EntryKind, **rest: Any) -> None:
        if kind is not EntryKind.EMPTY or not e.queues[r.group].proposals:
            original(e, r, kind, **rest)

    patch.setattr(leading, "_append", append)


def a_full_merge() -> None:
    """What the others committed fills the merge, so the group that all wait for may append no commands."""
    limits = EngineLimits(unmerged_bytes_max=200, entry_bytes_max=KIB, uncommitted_entries_max=1)
    c = Cluster(limits=limits, sync=(MS, 5 * MS))
    c.settle_evenly()
    tokens = []
    for number in range(60):
        tokens += [(i, c.propose(i, b"%d-%d" % (number, i) + bytes(500))) for i in c.ids]
        c.run(MS)
    c.run_until(lambda: all(c.answered(i, token) for i, token in tokens))


@pytest.mark.parametrize("mutant", [intact, closing_waits])
def test_back_pressure(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack 8."""
    check(a_full_merge, mutant, monkeypatch)


# -- 10, 14: fetching -----------------------------------------------------------------------------


def number_without_term(patch: pytest.MonkeyPatch) -> None:
    """A commit is a number."""

    def learn(r: RaftState, sender: int, index: int, term: Term, now: int) -> None:
        del sender, term, now
        replication.advance_commit(r, min(index, r.log.last_index))

    patch.setattr(replication, "learn_commit", learn)


def a_commit_meets_an_orphan() -> None:
    """A deposed leader holds another entry at the index that its peers know committed."""
    c = Cluster(3, 1)
    c.settle_evenly()
    for other in (1, 2):
        c.cut(0, other)
    c.propose(0, b"orphan")
    c.run_until(lambda: c.leader(0) not in {0, None}, 5 * SECOND)
    c.write_and_wait(c.leading(0), b"committed")
    c.drop(AppendEntries, Heartbeats, to=0)
    c.heal()
    c.run(2 * SECOND)
    c.pass_all()
    c.quiesce()
    c.check_answers()


@pytest.mark.parametrize("mutant", [intact, number_without_term])
def test_fetching_by_number(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack 10."""
    check(a_commit_meets_an_orphan, mutant, monkeypatch)


def cut_behind_the_answer(patch: pytest.MonkeyPatch) -> None:
    """The log is cut where the fetch began, as it was judged when it was asked."""
    original = replication.accept_entries

    def accept(r: RaftState, sender: int, entries: tuple[Any, ...]) -> None:
        if entries and entries[0].index <= r.log.last_index:
            r.log.truncate_from(entries[0].index)
        original(r, sender, entries)

    patch.setattr(replication, "accept_entries", accept)


def a_bounded_answer() -> None:
    """Commit 10, entries to 14 are acknowledged: an answer with 11 and 12 drops neither 13 nor 14."""
    entries = tuple(
        make_entry(0, index=index, term=1, timestamp=index, kind=EntryKind.EMPTY) for index in range(1, 15)
    )
    found = RecoveredGroup(HardState(1, None, 10), NOWHERE, 0, entries, NOWHERE)
    raft = Raft(
        0,
        0,
        Configuration(frozenset({0, 1, 2})),
        found,
        limits=EngineLimits(),
        rng=random.Random(1),
        gone=set(),
        now=0,
    )
    raft.step(1, FetchResult(0, entries[10:12]), 0)
    assert raft.state.commit_index == 12 and raft.state.log.last_index == 14


@pytest.mark.parametrize("mutant", [intact, cut_behind_the_answer])
def test_a_fetch_judged_too_early(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack 14."""
    check(a_bounded_answer, mutant, monkeypatch)


# -- 12: closed beyond what is persisted ----------------------------------------------------------


def closed_by_commit(patch: pytest.MonkeyPatch) -> None:
    """`closed` rises with the commit index, though entries are emitted only when they are durable."""
    original = merging._deliver

    def deliver(e: Any, group: int) -> None:
        original(e, group)
        r = e.raft(group)
        for entry in r.log.entries:
            if entry.index <= r.commit_index:
                e.merger.closed[group] = max(e.merger.closed[group], entry.timestamp)

    def extend(self: Any, group: int, entries: tuple[Any, ...]) -> None:
        for entry in entries:
            self.closed[group] = max(self.closed[group], entry.timestamp)
            if 1 <= entry.kind <= 3:
                queue = self._queues[group]
                if not queue and (self._first is None or entry.timestamp < self._first):
                    self._first = entry.timestamp
                queue.append(entry)
                self.bytes += len(entry.record)

    patch.setattr(merging, "_deliver", deliver)
    patch.setattr("craft.merge.Merger.extend", extend)


def unsynced_commits() -> None:
    """A follower's disk is slow; the others commit without it, and it must not merge around what it lacks."""
    for seed in range(4):
        c = Cluster(seed=seed)
        c.clocks = dict.fromkeys(c.ids, lambda _at: EPOCH)  # many ties
        c.settle_evenly()
        c.syncs[2] = (MS, 30 * MS)
        for number in range(40):
            for i in c.ids:
                c.propose(i, b"%d-%d" % (number, i))
            c.run(2 * MS)
        c.quiesce()
        c.check_answers()


@pytest.mark.parametrize("mutant", [intact, closed_by_commit])
def test_closed_beyond_persisted(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack 12."""
    check(unsynced_commits, mutant, monkeypatch)


# -- 15: stale readings ---------------------------------------------------------------------------


def carried_from_arrival(patch: pytest.MonkeyPatch) -> None:
    """A reading is as old as its frame's arrival."""

    def observe(self: Readings, peer: int, clock: int, echo: int, now: Instant) -> None:
        del echo
        self._readings[peer] = (now.monotonic_ns, clock - now.monotonic_ns)

    patch.setattr(Readings, "observe", observe)


def a_stalled_server() -> None:
    """It sleeps, then handles what was buffered first: old clocks that look fresh, and must not."""
    limits = EngineLimits(heartbeat_interval_ms=75, election_timeout_ms_min=600, election_timeout_ms_max=1200)
    c = Cluster(limits=limits)
    c.settle_evenly()
    c.pause(0)
    c.run(100 * MS)
    c.cut(0, 1)
    c.cut(0, 2)
    c.run(400 * MS)
    token = c.propose(0, b"a")
    c.resume(0)
    c.heal()
    c.run_until(lambda: c.answered(0, token), 5 * SECOND)
    assert c.servers[0].engine.state.clamps == 0, "a good clock was taken for a wild one"


@pytest.mark.parametrize("mutant", [intact, carried_from_arrival])
def test_stale_readings(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack 15."""
    check(a_stalled_server, mutant, monkeypatch)


# -- 17: a floor that waits for ever --------------------------------------------------------------


def floor_compared(patch: pytest.MonkeyPatch) -> None:
    """The floor is compared, not the answered timestamp."""
    original = proposing._proposal

    def proposal(e: Any, pending: Any) -> Proposal:
        made = original(e, pending)
        return made._replace(answered_timestamp=made.answered_timestamp + 1)

    patch.setattr(proposing, "_proposal", proposal)


def a_clock_that_stands_still() -> None:
    """One group, answered at the greatest timestamp there is: nothing else will pass the floor."""
    c = Cluster(1, 1)
    c.clocks = {0: lambda _at: EPOCH}
    c.settle()
    for number in range(3):
        c.write_and_wait(0, b"%d" % number, limit=5 * SECOND)


@pytest.mark.parametrize("mutant", [intact, floor_compared])
def test_a_floor_that_waits(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack 17."""
    check(a_clock_that_stands_still, mutant, monkeypatch)


# -- 10, 21: preference ---------------------------------------------------------------------------


def always_well(patch: pytest.MonkeyPatch) -> None:
    """Preference returns a group at once, to whoever is alive."""
    patch.setattr(placing, "_looks_well", lambda _e, _r, _server: True)
    patch.setattr(Placement, "may_return", lambda _self, _group, *, well, now: well and now > 0)


def elections(c: Cluster, duration: int) -> int:
    """How many terms pass in this time, in all groups."""
    before = [max(c.raft(i, group).term for i in c.servers) for group in range(c.groups)]
    c.run(duration)
    return sum(max(c.raft(i, group).term for i in c.servers) - before[group] for group in range(c.groups))


def a_clamped_preferred_leader() -> None:
    """It hands over because of its clock; preference must not bring it back."""
    c = Cluster()
    c.settle_evenly()
    c.clocks = {0: lambda at: EPOCH + at + HOUR}
    assert elections(c, 30 * SECOND) <= 2


def two_down_and_a_link_cut() -> None:
    """Five servers, 3 and 4 down, link 0-1 cut: one server alone can lead."""
    c = Cluster(5, 1)
    c.settle_evenly()
    c.crash(3)
    c.crash(4)
    c.cut(0, 1)
    c.run(5 * SECOND)
    assert elections(c, 30 * SECOND) <= 2
    c.write_and_wait(2, b"goes on", limit=2 * SECOND)


@pytest.mark.parametrize("mutant", [intact, always_well])
@pytest.mark.parametrize("attack", [a_clamped_preferred_leader, two_down_and_a_link_cut])
def test_flapping(attack: Callable[[], None], mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks 10 and 21."""
    check(attack, mutant, monkeypatch)


# -- the merge's own mutants (protocol-attacks, invariant 9 and 10) -------------------------------


def closed_from_appended(patch: pytest.MonkeyPatch) -> None:
    """`closed` is raised by uncommitted entries."""
    original = merging._deliver

    def deliver(e: Any, group: int) -> None:
        original(e, group)
        e.merger.closed[group] = max(e.merger.closed[group], e.raft(group).log.last_timestamp)

    patch.setattr(merging, "_deliver", deliver)
    patch.setattr("craft.merge.Merger.extend", _extend_without_order)


def _extend_without_order(self: Any, group: int, entries: tuple[Any, ...]) -> None:
    for entry in entries:
        if 1 <= entry.kind <= 3:
            self._queues[group].append(entry)
            self.bytes += len(entry.record)
            self._first = min(entry.timestamp, self._first or entry.timestamp)


def three_busy_leaders() -> None:
    c = Cluster(delay=(100_000, 3 * MS))
    c.settle_evenly()
    for number in range(60):
        for i in c.ids:
            c.propose(i, b"%d-%d" % (number, i))
        c.run(MS)
    c.quiesce()
    c.check_answers()


@pytest.mark.parametrize("mutant", [intact, closed_from_appended])
def test_closed_by_what_is_not_committed(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only committed entries close (PROTOCOL 3)."""
    check(three_busy_leaders, mutant, monkeypatch)


def reads_wait_for_empties(patch: pytest.MonkeyPatch) -> None:
    """A read waits until everything up to the target is merged, empty entries too."""
    original = reading._reached

    def reached(e: Any, waiting: Any) -> bool:
        merged = all(
            e.merger.safe >= (e.raft(group).log.last_timestamp if e.raft(group).commit_index else 0)
            for group in range(len(e.replicas))
        )
        return merged and original(e, waiting)

    patch.setattr(reading, "_reached", reached)


def a_read_on_an_idle_cluster() -> None:
    """Groups are closed at different instants, and nobody closes them further for a read."""
    c = Cluster()
    c.settle_evenly()
    c.write_and_wait(0, b"a")
    c.quiesce()
    c.restart(1)
    c.settle_evenly()
    c.quiesce()
    for i in c.ids:
        c.read_and_wait(i, limit=SECOND)


@pytest.mark.parametrize("mutant", [intact, reads_wait_for_empties])
def test_reads_of_an_idle_cluster(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads wait for commands only (PROTOCOL 6)."""
    check(a_read_on_an_idle_cluster, mutant, monkeypatch)


def committed_only(patch: pytest.MonkeyPatch) -> None:
    """A report names the last *committed* command entry."""
    original = reading._group_report

    def report(e: Any, group: int) -> GroupReport:
        full = original(e, group)
        return full._replace(last_command=min(full.last_command, full.commit))

    patch.setattr(reading, "_group_report", report)


def a_read_races_the_news_of_a_commit() -> None:
    """The leader answered, and nobody else has heard of the commit: the reader must wait for it."""
    c = Cluster(3, 1)
    c.settle_evenly()
    c.quiesce()

    def silent(sender: int, _receiver: int, frame: Frame) -> Frame:
        kept = tuple(
            m._replace(commit_index=0) if isinstance(m, AppendEntries) else m for m in frame.messages
        )
        kept = tuple(m for m in kept if not isinstance(m, Fetch | FetchResult | LeaderPersisted))
        return frame._replace(messages=kept, commits=()) if sender == 0 else frame

    c.intercept = silent
    c.write_and_wait(0, b"answered")
    c.cut(0, 1)  # its round is 1 and 2
    token = c.read(1)
    c.run(SECOND)
    c.pass_all()
    c.heal()
    c.run_until(lambda: token in c.servers[1].served)


@pytest.mark.parametrize("mutant", [intact, committed_only])
def test_reports_of_what_is_committed(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Appended is what a report must name (PROTOCOL 6)."""
    check(a_read_races_the_news_of_a_commit, mutant, monkeypatch)


def vote_before_durable(patch: pytest.MonkeyPatch) -> None:
    """What a group says leaves before its (term, vote) are on disk."""

    def drain(e: Any, r: Any) -> None:
        for peer, message in r.outbox:
            e.peers[peer].out.append(message)
        r.outbox = []

    patch.setattr(linking, "_drain_outbox", drain)


def votes_and_power_cuts() -> None:
    """Two candidates ask the same voter; it loses power between its answer and its disk."""
    for seed in range(30):
        c = Cluster(3, 1, seed=seed, sync=(3 * MS, 3 * MS))
        c.settle()
        for turn in range(6):
            for i in c.ids:
                c.at(turn * 3 * MS + i * 100_000, lambda i=i, c=c: _stand(c, i))  # type: ignore[misc]
            c.run((turn % 3 + 1) * MS)
            c.crash(2)
            c.start(2)
            c.run(20 * MS)


def _stand(c: Cluster, i: int) -> None:
    r = c.raft(i, 0)
    if not r.leads:
        election.campaign(r, c.time, transfer=True)
        c.servers[i].engine.state.dirty.add(0)
        c._schedule(c.servers[i], c.time)


@pytest.mark.parametrize("mutant", [intact, vote_before_durable])
def test_votes_are_durable_before_they_leave(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """PROTOCOL 1, reliability A1."""
    check(votes_and_power_cuts, mutant, monkeypatch)


def persisted_when_written(patch: pytest.MonkeyPatch) -> None:
    """A write is taken for durable before it is synced (reliability F5)."""

    def written(c: Cluster, server: Server, number: int) -> None:
        c.at(0, lambda: c._input(server, lambda s: s.engine.persisted(number, s.now())))

    patch.setattr(Cluster, "_later_synced", written)


def a_power_cut_of_two_followers() -> None:
    """Their disks had synced nothing; what was answered must have been elsewhere."""
    c = Cluster(3, 1)
    c.settle_evenly()
    c.quiesce()
    c.held |= {1, 2}
    token = c.propose(0, b"a")
    c.run(100 * MS)
    answered = c.answered(0, token)
    c.held.clear()
    for i in c.ids:
        c.crash(i)
    for i in (1, 2):
        c.start(i)
    c.settle()
    c.start(0)
    c.settle()
    c.quiesce()
    assert not answered or b"a" in c.commands(1)
    c.check_answers()


@pytest.mark.parametrize("mutant", [intact, persisted_when_written])
def test_acknowledgements_are_durable_before_they_leave(
    mutant: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PROTOCOL 1."""
    check(a_power_cut_of_two_followers, mutant, monkeypatch)
