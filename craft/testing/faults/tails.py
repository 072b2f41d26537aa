"""Logs that lose their ends, so that servers are suspect (PROTOCOL 10).

Invariants
- What a majority had is left on somebody: of a minority at most something that was synced is gone.
"""

from __future__ import annotations

import random
from collections.abc import Callable

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


class _Amnesia:
    """A follower loses what only a few of a majority hold, and comes back to some of the servers.

    Before it does, those beyond that majority are away, or their disks are slow; and perhaps nobody hears the
    follower, who counts on what it holds all the same. Behind it, it meets its leader without the others, or
    the others without its leader, or first these and then those. Perhaps it loses its tail once more, as soon
    as it is trusted; and perhaps what it was sent in an earlier life reaches it only then.
    """

    def __init__(self, world: World, rng: random.Random, leader: ServerId) -> None:
        self._world, self._rng = world, rng
        self._election = world.plan.limits.election_timeout_ms_max * MS
        others = rng.sample([i for i in world.ids if i != leader], len(world.ids) - 1)
        few = (len(world.ids) - 1) // 2
        self._follower, self._absent, rest = others[0], others[1 : 1 + few], others[1 + few :]
        self._holders = [leader, *rest]
        self._ends: list[End] = []
        self._over = False
        self._again = rng.random() < 0.4
        self._past = rng.random() < 0.5
        how = rng.choice(("cut", "cut", "slow", "late"))
        if how == "cut":
            self._part(self._absent, [self._follower, *self._holders])
        elif how == "slow":
            for i in self._absent:
                world.sync_spans[i] = (2 * self._election, 4 * self._election)
        if rng.random() < 0.5:
            self._ends.append(cut(world, [(self._follower, i) for i in self._holders]))
        self._later(rng.choice((0.1, 0.3, 1.5)), self._wait)

    def finish(self) -> None:
        self._over = True
        self._mend()
        for i in self._absent:
            self._world.sync_spans.pop(i, None)

    def _later(self, elections: float, then: Callable[[], None]) -> None:
        def event() -> None:
            if not self._over and not self._world.calm:
                then()

        self._world.at(self._world.time + int(elections * self._election), event)

    def _part(self, these: list[ServerId], those: list[ServerId]) -> None:
        self._ends.append(cut(self._world, [way for a in these for b in those for way in both(a, b)]))

    def _mend(self) -> None:
        while self._ends:
            self._ends.pop()()

    def _wait(self) -> None:
        """For a client that was just answered, mostly: by what is forgotten now."""
        if self._rng.random() < 0.3:
            self._strike()
            return
        nth, world = self._rng.choice((1, 2, 5)), self._world
        world.moments.wait("answer", nth=nth, after=world.time, event=lambda _: self._later(0, self._strike))

    def _strike(self) -> None:
        world, rng = self._world, self._rng
        if not may_lose_tail(world, self._follower) or self._follower not in world.servers:
            return
        past = world.mail.past(self._follower)
        damage_tail(world, rng, self._follower, lose=True, down=rng.choice((1, 1, 20)) * MS)
        self._mend()
        self._stay_away(rng.choice((self._absent, self._absent, self._holders)))
        self._later(rng.choice((0.5, 2, 4)), self._swap)
        if self._past:
            self._once(self._runs, lambda: world.mail.send_again(self._follower, past))
        if self._again:
            self._again = False
            self._once(self._is_trusted, lambda: self._later(rng.choice((0, 0.05, 0.3)), self._wait))

    def _stay_away(self, these: list[ServerId]) -> None:
        self._away = these
        self._part(these, [i for i in (self._follower, *self._holders, *self._absent) if i not in these])

    def _swap(self) -> None:
        self._mend()
        self._stay_away(self._holders if self._away is self._absent else self._absent)

    def _runs(self) -> bool:
        return self._follower in self._world.servers

    def _is_trusted(self) -> bool:
        return self._runs() and not self._world.disks[self._follower].suspect

    def _once(self, true: Callable[[], bool], then: Callable[[], None]) -> None:
        def look() -> None:
            if true():
                then()
            else:
                self._later(0.01, look)

        self._later(0.01, look)


def _amnesia(world: World, rng: random.Random, server: ServerId | None) -> End | None:
    leader = victim(world, rng, server)
    return None if leader is None or len(world.ids) < 3 else _Amnesia(world, rng, leader).finish


TAILS: dict[str, Begin] = {
    "lose_tail": _lose_tail,
    "lose_tails": _lose_tails,
    "oblivion": _oblivion,
}
AMNESIA: dict[str, Begin] = {"amnesia": _amnesia}
"""Drawn in runs of its own."""
