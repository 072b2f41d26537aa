"""Clients: each does one thing at a time, on any server, thinks, and does the next.

Knows: what a workload wants done. A client that waits too long goes on with something else; what it waited
for may still be answered.
"""

from __future__ import annotations

import random
import typing
from functools import partial

import msgpack

from craft.errors import Rejected
from craft.testing.history import Operation, Outcome
from craft.testing.session_clients import SessionClients
from craft.types import Position, ServerId

if typing.TYPE_CHECKING:
    from craft.testing.workloads import Workload
    from craft.testing.world import World

STAYS = 0.8
"""How often a client asks the server that it asked last."""


class Clients:
    """All clients of a run."""

    def __init__(self, world: World, workload: Workload) -> None:
        self._world, self._workload = world, workload
        self._rng = random.Random(f"{world.plan.seed} clients")
        self._rng_levels = random.Random(f"{world.plan.seed} levels")
        self._rng_seen = random.Random(f"{world.plan.seed} seen")
        self._seen: dict[int, Position] = {}  # up to where each client was answered
        self._homes: dict[int, ServerId] = {}
        self._waits_for: dict[int, int] = {}  # client -> number of its operation
        self.stopped = False
        plan = world.plan.remote
        self.remote = SessionClients(world, workload, plan, self.read) if plan is not None else None
        world.settled = self._settled

    def start(self) -> None:
        """Let all clients begin."""
        for client in range(1, self._world.plan.clients + 1):
            if self.remote is None or client not in self.remote:
                self._think(client)
        if self.remote is not None:
            self.remote.start()

    def finish(self) -> list[Operation]:
        """Nobody begins anything any more; remote clients do one last write."""
        self.stopped = True
        return self.remote.finish() if self.remote is not None else []

    @property
    def waiting(self) -> bool:
        """Does a remote client still wait for an outcome?"""
        return self.remote is not None and self.remote.waiting

    def _think(self, client: int) -> None:
        low, high = self._world.plan.think
        self._world.at(self._world.time + self._rng.randint(low, high), partial(self._act, client))

    def _settled(self, operation: Operation) -> None:
        """An operation has its outcome."""
        if self.remote is not None and operation.client in self.remote:
            self.remote.settled(operation)
        if operation.position is not None:
            seen = self._seen.get(operation.client, 0)
            self._seen[operation.client] = max(seen, operation.position)
        if self._waits_for.get(operation.client) == operation.number:
            del self._waits_for[operation.client]
            self._think(operation.client)

    def _give_up(self, operation: Operation) -> None:
        if self._waits_for.get(operation.client) == operation.number:
            self._settled(operation)

    def _act(self, client: int) -> None:
        if self.stopped:
            return
        server = self._choose(client)
        if server is None:
            self._think(client)
            return
        read = self._rng.random() < self._world.plan.reads
        if read and self._world.plan.seen and self._rng_seen.random() < self._world.plan.seen:
            operation = self.read(server, client, at_least=self._seen.get(client, 0))
        else:
            operation = self.read(server, client) if read else self.write(server, client)
        if operation.outcome is Outcome.OPEN:
            self._waits_for[client] = operation.number
            self._world.at(self._world.time + self._world.plan.patience, partial(self._give_up, operation))
        else:
            self._think(client)

    def _choose(self, client: int) -> ServerId | None:
        """Where the client asks: where it asked last, or anywhere; a paused server takes nothing."""
        running = [i for i, server in sorted(self._world.servers.items()) if not server.paused]
        if self._world.plan.forwarded:
            running = [i for i in running if not self._world.servers[i].engine.state.led] or running
        home = self._homes.get(client)
        if home in running and self._rng.random() < STAYS:
            return home
        if not running:
            return None
        self._homes[client] = self._rng.choice(running)
        return self._homes[client]

    def write(self, server_id: ServerId, client: int = 0) -> Operation:
        """One write on one server."""
        world = self._world
        commands = self._workload.next_write(self._rng)
        operation = world.history.invoke(client, server_id, "write", commands, at=world.time)
        if world.keep:
            world.note(server_id, "propose", f"#{operation.number}")
        try:
            committed = bool(world.plan.committed) and self._rng_levels.random() < world.plan.committed
            world.servers[server_id].propose(operation, msgpack.packb(list(commands)), committed=committed)
        except Rejected as error:
            world.reject(operation, str(error))
        return operation

    def read(self, server_id: ServerId, client: int = 0, *, at_least: Position | None = None) -> Operation:
        """One read on one server; with a position, of what the client has seen, or later."""
        world = self._world
        queries = self._workload.next_read(self._rng)
        operation = world.history.invoke(client, server_id, "read", queries, at=world.time)
        operation.at_least = at_least
        if world.keep:
            world.note(server_id, "read", f"#{operation.number}")
        try:
            world.servers[server_id].read(operation)
        except Rejected as error:
            world.reject(operation, str(error))
        return operation
