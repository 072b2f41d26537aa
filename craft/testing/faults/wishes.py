"""An operator moves leaders: no bad luck, but whatever else happens must survive it."""

from __future__ import annotations

import random
from contextlib import suppress

from craft.errors import TransferFailed
from craft.marks import mark
from craft.testing.faults.base import Begin, End, victim
from craft.testing.server import SimServer
from craft.testing.world import World
from craft.types import ServerId

HOLDS_MS = (20, 300, 3000)


def _put_somewhere(world: World, rng: random.Random, server: ServerId | None) -> None:
    """A group goes where the operator says, fit for it or not, and stays there for a while."""
    asked = _asked(world, rng, server)
    if asked is None:
        return
    led = sorted(asked.engine.state.led)
    group = rng.choice(led) if led else rng.randrange(world.plan.groups)
    to, hold_ms = rng.choice(sorted(world.ids)), rng.choice(HOLDS_MS)

    def ask() -> None:
        with suppress(TransferFailed):
            asked.engine.transfer(group, to, hold_ms, asked.now())
            mark("group put where an operator wants it")

    asked.input(ask)


def _drain(world: World, rng: random.Random, server: ServerId | None) -> End | None:
    """A server leads nothing, until the operator has looked at it, or has forgotten it."""
    asked, hold_ms = _asked(world, rng, server), rng.choice(HOLDS_MS)
    if asked is None:
        return None
    mark("server drained")
    asked.input(lambda: asked.engine.drain(hold_ms, asked.now()))

    def end() -> None:
        if asked.alive:
            asked.input(lambda: asked.engine.bring_home(asked.now()))

    return end


def _asked(world: World, rng: random.Random, server: ServerId | None) -> SimServer | None:
    i = victim(world, rng, server)
    return None if i is None else world.servers.get(i)


WISHES: dict[str, Begin] = {"put_somewhere": _put_somewhere, "drain": _drain}
