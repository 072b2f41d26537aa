"""What a fault is, and whom it befalls."""

from __future__ import annotations

import random
from collections.abc import Callable

from craft.testing.disk import Crash
from craft.testing.world import World
from craft.types import ServerId

End = Callable[[], None]
Begin = Callable[[World, random.Random, ServerId | None], End | None]
"""`begin(world, rng, server)`; the server is the one at which the moment was, if the fault waited for one."""


def victim(world: World, rng: random.Random, server: ServerId | None) -> ServerId | None:
    """The server of the moment; else a leader, or anyone."""
    if server is not None:
        return server
    leaders = [i for i, one in sorted(world.servers.items()) if one.engine.state.led]
    running = sorted(world.servers)
    return rng.choice(leaders if leaders and rng.random() < 0.5 else running) if running else None


def crash_later(world: World, delay: int, i: ServerId, how: Crash) -> None:
    """What was begun in the fault phase does not reach into the next."""

    def crash() -> None:
        if not world.calm:
            world.crash(i, how)

    world.at(world.time + delay, crash)
