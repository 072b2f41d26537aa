"""Each property is seen to hold on a sound run, and to be missed where it was broken by hand.

The runs are real; what is broken is what the checker looks at: a message, a log, a disk, an answer.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any, TypeVar

import msgpack
import pytest

from craft.membership import Members
from craft.messages import AppendAccepted, AppendEntries, Frame, Message, RequestVote, RequestVoteResult
from craft.raft import RaftState, Role
from craft.ready import Merged
from craft.testing.checkers import Checker, Violation, standard, traffic
from craft.testing.checkers.answers import AnswersArePlaced, ExactlyOnce, RealTime, RejectedHasNoEffect
from craft.testing.checkers.durability import (
    AcknowledgementsAreDurable,
    CommitsAreDurable,
    CountedIsHeld,
    VotesAreDurable,
)
from craft.testing.checkers.elections import (
    LeaderCompleteness,
    LeadersAreElected,
    OneLeader,
    OneVote,
    TermsAreRemembered,
)
from craft.testing.checkers.histories import Linearizable, Replay
from craft.testing.checkers.ledger import Ledger
from craft.testing.checkers.logs import (
    CommittedInItsTerm,
    CommittedStays,
    Invariants,
    LogMatching,
    StampsRise,
    StateMachineSafety,
    TermsCoverLogs,
)
from craft.testing.checkers.membership import OneChangeAtATime, RemovedInItsLife
from craft.testing.checkers.merging import (
    ClosedTimestampsHold,
    MergedDigestsAgree,
    MergedInOrder,
    MergedLogsAgree,
    ResultsAgree,
    StatesAgree,
)
from craft.testing.checkers.queues import WaitsOnce
from craft.testing.checkers.snapshots import AnyKeptSnapshotBegins
from craft.testing.checkers.traffic import NoCircles
from craft.testing.history import Kind, Operation, Outcome
from craft.testing.plan import MS, SECOND, Plan
from craft.testing.run import Run
from craft.testing.server import SimServer
from craft.testing.swarm import draw
from craft.types import (
    NOWHERE,
    Append,
    Configuration,
    Cut,
    Entry,
    EntryKind,
    HardState,
    Head,
    Place,
    Proposal,
    SnapshotId,
    SnapshotInfo,
    Start,
    Write,
    make_entry,
    pack_configuration,
)

PLAN = Plan(seed=1, groups=2, duration=200 * MS, think=(5 * MS, 20 * MS))

C = TypeVar("C", bound=Checker)


class Story:
    """A sound run, at its end; its checkers have seen all of it."""

    def __init__(self, plan: Plan = PLAN) -> None:
        self.run = Run(plan)
        result = self.run.run()
        assert result.violation is None, result.violation
        assert result.answered > 10
        self.world = self.run.world
        self.checkers = self.world.checkers
        self.ledger = self.find(Ledger)

    def find(self, kind: type[C]) -> C:
        """The run's checker of a kind."""
        (found,) = [one for one in self.checkers if type(one) is kind]
        assert isinstance(found, kind)
        return found

    def tell(self, kind: type[Checker], hook: str, *arguments: Any) -> None:
        """Call a hook of the ledger and of one checker."""
        getattr(self.ledger, hook)(*arguments)
        getattr(self.find(kind), hook)(*arguments)

    def violates(self, kind: Any, hook: str, *arguments: Any) -> str:
        """The checker finds that its property does not hold; says in which words."""
        with pytest.raises(Violation) as found:
            self.tell(kind, hook, *arguments)
        assert found.value.property == kind.PROPERTY
        return found.value.detail

    def leader(self, group: int = 0) -> tuple[SimServer, RaftState]:
        """Who leads a group."""
        for server in self.world.servers.values():
            r = server.engine.state.raft(group)
            if r.leads:
                return server, r
        raise AssertionError("nobody leads")

    def follower(self, group: int = 0) -> tuple[SimServer, RaftState]:
        """Who does not lead it."""
        for server in self.world.servers.values():
            r = server.engine.state.raft(group)
            if not r.leads:
                return server, r
        raise AssertionError("nobody follows")

    def answered(self, kind: str) -> Operation:
        """The last operation of a kind that was answered."""
        return [one for one in self.world.history if (one.kind, one.outcome) == (kind, Outcome.OK)][-1]


@pytest.fixture
def story() -> Story:
    """A sound run."""
    return Story()


def frame(*messages: Message) -> Frame:
    """A frame with nothing else to say."""
    return Frame(0, 0, 0, 0, 0, (), (), messages)


def after(r: RaftState, *, term: int | None = None, stamp: int = 1, payload: bytes = b"") -> Entry:
    """An entry that may follow a log."""
    log = r.log
    return make_entry(
        r.group,
        index=log.last_index + 1,
        term=r.term if term is None else term,
        timestamp=log.last_timestamp + stamp,
        kind=EntryKind.EMPTY,
        payload=payload,
    )


def other_record(entry: Entry, group: int = 0) -> Entry:
    """Another entry at the same index and term."""
    return make_entry(
        group, index=entry.index, term=entry.term, timestamp=entry.timestamp, kind=entry.kind, payload=b"x"
    )


def write(server: SimServer, group: int, *entries: Entry, cut: int = 0) -> Write:
    """Write a batch to a server's disk."""
    batch = Write(10**6, (Append(group, cut, entries),), (), None)
    server.disk.write(batch)
    return batch


def applied(story: Story, position: int) -> Merged:
    """What is at a position."""
    return story.ledger.merged[position - 1]


# -- sound runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [3, 9, 12, 21, 28])
def test_no_property_is_missed_in_a_sound_run_with_faults(seed: int) -> None:
    """Crashes, cuts, decay and clocks are no reason to complain."""
    plan = draw(seed)
    violation = Run(replace(plan, duration=min(plan.duration, 2 * SECOND))).run().violation
    assert violation is None


def test_the_standard_checkers_are_fresh_and_each_is_there_once() -> None:
    """Nothing is shared between two runs."""
    first, second = standard(), standard()
    assert isinstance(first[0], Ledger)
    assert [type(one) for one in first] == [type(one) for one in second]
    assert len({type(one) for one in first}) == len(first)
    assert not {id(one) for one in first} & {id(one) for one in second}


def test_a_violation_travels_between_processes() -> None:
    """A parallel run hands its findings over."""
    found = pickle.loads(pickle.dumps(Violation("a property", "what was seen")))
    assert (found.property, found.detail, str(found)) == (
        "a property",
        "what was seen",
        "a property: what was seen",
    )


# -- elections -------------------------------------------------------------------------------------


def test_a_second_leader_of_a_term_is_found(story: Story) -> None:
    """Two servers lead group 0 in one term."""
    _, leads = story.leader()
    server, r = story.follower()
    r.role, r.term = Role.LEADER, leads.term
    assert f"group 0 term {r.term}" in story.violates(OneLeader, "turned", server)


def test_a_leader_that_leads_its_term_again_after_a_restart_is_found(story: Story) -> None:
    """Another incarnation does not know what the first has sent."""
    server, _ = story.leader()
    server.incarnation += 1000
    story.ledger.started(server)
    story.violates(OneLeader, "turned", server)


def test_a_leader_without_a_committed_entry_is_found(story: Story) -> None:
    """It was elected by servers that should not have voted for it."""
    server, r = story.follower()
    r.role, r.term = Role.LEADER, r.term + 1
    r.log.truncate_from(r.log.last_index)
    assert "committed with term" in story.violates(LeaderCompleteness, "turned", server)


def test_a_late_leader_may_lack_what_was_committed_after_its_term(story: Story) -> None:
    """It won an election that a higher term has overtaken: it commits nothing, and is no violation."""
    server, r = story.follower()
    r.log.truncate_from(r.log.offset.index + 2)
    story.ledger.commit_terms[0] = [r.term + 5] * len(story.ledger.committed[0])
    r.role, r.term = Role.LEADER, r.term + 1
    story.tell(LeaderCompleteness, "turned", server)


def test_a_leader_without_a_majority_of_votes_is_found(story: Story) -> None:
    """Nobody has voted for it but itself."""
    server, r = story.follower()
    r.role, r.term = Role.LEADER, r.term + 1
    server.disk.synced.hard_states[0] = HardState(r.term, server.id, 0)
    assert f"the votes of servers [{server.id}]" in story.violates(LeadersAreElected, "turned", server)


def test_two_votes_in_one_term_are_found(story: Story) -> None:
    """Over restarts too: the disk is the voter."""
    server = story.world.servers[1]
    story.tell(OneVote, "sent", server, 2, frame(RequestVoteResult(0, 99, True, False)))
    story.tell(OneVote, "sent", server, 3, frame(RequestVoteResult(0, 99, False, False)))
    story.tell(OneVote, "sent", server, 3, frame(RequestVoteResult(0, 99, True, True)))
    detail = story.violates(OneVote, "sent", server, 3, frame(RequestVoteResult(0, 99, True, False)))
    assert "votes for server 3 in group 0 term 99, and has voted for server 2" in detail


def test_a_candidate_that_votes_for_another_is_found(story: Story) -> None:
    """To stand is to vote."""
    server = story.world.servers[1]
    story.tell(OneVote, "sent", server, 2, frame(RequestVote(0, 99, 1, 1, False, False)))
    story.violates(OneVote, "sent", server, 2, frame(RequestVoteResult(0, 99, True, False)))


def test_a_restart_in_a_lower_term_is_found(story: Story) -> None:
    """It had acknowledged in term 99."""
    server = story.world.servers[1]
    story.tell(TermsAreRemembered, "sent", server, 2, frame(RequestVoteResult(0, 200, True, True)))
    story.tell(TermsAreRemembered, "started", server)
    story.tell(TermsAreRemembered, "sent", server, 2, frame(AppendAccepted(0, 99, 1, 1)))
    assert "had told peers 99" in story.violates(TermsAreRemembered, "started", server)


# -- logs ------------------------------------------------------------------------------------------


def test_two_entries_with_one_index_and_term_are_found(story: Story) -> None:
    """A leader wrote twice at one place."""
    server, r = story.leader()
    entry = after(r)
    story.tell(LogMatching, "wrote", server, write(server, 0, entry))
    other, _ = story.follower()
    detail = story.violates(LogMatching, "wrote", other, write(other, 0, other_record(entry)))
    assert f"entry {entry.index} of group 0" in detail


def test_one_entry_behind_two_different_terms_is_found(story: Story) -> None:
    """The logs before it differ, so they must differ there."""
    server, r = story.leader()
    first = after(r, term=r.term + 1)
    second = make_entry(0, index=first.index + 1, term=r.term + 3, timestamp=2**62, kind=EntryKind.EMPTY)
    story.tell(LogMatching, "wrote", server, write(server, 0, first, second))
    other, _ = story.follower()
    first = after(r, term=r.term + 2)
    story.violates(LogMatching, "wrote", other, write(other, 0, first, second))


def test_stamps_that_do_not_rise_are_found(story: Story) -> None:
    """An entry has the stamp of the one before it."""
    server, r = story.leader()
    story.violates(StampsRise, "wrote", server, write(server, 0, after(r, stamp=0)))


def test_a_log_ahead_of_its_servers_term_is_found(story: Story) -> None:
    """It was taken over without its term."""
    server, r = story.follower()
    story.ledger.started(server)
    r.term = r.log.last_term - 1
    assert f"its log ends at {r.log.last_index}" in story.violates(TermsCoverLogs, "turned", server)


def test_two_committed_entries_at_one_index_are_found(story: Story) -> None:
    """A server learns that something else was committed."""
    server, r = story.follower()
    story.ledger.started(server)
    r.log.entries[-1] = other_record(r.log.entries[-1])
    assert "was committed as" in story.violates(StateMachineSafety, "turned", server)


def test_a_commit_index_that_falls_is_found(story: Story) -> None:
    """Within one incarnation it never does."""
    server, r = story.follower()
    r.commit_index -= 1
    assert "falls from" in story.violates(StateMachineSafety, "turned", server)


@pytest.mark.parametrize("who", [Story.leader, Story.follower])
def test_a_commit_through_an_entry_of_an_earlier_term_is_found(
    story: Story, who: Callable[[Story], tuple[SimServer, RaftState]]
) -> None:
    """Whoever counts: a leader, or a follower that infers."""
    server, r = who(story)
    r.term += 1
    story.ledger.turned(server)
    r.log.append((after(r, term=r.term - 1),))
    r.commit_index = r.log.last_index
    assert "for committed" in story.violates(CommittedInItsTerm, "turned", server)


def test_a_follower_may_meet_a_later_term_in_the_turn_of_a_commit(story: Story) -> None:
    """It committed first, and heard of the term from another server."""
    server, r = story.follower()
    r.log.append((after(r),))
    r.commit_index, r.term = r.log.last_index, r.term + 1
    story.tell(CommittedInItsTerm, "turned", server)


def test_a_committed_entry_that_is_cut_is_found(story: Story) -> None:
    """In memory."""
    server, r = story.follower()
    r.log.truncate_from(r.log.last_index)
    assert "now its log ends" in story.violates(CommittedStays, "turned", server)


def test_a_committed_entry_that_is_cut_on_the_disk_is_found(story: Story) -> None:
    """Even where it is written again."""
    server, r = story.follower()
    entry = r.log.entries[-1]
    story.violates(CommittedStays, "wrote", server, write(server, 0, entry, cut=entry.index))


def test_what_is_not_committed_may_be_cut(story: Story) -> None:
    """An entry behind the committed ones is its leader's to replace."""
    server, r = story.follower()
    entry = after(r)
    story.tell(CommittedStays, "wrote", server, write(server, 0, entry))
    story.tell(CommittedStays, "wrote", server, write(server, 0, entry, cut=entry.index))


def test_a_replica_against_its_invariants_is_found(story: Story) -> None:
    """Its log's bytes are miscounted."""
    _, r = story.follower()
    r.log.bytes += 1
    assert "miscounted" in story.violates(Invariants, "ended", story.world)


# -- durability ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        RequestVoteResult(0, 99, True, False),
        RequestVoteResult(0, 99, False, False),
        RequestVote(0, 99, 1, 1, False, False),
        AppendAccepted(0, 99, 0, 0),
        AppendEntries(0, 99, 0, 0, 0, ()),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_term_that_is_told_before_it_is_durable_is_found(story: Story, message: Message) -> None:
    """Whatever it is that tells it."""
    server = story.world.servers[1]
    story.violates(VotesAreDurable, "sent", server, 2, frame(message))
    server.disk.synced.hard_states[0] = HardState(100, None, 0)
    story.tell(VotesAreDurable, "sent", server, 2, frame(message))


def test_a_vote_that_is_told_before_it_is_durable_is_found(story: Story) -> None:
    """The term is on the platter, the vote is not."""
    server = story.world.servers[1]
    vote = frame(RequestVoteResult(0, 99, True, False))
    server.disk.synced.hard_states[0] = HardState(99, None, 0)
    story.violates(VotesAreDurable, "sent", server, 2, vote)
    server.disk.synced.hard_states[0] = HardState(99, 2, 0)
    story.tell(VotesAreDurable, "sent", server, 2, vote)


def test_a_pre_vote_promises_nothing(story: Story) -> None:
    """Its term is nobody's yet."""
    server = story.world.servers[1]
    messages = frame(RequestVote(0, 99, 1, 1, True, False), RequestVoteResult(0, 99, True, True))
    story.tell(VotesAreDurable, "sent", server, 2, messages)


def test_an_acknowledgement_before_the_sync_is_found(story: Story) -> None:
    """The entry is in the page cache only."""
    server, r = story.follower()
    leader, _ = story.leader()
    entry = after(r)
    write(server, 0, entry)
    r.log.append((entry,))
    message = frame(AppendAccepted(0, r.term, entry.index, entry.index))
    assert "its platter ends at" in story.violates(
        AcknowledgementsAreDurable, "sent", server, leader.id, message
    )
    server.disk.sync()
    story.tell(AcknowledgementsAreDurable, "sent", server, leader.id, message)


def test_an_acknowledgement_of_what_the_leader_does_not_have_is_found(story: Story) -> None:
    """It is durable, and from another leader."""
    server, r = story.follower()
    leader, leads = story.leader()
    entry = after(r)
    write(server, 0, entry)
    server.disk.sync()
    r.log.append((entry,))
    leads.log.append((after(leads, term=leads.term - 1) if leads.term > leads.log.last_term else entry,))
    leads.log.entries[-1] = leads.log.entries[-1]._replace(term=entry.term - 1)
    message = frame(AppendAccepted(0, r.term, entry.index, entry.index))
    story.violates(AcknowledgementsAreDurable, "sent", server, leader.id, message)


def test_a_commit_without_a_majority_of_platters_is_found(story: Story) -> None:
    """The leader counts itself, and nobody else has it."""
    server, r = story.leader()
    entry = after(r)
    r.log.append((entry,))
    write(server, 0, entry)
    server.disk.sync()
    r.commit_index = entry.index
    assert f"the platters of servers [[{server.id}]]" in story.violates(CommitsAreDurable, "turned", server)


def test_a_commit_by_another_disk_under_a_voters_id_is_found(story: Story) -> None:
    """Where the configuration names a disk, what its successor holds under that id counts for nothing."""
    world = story.world
    server, r = story.leader()
    bound = tuple((i, one.disk.disk_id) for i, one in sorted(world.servers.items()))
    for i, one in world.servers.items():
        if i != server.id:
            world.operator.keep(i)
            twin = world.disks[i] = copy(one.disk)
            twin.disk_id, twin.written, twin.synced = f"twin{i}", twin.written.copy(), twin.synced.copy()
            one.disk = twin
    entry = after(r)
    r.log.append((entry,))
    for one in world.servers.values():
        write(one, r.group, entry)
        one.disk.sync()
    r.commit_index = entry.index
    r.configuration = r.configuration._replace(disks=bound)
    assert f"the platters of servers [[{server.id}]]" in story.violates(CommitsAreDurable, "turned", server)


def test_a_commit_without_the_leader_is_no_violation(story: Story) -> None:
    """The others are a majority."""
    server, r = story.leader()
    entry = after(r)
    r.log.append((entry,))
    for other in story.world.servers.values():
        if other is not server:
            write(other, 0, entry)
            other.disk.sync()
    r.commit_index = entry.index
    story.tell(CommitsAreDurable, "turned", server)


# -- the merge -------------------------------------------------------------------------------------


def test_another_entry_at_a_position_is_found(story: Story) -> None:
    """A server that starts again merges in another order."""
    server = story.world.servers[1]
    story.find(MergedLogsAgree).started(server)
    first, second = applied(story, 1), applied(story, 2)
    swapped = [second._replace(position=1), first._replace(position=2)]
    story.violates(MergedLogsAgree, "applied", server, swapped, [None, None])


def test_a_position_that_is_left_out_is_found(story: Story) -> None:
    """A replay begins at 1."""
    server = story.world.servers[1]
    story.find(MergedLogsAgree).started(server)
    story.violates(MergedLogsAgree, "applied", server, [applied(story, 2)], [None])


def test_an_entry_that_others_lack_requests_of_is_found(story: Story) -> None:
    """A duplicate was dropped here and not there."""
    server = story.world.servers[1]
    server.applied_position = 0
    story.find(MergedLogsAgree).started(server)
    position = story.answered("write").position
    assert position is not None
    entries = [applied(story, at) for at in range(1, position + 1)]
    story.tell(MergedLogsAgree, "applied", server, entries[:-1], [None] * (position - 1))
    story.violates(MergedLogsAgree, "applied", server, [entries[-1]._replace(requests=())], [None])


def test_a_merged_log_that_does_not_rise_is_found(story: Story) -> None:
    """The first server to apply a position has it stamped too early."""
    server = story.world.servers[1]
    last = story.ledger.merged[-1]
    early = last._replace(position=last.position + 1)
    assert "behind" in story.violates(MergedInOrder, "applied", server, [early], [None])


def test_a_merged_entry_that_is_not_committed_is_found(story: Story) -> None:
    """It was emitted too early."""
    server = story.world.servers[1]
    last = story.ledger.merged[-1]
    ghost = last._replace(
        position=last.position + 1, timestamp=2**62, index=len(story.ledger.committed[last.group]) + 1
    )
    assert "committed there is nothing" in story.violates(MergedInOrder, "applied", server, [ghost], [None])


def test_a_committed_command_that_is_left_out_is_found(story: Story) -> None:
    """Nobody merges it, and the merge goes on."""
    server = story.world.servers[1]
    last = story.ledger.merged[-1]
    log = story.ledger.committed[last.group]
    for ahead in (1, 2):
        index, stamp = len(log) + 1, 2**62 + ahead
        log.append(
            make_entry(last.group, index=index, term=99, timestamp=stamp, kind=EntryKind.COMMAND, payload=b"")
        )
    late = last._replace(position=last.position + 1, timestamp=log[-1].timestamp, index=log[-1].index)
    detail = story.violates(MergedInOrder, "applied", server, [late], [None])
    assert f"due was index {len(log) - 1}" in detail


def test_another_result_at_a_position_is_found(story: Story) -> None:
    """The state machine is not deterministic."""
    server = story.world.servers[1]
    position = story.answered("write").position
    assert position is not None
    detail = story.violates(ResultsAgree, "applied", server, [applied(story, position)], [["another"]])
    assert f"position {position} gives ['another'] on server 1" in detail


def test_another_digest_at_a_merged_position_is_found(story: Story) -> None:
    """Two servers have merged as many entries, and others."""
    server = story.world.servers[1]
    story.find(MergedDigestsAgree).started(server)
    server.engine.state.digest = bytes(16)
    story.violates(MergedDigestsAgree, "turned", server)


def test_another_state_at_a_position_is_found(story: Story) -> None:
    """A state machine was changed by something else than the merged log."""
    story.world.servers[3].machine.change(1, 2, 3)
    assert "the state of server 3" in story.violates(StatesAgree, "ended", story.world)


def test_a_timestamp_that_is_closed_beyond_its_entry_is_found(story: Story) -> None:
    """By a clock, perhaps."""
    server = story.world.servers[1]
    server.engine.state.merger.closed[0] += 1
    assert "closes group 0" in story.violates(ClosedTimestampsHold, "turned", server)


def test_a_timestamp_that_is_closed_by_what_is_not_durable_here_is_found(story: Story) -> None:
    """The entry is committed elsewhere, and not synced on this server."""
    server = story.world.servers[1]
    story.find(ClosedTimestampsHold).started(server)
    server.disk.synced.logs[0].entries.pop()
    story.violates(ClosedTimestampsHold, "turned", server)


def test_a_commit_below_a_closed_timestamp_is_found(story: Story) -> None:
    """What a server has closed was no promise."""
    server, r = story.leader()
    entry = after(r)._replace(timestamp=r.log.last_timestamp)
    r.log.entries.append(entry)
    r.log.last_index = r.commit_index = entry.index
    assert "had closed" in story.violates(ClosedTimestampsHold, "turned", server)


# -- answers ---------------------------------------------------------------------------------------


def _merge_again(story: Story, payload: bytes) -> Merged:
    """Commit one more command entry, and merge it with its requests taking effect as they are."""
    group, log = 0, story.ledger.committed[0]
    entry = make_entry(
        group, index=len(log) + 1, term=99, timestamp=2**62, kind=EntryKind.COMMAND, payload=payload
    )
    log.append(entry)
    last = story.ledger.merged[-1]
    return last._replace(
        position=last.position + 1, timestamp=entry.timestamp, group=group, index=entry.index
    )


def test_a_request_that_takes_effect_twice_is_found(story: Story) -> None:
    """A retry came through another group, and was not dropped."""
    position = story.answered("write").position
    assert position is not None
    first = applied(story, position)
    payload = story.ledger.committed[first.group][first.index - 1].payload
    again = _merge_again(story, payload)._replace(requests=first.requests)
    detail = story.violates(ExactlyOnce, "applied", story.world.servers[1], [again], [None])
    assert f"at position {again.position}" in detail


def test_a_request_that_is_dropped_is_found(story: Story) -> None:
    """It was merged for the first time, in an open session."""
    state = story.world.servers[1].engine.state
    payload = msgpack.packb([(1, state.counter, 10**6, 1, 0, msgpack.packb([b"x"]))])
    dropped = _merge_again(story, payload)._replace(requests=())
    story.violates(ExactlyOnce, "applied", story.world.servers[1], [dropped], [None])


def test_an_operation_that_is_settled_by_another_request_is_found(story: Story) -> None:
    """One call is answered at two places."""
    operation = story.answered("write")
    assert operation.position is not None
    merged = next(one for one in story.ledger.merged if one.requests and one.position != operation.position)
    request = merged.requests[0]._replace(token=operation)
    wrong = merged._replace(requests=(request, *merged.requests[1:]))
    server = story.world.servers[operation.server]
    assert "has taken effect at position" in story.violates(ExactlyOnce, "applied", server, [wrong], [None])


def test_an_answered_write_that_is_not_in_the_merged_log_is_found(story: Story) -> None:
    """A client was told so, and nothing happened."""
    history = story.world.history
    body = story.run.workload.next_write(story.run.world.rng_delays)
    ghost = history.invoke(1, 1, "write", (body[0], body[0], body[0]), at=story.world.time)
    history.ok(ghost, None, 1, at=story.world.time)
    assert "in the merged log 0 times" in story.violates(ExactlyOnce, "ended", story.world)


def test_a_rejected_write_in_the_merged_log_is_found(story: Story) -> None:
    """By what was asked for, where nobody has the token any more."""
    operation = story.answered("write")
    for one in story.world.history:
        if one.requests == operation.requests:
            one.outcome = Outcome.REJECTED
    assert "not rejected 0 times" in story.violates(ExactlyOnce, "ended", story.world)


def test_a_write_that_is_rejected_after_it_was_applied_is_found(story: Story) -> None:
    """By its token."""
    operation = story.answered("write")
    server = story.world.servers[operation.server]
    story.violates(RejectedHasNoEffect, "rejected", server, operation)


def test_a_write_that_is_applied_after_it_was_rejected_is_found(story: Story) -> None:
    """The other way round."""
    operation = story.answered("write")
    assert operation.position is not None
    operation.outcome = Outcome.REJECTED
    server = story.world.servers[operation.server]
    merged = applied(story, operation.position)
    merged = merged._replace(requests=(merged.requests[0]._replace(token=operation),))
    story.violates(RejectedHasNoEffect, "applied", server, [merged], [None])


@pytest.mark.parametrize("kind", ["write", "read"])
def test_an_answer_with_another_position_is_found(story: Story, kind: str) -> None:
    """It tells a position at which something else happened."""
    operation = story.answered(kind)
    server = story.world.servers[operation.server]
    assert operation.position is not None
    operation.position -= 1
    story.violates(AnswersArePlaced, "answered", server, operation)


def test_a_server_that_ends_without_an_answered_write_is_found(story: Story) -> None:
    """A client knows a position that this server has not."""
    story.world.servers[2].applied_position -= 1
    assert "server 2 ends at" in story.violates(AnswersArePlaced, "ended", story.world)


@pytest.mark.parametrize(("kind", "behind", "sound"), [("write", 0, 1), ("read", -1, 0)])
def test_an_answer_from_before_an_earlier_answer_is_found(
    story: Story, kind: Kind, behind: int, sound: int
) -> None:
    """A write must come behind what was answered before it was invoked, a read must see it."""
    server, end = story.world.servers[1], story.world.time + SECOND
    known = len(story.ledger.merged)

    def answer(position: int) -> Operation:
        return Operation(10**6, 1, 1, kind, (), end, end + 5, Outcome.OK, [], position)

    story.tell(RealTime, "answered", server, answer(known + sound))
    assert "answered before that with position" in story.violates(
        RealTime, "answered", server, replace(answer(known + behind), invoked=end + 6)
    )


def test_answers_that_overlap_are_in_any_order(story: Story) -> None:
    """What was invoked before the other's answer may come before it."""
    server, end = story.world.servers[1], story.world.time
    known = len(story.ledger.merged)
    late = Operation(10**6, 1, 1, "write", (), end + 5, end + 9, Outcome.OK, [], known + 2)
    story.tell(RealTime, "answered", server, late)
    story.tell(RealTime, "answered", server, replace(late, invoked=end + 9, position=known + 1))


# -- histories -------------------------------------------------------------------------------------


def test_a_result_that_no_order_explains_is_found(story: Story) -> None:
    """By the model, from what clients saw."""
    operation = story.answered("read")
    assert operation.results
    operation.results = [10**6, *operation.results[1:]]
    story.violates(Linearizable, "ended", story.world)


@pytest.mark.parametrize("kind", ["write", "read"])
def test_a_result_that_the_merged_log_does_not_give_is_found(story: Story, kind: str) -> None:
    """By a replay on a fresh state machine, without any model."""
    operation = story.answered(kind)
    assert operation.results
    operation.results = [10**6, *operation.results[1:]]
    assert f"{kind} {operation.number}" in story.violates(Replay, "ended", story.world)


def test_a_search_that_gave_up_is_no_verdict(story: Story) -> None:
    """It says why, and the run goes on."""
    model = story.run.workload.model
    assert model is not None
    checker = Linearizable(model, Ledger(), states_max=1)
    checker.ended(story.world)
    assert "states_max = 1" in checker.gave_up


def test_a_leader_that_counts_what_is_not_there_is_found(story: Story) -> None:
    """An index that the follower has not got, or has of another term."""
    server, r = story.leader()
    peer = next(iter(r.progress))
    r.log.append((after(r),))
    r.progress[peer].match = r.log.last_index
    assert "where it is missing" in story.violates(CountedIsHeld, "turned", server)


def test_a_leader_may_count_what_a_later_leader_has_cut(story: Story) -> None:
    """It was there; the follower has met another term since."""
    server, r = story.leader()
    peer = next(iter(r.progress))
    r.log.append((after(r),))
    r.progress[peer].match = r.log.last_index
    hard = story.world.disks[peer].synced.hard_states
    hard[0] = HardState(r.term + 1, None, 0)
    story.tell(CountedIsHeld, "turned", server)


# -- traffic ---------------------------------------------------------------------------------------


def test_two_servers_that_talk_in_circles_are_found(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer is answered at once, and nobody gets on."""
    monkeypatch.setattr(traffic, "FRAMES_A_SECOND_MAX", 500)
    (server, r), (other, _) = story.leader(), story.follower()
    said = frame(AppendEntries(0, r.term, 1, 1, 0, ()))
    story.world.time += SECOND
    for _ in range(500):
        story.tell(NoCircles, "sent", other, server.id, said)
        story.tell(NoCircles, "sent", server, other.id, said)
    story.world.time += SECOND
    for _ in range(500):
        story.tell(NoCircles, "sent", server, other.id, said)
    found = story.violates(NoCircles, "sent", server, other.id, said)
    assert found.endswith("501 frames within a second, at last AppendEntries")


# -- snapshots and members ---------------------------------------------------------------------------


def test_a_log_compacted_beyond_a_kept_snapshot_is_found(story: Story) -> None:
    """The newer of two snapshots covers what is forgotten, the older does not."""
    server, r = story.follower()
    cuts = [Cut(Place(1, index), index, r.created, NOWHERE) for index in (3, 5)]
    server.engine.state.snapshots.kept = tuple(
        SnapshotInfo(SnapshotId(cut.place.index, 0), 1, Head("", cut.place.index, 1, b"", (cut, cut)))
        for cut in cuts
    )

    def begins(cut: Cut, *, keep: bool) -> Write:
        return Write(10**6, (), (), None, starts=(Start(0, cut, keep=keep),))

    story.tell(AnyKeptSnapshotBegins, "wrote", server, begins(cuts[0], keep=True))
    story.tell(AnyKeptSnapshotBegins, "wrote", server, begins(cuts[1], keep=False))
    detail = story.violates(AnyKeptSnapshotBegins, "wrote", server, begins(cuts[1], keep=True))
    assert "up to 5; it keeps a snapshot at position 3 whose cut there is 3" in detail


@pytest.mark.parametrize("committed", [True, False])
def test_a_configuration_before_an_entry_of_its_term_is_found(story: Story, committed: bool) -> None:
    """A leader of a new term has to commit something of its own first."""
    server, r = story.leader()
    r.term += 0 if committed else 1
    entry = make_entry(
        0,
        index=r.log.last_index + 1,
        term=r.term,
        timestamp=2**62,
        kind=EntryKind.CONFIGURATION,
        payload=pack_configuration(Configuration(frozenset({1, 2}), version=1)),
    )
    r.log.configurations.append(entry)
    r.configuration_at = entry.place
    if committed:
        story.tell(OneChangeAtATime, "turned", server)
    else:
        detail = story.violates(OneChangeAtATime, "turned", server)
        assert f"before any entry of its term {r.term} was committed" in detail


def test_a_request_that_waits_twice_is_found(story: Story) -> None:
    """In one leader's queue, whatever waits beside it."""
    server, r = story.leader()
    queue = server.engine.state.queues[r.group]
    queue.proposals += [Proposal(2, 1, request, 0, 0, b"") for request in (1, 2, 3)]
    story.tell(WaitsOnce, "turned", server)
    queue.proposals.append(Proposal(2, 1, 2, 0, 0, b""))
    assert "request 2 of server 2 (session 1) waits 2 times" in story.violates(WaitsOnce, "turned", server)


def test_a_server_that_is_removed_by_what_was_before_it_is_found(story: Story) -> None:
    """It takes the leaving of another machine for its own."""
    one, other = story.world.servers[1], story.world.servers[2]
    for server, version in ((one, 2), (other, 2)):
        e = server.engine.state
        e.members = Members(e.peers)
        e.members.version = e.reached_version = version
        assert e.removed
    story.tell(RemovedInItsLife, "turned", one)
    other.disk.disk_id = "of another machine"
    story.tell(RemovedInItsLife, "started", other)
    assert "when its disk came, version 2 was there" in story.violates(RemovedInItsLife, "turned", other)
