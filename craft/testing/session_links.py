"""What lies between a remote client and the servers: one link at a time, and attempts that are late or lost.

Knows: who runs, and how long things take. Must not know: sessions, nor what an outcome means to a call.

Invariants
- Whoever waits for an attempt hears of it once: its outcome, that none came in time, or that the link broke.
- What was given up goes on: to the server, and in its hands.
"""

from __future__ import annotations

import random
import typing
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import msgpack

from craft.applying import Told, effective
from craft.errors import CraftError, Rejected
from craft.limits import CLIENT_FLOOR_POLL_MS
from craft.marks import mark
from craft.testing.plan import MS, SECOND
from craft.types import ServerId, Timestamp
from craft.wire.plain import plain

if typing.TYPE_CHECKING:
    from craft.testing.server import SimServer
    from craft.testing.world import World

WAY_NS = (100_000, 1 * MS)
"""Between a client and a server, each way."""

PATIENCE_NS_MAX = 5 * SECOND
"""It doubles with each attempt: what is slow is answered some day."""

Answer: TypeAlias = Told | CraftError | None
"""What came of an attempt: where it was merged, why it was refused, or nothing."""


class Attempt:
    """What a server holds of one attempt: it takes it as the listener does."""

    __slots__ = ("_tell", "body", "floor", "number", "polls")

    def __init__(self, number: int, body: bytes, floor: Timestamp, tell: Callable[[Answer], None]) -> None:
        self.number, self.body, self.floor, self._tell = number, body, floor, tell
        self.polls = -1  # how often the floor may still be looked at; -1: not looked at yet

    def take(self, server: SimServer) -> None:
        """It has arrived: propose it once this server's time has reached its floor."""
        server.attempts[self.number] = self
        if self.polls < 0:
            self.polls = server.world.plan.limits.floor_wait_ms_max // CLIENT_FLOOR_POLL_MS
        if server.engine.takes_floor(self.floor):
            try:
                server.engine.propose(self, self.body, self.floor)
            except Rejected as error:
                self.end(server, error)
        elif self.polls:
            mark("client's attempt waits for its floor")
            self.polls -= 1
            server.world.later(server, CLIENT_FLOOR_POLL_MS * MS, partial(self.take, server))
        else:
            self.end(server, Rejected(f"answered at {self.floor}, which time has not reached here"))

    def end(self, server: SimServer, outcome: Answer) -> None:
        """The server says what came of it; None: its connection breaks."""
        server.attempts.pop(self.number, None)
        self._tell(outcome)


class Link:
    """One connection to one server."""

    __slots__ = ("server",)

    def __init__(self, server: SimServer) -> None:
        self.server = server


class Try(NamedTuple):
    """How an attempt was made."""

    link: Link
    patience: int
    began: int

    @property
    def longer(self) -> int:
        """The patience of the next one."""
        return min(2 * self.patience, PATIENCE_NS_MAX)


class _InFlight(NamedTuple):
    """An attempt that the client waits for."""

    link: Link
    then: Callable[[Answer], None]


class Links:
    """Of one client. `at` lets something happen to it after a while, once it moves."""

    def __init__(
        self, world: World, rng: random.Random, *, lost: float, at: Callable[[int, Callable[[], None]], None]
    ) -> None:
        self.current: Link | None = None
        self.ring: list[ServerId] = rng.sample(world.ids, len(world.ids))
        """Whom to try, in this order."""
        self._world, self._rng, self._lost, self._at = world, rng, lost, at
        self._attempts: dict[int, _InFlight] = {}

    def forget(self) -> None:
        """Nobody waits for anything any more."""
        self.current, self._attempts = None, {}

    def reach(self) -> Link | None:
        """The link of the moment, or one to the next server that runs; None where none does."""
        if self.current is not None and self.current.server.alive:
            return self.current
        self.current = None
        # As a client does that is told who the servers are: newcomers are tried last.
        self.ring += [i for i in self._world.ids if i not in self.ring]
        for _ in self.ring:
            server = self._world.servers.get(self.ring[0])
            if server is not None:
                self.current = Link(server)
                return self.current
            self.ring = [*self.ring[1:], self.ring[0]]
        return None

    def leave(self, link: Link) -> None:
        """This server does not serve: whatever waits on the link is told that it broke."""
        if self.current is not link:
            return
        self.current = None
        self.ring = [*self.ring[1:], self.ring[0]]
        for number in [number for number, one in self._attempts.items() if one.link is link]:
            found = self._attempts.pop(number, None)
            if found is not None:
                found.then(None)

    def send(self, attempt: Try, tagged: bytes, floor: Timestamp, then: Callable[[Answer], None]) -> None:
        """One attempt; `then` hears what comes of it, once."""
        world = self._world
        number = world.next_serial()
        self._attempts[number] = _InFlight(attempt.link, then)
        arrives = Attempt(number, tagged, floor, partial(self._tell, number))
        world.at(world.time + self._way(), partial(self._arrive, attempt.link, arrives))
        self._at(attempt.patience, partial(self._told, number, None))

    def _way(self) -> int:
        low, high = WAY_NS
        return self._rng.randint(low, high)

    def _arrive(self, link: Link, attempt: Attempt) -> None:
        if link.server.alive:
            link.server.input(partial(attempt.take, link.server))
        else:
            self._tell(attempt.number, None)

    def _tell(self, number: int, outcome: Answer) -> None:
        """The server's answer is on its way, and may not arrive."""
        if not self._world.calm and self._rng.random() < self._lost:
            mark("client's answer lost")
            outcome = None
        self._at(self._way(), partial(self._told, number, outcome))

    def _told(self, number: int, outcome: Answer) -> None:
        found = self._attempts.pop(number, None)
        if found is not None:  # else it was given up
            found.then(outcome)


def judged(outcome: Answer) -> tuple[Told | None, CraftError | None]:
    """An effect, or why there is none; neither: no answer came."""
    if isinstance(outcome, Told):
        try:
            effective(outcome)
        except CraftError as error:
            return None, error
        return outcome, None
    return None, outcome


def carried(results: Sequence[Any] | None) -> Any:
    """Results as they reach a remote client."""
    return (
        None
        if results is None
        else msgpack.unpackb(msgpack.packb(plain(list(results))), strict_map_key=False)
    )
