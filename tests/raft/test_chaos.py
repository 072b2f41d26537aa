"""Many seeds of everything at once: the safety properties hold, and a healed group commits.

The harness checks the properties after every step; the tests here only stir.
"""

from __future__ import annotations

import random

import pytest

from craft.limits import EngineLimits
from craft.messages import FetchResult
from craft.raft import replication
from craft.types import Configuration
from tests.raft.harness import GROUP, Cluster, Envelope

STEPS = 250
CONFIGURATIONS = {
    3: Configuration(frozenset({1, 2, 3})),
    4: Configuration(frozenset({1, 2, 3}), learners=frozenset({4})),
    5: Configuration(frozenset({1, 2, 3}), outgoing=frozenset({3, 4, 5})),
}


def stir(cluster: Cluster, rng: random.Random) -> None:
    """One thing that can happen, to one server."""
    i = rng.choice(cluster.ids)
    (happening,) = rng.choices(list(HAPPENINGS), list(HAPPENINGS.values()))
    if i in cluster.replicas:
        happening(cluster, i, rng)
    elif rng.random() < 0.2:
        cluster.restart(i)


def write(cluster: Cluster, i: int, rng: random.Random) -> None:
    """A write begins or ends; several may be under way."""
    if cluster.replicas[i].writes and rng.random() < 0.6:
        cluster.sync(i)
    else:
        cluster.write(i)


def calm(cluster: Cluster, i: int, rng: random.Random) -> None:
    """For a moment everything works, so that the next fault meets something done."""
    for _ in range(rng.randrange(1, 7)):
        cluster.deliver()
        cluster.persist()


def propose(cluster: Cluster, i: int, rng: random.Random) -> None:
    for leader in cluster.leaders():
        cluster.propose(leader, f"c{rng.randrange(1000)}")


def beat(cluster: Cluster, i: int, rng: random.Random) -> None:
    if cluster.state(i).leads:
        cluster.heartbeat(i)


def stand(cluster: Cluster, i: int, rng: random.Random) -> None:
    """A server that is no leader wants to be one; often the leases have ended."""
    if not cluster.state(i).leads and cluster.state(i).votes_here:
        cluster.elapse(rng.choice((1, cluster.limits.election_timeout_ms_min)))
        cluster.campaign(i)


def pass_time(cluster: Cluster, i: int, rng: random.Random) -> None:
    cluster.elapse(rng.choice((1, 20, 100)))
    cluster.tick(i)


def cut(cluster: Cluster, i: int, rng: random.Random) -> None:
    cluster.cut_one_way(i, rng.choice(cluster.ids))


def heal(cluster: Cluster, i: int, rng: random.Random) -> None:
    cluster.heal()


def evict(cluster: Cluster, i: int, rng: random.Random) -> None:
    cluster.evict(i)


def transfer(cluster: Cluster, i: int, rng: random.Random) -> None:
    targets = sorted(cluster.configuration.voters - {i})
    if cluster.state(i).leads:
        cluster.transfer(i, rng.choice(targets))


def fetch(cluster: Cluster, i: int, rng: random.Random) -> None:
    """What a peer knows committed: told as a place, and sent as entries (PROTOCOL 9)."""
    peer = cluster.state(rng.choice(sorted(cluster.replicas)))
    r, first = cluster.state(i), cluster.state(i).commit_index + 1
    if peer.me == i or peer.log.offset.index >= first or peer.commit_index < first:
        return
    term, index = peer.commit_place
    replication.learn_commit(r, peer.me, index, term, cluster.time)
    found = peer.log.slice(first, last_index=index, bytes_max=rng.choice((1, 100, 1000)))
    cluster.wire.append(Envelope(peer.me, i, FetchResult(GROUP, found)))


def crash(cluster: Cluster, i: int, rng: random.Random) -> None:
    cluster.crash(i)


def carry(cluster: Cluster, i: int, rng: random.Random) -> None:
    """Some messages arrive: out of order, twice, or never."""
    for _ in range(min(len(cluster.wire), rng.randrange(8))):
        envelope = cluster.wire.pop(rng.randrange(len(cluster.wire)))
        fate = rng.random()
        if fate < 0.1:
            cluster.wire.append(envelope)
        if fate < 0.95 and envelope.to in cluster.replicas:
            cluster.deliver_these([envelope])


HAPPENINGS = {
    carry: 50,
    write: 20,
    calm: 5,
    propose: 6,
    beat: 3,
    stand: 4,
    pass_time: 4,
    cut: 1,
    heal: 2,
    evict: 2,
    transfer: 1,
    fetch: 3,
    crash: 1,
}


@pytest.mark.parametrize("servers", sorted(CONFIGURATIONS))
@pytest.mark.parametrize("seed", range(20))
def test_safe_in_chaos_and_alive_after_it(servers: int, seed: int) -> None:
    """Loss, duplication, reordering, one-way cuts, crashes at any write: no property falls, and all is well
    in the end.
    """
    rng = random.Random(seed)
    limits = EngineLimits(inflight_bytes_max=400, append_bytes_max=150)
    cluster = Cluster(servers, configuration=CONFIGURATIONS[servers], limits=limits, seed=seed)
    cluster.elect(1)
    for _ in range(STEPS):
        stir(cluster, rng)
    for i in cluster.ids:
        if i not in cluster.replicas:
            cluster.restart(i)
    cluster.heal()
    cluster.live(10_000)
    (leader,) = cluster.leaders()
    cluster.propose(leader, "last")
    cluster.live(1000)
    assert len({cluster.log(i) for i in cluster.ids}) == 1
    cluster.expect_commit(cluster.state(leader).log.last_index)
