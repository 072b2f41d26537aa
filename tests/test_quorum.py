"""Majorities, single and joint, against a twin that tries every set of servers."""

from __future__ import annotations

from collections.abc import Collection
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craft import quorum
from craft.quorum import Outcome
from craft.types import Configuration

SERVERS = range(1, 8)
voter_sets = st.frozensets(st.sampled_from(SERVERS), min_size=1)
configurations = st.builds(
    Configuration,
    voter_sets,
    st.just(frozenset[int]()) | voter_sets,
    st.frozensets(st.sampled_from(SERVERS)),
)


# -- the twin: slow, and plainly right ---------------------------------------------------------------


def decides(configuration: Configuration, servers: Collection[int]) -> bool:
    """More than half of the new voters, and, while joint, more than half of the old."""
    sets = [configuration.voters, *([configuration.outgoing] if configuration.outgoing else [])]
    return all(2 * len([v for v in voters if v in servers]) > len(voters) for voters in sets)


def subsets(servers: Collection[int]) -> list[tuple[int, ...]]:
    return [chosen for size in range(len(servers) + 1) for chosen in combinations(sorted(servers), size)]


def reached(configuration: Configuration, values: dict[int, int], unheard: int) -> int:
    """The greatest value for which the servers that are there decide."""
    everyone = configuration.voters | configuration.outgoing
    candidates = {values.get(server, unheard) for server in everyone}
    return max(
        value
        for value in candidates
        if decides(configuration, [s for s in everyone if values.get(s, unheard) >= value])
    )


def outcome(configuration: Configuration, votes: dict[int, bool]) -> Outcome:
    """Won if the granted decide; lost if no set of answers still to come could make them."""
    granted = {server for server, vote in votes.items() if vote}
    missing = (configuration.voters | configuration.outgoing) - votes.keys()
    if decides(configuration, granted):
        return Outcome.WON
    possible = any(decides(configuration, granted | set(more)) for more in subsets(missing))
    return Outcome.PENDING if possible else Outcome.LOST


# -- properties --------------------------------------------------------------------------------------


@given(
    configurations, st.dictionaries(st.sampled_from(SERVERS), st.integers(0, 9)), st.sampled_from([0, -100])
)
def test_reached_is_the_greatest_value_of_a_quorum(
    configuration: Configuration, values: dict[int, int], unheard: int
) -> None:
    """Commit indexes and clocks: what a majority (both, while joint) has reached."""
    assert quorum.reached(configuration, values, unheard=unheard) == reached(configuration, values, unheard)


@given(configurations, st.sets(st.sampled_from(SERVERS)))
def test_a_quorum_is_more_than_half_of_each_set(configuration: Configuration, servers: set[int]) -> None:
    """Servers that are no voters count for nothing."""
    assert quorum.is_quorum(configuration, servers) == decides(configuration, servers)


@given(configurations, st.permutations(SERVERS))
def test_two_servers_are_a_quorum_or_not(configuration: Configuration, servers: list[int]) -> None:
    """Written out for two, it says the same."""
    pair = servers[:2]
    assert quorum.is_pair_quorum(configuration, *pair) == quorum.is_quorum(configuration, pair)


@given(configurations, st.dictionaries(st.sampled_from(SERVERS), st.booleans()))
def test_a_vote_is_lost_only_when_no_answer_could_win_it(
    configuration: Configuration, votes: dict[int, bool]
) -> None:
    """Won, lost, or still open: decided as early as possible and never too early."""
    assert quorum.vote_outcome(configuration, votes) is outcome(configuration, votes)


@given(configurations, st.sets(st.sampled_from(SERVERS)), st.sets(st.sampled_from(SERVERS)))
def test_two_quorums_share_a_server(configuration: Configuration, a: set[int], b: set[int]) -> None:
    """What all of Raft rests on."""
    if quorum.is_quorum(configuration, a) and quorum.is_quorum(configuration, b):
        assert a & b


@pytest.mark.parametrize(("servers", "majority"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)])
def test_a_majority_is_more_than_half(servers: int, majority: int) -> None:
    """The table of the textbooks."""
    assert quorum.majority(range(servers)) == majority


def test_a_server_that_is_unheard_drags_a_joint_quorum_down() -> None:
    """Both sets need a majority: all of the new one does not help without the old one."""
    joint = Configuration(frozenset({1, 2, 3}), outgoing=frozenset({3, 4, 5}))
    assert quorum.reached(joint, {1: 9, 2: 9, 3: 9}) == 0
    assert quorum.reached(joint, {1: 9, 2: 9, 3: 9, 4: 7}) == 7


def test_a_group_without_voters_decides_nothing() -> None:
    """No majority of nobody."""
    with pytest.raises(AssertionError, match="without voters"):
        quorum.reached(Configuration(frozenset()), {})


@given(configurations, st.data())
def test_a_suspects_vote_decides_only_where_everyone_grants(
    configuration: Configuration, data: st.DataObject
) -> None:
    """Won without it, or by all; lost once neither can come about any more (PROTOCOL 10)."""
    everyone = configuration.voters | configuration.outgoing
    votes = data.draw(st.dictionaries(st.sampled_from(sorted(everyone)), st.booleans()))
    suspects = data.draw(st.sets(st.sampled_from(SERVERS)))

    def won(granted: Collection[int]) -> bool:
        return decides(configuration, [v for v in granted if v not in suspects]) or everyone <= {*granted}

    granted = [server for server, vote in votes.items() if vote]
    missing = [server for server in everyone if server not in votes]
    outcome = quorum.vote_outcome(configuration, votes, suspects)
    if won(granted):
        assert outcome is Outcome.WON
    else:
        possible = any(won([*granted, *more]) for more in subsets(missing))
        assert outcome is (Outcome.PENDING if possible else Outcome.LOST)
