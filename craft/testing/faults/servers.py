"""Servers that crash, stop, pause, and come back."""

from __future__ import annotations

import random
from functools import partial

from craft.testing.disk import Crash
from craft.testing.faults.base import Begin, End, crash_later, victim
from craft.testing.plan import MS
from craft.testing.world import World
from craft.types import ServerId


def _hold_down(world: World, i: ServerId) -> End:
    world.down[i] = world.down.get(i, 0) + 1

    def end() -> None:
        world.down[i] -= 1
        world.start(i)

    return end


def _crash(how: Crash) -> Begin:
    def begin_(world: World, rng: random.Random, server: ServerId | None) -> End | None:
        i = victim(world, rng, server)
        if i is None:
            return None
        torn = how is Crash.KILL and rng.random() < 0.3
        world.crash(i, how, torn=torn, refused=rng.random() < 0.7)
        if rng.random() < 0.3:
            world.start_later(i, rng.randint(1, 50) * MS)  # at once: its peers may not even have noticed
            return None
        return _hold_down(world, i)

    return begin_


def _crash_pair(world: World, rng: random.Random, server: ServerId | None) -> None:
    """A server and a leader that it follows, on one power supply."""
    i = victim(world, rng, server)
    if i is None or i not in world.servers:
        return
    leaders = {leader for _, leader in world.servers[i].engine.state.leaders if leader in world.servers}
    others = sorted(leaders - {i}) or [j for j in sorted(world.servers) if j != i]
    for j in (i, *rng.sample(others, min(1, len(others)))):
        world.crash(j, Crash.POWER)
        world.start_later(j, rng.randint(1, 1500) * MS)


def _crash_all(world: World, rng: random.Random, _server: ServerId | None) -> None:
    how = rng.choice((Crash.KILL, Crash.POWER, Crash.POWER))
    for i in sorted(world.servers):
        world.crash(i, how)
        world.start_later(i, rng.randint(1, 800) * MS)


def _power_cut(world: World, rng: random.Random, _server: ServerId | None) -> None:
    """Disks stop syncing for a moment, and then the power of some or all servers goes."""
    some = rng.sample(world.ids, rng.randint(1, len(world.ids)))
    for i in some:
        world.disks[i].hung = True

    def off() -> None:
        for i in some:
            world.disks[i].hung = False
            if not world.calm:
                world.crash(i, Crash.POWER)
            world.start_later(i, rng.randint(1, 1500) * MS)

    world.at(world.time + rng.choice((1, 10, 100, 500)) * MS, off)


def _crash_in_recovery(world: World, rng: random.Random, server: ServerId | None) -> None:
    """Down, up, and down again before it has said much."""
    i = victim(world, rng, server)
    if i is not None:
        world.crash(i, rng.choice(list(Crash)))
        delay = 0
        for _ in range(rng.randint(1, 4)):
            delay += rng.randint(1, 300) * MS
            world.start_later(i, delay)
            delay += rng.choice((0, 1, 20)) * MS
            crash_later(world, delay, i, rng.choice(list(Crash)))
        world.start_later(i, delay + 100 * MS)


def _stop(world: World, rng: random.Random, server: ServerId | None) -> End | None:
    """A server is asked to stop, gives its groups away, and ends."""
    i = victim(world, rng, server)
    stopping = None if i is None else world.servers.get(i)
    if i is None or stopping is None:
        return None
    stopping.input(lambda: stopping.engine.hand_over(stopping.now()))

    def end() -> None:
        world.stop(stopping)
        world.start_later(i, 1 * MS)  # where it took longer than the fault; else it is held down

    world.at(world.time + rng.choice((5, 100, 1000)) * MS, end)
    return _hold_down(world, i)


def _pause(world: World, rng: random.Random, server: ServerId | None) -> End | None:
    i = victim(world, rng, server)
    if i is None:
        return None
    world.pause(i)
    return partial(world.resume, i)


SERVERS: dict[str, Begin] = {
    "kill": _crash(Crash.KILL),
    "power_off": _crash(Crash.POWER),
    "crash_pair": _crash_pair,
    "crash_all": _crash_all,
    "power_cut": _power_cut,
    "crash_in_recovery": _crash_in_recovery,
    "stop": _stop,
    "pause": _pause,
}
