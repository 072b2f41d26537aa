"""The steps of a change of members: what may follow what (PROTOCOL 8; dissertation 4.3)."""

from __future__ import annotations

import random
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craft import quorum
from craft.limits import EngineLimits
from craft.messages import RequestVote, RequestVoteResult
from craft.raft import Raft, membership, replication
from craft.raft.membership import Goal, is_reached, next_step
from craft.types import (
    BEGINNING,
    NOWHERE,
    Configuration,
    Cut,
    Entry,
    EntryKind,
    HardState,
    Place,
    RecoveredGroup,
    ServerId,
    empty_recovered,
    make_entry,
    pack_configuration,
)

SERVERS = range(1, 6)
STEPS_MAX = 8
"""Learner, joint, final, learner, joint, final, and the end: a change of disks takes the most."""


def walk(now: Configuration, goal: Goal, *, may_drop: bool = True) -> list[Configuration]:
    """Every configuration on the way, where everybody is always caught up."""
    found = [now]
    met = {server: f"disk{server}" for server in SERVERS}
    while True:
        step = next_step(found[-1], goal, met=met, is_ready=lambda _: True, may_drop=may_drop)
        if step is None:
            return found
        found.append(step)
        assert len(found) <= STEPS_MAX + 1, "it never arrives"


def wanted(version: int, *servers: ServerId, **disks: str) -> Goal:
    """`wanted(2, 1, 2, s2="b")`: servers 1 and 2, the second on disk b."""
    return Goal(version, {server: disks.get(f"s{server}", f"disk{server}") for server in servers})


def at(*voters: ServerId, version: int = 1) -> Configuration:
    return Configuration(
        frozenset(voters), version=version, disks=tuple((server, f"disk{server}") for server in voters)
    )


def parts(configuration: Configuration) -> tuple[set[ServerId], set[ServerId]]:
    """Voters and learners."""
    return set(configuration.voters), set(configuration.learners)


def quorums(configuration: Configuration) -> list[frozenset[tuple[ServerId, str]]]:
    """Every set of disks that decides; who is not bound is whatever disk is met first."""
    disks = dict(configuration.disks)
    voters = sorted(configuration.voters | configuration.outgoing)
    return [
        frozenset((server, disks.get(server, f"disk{server}")) for server in some)
        for size in range(len(voters) + 1)
        for some in combinations(voters, size)
        if quorum.is_quorum(configuration, some)
    ]


def test_a_server_joins_as_a_learner_then_jointly_then_for_good() -> None:
    """Four configurations: as it was, with a learner, joint, final."""
    _, learner, joint, final = walk(at(1, 2, 3), wanted(2, 1, 2, 3, 4))
    assert parts(learner) == ({1, 2, 3}, {4})
    assert parts(joint) == ({1, 2, 3, 4}, set())
    assert joint.outgoing == {1, 2, 3}
    assert final == at(1, 2, 3, 4, version=2)


def test_who_leaves_is_a_learner_until_every_group_is_done() -> None:
    """The final configuration keeps serving it; only then is it dropped (PROTOCOL 8)."""
    *_, final = walk(at(1, 2, 3), wanted(2, 1, 2), may_drop=False)
    assert parts(final) == ({1, 2}, {3})
    assert is_reached(final, wanted(2, 1, 2))
    assert walk(final, wanted(2, 1, 2))[-1] == at(1, 2, version=2)


def test_a_change_of_address_only_carries_its_version() -> None:
    """Where the servers stay the same, one entry says that the group has taken note."""
    assert walk(at(1, 2, 3), wanted(2, 1, 2, 3)) == [at(1, 2, 3), at(1, 2, 3, version=2)]


def test_a_disk_that_is_not_known_yet_does_not_vote() -> None:
    """A learner is only made a voter once it is settled which disk that is (PROTOCOL 8)."""
    found = walk(at(1, 2, 3), wanted(2, 1, 2, 3, 4, s4=""))
    assert parts(found[-1]) == ({1, 2, 3}, {4})


def test_the_last_server_cannot_change_its_disk() -> None:
    """Nobody would be left to vote while it does: the group stays as it is."""
    assert not any(one.joint for one in walk(at(1), wanted(2, 1, s1="b")))


def test_the_last_wanted_server_changes_its_disk_while_the_others_stay() -> None:
    """It is all that is wanted, and must leave to come again: those who are to go vote until then."""
    found = walk(at(1, 2, 3), wanted(2, 1, s1="b"))
    assert [parts(one)[0] for one in found if not one.joint][-2:] == [{1}, {1}]
    assert {2, 3} in [parts(one)[0] for one in found]
    assert is_reached(found[-1], wanted(2, 1, s1="b"))


goals = st.lists(
    st.tuples(
        st.sets(st.sampled_from(SERVERS), min_size=1), st.dictionaries(st.sampled_from(SERVERS), st.just("b"))
    ),
    min_size=1,
    max_size=4,
)


@given(goals, st.data())
def test_quorums_of_neighbours_meet(
    chosen: list[tuple[set[int], dict[int, str]]], data: st.DataObject
) -> None:
    """Whatever is wanted, and wherever the wish changes: of two neighbours no two quorums miss each other.

    A voter is a server on a disk: under a new disk it has never heard of anything.
    """
    now = Configuration(frozenset({1, 2, 3}))
    for version, (servers, disks) in enumerate(chosen, 1):
        goal = Goal(version, {server: disks.get(server, f"disk{server}") for server in servers})
        steps = walk(now, goal)
        for before, after in pairwise(steps):
            assert after.version >= before.version
            assert all(a & b for a in quorums(before) for b in quorums(after)), (before, after)
        now = data.draw(st.sampled_from(steps))


@given(goals)
def test_every_wish_is_reached(chosen: list[tuple[set[int], dict[int, str]]]) -> None:
    """Where everybody is caught up a group arrives, unless all who vote or are to vote change their disks."""
    now = at(1, 2, 3, version=0)
    for version, (servers, disks) in enumerate(chosen, 1):
        goal = Goal(version, {server: disks.get(server, f"disk{server}") for server in servers})
        bound, others = dict(now.disks), now.voters - servers
        now = walk(now, goal)[-1]
        nobody_stays = not others and all(
            bound.get(server, goal.disks[server]) != goal.disks[server] for server in servers
        )
        assert is_reached(now, goal) or nobody_stays


# -- another machine under an id -------------------------------------------------------------------


@pytest.mark.parametrize("pre", [True, False])
@pytest.mark.parametrize(("named", "granted"), [("founder", False), ("new", True)])
def test_another_machine_under_a_founders_id_has_no_vote_to_give(
    named: str, granted: bool, pre: bool
) -> None:
    """A founder that was away from the beginning knows nobody's disk: it would count the machine as its peer.

    Two such machines would elect it by the cluster's creation, beside the leader of those who wait elsewhere.
    """
    configuration = Configuration(frozenset({1, 2, 3}), disks=((1, named),))
    [empty] = empty_recovered(1).groups
    raft = Raft(
        0, 1, configuration, empty, limits=EngineLimits(), rng=random.Random(0), gone=set(), now=0,
        disks={1: "new"},
    )  # fmt: skip
    raft.step(2, RequestVote(0, 1, 0, 0, pre=pre, transfer=False), 10**12)
    [(_, answer)] = raft.state.outbox
    assert isinstance(answer, RequestVoteResult) and answer.granted is granted


@pytest.mark.parametrize("stranger", [None, 1, 2])
def test_no_commit_is_inferred_from_another_disk(stranger: ServerId | None) -> None:
    """PROTOCOL 8: what the machine under a voter's id holds is on no voter's disk, so two make no quorum."""
    configuration = Configuration(frozenset({1, 2, 3}), disks=((1, "a"), (2, "b"), (3, "c")))
    disks = {1: "a", 2: "b", 3: "c"}
    if stranger is not None:
        disks[stranger] = "new"
    [empty] = empty_recovered(1).groups
    raft = Raft(
        0, 2, configuration, empty, limits=EngineLimits(), rng=random.Random(0), gone=set(), now=0,
        disks=disks,
    )  # fmt: skip
    assert replication.infers_commits(raft.state, 1, 2) is (stranger is None)


@pytest.mark.parametrize(
    "start", [BEGINNING, Cut(Place(1, 5), 500, Configuration(frozenset({1, 2, 3})), NOWHERE)]
)
def test_what_it_knows_of_its_id_stays_behind_a_cut_of_the_creation(start: Cut) -> None:
    """A founder's snapshot names no disk, for that is how the cluster was created: it makes nobody a founder.

    An entry that binds is appended behind it, and cut again: then the creation's counts once more.
    """
    own = Configuration(frozenset({1, 2, 3}), disks=((1, "founder"),))
    term, index = start.place
    found = RecoveredGroup(
        HardState(max(term, 1), None, index), start.place, start.timestamp, (), start.place, start=start
    )
    raft = Raft(0, 1, own, found, limits=EngineLimits(), rng=random.Random(0), gone=set(), now=0)
    r = raft.state
    assert (r.configuration, r.bound) == (own, {1: "founder"})
    r.log.append((configured(at(1, 2, 3, version=0), index=index + 1),))
    membership.follow_log(r)
    assert r.bound == {server: f"disk{server}" for server in (1, 2, 3)}
    r.log.truncate_from(index + 1)
    membership.follow_log(r)
    assert (r.configuration, r.bound) == (own, {1: "founder"})


def test_others_are_told_of_the_creation_and_not_of_the_teller() -> None:
    """That one server is not the founder is its own affair: a cut that said so would bind that id for all."""
    own = Configuration(frozenset({1, 2, 3}), disks=((1, "founder"),))
    [empty] = empty_recovered(1).groups
    raft = Raft(0, 1, own, empty, limits=EngineLimits(), rng=random.Random(0), gone=set(), now=0)
    r = raft.state
    assert membership.upto(r, 0) == (NOWHERE, Configuration(frozenset({1, 2, 3})))
    r.log.append((configured(at(1, 2, 3, version=0), index=1),))
    assert membership.upto(r, 1) == (Place(1, 1), at(1, 2, 3, version=0))


def configured(configuration: Configuration, *, index: int) -> Entry:
    """The entry that makes it the group's."""
    payload = pack_configuration(configuration)
    return make_entry(
        0, index=index, term=1, timestamp=1000 + index, kind=EntryKind.CONFIGURATION, payload=payload
    )
