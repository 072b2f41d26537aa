"""Links that are cut, and frames that are lost, late, repeated or out of order."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from craft.testing.disk import Crash
from craft.testing.faults.base import Begin, End, crash_later, victim
from craft.testing.mail import PAST_FRAMES_MAX, Sent
from craft.testing.plan import MS, SECOND
from craft.testing.world import World
from craft.types import GroupId, ServerId


def cut(world: World, ways: Iterable[tuple[ServerId, ServerId]]) -> End:
    """Nothing goes these ways any more."""
    gone = sorted(ways)
    world.say("fault", "cut " + ", ".join(f"{a}>{b}" for a, b in gone))
    for a, b in gone:
        world.cut(a, b)

    def end() -> None:
        for a, b in gone:
            world.mend(a, b)

    return end


def both(a: ServerId, b: ServerId) -> list[tuple[ServerId, ServerId]]:
    """There and back."""
    return [(a, b), (b, a)]


def _cut_link(world: World, rng: random.Random, _server: ServerId | None) -> End | None:
    if len(world.ids) < 2:
        return None
    return cut(world, both(*rng.sample(world.ids, 2)))


def _cut_one_way(world: World, rng: random.Random, _server: ServerId | None) -> End | None:
    if len(world.ids) < 2:
        return None
    a, b = rng.sample(world.ids, 2)
    return cut(world, [(a, b)])


def _isolate(world: World, rng: random.Random, server: ServerId | None) -> End | None:
    i = victim(world, rng, server)
    if i is None:
        return None
    return cut(world, [way for j in world.ids if j != i for way in both(i, j)])


def _deafen(world: World, rng: random.Random, server: ServerId | None) -> End | None:
    """It speaks and hears nothing, or hears and is not heard."""
    i = victim(world, rng, server)
    if i is None:
        return None
    outward = rng.random() < 0.5
    return cut(world, [(i, j) if outward else (j, i) for j in world.ids if j != i])


def _halves(world: World, rng: random.Random, _server: ServerId | None) -> End:
    shuffled = rng.sample(world.ids, len(world.ids))
    size = rng.randint(1, max(1, len(shuffled) // 2))
    return cut(world, [way for a in shuffled[:size] for b in shuffled[size:] for way in both(a, b)])


def _bridge(world: World, rng: random.Random, _server: ServerId | None) -> End:
    """Two halves that only one server still connects."""
    _, *rest = rng.sample(world.ids, len(world.ids))
    middle = len(rest) // 2
    return cut(world, [way for a in rest[:middle] for b in rest[middle:] for way in both(a, b)])


def _ring(world: World, rng: random.Random, _server: ServerId | None) -> End:
    """Everyone sees the next few on a ring: every majority is another one."""
    ring = rng.sample(world.ids, len(world.ids))
    near = max(1, len(ring) // 4)
    far = [step for step in range(1, len(ring)) if min(step, len(ring) - step) > near]
    return cut(world, [(a, ring[(place + step) % len(ring)]) for place, a in enumerate(ring) for step in far])


def _strand(world: World, rng: random.Random, server: ServerId | None) -> End | None:
    """A leader reaches one peer only: what it appends now lives on too few servers to be committed."""
    i = victim(world, rng, server)
    others = [j for j in world.ids if j != i]
    if i is None or not others:
        return None
    kept = rng.choice(others)
    mend = cut(world, [way for j in others if j != kept for way in both(i, j)])
    if rng.random() < 0.4:
        crash_later(world, rng.randint(0, 30) * MS, i, Crash.POWER)
        world.start_later(i, rng.randint(200, 3000) * MS)
    slow = rng.choice((0, 300, 900)) * MS
    if slow:  # what the two have is still being written when others overwrite it
        world.sync_spans[kept] = (slow // 2, slow)

    def end() -> None:
        mend()
        world.sync_spans.pop(kept, None)

    return end


def _relapse(world: World, rng: random.Random, server: ServerId | None) -> End | None:
    """A leader is cut off with what it goes on appending, and is back when its successors die."""
    i = victim(world, rng, server)
    if i is None:
        return None
    end = _isolate(world, rng, i)
    assert end is not None

    def back() -> None:
        end()
        for j, one in sorted(world.servers.items()):
            if j != i and one.engine.state.led and not world.calm:
                world.crash(j, rng.choice(list(Crash)))
                world.start_later(j, rng.randint(500, 4000) * MS)

    return back


class _Seesaw:
    """A leader and its minority are cut off until others lead, and back just long enough to hear of it.

    Then those others are cut off. Whoever led leads again, on a log that was cut meanwhile; and some of what
    it was told when it first led arrives only then.
    """

    def __init__(self, world: World, rng: random.Random, leader: ServerId) -> None:
        self._world, self._rng, self._leader = world, rng, leader
        self._few = (len(world.ids) - 1) // 2
        others = rng.sample([j for j in world.ids if j != leader], len(world.ids) - 1)
        self._some = [leader, *others[: self._few - 1]]
        # Who was with the leader does not always hear what became of it.
        self._absent = self._some[1:] if rng.random() < 0.5 else []
        self._groups = _led(world, leader)
        self._first_told: list[Sent] = []
        self._suffix = rng.choice((1, 4, 10))
        self._haste_ms = rng.choice((2, 10, 60))
        self._ends: list[End] = []
        self._over = False
        self._part(self._some)
        self._once(lambda: bool(self._successors()) and self._apart(), self._back)

    def finish(self) -> None:
        self._over = True
        self._mend()

    def _part(self, these: Sequence[ServerId]) -> None:
        ids = self._world.ids
        ways = [way for a in these for b in ids if b not in these for way in both(a, b)]
        self._ends.append(cut(self._world, ways))

    def _mend(self) -> None:
        for one in self._ends:
            one()
        self._ends.clear()

    def _once(self, true: Callable[[], bool], then: Callable[[], None]) -> None:
        """Some time after this is so, unless the fault is over."""

        def look() -> None:
            if not self._over:
                at = self._world.time + self._rng.randint(1, self._haste_ms) * MS
                self._world.at(at, partial(self._unless_over, then) if true() else look)

        look()

    def _unless_over(self, then: Callable[[], None]) -> None:
        if not self._over:
            then()

    def _successors(self) -> list[ServerId]:
        return [
            j
            for j in self._world.servers
            if j not in self._some
            and _led(self._world, j) & (self._groups or {*range(self._world.plan.groups)})
        ]

    def _apart(self) -> bool:
        """Has it appended enough that the others do not have?"""
        server = self._world.servers.get(self._leader)
        if server is None:
            return False
        logs = [server.engine.state.raft(group) for group in self._groups]
        return any(r.log.last_index >= r.commit_index + self._suffix for r in logs)

    def _back(self) -> None:
        if self._rng.random() < 0.8:
            self._first_told = self._world.mail.past(self._leader)
        self._mend()
        self._part(self._absent)
        self._once(lambda: not _led(self._world, self._leader) & self._groups, self._turn_over)

    def _turn_over(self) -> None:
        if self._rng.random() < 0.5:  # else it leads again because that is where the group belongs
            self._part(sorted(self._successors())[: self._few - len(self._absent)])
        if self._first_told:
            self._once(lambda: bool(_led(self._world, self._leader) & self._groups), self._tell)

    def _tell(self) -> None:
        self._world.mail.send_again(self._leader, self._first_told)


def _led(world: World, i: ServerId) -> set[GroupId]:
    return {*world.servers[i].engine.state.led} if i in world.servers else set()


def _seesaw(world: World, rng: random.Random, _server: ServerId | None) -> End | None:
    leaders = [i for i in world.ids if _led(world, i)]
    if not leaders or len(world.ids) < 3:
        return None
    return _Seesaw(world, rng, rng.choice(leaders)).finish


def _flap(world: World, rng: random.Random, _server: ServerId | None) -> End | None:
    """A link that goes up and down."""
    if len(world.ids) < 2:
        return None
    ways = both(*rng.sample(world.ids, 2))
    period = rng.choice((20, 200, 700, 1500)) * MS
    ends: list[End] = []
    over = False

    def flip() -> None:
        if over:
            return
        if ends:
            ends.pop()()
        else:
            ends.append(cut(world, ways))
        world.at(world.time + rng.randint(period // 2, period), flip)

    def end() -> None:
        nonlocal over
        over = True
        for one in ends:
            one()

    flip()
    return end


def _swizzle(world: World, rng: random.Random, _server: ServerId | None) -> End:
    """Cut off some servers one by one, and mend them in another order (FoundationDB's swizzle-clog)."""
    some = rng.sample(world.ids, rng.randint(1, len(world.ids)))
    ends: list[End] = []
    over = False

    def cut_off(i: ServerId) -> None:
        if not over:
            ends.append(cut(world, [way for j in world.ids if j != i for way in both(i, j)]))

    def end() -> None:
        nonlocal over
        over = True
        rng.shuffle(ends)
        for step, one in enumerate(ends):
            if world.calm:
                one()
            else:
                world.at(world.time + step * rng.randint(10, 300) * MS, one)

    for step, i in enumerate(some):
        world.at(world.time + step * rng.randint(10, 300) * MS, partial(cut_off, i))
    return end


def _set_network(name: str, values: tuple[float, ...]) -> Begin:
    def begin_(world: World, rng: random.Random, _server: ServerId | None) -> End:
        before = getattr(world.network, name)
        setattr(world.network, name, rng.choice(values))
        return lambda: setattr(world.network, name, before)

    return begin_


def _slow_way(world: World, rng: random.Random, _server: ServerId | None) -> End | None:
    if len(world.ids) < 2:
        return None
    a, b = rng.sample(world.ids, 2)
    extra = rng.choice((5, 50, 300, 900)) * MS
    ways = [(a, b)] if rng.random() < 0.5 else both(a, b)
    return _slow(world, ways, extra)


def _slow(world: World, ways: list[tuple[ServerId, ServerId]], extra: int) -> End:
    for one in ways:
        world.network.slow[one] = world.network.slow.get(one, 0) + extra

    def end() -> None:
        for one in ways:
            world.network.slow[one] = max(0, world.network.slow.get(one, 0) - extra)

    return end


def _lag(world: World, rng: random.Random, server: ServerId | None) -> End | None:
    """All that one server says, or hears, comes late: it acts on what is no longer so, or others do."""
    i = victim(world, rng, server)
    if i is None:
        return None
    extra = rng.choice((50, 50, 300, 900)) * MS
    outward, inward = rng.choice(((True, False), (False, True), (True, True)))
    others = [j for j in world.ids if j != i]
    ways = [(i, j) for j in others if outward] + [(j, i) for j in others if inward]
    return _slow(world, ways, extra)


def _echoes(world: World, rng: random.Random, _server: ServerId | None) -> End:
    """What is sent now, lost or not, arrives much later (too): behind elections and restarts."""
    share = rng.choice((0.1, 1.0, 1.0))
    spans = ((300 * MS, 900 * MS), (1 * SECOND, 4 * SECOND))
    before = world.mail.echo
    world.mail.echo = (share, rng.choice(spans))

    def end() -> None:
        world.mail.echo = before

    return end


def _past(world: World, rng: random.Random, server: ServerId | None) -> None:
    """What a server was sent of late, lost or not, reaches it once more: after an election, say."""
    i = victim(world, rng, server)
    if i is not None:
        world.mail.send_again(i, world.mail.past(i, rng.randint(1, PAST_FRAMES_MAX)))


def _aloof(world: World, rng: random.Random, _server: ServerId | None) -> End:
    """A server is out of reach of all machines there are, and not of those that come under their ids."""
    i = rng.choice(world.ids)
    ends = {world.disks[j].disk_id: cut(world, both(i, j)) for j in world.ids if j != i}
    over = False

    def look() -> None:
        there = {world.disks[j].disk_id for j in world.ids}
        for disk in [disk for disk in ends if disk not in there]:
            ends.pop(disk)()
        if not over:
            world.at(world.time + 5 * MS, look)

    def end() -> None:
        nonlocal over
        over = True
        for disk in list(ends):
            ends.pop(disk)()

    look()
    return end


ALOOF: dict[str, Begin] = {"aloof": _aloof}
"""In runs about members."""

LINKS: dict[str, Begin] = {
    "cut_link": _cut_link,
    "cut_one_way": _cut_one_way,
    "isolate": _isolate,
    "deafen": _deafen,
    "halves": _halves,
    "bridge": _bridge,
    "ring": _ring,
    "strand": _strand,
    "relapse": _relapse,
    "seesaw": _seesaw,
    "flap": _flap,
    "swizzle": _swizzle,
}
FRAMES: dict[str, Begin] = {
    "lose_frames": _set_network("loss", (0.02, 0.2, 0.5)),
    "repeat_frames": _set_network("repeat", (0.05, 0.5)),
    "reorder_frames": _set_network("reorder", (0.05, 0.5)),
    "delay_frames": _set_network("delay", ((5 * MS, 50 * MS), (50 * MS, 400 * MS))),  # type: ignore[arg-type]
    "slow_way": _slow_way,
    "lag": _lag,
    "echo_frames": _echoes,
    "repeat_past": _past,
}
