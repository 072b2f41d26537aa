"""The rules of the Raft paper and the dissertation, one test each, and the known bugs of others.

Sections: "Raft" is the extended paper (Ongaro and Ousterhout 2014), "Dissertation" is Ongaro's. The harness
checks the safety properties of Raft's figure 3, and that nothing leaves before it is durable, after every
step of every test.
"""

from __future__ import annotations

import random

import pytest

from craft.errors import WireError
from craft.limits import EngineLimits
from craft.messages import (
    AppendAccepted,
    AppendEntries,
    AppendRejected,
    FetchResult,
    RequestVote,
    RequestVoteResult,
    TimeoutNow,
)
from craft.raft import Raft, Role, election, replication
from craft.types import Configuration, EntryKind, HardState, empty_recovered
from tests.raft.harness import GROUP, MS, Cluster, entries, entry

LIMITS = EngineLimits()
LEASE_MS = LIMITS.election_timeout_ms_min
FOLLOWER, PRE_CANDIDATE, CANDIDATE, LEADER = Role


def ask(term: int, last: str = "0@0", *, pre: bool = False, transfer: bool = False) -> RequestVote:
    """A candidate's question; `last` is the place of its last entry."""
    last_term, last_index = map(int, last.split("@"))
    return RequestVote(GROUP, term, last_index, last_term, pre, transfer)


def append(term: int, prev: str = "0@0", sent: str = "", *, commit: int = 0) -> AppendEntries:
    prev_term, prev_index = map(int, prev.split("@"))
    return AppendEntries(GROUP, term, prev_index, prev_term, commit, entries(sent))


def led(servers: int = 3, **options: int) -> Cluster:
    """Server 1 leads everyone in term 1, its no-op committed; options are limits."""
    cluster = Cluster(servers, limits=EngineLimits(**options))
    cluster.elect(1)
    return cluster


def candidate(cluster: Cluster, i: int) -> None:
    """Let `i` win its pre-vote, and stop when it has asked for votes and its own is durable."""
    cluster.elapse(LIMITS.election_timeout_ms_max)
    cluster.campaign(i)
    cluster.deliver()
    cluster.persist()
    cluster.deliver(to=i)
    cluster.persist(i)
    cluster.expect_role(i, CANDIDATE)


def win(cluster: Cluster, i: int) -> None:
    """Let `i` become leader, its no-op neither durable nor delivered."""
    candidate(cluster, i)
    cluster.deliver()
    cluster.persist()
    cluster.deliver(to=i)
    cluster.expect_role(i, LEADER)


# -- Raft 5.1: terms --------------------------------------------------------------------------------


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize(
    "message",
    [
        append(7),
        ask(7, "9@9", transfer=True),
        RequestVoteResult(GROUP, 7, granted=False, pre=False),
        RequestVoteResult(GROUP, 7, granted=False, pre=True),
        AppendAccepted(GROUP, 7, 0, 0),
        AppendRejected(GROUP, 7, 0, 0, 0),
    ],
)
def test_a_higher_term_makes_anyone_a_follower_of_it(role: Role, message: AppendEntries) -> None:
    """Raft 5.1: "if one server's current term is smaller …, then it updates … to the larger value"."""
    cluster = Cluster()
    put_into(cluster, role)
    cluster.step(2, 1, message)
    cluster.expect_role(1, FOLLOWER, term=7)


def put_into(cluster: Cluster, role: Role) -> None:
    """Bring server 1 into a role."""
    if role is LEADER:
        cluster.elect(1)
    elif role is CANDIDATE:
        candidate(cluster, 1)
    elif role is PRE_CANDIDATE:
        cluster.campaign(1)
    cluster.expect_role(1, role)


def test_a_stale_candidate_is_told_the_term() -> None:
    """Raft 5.1: a request with a stale term is rejected, and the answer carries the current one."""
    cluster = Cluster(hard_states={2: HardState(5, None, 0)})
    cluster.step(1, 2, ask(4))
    assert cluster.sent(RequestVoteResult) == [RequestVoteResult(GROUP, 5, granted=False, pre=False)]


def test_a_stale_leader_is_told_the_term_and_changes_nothing() -> None:
    """Raft 5.1, 5.3: entries of a stale leader are refused; its answer deposes it (PreVote needs this)."""
    cluster = Cluster(logs={2: "1@1 5@2"})
    cluster.step(1, 2, append(4, "1@1", "4@2", commit=2))
    assert cluster.sent(AppendRejected) == [AppendRejected(GROUP, 5, 1, 0, 0)]
    cluster.expect_log(2, "1@1 5@2")
    cluster.expect_commit(0, 2)


def test_a_stale_leader_is_no_leader() -> None:
    """Raft 5.2: hearing from a lower term does not hold back an election."""
    cluster = Cluster(hard_states={2: HardState(5, None, 0)})
    deadline = cluster.state(2).election_deadline
    cluster.elapse(1)
    cluster.step(1, 2, append(4))
    assert cluster.state(2).leader_id is None
    assert cluster.state(2).election_deadline == deadline


def test_answers_of_other_terms_are_no_contact() -> None:
    """CheckQuorum counts answers of this very term only (hashicorp/raft 666: phantom contact)."""
    cluster = Cluster(hard_states={1: HardState(1, None, 0)})
    cluster.elect(1)
    before = cluster.state(1).progress[2].active_at
    cluster.elapse(10)
    cluster.step(2, 1, AppendAccepted(GROUP, 1, 0, 0))
    cluster.step(2, 1, AppendRejected(GROUP, 1, 0, 0, 0))
    assert cluster.state(1).progress[2].active_at == before


# -- Raft 5.2: elections ----------------------------------------------------------------------------


def test_servers_start_as_followers() -> None:
    """Raft 5.2: "when servers start up, they begin as followers"."""
    cluster = Cluster()
    assert [cluster.state(i).role for i in cluster.ids] == [FOLLOWER] * 3


def test_heartbeats_keep_a_follower_a_follower() -> None:
    """Raft 5.2: a server remains a follower as long as it hears a leader."""
    cluster = led()
    cluster.live(10_000)
    cluster.expect_leader(1, term=1)


def test_silence_starts_an_election() -> None:
    """Raft 5.2: no word for an election timeout, and a follower stands."""
    cluster = led()
    cluster.crash(1)
    cluster.elapse(LIMITS.election_timeout_ms_max)
    cluster.tick(2)
    cluster.expect_role(2, PRE_CANDIDATE, term=1)


def test_timeouts_are_drawn_between_their_bounds() -> None:
    """Raft 5.2, 9.3: election timeouts are chosen at random from a fixed interval, anew each time."""
    state = Cluster().state(1)
    drawn = set()
    for _ in range(200):
        election.set_deadline(state, 0)
        drawn.add(state.election_deadline // MS)
    assert LIMITS.election_timeout_ms_min <= min(drawn) < max(drawn) <= LIMITS.election_timeout_ms_max
    assert len(drawn) > 50


@pytest.mark.parametrize(
    ("servers", "granting", "wins"),
    [(1, 0, True), (3, 0, False), (3, 1, True), (5, 1, False), (5, 2, True)],
)
def test_a_majority_of_votes_makes_a_leader(servers: int, granting: int, wins: bool) -> None:
    """Raft 5.2: a candidate wins with the votes of a majority of all servers, its own included."""
    cluster = Cluster(servers)
    for pre in (True, False):
        if pre:
            cluster.campaign(1)
        for voter in cluster.ids[1 : 1 + (granting if not pre else servers // 2)]:
            cluster.step(voter, 1, RequestVoteResult(GROUP, 1, granted=True, pre=pre))
        cluster.persist(1)
    cluster.expect_role(1, LEADER if wins else CANDIDATE, term=1)


def test_a_majority_of_refusals_ends_a_campaign() -> None:
    """Raft 5.2: a candidate that cannot win any more waits for its next timeout."""
    cluster = Cluster()
    candidate(cluster, 1)
    for voter in (2, 3):
        cluster.step(voter, 1, RequestVoteResult(GROUP, 1, granted=False, pre=False))
    cluster.expect_role(1, FOLLOWER, term=1)


def test_a_server_votes_once_a_term_first_come_first_served() -> None:
    """Raft 5.2: "each server will vote for at most one candidate in a given term"."""
    cluster = Cluster()
    for candidate_id in (1, 2, 1):
        cluster.step(candidate_id, 3, ask(1))
    cluster.persist(3)
    assert [(e.to, e.message.granted) for e in cluster.wire if isinstance(e.message, RequestVoteResult)] == [
        (1, True),
        (2, False),
        (1, True),
    ]


def test_a_vote_is_durable_before_it_is_answered() -> None:
    """Raft figure 2, "updated on stable storage before responding" (sofa-jraft 1241)."""
    cluster = Cluster()
    cluster.step(1, 3, ask(1))
    assert cluster.wire == []
    cluster.write(3)
    assert cluster.wire == []
    cluster.sync(3)
    assert cluster.sent(RequestVoteResult, to=1) == [RequestVoteResult(GROUP, 1, granted=True, pre=False)]


@pytest.mark.parametrize("crash_after", ["ask", "write", "sync"])
def test_a_voter_does_not_vote_twice_over_a_crash(crash_after: str) -> None:
    """PROTOCOL 1: whenever a voter dies between the question and its answer, its term has one vote of it."""
    cluster = Cluster()
    cluster.step(1, 3, ask(1))
    if crash_after in ("write", "sync"):
        cluster.write(3)
    if crash_after == "sync":
        cluster.sync(3)
    answered = len(cluster.sent(RequestVoteResult))
    cluster.crash(3)
    cluster.restart(3)
    cluster.step(2, 3, ask(1))
    cluster.persist(3)
    granted = [m for m in cluster.sent(RequestVoteResult) if m.granted]
    assert len(granted) == 1
    assert answered == (crash_after == "sync")


def test_a_candidates_own_vote_counts_once_durable() -> None:
    """PROTOCOL 1: two grants and an own vote still on its way to the disk: nothing left, nobody leads."""
    cluster = Cluster(1)
    cluster.campaign(1)
    cluster.expect_role(1, CANDIDATE, term=1)
    cluster.write(1)
    cluster.expect_role(1, CANDIDATE)
    cluster.sync(1)
    cluster.expect_role(1, LEADER)


def test_an_own_vote_of_a_lost_term_counts_for_nothing() -> None:
    """A sync that completes after the term has moved on makes no leader (etcd: self vote after a lost
    election).
    """
    cluster = Cluster(1, configuration=Configuration(frozenset({1})))
    cluster.campaign(1)
    cluster.write(1)
    election.become_follower(cluster.state(1), 2, None, cluster.time)
    cluster.sync(1)
    cluster.expect_role(1, FOLLOWER, term=2)


def test_a_vote_of_the_term_before_counts_for_nothing() -> None:
    """An own vote for term 1 that becomes durable while term 2 waits for the disk is no vote in term 2."""
    cluster = Cluster(1)
    cluster.campaign(1)
    cluster.write(1)
    cluster.elapse(LIMITS.election_timeout_ms_max)
    cluster.campaign(1)
    cluster.expect_role(1, CANDIDATE, term=2)
    cluster.sync(1)
    cluster.expect_role(1, CANDIDATE, term=2)
    cluster.persist(1)
    cluster.expect_role(1, LEADER, term=2)


@pytest.mark.parametrize("role", [CANDIDATE, PRE_CANDIDATE])
def test_a_candidate_yields_to_the_leader_of_its_term(role: Role) -> None:
    """Raft 5.2: "if the leader's term … is at least as large …, the candidate … returns to follower"."""
    cluster = Cluster()
    put_into(cluster, role)
    term = cluster.state(1).term or 1
    cluster.step(2, 1, append(term))
    cluster.expect_role(1, FOLLOWER, term=term)
    assert cluster.state(1).leader_id == 2


def test_a_candidate_does_not_yield_to_a_lower_term() -> None:
    """Raft 5.2: "otherwise … rejects the RPC and continues in candidate state"."""
    cluster = Cluster(hard_states={i: HardState(3, None, 0) for i in (1, 2, 3)})
    candidate(cluster, 1)
    cluster.step(2, 1, append(3))
    cluster.expect_role(1, CANDIDATE, term=4)


def test_a_split_vote_is_followed_by_another_election() -> None:
    """Raft 5.2: four servers, two candidates, two votes each; randomised timeouts settle it."""
    cluster = Cluster(4)
    for i in (1, 2):
        cluster.campaign(i)
    cluster.deliver()
    cluster.deliver(to=1)
    cluster.deliver(to=2)
    cluster.persist(1, 2)
    assert cluster.leaders() == []
    cluster.live(5000)
    assert len(cluster.leaders()) == 1


def test_a_second_leader_of_a_term_is_refused() -> None:
    """Raft 5.2, election safety: who claims to lead a term that is led here, or by another, is at fault."""
    cluster = led()
    with pytest.raises(WireError, match="server 2 claims to lead group 0 in term 1"):
        cluster.step(2, 1, append(1))
    with pytest.raises(WireError, match="server 3 claims to lead group 0 in term 1"):
        cluster.step(3, 2, append(1))
    cluster.expect_leader(1, term=1)


# -- Raft 5.3: log replication ----------------------------------------------------------------------


def test_a_leader_sends_what_it_appends_to_everyone() -> None:
    """Raft 5.3: the leader appends the command and issues AppendEntries in parallel."""
    cluster = led()
    cluster.propose(1, "x")
    assert [m.entries[0].payload for m in cluster.sent(AppendEntries)] == [b"x", b"x"]


def test_an_entry_commits_when_a_majority_holds_it() -> None:
    """Raft 5.3: one follower of two is enough, and the commit covers all entries before it."""
    cluster = led()
    cluster.partition(3)
    cluster.propose(1, "x")
    cluster.propose(1, "y")
    cluster.settle()
    cluster.expect_commit(3, 1)


def test_an_entry_does_not_commit_without_a_majority() -> None:
    """Raft 5.3: the leader's own copy and those of a minority commit nothing."""
    cluster = led(5)
    cluster.partition(3, 4, 5)
    cluster.propose(1, "x")
    cluster.settle()
    cluster.expect_commit(1, 1)


def test_followers_learn_the_commit() -> None:
    """Raft 5.3: "once a follower learns that a log entry is committed" it may be applied there."""
    cluster = led()
    cluster.propose(1, "x")
    cluster.settle()
    cluster.heartbeat(1)
    cluster.expect_commit(2)


def test_a_follower_without_the_entry_before_refuses() -> None:
    """Raft 5.3: the consistency check, by index and by term; the hint skips to where it may agree."""
    cluster = Cluster(logs={2: "1@1 1@2"})
    cluster.step(1, 2, append(3, "1@5", "3@6"))
    cluster.step(1, 2, append(3, "2@2", "3@3"))
    cluster.persist(2)
    assert cluster.sent(AppendRejected) == [
        AppendRejected(GROUP, 3, 5, 2, 1),
        AppendRejected(GROUP, 3, 2, 1, 1),
    ]
    cluster.expect_log(2, "1@1 1@2")


def test_a_conflict_is_cut_from_the_first_entry_that_differs() -> None:
    """Raft 5.3, AppendEntries rule 3: the conflicting entry and all that follow it go, what agrees stays."""
    cluster = Cluster(logs={2: "1@1 1@2 2@3 2@4"})
    cluster.step(1, 2, append(3, "1@1", "1@2 3@3"))
    cluster.expect_log(2, "1@1 1@2 3@3")
    pending = cluster.write(2)
    assert pending is not None and pending.append is not None
    assert (pending.append.truncate_from, pending.append.entries) == (3, entries("3@3"))


def test_an_old_append_cuts_nothing() -> None:
    """Raft 5.5: a reordered, shorter append of the same leader leaves acknowledged entries alone (RedisRaft
    53).
    """
    cluster = Cluster(logs={2: "1@1"})
    cluster.step(1, 2, append(1, "1@1", "1@2 1@3 1@4", commit=4))
    cluster.persist(2)
    cluster.step(1, 2, append(1, "1@1", "1@2"))
    cluster.step(1, 2, append(1, "1@1"))
    cluster.expect_log(2, "1@1 1@2 1@3 1@4")
    cluster.expect_commit(4, 2)


def test_a_commit_reaches_no_further_than_the_log_agrees() -> None:
    """Raft figure 2: min(leaderCommit, index of last *new* entry): never into a divergent tail (scylladb
    9965).
    """
    cluster = Cluster(logs={2: "1@1 1@2 1@3"})
    cluster.step(1, 2, append(2, "1@1", commit=3))
    cluster.expect_commit(1, 2)


def test_only_what_agrees_with_this_leader_is_acknowledged() -> None:
    """Raft 5.3: a durable tail of which this leader has said nothing is not acknowledged to it."""
    cluster = Cluster(logs={2: "1@1 1@2 1@3"})
    cluster.step(1, 2, append(2, "1@1"))
    cluster.persist(2)
    assert cluster.sent(AppendAccepted) == [AppendAccepted(GROUP, 2, 1, 1)]


@pytest.mark.parametrize("learnt_from", ["an append", "a vote", "its own campaign"])
def test_what_agreed_with_one_leader_need_not_agree_with_the_next(learnt_from: str) -> None:
    """What was verified in term 1 is forgotten with that term: term 3 may hold other entries there."""
    cluster = Cluster(logs={2: "1@1"})
    cluster.step(1, 2, append(1, "1@1", "1@2 1@3"))
    cluster.persist(2)
    cluster.take()
    cluster.elapse(LIMITS.election_timeout_ms_max)
    if learnt_from == "a vote":
        cluster.step(3, 2, ask(3, "1@3"))
    elif learnt_from == "its own campaign":
        cluster.campaign(2)
        cluster.step(1, 2, RequestVoteResult(GROUP, 2, granted=True, pre=True))
        cluster.expect_role(2, CANDIDATE, term=2)
    cluster.take()
    cluster.step(3, 2, append(3 if learnt_from != "its own campaign" else 2, "1@1", commit=3))
    cluster.persist(2)
    assert cluster.sent(AppendAccepted)[-1][2:] == (1, 1)
    cluster.expect_commit(1, 2)


FIGURE_7 = {
    "a": "1@1 1@2 1@3 4@4 4@5 5@6 5@7 6@8 6@9",
    "b": "1@1 1@2 1@3 4@4",
    "c": "1@1 1@2 1@3 4@4 4@5 5@6 5@7 6@8 6@9 6@10 6@11",
    "d": "1@1 1@2 1@3 4@4 4@5 5@6 5@7 6@8 6@9 6@10 7@11 7@12",
    "e": "1@1 1@2 1@3 4@4 4@5 4@6 4@7",
    "f": "1@1 1@2 1@3 2@4 2@5 2@6 3@7 3@8 3@9 3@10 3@11",
}
FIGURE_7_LEADER = "1@1 1@2 1@3 4@4 4@5 5@6 5@7 6@8 6@9 6@10"


@pytest.mark.parametrize("case", list(FIGURE_7))
def test_a_leader_brings_every_log_of_figure_7_into_its_own(case: str) -> None:
    """Raft figure 7: missing, extra and divergent entries are repaired without special measures."""
    logs = {1: FIGURE_7_LEADER, 2: FIGURE_7_LEADER, 3: FIGURE_7[case]}
    cluster = Cluster(logs=logs, hard_states={i: HardState(7, None, 0) for i in logs})
    cluster.elect(1)
    assert cluster.state(1).term == 8
    cluster.heartbeat(1)
    cluster.expect_log(3, FIGURE_7_LEADER + " 8@11")
    cluster.expect_commit(11)


@pytest.mark.parametrize(("old", "older"), [(3, 2), (5, 3), (6, 5)])
def test_a_leader_backs_up_a_term_at_a_time(old: int, older: int) -> None:
    """Raft 5.3: rejections skip conflicting terms, lower and higher; a thousand entries cost a few probes."""
    shared = "1@1 1@2"
    leaders = " ".join([shared, *(f"4@{i}" for i in range(3, 1000))])
    divergent = [shared, *(f"{older}@{i}" for i in range(3, 500)), *(f"{old}@{i}" for i in range(500, 1100))]
    cluster = Cluster(
        logs={1: leaders, 2: leaders, 3: " ".join(divergent)},
        hard_states={i: HardState(6, None, 0) for i in (1, 2, 3)},
    )
    cluster.elect(1)
    cluster.expect_log(3, leaders + " 7@1000")
    assert sum("3 → 1  rejected" in event for event in cluster.events) <= 3


def test_an_acknowledgement_waits_for_the_disk() -> None:
    """Raft figure 2: entries are on stable storage before they are acknowledged."""
    cluster = led()
    cluster.propose(1, "x")
    cluster.deliver(to=2)
    assert cluster.sent(AppendAccepted, sender=2) == []
    cluster.persist(2)
    assert cluster.sent(AppendAccepted, sender=2) == [AppendAccepted(GROUP, 1, 2, 2)]


def test_an_append_for_what_is_not_durable_yet_is_not_acknowledged_early() -> None:
    """A duplicate that finds its entries in memory must not vouch for them before their sync."""
    cluster = led()
    cluster.propose(1, "x")
    arrived = cluster.deliver(to=2)
    cluster.deliver_these(arrived)
    assert cluster.sent(AppendAccepted, sender=2) == []


def test_a_leader_counts_its_own_copy_once_durable() -> None:
    """PROTOCOL 1: the leader's own count towards a quorum waits for its disk."""
    cluster = led()
    cluster.partition(3)
    cluster.propose(1, "x")
    cluster.deliver()
    cluster.persist(2)
    cluster.deliver()
    cluster.expect_commit(1, 1)
    cluster.persist(1)
    cluster.expect_commit(2, 1)


def test_a_late_sync_does_not_vouch_for_what_replaced_its_entries() -> None:
    """The ABA of etcd 1690: term 1's write at index 2 completes after term 2 overwrote index 2."""
    cluster = Cluster(logs=dict.fromkeys((1, 2, 3), "1@1"))
    cluster.step(1, 3, append(1, "1@1", "1@2 1@3"))
    cluster.write(3)
    cluster.step(2, 3, append(2, "1@1", "2@2 2@3"))
    cluster.sync(3)
    assert cluster.state(3).log.persisted == 1
    cluster.persist(3)
    # What the late sync allowed to say waited for term 2 to be durable, and is not more than it knew.
    assert cluster.sent(AppendAccepted) == [
        AppendAccepted(GROUP, 2, 1, 3),
        AppendAccepted(GROUP, 2, 3, 3),
    ]


def test_a_sync_of_a_deposed_leaders_entries_is_no_acknowledgement() -> None:
    """A self-acknowledgement that arrives after the term changed counts for nobody (etcd: self ack after
    term change).
    """
    cluster = led()
    cluster.partition(1)
    cluster.propose(1, "x")
    cluster.write(1)
    cluster.elapse(LIMITS.election_timeout_ms_max)
    cluster.campaign(2)
    for _ in range(4):
        cluster.deliver()
        cluster.persist(2, 3)
    cluster.step(2, 1, append(2, "1@1"))
    cluster.sync(1)
    cluster.persist(1)
    cluster.expect_commit(1, 1)
    assert cluster.state(1).log.persisted == 2
    assert all(m.match_index <= 1 for m in cluster.sent(AppendAccepted))


def test_acknowledgements_after_a_step_down_move_nothing() -> None:
    """Late results of an append in flight reach a follower (canonical/raft 362, 483)."""
    cluster = led()
    cluster.propose(1, "x")
    cluster.deliver()
    cluster.persist()
    late = cluster.take(to=1)
    cluster.step(2, 1, append(2, "1@1"))
    cluster.deliver_these(late)
    cluster.expect_role(1, FOLLOWER, term=2)
    cluster.expect_commit(1, 1)


def test_acknowledgements_of_an_earlier_leadership_move_nothing() -> None:
    """A replica that leads again does not count what was acknowledged to it in an earlier term."""
    cluster = led()
    cluster.propose(1, "x")
    cluster.deliver()
    cluster.persist(2, 3)
    late = cluster.take(to=1)
    cluster.elect(2)
    cluster.elect(1)
    cluster.propose(1, "y")
    before = {peer: progress.match for peer, progress in cluster.state(1).progress.items()}
    cluster.deliver_these(late)
    assert {peer: progress.match for peer, progress in cluster.state(1).progress.items()} == before


def test_an_acknowledgement_beyond_the_log_is_the_peers_fault() -> None:
    """A peer cannot hold what its leader has never written."""
    cluster = led()
    with pytest.raises(WireError, match="server 2 acknowledges index 9 of group 0, whose log ends at 1"):
        cluster.step(2, 1, AppendAccepted(GROUP, 1, 9, 9))


@pytest.mark.parametrize(
    "message",
    [
        append(2, "1@2", "2@4"),
        append(2, "1@2", "2@3 2@5"),
        append(2, "1@2", "2@3 1@4"),
        append(3, "2@3", "1@4"),
        append(2, "1@2", "3@3"),
        AppendEntries(GROUP, 2, 2, 1, 0, (entry("2@3")._replace(timestamp=1001),)),
    ],
    ids=[
        "hole before",
        "hole inside",
        "term falls",
        "term below the one before",
        "term beyond the sender's",
        "stamp falls",
    ],
)
def test_entries_out_of_line_are_the_peers_fault(message: AppendEntries) -> None:
    """PROTOCOL 2, Raft 5.3: indexes have no gaps, terms never fall, stamps rise; a wrong peer never crashes
    us.
    """
    cluster = Cluster(logs={2: "1@1 1@2 2@3" if message.prev_index == 3 else "1@1 1@2"})
    before = cluster.log(2)
    with pytest.raises(WireError, match="server 1"):
        cluster.step(1, 2, message)
    cluster.expect_log(2, before)


def test_what_is_known_committed_on_both_sides_is_acknowledged() -> None:
    """PROTOCOL 9: a peer told of the commit. The leader probes further back, and need not send it again."""
    cluster = Cluster(logs={2: "1@1 1@2 1@3"})
    follower = cluster.state(2)
    replication.learn_commit(follower, 3, 3, 1, 0)
    cluster.step(1, 2, append(1, "1@1", commit=2))
    assert follower.verified == 1, "it has not committed our third entry: its own may be another"
    cluster.step(1, 2, append(1, "1@1", commit=3))
    assert follower.verified == 3


def test_a_wrong_stamp_cuts_nothing() -> None:
    """A conflicting entry that could never be appended must not cost the entries that it would replace."""
    cluster = Cluster(logs={2: "1@1 1@2 1@3"})
    wrong = entry("2@2")._replace(timestamp=1001)
    with pytest.raises(WireError):
        cluster.step(1, 2, AppendEntries(GROUP, 2, 1, 1, 0, (wrong,)))
    cluster.expect_log(2, "1@1 1@2 1@3")


# -- Raft 5.4.1: the election restriction -------------------------------------------------------------


@pytest.mark.parametrize("pre", [True, False])
@pytest.mark.parametrize(
    ("voters_log", "candidates_last", "granted"),
    [
        ("1@1", "1@1", True),
        ("1@1", "1@2", True),
        ("1@1", "2@1", True),
        ("1@1 1@2", "2@1", True),
        ("1@1 1@2", "1@1", False),
        ("1@1 2@2", "1@2", False),
        ("1@1 2@2", "1@9", False),
    ],
)
def test_a_vote_needs_an_up_to_date_log(
    voters_log: str, candidates_last: str, granted: bool, pre: bool
) -> None:
    """Raft 5.4.1: the later last term wins; with the same term the longer log."""
    cluster = Cluster(logs={2: voters_log})
    cluster.step(1, 2, ask(3, candidates_last, pre=pre))
    cluster.persist(2)
    assert [m.granted for m in cluster.sent(RequestVoteResult)] == [granted]


# -- Raft 5.4.2: figure 8 ---------------------------------------------------------------------------


def test_an_old_terms_entry_is_not_committed_by_counting() -> None:
    """Raft figure 8: an entry of term 2 on a majority of five is overwritten by term 3, so nobody may have
    committed it.
    """
    cluster = Cluster(
        5,
        logs={1: "1@1 2@2", 2: "1@1 2@2", 3: "1@1", 4: "1@1", 5: "1@1 3@2"},
        hard_states={i: HardState(3, None, 0) for i in range(1, 6)},
    )
    cluster.partition(1, 2, 3, 4)
    win(cluster, 1)
    # (c) Server 1 leads term 4; 2@2 reaches server 3, but its own no-op 4@3 does not.
    cluster.step(3, 1, AppendAccepted(GROUP, 4, 2, 2))
    cluster.step(2, 1, AppendAccepted(GROUP, 4, 2, 2))
    cluster.expect_commit(0, 1)
    # (e) Once 4@3 is on a majority, everything before it is committed with it.
    cluster.settle()
    cluster.expect_commit(3, 1)


def test_figure_8_the_overwriting_branch() -> None:
    """Raft figure 8 (d): with 2@2 on a majority, server 5 may still win and overwrite it everywhere."""
    cluster = Cluster(
        5,
        logs={1: "1@1 2@2 4@3", 2: "1@1 2@2", 3: "1@1 2@2", 4: "1@1", 5: "1@1 3@2"},
        hard_states={i: HardState(4, None, 0) for i in range(1, 6)},
    )
    cluster.crash(1)
    cluster.elect(5)
    cluster.restart(1)
    cluster.live(2000)
    cluster.expect_log(1, "1@1 3@2 5@3")
    cluster.expect_commit(3)


# -- Raft 8: the no-op ------------------------------------------------------------------------------


def test_a_new_leader_appends_an_empty_entry_of_its_term() -> None:
    """Raft 8: the no-op commits what earlier terms left."""
    cluster = Cluster(logs=dict.fromkeys((1, 2, 3), "1@1:a 1@2:b"))
    cluster.elect(2)
    cluster.expect_log(2, "1@1:a 1@2:b 2@3")
    assert cluster.state(2).log.entry(3).kind is EntryKind.EMPTY
    cluster.expect_commit(3, 2)


# -- Dissertation 9.6: pre-votes -----------------------------------------------------------------------


def test_a_pre_vote_changes_nothing_at_the_voter() -> None:
    """Dissertation 9.6: granting a pre-vote neither raises the term nor spends the vote, nor waits for a
    disk.
    """
    cluster = Cluster()
    before = cluster.state(2).hard_state()
    cluster.step(1, 2, ask(1, pre=True))
    cluster.step(3, 2, ask(1, pre=True))
    assert cluster.sent(RequestVoteResult) == [RequestVoteResult(GROUP, 1, granted=True, pre=True)] * 2
    assert cluster.state(2).hard_state() == before


def test_a_partitioned_server_does_not_raise_its_term() -> None:
    """Dissertation 9.6: however long it is cut off, it comes back without disturbing anyone."""
    cluster = led()
    cluster.partition(3)
    cluster.live(10_000)
    assert cluster.state(3).term == 1
    cluster.heal()
    cluster.live(2000)
    cluster.expect_leader(1, term=1)
    assert cluster.state(3).leader_id == 1


def test_a_pre_candidate_behind_in_term_catches_up() -> None:
    """The longest log with a low term and the high term with a short log elect a leader (openraft 1796, etcd
    8501).
    """
    cluster = Cluster(
        logs={1: "1@1 1@2 1@3", 2: "1@1", 3: "1@1"},
        hard_states={1: HardState(1, None, 0), 2: HardState(9, None, 0), 3: HardState(5, None, 0)},
    )
    cluster.partition(1, 2)
    cluster.live(5000)
    assert cluster.leaders() == [1]


def test_a_server_that_is_deaf_disturbs_nobody() -> None:
    """A server that sends but does not hear stands for ever without an answer (TigerBeetle, 2023)."""
    cluster = led()
    for other in (1, 2):
        cluster.cut_one_way(other, 3)
    cluster.live(10_000)
    cluster.expect_leader(1, term=1)
    assert cluster.state(3).term == 1


# -- Dissertation 4.2.3, 6.2: leases and CheckQuorum ----------------------------------------------------


@pytest.mark.parametrize("pre", [True, False])
def test_a_served_voter_refuses_whoever_stands(pre: bool) -> None:
    """Dissertation 4.2.3: within the least election timeout of hearing a leader, no vote and no new term."""
    cluster = led()
    cluster.heartbeat(1)
    cluster.elapse(LEASE_MS - 1)
    cluster.step(3, 2, ask(9, "9@9", pre=pre))
    assert cluster.sent(RequestVoteResult) == [RequestVoteResult(GROUP, 1, granted=False, pre=pre)]
    assert cluster.state(2).term == 1


def test_a_leader_refuses_whoever_stands() -> None:
    """Dissertation 4.2.3: a removed server that keeps standing never moves the term (braft CA-6)."""
    cluster = led()
    cluster.elapse(LIMITS.election_timeout_ms_max)
    cluster.step(3, 1, ask(9, "9@9"))
    cluster.expect_leader(1, term=1)


def test_a_vote_is_free_once_the_leader_is_silent() -> None:
    """Dissertation 4.2.3: the lease ends with the least election timeout."""
    cluster = led()
    cluster.heartbeat(1)
    cluster.elapse(LEASE_MS)
    cluster.step(3, 2, ask(2, "1@1", pre=True))
    assert cluster.sent(RequestVoteResult) == [RequestVoteResult(GROUP, 2, granted=True, pre=True)]


def test_a_leader_whose_host_is_gone_is_not_honoured() -> None:
    """PROTOCOL 9: a refused reconnect ends the lease at once, when asking and when granting."""
    cluster = led()
    cluster.heartbeat(1)
    cluster.gone[2].add(1)
    cluster.step(3, 2, ask(2, "1@1", pre=True))
    assert cluster.sent(RequestVoteResult) == [RequestVoteResult(GROUP, 2, granted=True, pre=True)]


def test_survivors_of_a_refused_leader_stand_in_turn() -> None:
    """PROTOCOL 9: rank by rank, each a round trip after the one before, long before any timeout."""
    cluster = led(5)
    cluster.heartbeat(1)
    deadlines = []
    for rank, i in enumerate((2, 3, 4, 5)):
        cluster.replicas[i].raft.leader_refused(rank, cluster.time)
        deadlines.append(cluster.state(i).election_deadline)
    assert deadlines == sorted(deadlines)
    assert deadlines[-1] < cluster.time + LEASE_MS * MS


def test_survivors_who_split_the_vote_wait_for_no_dead_servers_vote() -> None:
    """PROTOCOL 9: on a busy machine their turns are too close, and the third vote will never come."""
    cluster = led()
    cluster.crash(1)
    for i in (2, 3):
        cluster.gone[i].add(1)
        cluster.replicas[i].raft.leader_refused(0, cluster.time)
    cluster.elapse(20)
    cluster.tick(2, 3)
    cluster.settle()
    split = cluster.time
    assert cluster.state(2).term == cluster.state(3).term == 2 and cluster.leaders() == []
    while not cluster.leaders():
        cluster.elapse(5)
        cluster.tick(2, 3)
        cluster.settle()
    assert cluster.time - split < LEASE_MS * MS


def test_a_leader_without_a_quorum_steps_down() -> None:
    """Dissertation 6.2: it hears no majority for an election timeout, and stops claiming to lead."""
    cluster = led()
    cluster.partition(1)
    cluster.live(2 * LEASE_MS + 100)
    cluster.expect_role(1, PRE_CANDIDATE if cluster.state(1).votes else FOLLOWER, term=1)
    assert 1 not in cluster.leaders()


def test_a_leader_with_a_quorum_stays() -> None:
    """Dissertation 6.2: one of two followers is a quorum with the leader itself."""
    cluster = led()
    cluster.partition(3)
    cluster.live(5000)
    assert cluster.leaders() == [1]


def test_one_cut_link_moves_no_term() -> None:
    """A server that is cut from the leader alone does not depose it (Cloudflare 2020, with PreVote)."""
    cluster = led()
    cluster.cut(1, 3)
    cluster.live(10_000)
    cluster.expect_leader(1, term=1)


def test_the_only_server_with_a_quorum_is_elected() -> None:
    """Everyone reaches server 3 alone: the leader steps down, the one in the middle leads (Howard and
    Abraham 2020).
    """
    cluster = led(5)
    for a in (1, 2, 4, 5):
        for b in (1, 2, 4, 5):
            if a < b:
                cluster.cut(a, b)
    cluster.live(20_000)
    cluster.expect_leader(3)


def test_an_old_leader_behind_a_bridge_does_not_block_an_election() -> None:
    """Its heartbeats reach one follower but no answer reaches it: it steps down by itself (openraft 2080)."""
    cluster = led(3)
    cluster.cut(1, 3)
    cluster.cut_one_way(2, 1)
    cluster.live(10_000)
    assert cluster.leaders() in ([2], [3])


def test_a_candidate_that_left_a_higher_term_behind_is_served_again() -> None:
    """PreVote and CheckQuorum: a stale leader's append is answered with the term, else nobody could ever
    serve
    the server that is ahead (etcd 8501).
    """
    cluster = led()
    cluster.partition(3)
    election.become_follower(cluster.state(3), 5, None, cluster.time)
    cluster.persist(3)
    cluster.live(1000)
    cluster.heal()
    cluster.live(5000)
    (leader,) = cluster.leaders()
    assert cluster.state(leader).term > 5
    assert {cluster.state(i).leader_id for i in cluster.ids} == {leader}


# -- Dissertation 3.10: leadership transfer -----------------------------------------------------------


def test_a_leader_hands_over_to_a_follower_that_is_up_to_date() -> None:
    """Dissertation 3.10: TimeoutNow, an election without waiting, and no pre-vote nor lease in its way."""
    cluster = led()
    cluster.transfer(1, 3)
    assert cluster.sent(TimeoutNow) == [TimeoutNow(GROUP, 1)]
    cluster.settle()
    cluster.expect_leader(3, term=2)
    assert cluster.state(1).transfer_term == cluster.state(3).transfer_term == 2


def test_a_leader_brings_its_successor_up_to_date_first() -> None:
    """Dissertation 3.10: TimeoutNow waits until the target holds the whole log."""
    cluster = led()
    cluster.propose(1, "x")
    cluster.transfer(1, 3)
    assert cluster.sent(TimeoutNow) == []
    cluster.settle()
    cluster.expect_leader(3)
    cluster.expect_commit(3, 3)


def test_a_leader_goes_on_if_its_successor_does_not_take_over() -> None:
    """Dissertation 3.10: after an election timeout the transfer is given up."""
    cluster = led()
    cluster.propose(1, "x")
    cluster.cut(1, 3)
    cluster.transfer(1, 3)
    cluster.live(LEASE_MS + 100)
    cluster.expect_leader(1, term=1)
    assert cluster.state(1).transfer_to is None


def test_only_a_follower_of_this_very_leader_heeds_a_hand_over() -> None:
    """TimeoutNow of another term, of another sender, or to a leader changes nothing (braft b9e1293)."""
    cluster = led()
    cluster.step(1, 2, TimeoutNow(GROUP, 0))
    cluster.step(3, 2, TimeoutNow(GROUP, 1))
    cluster.step(2, 1, TimeoutNow(GROUP, 1))
    cluster.expect_leader(1, term=1)
    assert cluster.state(2).role is FOLLOWER


def test_a_learner_does_not_heed_a_hand_over() -> None:
    """Dissertation 4.2.1: a learner never stands, whoever asks it to, however long it hears nobody."""
    cluster = Cluster(configuration=Configuration(frozenset({1, 2}), learners=frozenset({3})))
    cluster.elect(1)
    cluster.step(1, 3, TimeoutNow(GROUP, 1))
    cluster.expect_role(3, FOLLOWER, term=1)
    cluster.elapse(60_000)
    cluster.tick(3)
    cluster.expect_role(3, FOLLOWER, term=1)


def test_a_late_hand_over_reaches_a_candidate_in_vain() -> None:
    """A TimeoutNow that arrives when its receiver already stands is stale."""
    cluster = led()
    cluster.transfer(1, 3)
    late = cluster.take(to=3)
    cluster.elapse(LIMITS.election_timeout_ms_max)
    cluster.campaign(3)
    cluster.deliver_these(late)
    cluster.expect_role(3, PRE_CANDIDATE, term=1)


# -- Dissertation 10.2.1: writing in parallel, pipelining ------------------------------------------------


def test_a_leader_sends_before_its_own_disk_write() -> None:
    """Dissertation 10.2.1: replication and the leader's disk write run in parallel."""
    cluster = led()
    cluster.propose(1, "x")
    assert len(cluster.sent(AppendEntries)) == 2
    assert cluster.state(1).log.persisted == 1


def test_an_entry_may_commit_before_the_leader_wrote_it() -> None:
    """Dissertation 10.2.1: two followers are a quorum without the leader's own disk."""
    cluster = led()
    cluster.propose(1, "x")
    for _ in range(2):
        cluster.deliver()
        cluster.persist(2, 3)
    cluster.expect_commit(2, 1)
    assert cluster.state(1).log.persisted == 1


def test_a_leader_that_lost_what_others_committed_gets_it_back() -> None:
    """Dissertation 10.2.1: the leader crashes with its write unsynced; its followers hold the committed
    entry.
    """
    cluster = led()
    cluster.propose(1, "x")
    for _ in range(2):
        cluster.deliver()
        cluster.persist(2, 3)
    cluster.crash(1)
    cluster.restart(1)
    cluster.expect_log(1, "1@1")
    cluster.elect(2)
    cluster.expect_log(1, "1@1 1@2:x 2@3")


def test_a_leader_does_not_wait_for_answers() -> None:
    """Dissertation 10.2.1: pipelining: the next entry is sent while the one before is in flight."""
    cluster = led()
    for command in "abc":
        cluster.propose(1, command)
    assert [m.prev_index for m in cluster.sent(AppendEntries, to=2)] == [1, 2, 3]


def test_a_window_bounds_what_is_in_flight() -> None:
    """PROTOCOL 1: bytes in flight to a follower are bounded; an acknowledgement opens the window again."""
    cluster = led(inflight_bytes_max=100)
    for command in ("a" * 80, "b" * 80, "c" * 80):
        cluster.propose(1, command)
    assert len(cluster.sent(AppendEntries, to=2)) == 1
    cluster.settle()
    cluster.heartbeat(1)
    cluster.expect_commit(4)


def test_an_append_is_bounded_and_never_empty_handed() -> None:
    """PROTOCOL 1: a message carries about `append_bytes_max`, and an entry beyond it travels alone."""
    cluster = led(append_bytes_max=100)
    cluster.cut(1, 3)
    for command in ("a" * 10, "b" * 500, "c" * 10):
        cluster.propose(1, command)
    cluster.settle()
    cluster.heal()
    assert all(len(m.entries) == 1 for m in cluster.sent(AppendEntries, to=3))
    cluster.settle()
    assert cluster.log(3) == cluster.log(1)


def test_a_lost_append_is_sent_again() -> None:
    """Raft 5.3: "the leader retries AppendEntries indefinitely"; no follower is forgotten (hashicorp/raft
    612).
    """
    cluster = led()
    cluster.propose(1, "x")
    cluster.take()
    cluster.live(2 * LEASE_MS)
    cluster.expect_commit(2)


def test_a_new_connection_asks_anew() -> None:
    """What was in flight on a broken connection is lost; the leader probes at once, not after a timeout."""
    cluster = led()
    cluster.propose(1, "x")
    cluster.take(to=2)
    cluster.heal()
    cluster.settle()
    cluster.expect_log(2, "1@1 1@2:x")


def test_a_follower_that_was_away_is_probed_at_the_end_of_the_log() -> None:
    """A new leader that never heard it asks at its own end, however often; not the whole log."""
    cluster = led()
    cluster.partition(3)
    for command in "abc":
        cluster.propose(1, command)
    cluster.settle()
    cluster.transfer(1, 2)
    cluster.live(5 * LEASE_MS)
    cluster.expect_leader(2)
    cluster.heal()
    assert [m.prev_index for m in cluster.sent(AppendEntries, to=3)] == [4]
    cluster.settle()
    assert cluster.log(3) == cluster.log(2)


def test_a_follower_behind_the_leaders_memory_is_read_from_disk() -> None:
    """The entry before an append is known by term after compaction too (etcd-io/raft 76f1249, 124)."""
    cluster = led()
    cluster.partition(3)
    for command in "abc":
        cluster.propose(1, command)
    cluster.settle()
    cluster.evict(1)
    assert cluster.state(1).log.offset.index == 4
    cluster.heal()
    cluster.settle()
    cluster.expect_log(3, "1@1 1@2:a 1@3:b 1@4:c")


def test_a_leader_with_nothing_in_memory_still_appends() -> None:
    """The term before the first entry in memory is the offset's, not 0."""
    cluster = led()
    cluster.evict(1)
    cluster.propose(1, "x")
    assert cluster.sent(AppendEntries, to=2) == [
        AppendEntries(GROUP, 1, 1, 1, 1, cluster.state(1).log.slice(2, last_index=2, bytes_max=1))
    ]


def test_a_slow_disk_of_a_follower_starts_no_election() -> None:
    """A follower whose sync takes long hears its leader all the same (logcabin 200, etcd 7617)."""
    cluster = led()
    cluster.propose(1, "x")
    cluster.deliver(to=3)
    cluster.write(3)
    for _ in range(30):
        cluster.elapse(LIMITS.heartbeat_interval_ms)
        cluster.heartbeat(1)
        cluster.tick()
    cluster.expect_leader(1, term=1)


# -- Dissertation 4.3: joint quorums --------------------------------------------------------------------

JOINT = Configuration(frozenset({1, 2, 3}), outgoing=frozenset({3, 4, 5}))


def test_a_joint_election_needs_both_majorities() -> None:
    """Dissertation 4.3: all of the new voters and one of the old is no quorum."""
    cluster = Cluster(5, configuration=JOINT)
    cluster.partition(1, 2, 3)
    cluster.live(5000)
    assert cluster.leaders() == []
    cluster.heal()
    cluster.live(5000)
    assert len(cluster.leaders()) == 1


def test_a_joint_commit_needs_both_majorities() -> None:
    """Dissertation 4.3: an entry on all new voters waits for a majority of the old ones."""
    cluster = Cluster(5, configuration=JOINT)
    cluster.elect(1)
    cluster.partition(1, 2, 3)
    cluster.propose(1, "x")
    cluster.settle()
    cluster.expect_commit(1, 1)
    cluster.heal()
    cluster.settle()
    cluster.expect_commit(2, 1)


def test_a_learner_counts_for_nothing_and_gets_everything() -> None:
    """Dissertation 4.2.1: a learner receives entries; its acknowledgements and votes decide nothing."""
    cluster = Cluster(4, configuration=Configuration(frozenset({1, 2, 3}), learners=frozenset({4})))
    cluster.elect(1)
    cluster.partition(1, 4)
    cluster.propose(1, "x")
    cluster.settle()
    cluster.expect_log(4, "1@1 1@2:x")
    cluster.expect_commit(1, 1)


# -- PROTOCOL 9: commits and entries from any peer ---------------------------------------------------------


def test_a_commit_from_a_peer_counts_as_a_place() -> None:
    """A commit by its number alone would commit another term's entry (protocol attack 10)."""
    cluster = Cluster(logs={2: "1@1 1@2"})
    r = cluster.state(2)
    replication.learn_commit(r, 3, 2, 2, cluster.time)
    cluster.expect_commit(0, 2)
    replication.learn_commit(r, 3, 2, 1, cluster.time)
    cluster.expect_commit(2, 2)


def test_a_fetched_term_is_adopted_and_durable_with_its_entries() -> None:
    """(†) An entry of a term above one's own raises the term first; a log is never ahead of its term."""
    cluster = Cluster(logs={2: "1@1"})
    cluster.step(3, 2, FetchResult(GROUP, entries("1@1 4@2:x")))
    assert (cluster.state(2).term, cluster.state(2).leader_id) == (4, None)
    pending = cluster.write(2)
    assert pending is not None and pending.append is not None and pending.hard_state is not None
    assert (pending.hard_state.term, pending.append.entries) == (4, entries("4@2:x"))


def test_a_fetch_is_judged_when_it_arrives() -> None:
    """(†) Entries that agree stay, and acknowledged ones beyond the answer are not dropped (protocol attack
    14).
    """
    cluster = Cluster(logs={2: "1@1 1@2 1@3 1@4"})
    cluster.step(3, 2, FetchResult(GROUP, entries("1@1 1@2")))
    cluster.expect_log(2, "1@1 1@2 1@3 1@4")
    cluster.expect_commit(2, 2)


def test_a_fetch_with_a_gap_or_without_news_is_ignored() -> None:
    """An answer that does not join what is committed here, or lies below it, changes nothing."""
    cluster = Cluster(logs={2: "1@1 1@2"}, hard_states={2: HardState(1, None, 1)})
    for late in ("", "1@1", "1@3:x"):
        cluster.step(3, 2, FetchResult(GROUP, entries(late)))
    cluster.expect_log(2, "1@1 1@2")
    cluster.expect_commit(1, 2)


def test_a_fetch_whose_terms_fall_is_the_peers_fault() -> None:
    """Committed entries of a term below the committed one before them do not exist."""
    cluster = Cluster(logs={2: "3@1"}, hard_states={2: HardState(3, None, 1)})
    with pytest.raises(WireError, match="server 3"):
        cluster.step(3, 2, FetchResult(GROUP, entries("2@2")))
    cluster.expect_log(2, "3@1")


# -- restarts -----------------------------------------------------------------------------------------


def test_a_restart_remembers_term_vote_log_and_commit() -> None:
    """Raft figure 2: the persistent state is what storage gave back; everything else begins anew."""
    cluster = led()
    cluster.propose(1, "x")
    cluster.settle()
    cluster.live(100)
    cluster.persist()
    before = cluster.state(2).hard_state()
    cluster.crash(2)
    cluster.restart(2)
    assert cluster.state(2).hard_state()[:2] == before[:2] == (1, 1)
    assert cluster.state(2).role is FOLLOWER
    cluster.expect_log(2, "1@1 1@2:x")


def test_a_log_ahead_of_its_term_is_refused() -> None:
    """A hard state that was lost or zeroed beside a log would vote again in old terms."""
    recovered = empty_recovered(1).groups[0]._replace(tail=entries("3@1"))
    with pytest.raises(AssertionError, match="ahead of its term"):
        Raft(
            GROUP,
            1,
            Configuration(frozenset({1})),
            recovered,
            limits=LIMITS,
            rng=random.Random(0),
            gone=set(),
            now=0,
        )
