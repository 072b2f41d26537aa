"""A small deterministic cluster of pure engines: virtual time, one event heap, one seed.

No Trio, no threads, no real clock. It carries out each `Ready` on `MemoryStorage` and delivers frames after a delay; a test cuts links, crashes
servers, sets clocks, and looks at what every server applied. After every turn the replicas' invariants are checked, and what the
servers merged must be prefixes of one another.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from typing import Any

import msgpack

from craft.engine import Engine
from craft.limits import EngineLimits
from craft.messages import Frame
from craft.raft import invariants
from craft.ready import Ready
from craft.storage import Identity
from craft.storage.memory import MemoryStorage
from craft.types import Entry, Instant

MS = 1_000_000
SECOND = 1000 * MS
EPOCH = 1_700_000_000 * SECOND


class Server:
    """One server: an engine, its disk, what it applied, and what its callers were answered."""

    def __init__(self, cluster: Cluster, server_id: int, storage: MemoryStorage) -> None:
        self.cluster, self.id, self.storage = cluster, server_id, storage
        self.incarnation = next(cluster.serial)
        self.applied: list[tuple[int, int, bytes]] = []  # (position, timestamp, command)
        self.answers: dict[Any, tuple[int, int]] = {}  # token -> (position, timestamp)
        self.served: list[Any] = []
        self.engine = Engine(
            server_id,
            cluster.ids,
            storage.recover(),
            limits=cluster.limits,
            rng=random.Random(cluster.rng.getrandbits(64)),
            now=self.now(),
        )

    def now(self) -> Instant:
        return Instant(self.cluster.time, self.cluster.clock_of(self.id))


class Cluster:
    """Servers, links and time."""

    def __init__(
        self,
        servers: int = 3,
        groups: int = 3,
        *,
        seed: int = 0,
        limits: EngineLimits | None = None,
        delay: tuple[int, int] = (200_000, 400_000),
        sync: tuple[int, int] = (200_000, 600_000),
        loss: float = 0.0,
    ) -> None:
        self.rng = random.Random(seed)
        self.ids = list(range(servers))
        self.groups, self.limits = groups, limits or EngineLimits()
        self.delay, self.sync, self.loss = delay, sync, loss
        self.time = SECOND
        self.serial = itertools.count(1)
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self.clocks: dict[int, Callable[[int], int]] = {}
        self.cuts: set[tuple[int, int]] = set()
        self.held: set[int] = set()  # servers whose syncs do not complete
        self.servers: dict[int, Server] = {}
        self.disks = {i: MemoryStorage(Identity("test", i, f"{i:032x}", groups)) for i in self.ids}
        self.merged: list[tuple[int, int, bytes]] = []  # the longest merged log seen
        self.frames_sent = 0
        self.writes = 0
        self.tokens = itertools.count(1)
        for i in self.ids:
            self.start(i)

    # -- servers ----------------------------------------------------------------------------------

    def start(self, i: int) -> Server:
        """Start a server on its disk, and link it with whoever runs."""
        self.servers[i] = Server(self, i, self.disks[i])
        for other in sorted(self.servers):
            if other != i:
                self.servers[i].engine.link_up(other, self.servers[i].now())
                self.servers[other].engine.link_up(i, self.servers[other].now())
        self._wake(i, 0)
        return self.servers[i]

    def crash(self, i: int, *, refused: bool = True) -> None:
        """SIGKILL: what was not synced may be lost; the others' reconnects are refused."""
        self.disks[i] = self.servers.pop(i).storage.crash()
        for other, server in sorted(self.servers.items()):
            server.engine.link_down(i, server.now(), refused=refused)
            self._wake(other, 0)

    def clock_of(self, i: int) -> int:
        return self.clocks.get(i, lambda time: EPOCH + time)(self.time)

    def cut(self, a: int, b: int) -> None:
        """Drop everything between two servers, silently, like a pulled cable."""
        self.cuts |= {(a, b), (b, a)}

    def heal(self) -> None:
        self.cuts.clear()

    # -- events -----------------------------------------------------------------------------------

    def at(self, delay: int, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.time + delay, next(self.serial), event))

    def _wake(self, i: int, delay: int) -> None:
        incarnation = self.servers[i].incarnation
        self.at(delay, lambda: self.turn(i, incarnation))

    def alive(self, i: int, incarnation: int) -> Server | None:
        server = self.servers.get(i)
        return server if server is not None and server.incarnation == incarnation else None

    def turn(self, i: int, incarnation: int) -> None:
        """One turn of one server."""
        server = self.alive(i, incarnation)
        if server is None:
            return
        server.engine.tick(server.now())
        self._carry_out(server, server.engine.ready(server.now()))
        for raft in server.engine.state.replicas:
            invariants.check(raft.state)
        self._wake_at_tick(server)

    def _wake_at_tick(self, server: Server) -> None:
        wake = server.engine.wake_at
        if wake != getattr(server, "tick_at", None):
            server.tick_at = wake  # type: ignore[attr-defined]
            self._wake(server.id, max(0, wake - self.time))

    def _carry_out(self, server: Server, ready: Ready) -> None:
        for peer, frame in ready.frames.items():
            self._send(server, peer, frame)
        if ready.write is not None:
            self.writes += 1
            server.storage.write(ready.write)
            self._sync(server, ready.write.number)
        for load in ready.loads:
            entries = server.storage.entries(
                load.group, first_index=load.first_index, last_index=load.last_index, bytes_max=load.bytes_max
            )
            self._loaded(server, load.number, entries)
        server.served += ready.reads
        if ready.apply:
            self._apply(server, ready)
            self._wake(server.id, 0)

    def _loaded(self, server: Server, number: int, entries: tuple[Entry, ...]) -> None:
        def arrive() -> None:
            if self.alive(server.id, server.incarnation):
                server.engine.loaded(number, entries, server.now())
                self.turn(server.id, server.incarnation)

        self.at(50_000, arrive)

    def _apply(self, server: Server, ready: Ready) -> None:
        for merged in ready.apply:
            for request in merged.requests:
                for command in msgpack.unpackb(request.body):
                    self._check_prefix(server, (merged.position, merged.timestamp, command))
                if request.token is not None:
                    server.answers[request.token] = (merged.position, merged.timestamp)
        server.engine.applied(ready.apply[-1].position, server.now())

    def _check_prefix(self, server: Server, item: tuple[int, int, bytes]) -> None:
        place = len(server.applied)
        server.applied.append(item)
        if place == len(self.merged):
            self.merged.append(item)
        assert self.merged[place] == item, f"server {server.id} merged {item}, another {self.merged[place]}"

    def _send(self, server: Server, peer: int, frame: Frame) -> None:
        self.frames_sent += 1
        if (server.id, peer) in self.cuts or self.rng.random() < self.loss:
            return
        self.at(self.rng.randint(*self.delay), lambda: self._deliver(server.id, peer, frame))

    def _deliver(self, sender: int, receiver: int, frame: Frame) -> None:
        server = self.servers.get(receiver)
        if server is not None and (sender, receiver) not in self.cuts:
            server.engine.receive(sender, frame, server.now())
            self.turn(receiver, server.incarnation)

    def _sync(self, server: Server, number: int) -> None:
        def done() -> None:
            if self.alive(server.id, server.incarnation) is None:
                return
            if server.id in self.held:
                self.at(MS, done)
                return
            server.storage.sync()
            server.engine.persisted(number, server.now())
            self.turn(server.id, server.incarnation)

        self.at(self.rng.randint(*self.sync), done)

    # -- what tests do ----------------------------------------------------------------------------

    def run(self, duration: int) -> None:
        """Let virtual time pass."""
        end = self.time + duration
        while self._events and self._events[0][0] <= end:
            self.time, _, event = heapq.heappop(self._events)
            event()
        self.time = end

    def run_until(self, condition: Callable[[], bool], limit: int = 30 * SECOND) -> None:
        """Let virtual time pass until a condition holds; fails if it does not within `limit`."""
        end = self.time + limit
        while not condition():
            assert self._events and self._events[0][0] <= end, (
                f"not reached within {limit / SECOND} s\n{self.describe()}"
            )
            self.time, _, event = heapq.heappop(self._events)
            event()

    def propose(self, i: int, *commands: bytes) -> int:
        """Propose on a server; returns a token that appears in its `answers`."""
        token = next(self.tokens)
        server = self.servers[i]
        server.engine.propose(token, msgpack.packb(list(commands)))
        self._wake(i, 0)
        return token

    def read(self, i: int) -> int:
        token = next(self.tokens)
        self.servers[i].engine.read(token)
        self._wake(i, 0)
        return token

    def settle(self) -> None:
        """Run until every group has a leader and every server's session is open."""
        self.run_until(
            lambda: (
                all(server.engine.session_open for server in self.servers.values())
                and all(self.leader(group) is not None for group in range(self.groups))
            )
        )

    def answered(self, i: int, token: int) -> bool:
        return token in self.servers[i].answers

    def leader(self, group: int) -> int | None:
        """The leader of the highest term, among those who run."""
        led = [
            (server.engine.state.raft(group).term, i)
            for i, server in self.servers.items()
            if server.engine.state.raft(group).leads
        ]
        return max(led)[1] if led else None

    def leaders(self) -> list[int | None]:
        return [self.leader(group) for group in range(self.groups)]

    def commands(self, i: int) -> list[bytes]:
        return [command for _, _, command in self.servers[i].applied]

    def describe(self) -> str:
        lines = []
        for i, server in sorted(self.servers.items()):
            status = server.engine.status(server.now())
            lines.append(
                f"server {i}: {status['session']}, demand {status['demand']}, unanswered {status['pending_requests']}"
            )
            lines += [f"  {group}" for group in status["groups"]]
        return "\n".join(lines)
