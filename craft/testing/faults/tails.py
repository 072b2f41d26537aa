"""Logs that lose their ends, so that servers are suspect (PROTOCOL 10).

Invariants
- What a majority had is left on somebody: of a minority at most something that was synced is gone.
"""

from __future__ import annotations

import random

from craft.testing.faults.base import Begin, End, victim
from craft.testing.faults.disks import damage_tail, may_lose_tail
from craft.testing.faults.links import both, cut
from craft.testing.plan import MS
from craft.testing.world import World
from craft.types import ServerId


def _lose_tail(world: World, rng: random.Random, server: ServerId | None) -> None:
    """The end of a log is damaged, and some of it had been synced. Then its server may be down for long."""
    i = victim(world, rng, server)
    if i is not None and may_lose_tail(world, i):
        damage_tail(world, rng, i, lose=True)


def _lose_tails(world: World, rng: random.Random, _server: ServerId | None) -> None:
    """A power cut of all: every log ends in a torn record. On few of them something synced is gone."""
    if world.lost:
        return
    for i in rng.sample(sorted(world.ids), len(world.ids)):
        damage_tail(world, rng, i, lose=rng.random() < 0.7 and may_lose_tail(world, i))


def _oblivion(world: World, rng: random.Random, server: ServerId | None) -> End | None:
    """One of the few that hold what a leader wrote loses it, and is left with those who never had it.

    They are a majority that knows nothing of it: no read, no election and no commit may count the one that
    has forgotten.
    """
    i = victim(world, rng, server)
    others = [j for j in world.ids if j != i]
    if i is None or len(others) < 2:
        return None
    forgetful, *rest = rng.sample(others, len(others))
    absent = rest[: len(world.ids) // 2]
    holders = [i, *rest[len(absent) :]]
    ends = [cut(world, [way for a in absent for b in (forgetful, *holders) for way in both(a, b)])]

    def strike() -> None:
        if world.calm or not ends or not may_lose_tail(world, forgetful):
            return
        ends.pop()()
        damage_tail(world, rng, forgetful, lose=True)
        ends.append(cut(world, [way for a in holders for b in (forgetful, *absent) for way in both(a, b)]))

    def end() -> None:
        while ends:
            ends.pop()()

    election = world.plan.limits.election_timeout_ms_max * MS
    world.at(world.time + int(rng.choice((0.1, 1.5, 3)) * election), strike)  # before or after others lead
    return end


TAILS: dict[str, Begin] = {
    "lose_tail": _lose_tail,
    "lose_tails": _lose_tails,
    "oblivion": _oblivion,
}
