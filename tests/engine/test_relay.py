"""A server that no leader hears still gets its clients' writes in, through a peer (PROTOCOL 9)."""

from __future__ import annotations

import pytest

from tests.driver import SECOND, Cluster


def cluster() -> Cluster:
    """Three servers and one group, so two servers lead nothing."""
    c = Cluster(3, 1)
    c.settle()
    return c


def followers(c: Cluster) -> tuple[int, int, int]:
    """The leader, and the two others."""
    leader = c.leading(0)
    first, second = (i for i in c.ids if i != leader)
    return leader, first, second


def test_a_write_reaches_a_leader_behind_a_cut_link() -> None:
    """Found by the simulator: the follower knew no leader any more, and its clients waited for ever."""
    c = cluster()
    leader, cut_off, _ = followers(c)
    c.cut(leader, cut_off)
    c.run(5 * SECOND)
    c.write_and_wait(cut_off, b"through the third")
    assert c.leading(0) == leader, "the leader was not disturbed"


@pytest.mark.parametrize("toward_leader", [True, False])
def test_a_write_survives_a_link_that_is_deaf_one_way(toward_leader: bool) -> None:
    """It hears its leader and is not heard, or the other way round: both must not stall its clients."""
    c = cluster()
    leader, half_deaf, _ = followers(c)
    c.cut_one_way(*((half_deaf, leader) if toward_leader else (leader, half_deaf)))
    c.run(5 * SECOND)
    c.write_and_wait(half_deaf, b"one way")


def test_a_relayed_write_takes_effect_once() -> None:
    """It may be relayed, retried, and arrive directly once the link is back."""
    c = cluster()
    leader, cut_off, _ = followers(c)
    c.cut(leader, cut_off)
    tokens = []
    for n in range(10):
        tokens.append(c.propose(cut_off, b"%d" % n))
        c.run(SECOND // 2)
    c.heal()
    c.run_until(lambda: all(c.answered(cut_off, token) for token in tokens))
    c.quiesce()
    c.check_answers()
