"""Disks that are slow, full, failing or decaying."""

from __future__ import annotations

import random
from collections.abc import Callable

from craft.testing.disk import Crash
from craft.testing.faults.base import Begin, End, victim
from craft.testing.plan import MS
from craft.testing.world import World
from craft.types import ServerId


def _slow_disk(world: World, rng: random.Random, server: ServerId | None) -> End | None:
    i = victim(world, rng, server)
    if i is None:
        return None
    slow = rng.choice((20, 100, 700)) * MS
    world.sync_spans[i] = (slow // 2, slow)

    def end() -> None:
        world.sync_spans.pop(i, None)

    return end


def _flag(name: str) -> Begin:
    """Something is wrong with a disk until it is not."""

    def begin_(world: World, rng: random.Random, server: ServerId | None) -> End | None:
        i = victim(world, rng, server)
        if i is None:
            return None
        disk = world.disks[i]
        setattr(disk, name, True)
        return lambda: setattr(disk, name, False)

    return begin_


def _may_lose(world: World, i: ServerId) -> bool:
    """May this server be lost for good, beside those that are?

    Where suspects are left, the others must be a majority without them: nobody can win with everyone's vote.
    """
    suspects = _suspects(world)
    left_out = world.lost | suspects | {i} if suspects else world.lost | {i}
    return i not in world.lost and len(left_out) <= _minority(world)


def _suspects(world: World) -> set[ServerId]:
    return {i for i in world.ids if i not in world.lost and world.disks[i].suspect}


def _minority(world: World) -> int:
    return (len(world.ids) - 1) // 2


def _may_suspect(world: World, i: ServerId) -> bool:
    """May this server become suspect? Where some are lost for good, the others must be a majority."""
    if i in world.lost:
        return False
    return not world.lost or len(world.lost | _suspects(world) | {i}) <= _minority(world)


def may_lose_tail(world: World, i: ServerId) -> bool:
    """May it also lose what was synced? What a majority had must be left on somebody.

    A disk counts until its server has been cleared: only then it has again what it lost.
    """
    missing = {j for j in world.ids if world.disks[j].lost_tail} | world.lost | {i}
    return _may_suspect(world, i) and len(missing) <= _minority(world)


def _lose(spoil: Callable[[World, random.Random, ServerId], str | None], *, running: bool = False) -> Begin:
    """A disk decays, at rest or while its server runs. Its server must never start on it again."""

    def begin_(world: World, rng: random.Random, server: ServerId | None) -> None:
        i = server or rng.choice(world.ids)
        if not _may_lose(world, i):
            return
        world.lost.add(i)
        if not (running and rng.random() < 0.5):
            world.crash(i, rng.choice(list(Crash)))
        what = spoil(world, rng, i)
        world.say("fault", f"disk of server {i}: {what}")
        if what is None:
            world.lost.discard(i)
        world.start_later(i, rng.randint(10, 500) * MS)

    return begin_


def _torn_power(world: World, rng: random.Random, server: ServerId | None) -> None:
    """Power goes in the middle of a write: whether the torn record had been synced, nobody can tell then."""
    i = victim(world, rng, server)
    if i is not None and _may_suspect(world, i):
        world.crash(i, Crash.POWER, torn=True)
        world.start_later(i, rng.randint(10, 500) * MS)


def damage_tail(
    world: World, rng: random.Random, i: ServerId, *, lose: bool, down: int | None = None
) -> None:
    """Power goes at a server, and its log ends in a torn record, or before what was synced.

    It is down for about `down` ns; None: nobody knows for how long.
    """
    if i not in world.servers:
        return  # its disk was judged by an earlier crash, or is not there
    if lose:
        world.crash(i, Crash.POWER)
        lost = world.disks[i].lose_tail(rng)
        world.say("fault", f"disk of server {i}: {lost} synced batches are gone, and the next is torn")
    else:
        world.crash(i, Crash.POWER, torn=True)
    if down is None:
        down = rng.choice((1, 20, 400, 2000)) * MS + rng.randint(0, 100) * MS
    world.start_later(i, down)


def _wipe(world: World, rng: random.Random, server: ServerId | None) -> None:
    """An empty disk under an old id: its peers must not let it in."""
    i = server or rng.choice(world.ids)
    met = all(i in world.disks[j].peer_disks for j in world.ids if j != i)
    if met and _may_lose(world, i):
        world.lost.add(i)
        world.crash(i, Crash.POWER)
        world.disks[i] = world.new_disk(i)
        world.wiped.add(i)
        world.start_later(i, rng.randint(10, 500) * MS)


DISKS: dict[str, Begin] = {
    "slow_disk": _slow_disk,
    "hung_disk": _flag("hung"),
    "fail_sync": _flag("failing"),
    "full_disk": _flag("full"),
}


def _hang_together(world: World, rng: random.Random, _server: ServerId | None) -> End | None:
    """What is beneath the disks of several servers hangs: whoever leads finds nobody who is better off."""
    if len(world.ids) < 2:
        return None
    disks = [world.disks[i] for i in rng.sample(world.ids, rng.randint(2, len(world.ids)))]

    def hang(*, hung: bool) -> None:
        for disk in disks:
            disk.hung = hung

    hang(hung=True)
    return lambda: hang(hung=False)


STALLS: dict[str, Begin] = {"hung_disks": _hang_together}
"""Drawn from a stream of its own."""

RESERVE: dict[str, Begin] = {"nearly_full": _flag("nearly_full")}
"""Drawn behind all else, from a stream of its own."""

LOSSES: dict[str, Begin] = {
    "torn_by_power": _torn_power,
    "flip_bit": _lose(lambda world, rng, i: world.disks[i].flip(rng), running=True),
    "lose_synced": _lose(lambda world, rng, i: world.disks[i].truncate(rng, side_too=False)),
    "lose_synced_and_side_files": _lose(lambda world, rng, i: world.disks[i].truncate(rng, side_too=True)),
    "hole": _lose(lambda world, rng, i: world.disks[i].punch(rng)),
    "wipe": _wipe,
}
