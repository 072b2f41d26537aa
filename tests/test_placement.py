"""Where leaders belong, and how long a group waits before it goes back."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from craft.placement import Placement

WAIT, WAIT_MAX = 100, 1000
voter_sets = st.sets(st.integers(0, 50), min_size=1, max_size=7)


def placement() -> Placement:
    return Placement(leader_return_ns=WAIT, leader_return_ns_max=WAIT_MAX)


def lose(p: Placement, times: int, *, voluntary: bool = False) -> None:
    """Server 1, which is preferred, leads group 0 and loses it, several times."""
    for _ in range(times):
        p.leader_seen(0, 1, preferred=1, voluntary=True)
        p.leader_seen(0, 2, preferred=1, voluntary=voluntary)


def wait(p: Placement) -> int:
    """How long the preferred server must look well from now on."""
    start = 10**6
    assert not p.may_return(0, well=False, now=start)
    return next(time for time in range(0, 2 * WAIT_MAX, 10) if p.may_return(0, well=True, now=start + time))


# -- preference and rank --------------------------------------------------------------------------------


@given(voter_sets, st.integers(0, 20))
def test_all_servers_agree_on_the_preferred_one(voters: set[int], group: int) -> None:
    """A function of the group and the set of voters; the order in which they are named does not matter."""
    chosen = {Placement.preferred(group, order) for order in (sorted(voters), sorted(voters, reverse=True))}
    assert len(chosen) == 1
    assert chosen <= voters


@given(voter_sets, st.integers(1, 40))
def test_groups_are_spread_evenly(voters: set[int], groups: int) -> None:
    """No server is preferred by two groups more than another."""
    counts = Counter(Placement.preferred(group, voters) for group in range(groups))
    assert max(counts.values()) - min(counts[voter] for voter in voters) <= 1


@given(st.sets(st.integers(0, 50), min_size=2, max_size=7), st.integers(0, 20))
def test_survivors_stand_one_after_another(voters: set[int], group: int) -> None:
    """Each survivor has a rank of its own, from 0 on, so that they do not split the vote."""
    gone = min(voters)
    ranks = [Placement.rank(group, server, voters, gone) for server in sorted(voters - {gone})]
    assert sorted(ranks) == list(range(len(voters) - 1))


@given(st.sets(st.integers(0, 50), min_size=2, max_size=7))
def test_survivors_share_the_dead_servers_groups(voters: set[int]) -> None:
    """Neighbouring groups are inherited by different survivors."""
    gone, survivors = min(voters), sorted(voters - {min(voters)})
    heirs = [
        next(s for s in survivors if Placement.rank(group, s, voters, gone) == 0)
        for group in range(len(survivors))
    ]
    assert sorted(heirs) == survivors


def test_who_is_no_survivor_stands_last() -> None:
    """A server outside the voters, and the dead one itself, have a rank behind everyone's."""
    assert Placement.rank(0, 9, {1, 2, 3}, gone=1) == 2
    assert Placement.rank(0, 1, {1, 2, 3}, gone=1) == 2


# -- going back -------------------------------------------------------------------------------------------


def test_a_group_returns_after_its_server_looked_well_for_long_enough() -> None:
    """Not at once."""
    assert wait(placement()) == WAIT


def test_a_moment_of_illness_starts_the_wait_anew() -> None:
    """Without a break."""
    p = placement()
    assert not p.may_return(0, well=True, now=0)
    assert not p.may_return(0, well=False, now=WAIT - 1)
    assert not p.may_return(0, well=True, now=WAIT)
    assert not p.may_return(0, well=True, now=2 * WAIT - 1)
    assert p.may_return(0, well=True, now=2 * WAIT)


def test_the_wait_doubles_after_each_involuntary_loss_up_to_a_bound() -> None:
    """(†) Else a cut link makes leadership flap (protocol attack 10)."""
    assert [wait_after(losses) for losses in range(6)] == [100, 200, 400, 800, 1000, 1000]


def wait_after(losses: int) -> int:
    p = placement()
    lose(p, losses)
    return wait(p)


def test_a_voluntary_loss_costs_nothing() -> None:
    """A server that was stopped gracefully gets its groups back as soon as before."""
    p = placement()
    lose(p, 3, voluntary=True)
    assert wait(p) == WAIT


def test_losses_among_others_cost_nothing() -> None:
    """Only what the preferred server itself lost counts, and a leader seen twice is one leader."""
    p = placement()
    for leader in (2, 3, 3, 2):
        p.leader_seen(0, leader, preferred=1, voluntary=False)
    assert wait(p) == WAIT


def test_a_change_of_leader_starts_the_wait_anew() -> None:
    """What the former leader saw is not what the new one sees."""
    p = placement()
    p.leader_seen(0, 2, preferred=1, voluntary=False)
    assert not p.may_return(0, well=True, now=0)
    p.leader_seen(0, 3, preferred=1, voluntary=False)
    assert not p.may_return(0, well=True, now=WAIT)


def test_groups_wait_on_their_own() -> None:
    """A loss in one group says nothing about another."""
    p = placement()
    lose(p, 2)
    assert not p.may_return(1, well=True, now=0)
    assert p.may_return(1, well=True, now=WAIT)


def test_what_is_not_taken_is_offered_ever_less_often() -> None:
    """At once, and then after waits that double up to a bound, until somebody else leads."""
    p = placement()
    offered = []
    for now in range(4 * WAIT_MAX):
        if p.may_give_away(0, now):
            p.giving_away(0, now)
            offered.append(now)
    waits = [after - before for before, after in pairwise(offered)]
    assert offered[0] == 0
    assert waits == [WAIT, 2 * WAIT, 4 * WAIT, 8 * WAIT, WAIT_MAX, WAIT_MAX]
    assert p.may_give_away(1, 0)
    p.leader_seen(0, 2, preferred=1, voluntary=True)
    assert p.may_give_away(0, 4 * WAIT_MAX)
