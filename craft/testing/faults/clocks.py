"""Clocks that are wrong."""

from __future__ import annotations

import random
from collections.abc import Callable

from craft.testing.faults.base import Begin, End
from craft.testing.plan import MS, SECOND
from craft.testing.world import World
from craft.types import ServerId

HOUR_NS = 3600 * SECOND


def _clocks(change: Callable[[World, random.Random, ServerId], None], *, all_: bool = False) -> Begin:
    """A clock goes wrong, or all of them. When it is over some are repaired and some are left as they are."""

    def begin_(world: World, rng: random.Random, _server: ServerId | None) -> End:
        whose = world.ids if all_ else rng.sample(world.ids, rng.randint(1, len(world.ids)))
        for i in whose:
            change(world, rng, i)
        repaired = rng.random() < 0.5

        def end() -> None:
            for i in whose if repaired else ():
                world.clocks[i].repair(world.time)

        return end

    return begin_


def _jump(world: World, rng: random.Random, i: ServerId) -> None:
    size = rng.choice((1 * MS, 50 * MS, 400 * MS, 10 * SECOND, HOUR_NS))
    world.clocks[i].jump(world.time, rng.choice((-1, 1)) * rng.randint(size // 2, size))


def _drift(world: World, rng: random.Random, i: ServerId) -> None:
    world.clocks[i].drift(world.time, rng.choice((-500_000, -10_000, 10_000, 500_000, 3_000_000)))


def _back(world: World, rng: random.Random, i: ServerId) -> None:
    world.clocks[i].drift(world.time, rng.choice((-1_500_000, -3_000_000)))


def _stand_still(world: World, _rng: random.Random, i: ServerId) -> None:
    world.clocks[i].stop(world.time)


def _set_back(world: World, _rng: random.Random, i: ServerId) -> None:
    world.clocks[i].jump(world.time, -HOUR_NS)


CLOCKS: dict[str, Begin] = {
    "clock_jump": _clocks(_jump),
    "clock_drift": _clocks(_drift),
    "clock_backwards": _clocks(_back),
    "clock_stop": _clocks(_stand_still),
    "clocks_set_back": _clocks(_set_back, all_=True),
}
