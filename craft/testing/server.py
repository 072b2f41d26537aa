"""One simulated server: a real engine, a simulated disk, the user's state machine.

A thin shell, as `craft.server` is another: it takes what has arrived, takes one turn, carries out one
`Ready`.

Invariants
- The engine is called in turns only, as the real shell does it; what arrives between two waits.
- Nothing here decides anything about the protocol.
"""

from __future__ import annotations

import random
import typing
from collections.abc import Callable, Sequence
from typing import Any

from craft.engine import Engine
from craft.messages import Frame
from craft.ready import Load, Merged, Ready
from craft.testing.capturing import Capturing, captures
from craft.testing.disk import CLUSTER_ID, SimulatedDisk
from craft.testing.history import Operation
from craft.testing.members import Asked
from craft.testing.session_links import Attempt
from craft.testing.watched import Watched
from craft.types import Instant, Recovered, ServerId, StoredSnapshots, Write

if typing.TYPE_CHECKING:
    from craft.testing.world import World

Input = Callable[[], None]

LOAD_NS = 50_000
"""Reading older entries back."""


class SimServer:
    """One incarnation of a server. A restart makes another on the same disk."""

    def __init__(
        self,
        world: World,
        server_id: ServerId,
        disk: SimulatedDisk,
        recovered: Recovered,
        *,
        applier: Watched,
        stored: StoredSnapshots,
    ) -> None:
        self.world, self.id, self.disk = world, server_id, disk
        self.machine: Any = applier.machine
        self.incarnation = world.next_serial()
        # Monotonic clocks of different servers and boots have nothing in common.
        self.monotonic_offset = world.rng_engines.randrange(10**15)
        self.applier = applier
        self.inbox: list[Input] = []
        self.turn_at: int | None = None  # when the next turn is due
        self.turns_now = (0, 0)  # (instant, turns at it)
        self.syncing: int | None = None  # the engine's number of the write that is being synced
        self.operations: dict[int, Operation] = {}  # what its clients wait for
        self.attempts: dict[int, Attempt] = {}  # of remote clients
        self.applied_position = 0 if stored.newest is None else stored.newest[0].head.position
        self.paused = False
        self.leaders_seen: list[Any] = [(0, None)] * world.plan.groups
        self.ends_seen = [(0, 0, 0)] * world.plan.groups
        self.engine = Engine(
            server_id,
            world.operator.founders,
            recovered,
            limits=world.plan.limits,
            rng=random.Random(world.rng_engines.getrandbits(64)),
            now=self.now(),
            clock_error_ns=world.plan.clock_error,
            cluster_id=CLUSTER_ID,
            captures=captures(world.plan, self.machine),
            stored=stored,
            **world.operator.options(server_id, disk.disk_id),
        )

        self.capturing = Capturing(self) if captures(world.plan, self.machine) else None
        if self.engine.state.snapshots.unfounded:
            self.applied_position = 0

    def now(self) -> Instant:
        """This instant, as this server sees it."""
        world = self.world
        return Instant(world.time + self.monotonic_offset, world.clocks[self.id].now(world.time))

    @property
    def alive(self) -> bool:
        """Is this incarnation still running?"""
        return self.world.servers.get(self.id) is self

    def input(self, event: Input) -> None:
        """Something has arrived: the next turn takes it."""
        self.inbox.append(event)
        self.world.schedule_turn(self, self.world.time + self.world.turn_delay())

    # -- the turn ---------------------------------------------------------------------------------

    def turn(self) -> None:
        """Take everything that has arrived, let time pass, carry out one Ready."""
        inbox, self.inbox = self.inbox, []
        for event in inbox:
            event()
        now = self.now()
        low = "no room for new commands" if self.disk.nearly_full else ""
        self.engine.state.disk_low = low
        if now.monotonic_ns >= self.engine.wake_at:
            self.engine.tick(now)
        self._carry_out(self.engine.ready(now))

    def _carry_out(self, ready: Ready) -> None:
        world = self.world
        if ready.peers is not None:
            world.operator.peers_changed(self)
        for peer, frame in ready.frames.items():
            world.mail.send(self, peer, frame)
        if ready.write is not None:
            self._write(ready.write)
        for load in ready.loads:
            self._load(load)
        for operation, timestamp in ready.committed:
            world.committed(self, operation, timestamp)
        if self.capturing is not None:
            self.capturing.carry_out(ready)
        for operation in ready.reads:
            self._serve(operation)
        if ready.apply:
            entries = ready.apply
            world.later(self, world.apply_delay(), lambda: self._apply(entries))

    def _write(self, write: Write) -> None:
        self.disk.write(write)
        self.syncing = write.number
        self.world.wrote(self, write)
        self.world.sync_later(self, write.number)

    def synced(self, number: int) -> None:
        """The sync of this write has ended."""
        self.syncing = None
        self.engine.persisted(number, self.now())

    def _load(self, load: Load) -> None:
        entries = self.disk.entries(
            load.group, first_index=load.first_index, last_index=load.last_index, bytes_max=load.bytes_max
        )
        self.world.later(self, LOAD_NS, lambda: self.engine.loaded(load.number, entries, self.now()))

    def _apply(self, entries: list[Merged]) -> None:
        self.applier.seen = []
        answers = self.applier.run(entries)
        self.applied_position = entries[-1].position
        self.engine.applied(self.applied_position, self.now())
        self.world.applied(self, entries, self._by_entry(entries))
        positions = {
            request.token.number: merged.position
            for merged in entries
            for request in merged.requests
            if request.token is not None
        }
        for token, results in answers:
            if isinstance(token, Attempt):
                token.end(self, results)
            elif isinstance(token, Asked):
                self.world.operator.told(token, results.version, results.error)
            else:
                self.world.answered(self, token, results, positions[token.number])

    def _by_entry(self, entries: list[Merged]) -> list[Sequence[Any] | None]:
        """The results of each entry; none of those that were not applied, or not in this life."""
        results, ahead = iter(self.applier.seen), self.applier.ahead.position
        return [next(results) if merged.requests and merged.position > ahead else None for merged in entries]

    def settled(self, token: Any) -> None:
        """A request took effect within a snapshot: nobody here knows what it came to."""
        if isinstance(token, Attempt):
            token.end(self, None)
        elif isinstance(token, Operation) and token.number in self.operations:
            del self.operations[token.number]
            self.world.unknown(token)

    def _serve(self, operation: Operation) -> None:
        query = getattr(self.machine, "query", None)
        results = [query(request) if query else None for request in operation.requests]
        self.world.answered(self, operation, results, self.applied_position)

    # -- clients ----------------------------------------------------------------------------------

    def propose(self, operation: Operation, body: bytes, *, committed: bool = False) -> None:
        """A client's write; raises Rejected."""
        operation.session = self.incarnation
        self.engine.propose(operation, body, committed=committed)
        self.operations[operation.number] = operation
        self.world.schedule_turn(self, self.world.time + self.world.turn_delay())

    def read(self, operation: Operation) -> None:
        """A client's read; raises Overloaded."""
        self.engine.read(operation, operation.at_least)
        self.operations[operation.number] = operation
        self.world.schedule_turn(self, self.world.time + self.world.turn_delay())

    def receive(self, sender: ServerId, frame: Frame) -> None:
        """A frame has arrived and is taken in a turn."""
        self.engine.receive(sender, frame, self.now())
