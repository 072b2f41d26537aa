"""Rolling restarts in virtual time: nobody waits for longer than the hand-overs take."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median

import pytest

from craft.limits import EngineLimits
from craft.testing import run
from craft.testing.history import Operation, Outcome
from craft.testing.plan import MS, SECOND, Plan
from craft.testing.server import SimServer
from craft.testing.world import World
from craft.types import ServerId

PAUSE = 20 * MS
"""Between a library user's writes, on each server."""

ROUND_TRIPS = 40
WAIT_MAX = ROUND_TRIPS * Plan(1).delay[1] * 2
"""An election of a transfer is four round trips and three syncs; what waits for it, a write of its own. A
refusal's wait (50 ms), an election timeout or a heartbeat are far more."""

READY_MAX = 100 * MS
"""From a start to an open session, mostly: links, a read, two writes. A read's retry (200 ms) is more."""


class Users:
    """A user of the library on each server: one write after the other, wherever a server takes commands."""

    def __init__(self, running: run.Run) -> None:
        self._running, self.world = running, running.world
        self.writes: list[Operation] = []
        self._last: dict[ServerId, Operation] = {}
        for i in self.world.ids:
            self._later(i)

    def _later(self, i: ServerId) -> None:
        self.world.at(self.world.time + PAUSE, partial(self._act, i))

    def _act(self, i: ServerId) -> None:
        server = self.world.servers.get(i)
        waits = i in self._last and self._last[i].outcome is Outcome.OPEN
        if server is not None and is_ready(server) and not waits and not server.engine.state.stopping:
            self._last[i] = self._running.clients.write(i, i)
            self.writes.append(self._last[i])
        self._later(i)

    def longest(self) -> int:
        """The longest that a write took that is answered, or that one has waited which is not."""
        now = self.world.time
        return max((now if one.returned is None else one.returned) - one.invoked for one in self.writes)


def is_ready(server: SimServer | None) -> bool:
    """Does it take commands?"""
    return server is not None and server.engine.session_open


def cluster(seed: int, *, servers: int, groups: int) -> run.Run:
    """Servers that are ready, with their leaders at home."""
    plan = Plan(seed, servers=servers, groups=groups, limits=EngineLimits(leader_return_ms=100), clients=0)
    running = run.Run(plan, checkers=())
    for i in running.world.ids:
        running.world.at(0, partial(running.world.start, i))
    running.world.run(3 * SECOND)
    return running


def until(world: World, condition: Callable[[], bool], *, within: int) -> int:
    """Let time pass until something is so; how long that took."""
    began = world.time
    assert world.run_while(lambda: not condition(), until=began + within, step=MS)
    return world.time - began


def restart(world: World, i: ServerId) -> int:
    """Stop a server gracefully, and start it again; how long it took to be ready."""
    server = world.servers[i]
    server.input(lambda: server.engine.hand_over(server.now()))
    world.run(world.time + MS)
    until(world, lambda: not (server.operations or server.engine.leads_any), within=SECOND)
    assert all(leader not in {None, i} for _, leader in server.engine.state.leaders)  # it did not leave early
    world.stop(server)
    world.run(world.time + 200 * MS)
    world.start(i)
    return until(world, lambda: is_ready(world.servers.get(i)), within=10 * SECOND)


def leaders(world: World) -> list[ServerId | None]:
    """Each group's, by the word of server 1."""
    return [leader for _, leader in world.servers[1].engine.state.leaders]


def terms(world: World) -> int:
    """Of all groups together: how many elections there were."""
    return sum(term for term, _ in world.servers[1].engine.state.leaders)


@pytest.mark.parametrize(("servers", "groups"), [(3, 3), (3, 1), (3, 2), (5, 3)])
def test_a_rolling_restart_lets_nobody_wait(servers: int, groups: int) -> None:
    """Every write on every server is answered within a few round trips, while each is stopped and started.

    With fewer groups than servers some forward, and what is on its way to a leader that stops is told where
    to go. When leaders return home, nobody waits either, and then they stay.
    """
    running = cluster(servers, servers=servers, groups=groups)
    world, users = running.world, Users(running)
    home = leaders(world)
    assert len(set(home)) == groups
    ready = [restart(world, i) for i in world.ids]
    world.run(world.time + 2 * SECOND)
    assert {one.outcome for one in users.writes} <= {Outcome.OK, Outcome.OPEN}
    assert users.longest() < WAIT_MAX
    assert median(ready) < READY_MAX
    assert leaders(world) == home
    rest = terms(world)
    world.run(world.time + 2 * SECOND)
    assert terms(world) == rest
