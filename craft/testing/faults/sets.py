"""Sets of servers that are outdated, and a majority of which is left to itself (PROTOCOL 6, 8).

Knows: by which configuration each server acts. Must not know: who asked for the change, what is right.

Invariants
- Nothing is lost by it: links are cut, and mended in the end.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import combinations

from craft import quorum
from craft.testing.faults.base import Begin, End
from craft.testing.faults.links import both, cut
from craft.testing.plan import MS
from craft.testing.world import World
from craft.types import Configuration, GroupId, Place, ServerId

LOOK_NS = 2 * MS
"""How often it is looked whether the members have changed."""


class _OldSet:
    """One server hears of nothing until the members have changed without it. Then the others part: some go on
    by the latest configuration, and some are a majority, with the one, of that which it still believes in.
    A while later the one meets these.
    """

    def __init__(self, world: World, rng: random.Random, believer: ServerId) -> None:
        self._world, self._rng, self._believer = world, rng, believer
        self._ends = [cut(world, [way for j in world.ids if j != believer for way in both(believer, j)])]
        self._look()

    def finish(self) -> None:
        """All links are mended."""
        while self._ends:
            self._ends.pop()()

    def _look(self) -> None:
        world = self._world
        if not self._ends or world.calm:
            return
        sides = list(self._sides())
        if not sides:
            world.at(world.time + LOOK_NS, self._look)
            return
        left, right = self._rng.choice(sides)
        self._ends.append(cut(world, [way for a in left for b in right for way in both(a, b)]))
        election = world.plan.limits.election_timeout_ms_max * MS
        world.at(world.time + self._rng.choice((1, 2, 4)) * election, self._meet)

    def _meet(self) -> None:
        if len(self._ends) > 1:
            self._ends.pop(0)()

    def _sides(self) -> Iterator[tuple[list[ServerId], list[ServerId]]]:
        """Who may be left with the one, and who goes on."""
        servers = self._world.servers
        if self._believer not in servers:
            return
        old = self._latest([self._believer])
        others = [i for i in sorted(servers) if i != self._believer]
        if all(at == old[group][0] for group, (at, _) in self._latest(others).items()):
            return
        for size in range(1, len(others)):
            for some in combinations(others, size):
                left, right = [self._believer, *some], [i for i in others if i not in some]
                new = self._latest(right)
                if all(
                    at > old[group][0]
                    and quorum.is_quorum(configuration, {*right})
                    and quorum.is_quorum(old[group][1], {*left})
                    for group, (at, configuration) in new.items()
                ):
                    yield left, right

    def _latest(self, some: Iterable[ServerId]) -> dict[GroupId, tuple[Place, Configuration]]:
        """The latest configuration of each group that any of them has."""
        found: dict[GroupId, tuple[Place, Configuration]] = {}
        for i in some:
            for raft in self._world.servers[i].engine.state.replicas:
                r = raft.state
                if r.group not in found or r.configuration_at > found[r.group][0]:
                    found[r.group] = (r.configuration_at, r.configuration)
        return found


def _old_set(world: World, rng: random.Random, server: ServerId | None) -> End | None:
    i = server or (rng.choice(sorted(world.servers)) if len(world.servers) > 2 else None)
    return None if i is None else _OldSet(world, rng, i).finish


SETS: dict[str, Begin] = {"old_set": _old_set}
"""In runs in which the members change."""
