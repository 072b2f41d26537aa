"""Suspects: replicas that may have lost a synced tail count for nothing until they are known to be whole.

The rules of PROTOCOL 10, one test each. The harness checks the safety properties of Raft after every step: a
committed entry that is lost shows as two histories, or as a leader that lacks it.
"""

from __future__ import annotations

import pytest

from craft.messages import (
    AppendAccepted,
    AppendRejected,
    Cleared,
    Doubted,
    LeaderPersisted,
    RequestVote,
    RequestVoteResult,
    SuspectAccepted,
    Suspected,
)
from craft.raft import Role, suspicion
from craft.types import Configuration, HardState
from tests.raft.harness import GROUP, Cluster

REASON = "its log ended in a damaged record"


def spoilt(servers: int = 3, *, lost: int = 1, who: int = 2) -> Cluster:
    """Server 1 leads in term 1 and committed `x` with `who`, who then lost its last entries and is back."""
    cluster = Cluster(servers)
    cluster.elect(1)
    cluster.propose(1, "x")
    cluster.settle()
    lose(cluster, who, lost)
    return cluster


def lose(cluster: Cluster, i: int, lost: int = 1) -> None:
    cluster.crash(i)
    cluster.disk(i).lose(lost, REASON)
    cluster.restart(i)


def suspects(cluster: Cluster) -> list[int]:
    return [i for i in sorted(cluster.replicas) if cluster.state(i).suspect]


def uncleared(cluster: Cluster, rounds: int = 10) -> None:
    """Everything arrives but the word that would clear a suspect."""
    for _ in range(rounds):
        cluster.persist()
        cluster.deliver_these(e for e in cluster.take() if not isinstance(e.message, Cleared))


def clear(cluster: Cluster, i: int, leader: int = 1) -> None:
    """As it goes: a new connection, the question, the leader's entry."""
    cluster.reconnect(leader, i)
    cluster.settle()
    cluster.ask(i)
    cluster.settle()


def test_a_suspects_vote_is_not_enough() -> None:
    """Two of three are a majority, and not where one of them may have forgotten what it acknowledged."""
    cluster = spoilt(lost=1)
    cluster.crash(1)
    cluster.elapse(cluster.limits.election_timeout_ms_max)
    cluster.campaign(3)
    cluster.settle()
    assert cluster.leaders() == []
    cluster.campaign(2)
    cluster.settle()
    assert cluster.leaders() == []


def test_a_suspects_vote_counts_where_everyone_grants() -> None:
    """Then nobody holds more than the candidate does: nothing that survived anywhere is lost."""
    cluster = Cluster(logs={1: "1@1:x", 2: "1@1:x", 3: "1@1:x"})
    for i in (1, 2, 3):
        lose(cluster, i, 0)
    cluster.elect(2)
    assert cluster.log(2).startswith("1@1:x 2@2")
    assert suspects(cluster) == []  # its own no-op clears the leader, and what it appends next the others


def test_everyone_suspect_follows_whoever_holds_most() -> None:
    """A power cut of all: who has lost more than another is refused by it, and that other one wins."""
    cluster = Cluster(logs=dict.fromkeys((1, 2, 3), "1@1:x 1@2:y"))
    for i, lost in ((1, 2), (2, 1), (3, 0)):
        lose(cluster, i, lost)
    cluster.elapse(cluster.limits.election_timeout_ms_max)
    cluster.campaign(1)
    cluster.settle()
    assert cluster.leaders() == []
    cluster.elect(3)
    for i in (1, 2):
        clear(cluster, i, leader=3)
    assert suspects(cluster) == []
    cluster.expect_log(1, cluster.log(3))


def test_a_suspect_candidate_wins_by_a_majority_of_others() -> None:
    """Among five the three others suffice: one of them holds whatever was committed."""
    cluster = Cluster(5, logs=dict.fromkeys(range(1, 6), "1@1:x"))
    lose(cluster, 2, 0)
    cluster.crash(5)
    cluster.elapse(cluster.limits.election_timeout_ms_max)
    cluster.campaign(2)
    cluster.settle()
    assert cluster.leaders() == [2]


def test_a_suspect_counts_in_neither_half_while_joint() -> None:
    """It may be what is missing in the old voters' majority only."""
    joint = Configuration(frozenset({1, 3}), frozenset({1, 2, 4}))
    cluster = Cluster(4, configuration=joint, logs=dict.fromkeys(range(1, 5), "1@1:x"))
    lose(cluster, 2, 0)
    cluster.crash(4)
    cluster.elapse(cluster.limits.election_timeout_ms_max)
    cluster.campaign(1)
    cluster.settle()
    assert cluster.leaders() == []
    cluster.restart(4)
    cluster.elect(1)


def test_pre_votes_say_who_is_suspect() -> None:
    """Nobody raises a term for an election that a suspect would have to decide."""
    cluster = spoilt()
    cluster.crash(1)
    cluster.elapse(cluster.limits.election_timeout_ms_max)
    term = cluster.state(3).term
    cluster.campaign(3)
    cluster.deliver(to=2)
    assert cluster.sent(RequestVoteResult) == [
        RequestVoteResult(GROUP, term + 1, granted=True, pre=True, suspect=True)
    ]
    cluster.settle()
    assert cluster.state(3).term == term


def test_a_suspects_acknowledgement_does_not_commit() -> None:
    """It is sent entries, and says what it holds, so that it catches up; a quorum must be made of others."""
    cluster = spoilt()
    cluster.crash(3)
    cluster.reconnect(1, 2)
    cluster.propose(1, "y")
    uncleared(cluster)
    assert cluster.log(2) == cluster.log(1)
    assert cluster.state(1).log.last_index > 2
    cluster.expect_commit(2, 1)
    cluster.restart(3)
    cluster.reconnect(1, 3)
    uncleared(cluster)
    cluster.expect_commit(cluster.state(1).log.last_index, 1)


def test_what_an_earlier_incarnation_said_is_ignored() -> None:
    """An acknowledgement on its way when the server died does not count once the suspect was heard."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.crash(3)
    cluster.propose(1, "x")
    cluster.deliver(to=2)
    cluster.persist(2)
    late = cluster.take(sender=2, to=1)
    assert [type(envelope.message) for envelope in late] == [AppendAccepted]
    lose(cluster, 2)
    cluster.ask(2)
    cluster.deliver(to=1)
    cluster.deliver_these(late)
    cluster.persist(1)
    cluster.expect_commit(1, 1)


def test_a_suspect_infers_no_commit() -> None:
    """It is not one of two servers that hold an entry: it may have held others, which a quorum counted."""
    cluster = spoilt()
    cluster.crash(3)
    cluster.reconnect(1, 2)
    cluster.propose(1, "y")
    uncleared(cluster)
    before = cluster.state(2).commit_index
    told = LeaderPersisted(GROUP, 1, cluster.state(1).log.persisted)
    cluster.step(1, 2, told)
    cluster.expect_commit(before, 2)
    cluster.ask(2)
    cluster.settle()
    cluster.expect_commit(told.index, 2)


def test_the_leaders_next_entry_clears_a_suspect() -> None:
    """It was appended after the suspect was heard; who holds it holds all that was ever counted on it."""
    cluster = spoilt()
    cluster.ask(2)
    cluster.deliver(to=1)
    [answer] = cluster.sent(Cleared)
    assert (answer.term, answer.index) == (1, 3)
    cluster.deliver(to=2)
    cluster.reconnect(1, 2)
    for _ in range(5):
        cluster.deliver()
    assert suspects(cluster) == [2]  # received, and not durable yet
    assert cluster.disk(2).suspicion
    pending = cluster.write(2)
    assert pending is not None and pending.append is not None and pending.suspicion == ""
    cluster.sync(2)
    assert suspects(cluster) == [] and not cluster.disk(2).suspicion
    cluster.settle()
    assert cluster.state(1).progress[2].counted == 3


def test_a_suspicion_survives_a_restart() -> None:
    """Attack 13: the repaired log opens cleanly; only the stored suspicion still knows."""
    cluster = spoilt()
    for _ in range(3):
        cluster.crash(2)
        cluster.restart(2)
        assert suspects(cluster) == [2]


def test_a_clearing_dies_with_its_write() -> None:
    """The end of the suspicion is stored in the write that holds the entry, or not at all."""
    cluster = spoilt()
    cluster.reconnect(1, 2)
    cluster.ask(2)
    for _ in range(6):
        cluster.deliver()
    pending = cluster.write(2)
    assert pending is not None and pending.suspicion == ""
    cluster.crash(2)
    cluster.restart(2)
    assert suspects(cluster) == [2]


@pytest.mark.parametrize("what", ["incarnation", "term"])
def test_an_answer_to_another_start_or_term_clears_nobody(what: str) -> None:
    """A server may become suspect twice, and lose more the second time."""
    cluster = spoilt()
    cluster.reconnect(1, 2)
    uncleared(cluster)
    r = cluster.state(2)
    wrong = {"incarnation": r.incarnation - 1} if what == "incarnation" else {"term": r.term + 1}
    answer = Cleared(GROUP, r.incarnation, r.term, 1)
    cluster.step(1, 2, answer._replace(**wrong))
    uncleared(cluster)
    assert suspects(cluster) == [2]
    cluster.step(1, 2, answer)
    uncleared(cluster)
    assert suspects(cluster) == []


def test_each_start_waits_for_an_entry_of_its_own() -> None:
    """What clears one incarnation was appended before the next one was heard."""
    cluster = spoilt()
    cluster.ask(2)
    cluster.deliver(to=1)
    first = cluster.sent(Cleared)
    cluster.settle()
    lose(cluster, 2)
    cluster.ask(2)
    cluster.deliver(to=1)
    [second] = cluster.sent(Cleared)
    assert second.index > first[0].index and second.incarnation != first[0].incarnation


def test_a_former_leader_clears_who_holds_what_it_counted() -> None:
    """Attack 20: one server is dead, one suspect, and the leader stepped down meanwhile: nobody could win."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.crash(3)
    cluster.propose(1, "x")
    cluster.settle()
    lose(cluster, 2, 0)  # an ordinary torn tail: nothing that was synced is missing
    cluster.elapse(2 * cluster.limits.election_timeout_ms_max)
    cluster.tick(1)
    cluster.expect_role(1, Role.FOLLOWER)
    cluster.ask(2)
    cluster.settle()
    assert suspects(cluster) == []
    cluster.elect(1)


def test_a_former_leader_clears_nobody_who_lost_what_it_counted() -> None:
    """The suspect's own log must still hold it."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.crash(3)
    cluster.propose(1, "x")
    cluster.settle()
    lose(cluster, 2, 1)
    cluster.elapse(2 * cluster.limits.election_timeout_ms_max)
    cluster.tick(1)
    cluster.ask(2)
    cluster.settle()
    assert suspects(cluster) == [2]


def test_a_former_leader_counts_what_it_told_to_be_durable() -> None:
    """A follower that infers commits may have counted what it never acknowledged."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.crash(3)
    cluster.propose(1, "x")
    cluster.persist(1)
    r = cluster.state(1)
    r.told_durable = r.log.persisted  # the engine has announced it
    cluster.deliver(to=2)
    cluster.persist(2)
    cluster.take()
    lose(cluster, 2)
    cluster.elapse(2 * cluster.limits.election_timeout_ms_max)
    cluster.tick(1)
    cluster.ask(2)
    cluster.settle()
    assert suspects(cluster) == [2]


def test_a_leader_doubts_who_lost_what_it_acknowledged() -> None:
    """A disk that was restored from a copy opens cleanly. It is suspect before it says anything more."""
    cluster = spoilt()
    cluster.crash(2)
    cluster.disk(2).suspicion = ""  # nobody has noticed
    cluster.restart(2)
    cluster.reconnect(1, 2)
    cluster.deliver(to=2)
    assert len(cluster.sent(AppendRejected)) == 1
    cluster.deliver(to=1)
    [doubt] = cluster.sent(Doubted)
    assert (doubt.index, doubt.index_term) == (2, 1)
    cluster.step(1, 2, doubt)
    assert suspects(cluster) == [2]
    r = cluster.state(2)
    assert r.hard_dirty  # so nothing leaves before it is durable
    cluster.settle()
    cluster.ask(2)
    cluster.settle()
    assert suspects(cluster) == [] and cluster.log(2) == cluster.log(1)


def test_a_doubt_without_reason_is_refused() -> None:
    """Whoever still holds that entry durably knows better."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.propose(1, "x")
    cluster.settle()
    cluster.step(1, 2, Doubted(GROUP, 1, 2, 1))
    cluster.step(1, 2, Doubted(GROUP, 7, 9, 1))
    assert suspects(cluster) == []


def test_nothing_is_handed_over_to_a_suspect() -> None:
    """Its log's end says nothing: TimeoutNow waits until it is trusted again."""
    cluster = spoilt()
    cluster.reconnect(1, 2)
    uncleared(cluster)
    cluster.transfer(1, 2)
    uncleared(cluster)
    assert cluster.state(1).progress[2].match == cluster.state(1).log.last_index
    cluster.expect_role(1, Role.LEADER)
    cluster.ask(2)
    cluster.settle()
    cluster.expect_role(2, Role.LEADER)


def test_a_suspect_keeps_its_leader() -> None:
    """What it answers is contact (CheckQuorum): the group goes on while the third server is away."""
    cluster = spoilt()
    cluster.reconnect(1, 2)
    cluster.crash(3)
    cluster.live(3 * cluster.limits.election_timeout_ms_max)
    cluster.expect_leader(1)


def test_the_operator_clears_a_suspect() -> None:
    """By the next write, whatever is in it."""
    cluster = spoilt(lost=0)
    suspicion.trust(cluster.state(2))
    cluster.persist(2)
    assert suspects(cluster) == [] and not cluster.disk(2).suspicion


def test_one_server_alone_trusts_its_log() -> None:
    """Everyone grants: there is nobody who could know more."""
    cluster = Cluster(1, logs={1: "1@1:x"}, hard_states={1: HardState(1, 1, 0)})
    lose(cluster, 1, 0)
    cluster.elect(1)
    cluster.persist(1)
    assert suspects(cluster) == []


def test_a_stale_question_disturbs_nobody() -> None:
    """Of a suspect of an earlier time, or of a server that is nobody's follower."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.settle()
    cluster.step(2, 3, Suspected(GROUP, 1, 77))
    assert cluster.wire == []
    cluster.step(2, 1, Suspected(GROUP, 1, 77))
    cluster.settle()
    assert cluster.state(1).progress[2].counted == cluster.state(1).log.last_index
    cluster.step(2, 1, SuspectAccepted(GROUP, 1, 1, 1, 77))
    cluster.settle()
    assert cluster.state(1).progress[2].counted == cluster.state(1).log.last_index
    cluster.step(2, 1, RequestVote(GROUP, 1, 1, 1, pre=True, transfer=False))
