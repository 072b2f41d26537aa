"""A deterministic world of real engines: virtual time, one event heap, one plan that decides everything.

Knows: servers, their disks, clocks and links, and what happens when. Must not know: Trio, threads, real time;
what is right (the checkers), what bad luck is (the faults), what clients want (the clients).

Invariants
- Events run in the order of (time, order of making). Nothing else decides the order of anything.
- Randomness comes from named streams of the plan's seed: what a fault chooses does not depend on how many
  frames were sent before it.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from craft.applying import unpack
from craft.errors import ApplyFailed, DamagedStorage, FatalError, NotReady, RestoreFailed, StorageFailed
from craft.ready import Merged, Verdict
from craft.recovery import TAIL_BYTES_MAX
from craft.testing.capturing import find
from craft.testing.checkers.base import Checker, Hooks, Violation, machine_raised
from craft.testing.clocks import SimulatedClock
from craft.testing.disk import Crash, SimulatedDisk
from craft.testing.history import ClientRequest, History, Operation
from craft.testing.mail import Mail
from craft.testing.members import Operator
from craft.testing.moments import Moments
from craft.testing.network import SILENCE_NS, Network
from craft.testing.plan import MS, SECOND, Plan
from craft.testing.server import SimServer
from craft.testing.session_links import Attempt, carried
from craft.testing.trace import WORLD, Trace
from craft.types import Position, ServerId, Timestamp, Write

TURNS_AT_ONCE_MAX = 200
"""More turns than this at one instant of virtual time: the engine is running in circles."""

LEAST_NS = 1000
"""What takes time takes at least this."""

Event = Callable[[], None]


class Effect(NamedTuple):
    """Of a remote client's request."""

    position: Position
    results: Sequence[Any] | None
    carried: Any  # what they were then, as they travel


class World:
    """Servers, disks, clocks, links and time."""

    def __init__(
        self,
        plan: Plan,
        machine: Callable[[], Any],
        *,
        checkers: Sequence[Checker] = (),
        trace: Trace | None = None,
    ) -> None:
        self.plan = plan
        self.machine = machine
        self.checkers = checkers
        self.hooks = Hooks(checkers)
        self.trace = trace or Trace()
        self.keep = self.trace.keep
        self.time = 0
        self.history = History()
        self.effects: dict[ClientRequest, Effect] = {}
        """Of remote clients' requests, by the word of the first server that applied them."""
        self.faults_begun: Counter[str] = Counter()
        self.moments = Moments()
        self.settled: Callable[[Operation], None] = lambda _operation: None
        self.rng_engines = random.Random(f"{plan.seed} engines")
        self.rng_delays = random.Random(f"{plan.seed} delays")
        self.ids = list(range(1, plan.servers + 1))
        self.network = Network(delay=plan.delay, loss=plan.loss, repeat=plan.repeat, reorder=plan.reorder)
        self.clocks = {i: SimulatedClock() for i in self.ids}
        self.disks = {i: self.new_disk(i) for i in self.ids}
        self.sync_spans: dict[ServerId, tuple[int, int]] = {}  # servers whose disk has a speed of its own
        self.servers: dict[ServerId, SimServer] = {}
        self.down: dict[ServerId, int] = {}  # held down by this many faults
        self.refused: dict[ServerId, str] = {}  # servers that refused to start, and why
        self.wiped: set[ServerId] = set()
        self.calm = False  # the fault phase is over
        self.turns = 0  # of all servers
        self.lost: set[ServerId] = set()  # servers whose disks are gone for good
        self._serial = 0
        self._heap: list[tuple[int, int, Event]] = []
        self.mail = Mail(self)
        self.operator = Operator(self)
        for i, offset in zip(self.ids, plan.clock_offsets, strict=False):
            self.clocks[i].jump(0, offset)
        for clock in self.clocks.values():
            clock.step_ns = plan.clock_step

    def prepare(self, i: ServerId) -> None:
        """A machine that was not there before, or was given back: an empty disk, and a clock."""
        self.ids = sorted({*self.ids, i})
        self.disks[i] = self.new_disk(i)
        if i not in self.clocks:
            self.clocks[i] = SimulatedClock()
            self.clocks[i].step_ns = self.plan.clock_step

    def new_disk(self, i: ServerId) -> SimulatedDisk:
        """An empty disk with an id of its own."""
        tail = self.plan.tail_bytes_max
        disk_id = f"{i:08x}{self.rng_engines.getrandbits(96):024x}"
        return SimulatedDisk(
            disk_id, self.plan.groups, tail_bytes_max=TAIL_BYTES_MAX if tail is None else tail
        )

    # -- time -------------------------------------------------------------------------------------

    def next_serial(self) -> int:
        """A number that was never used before in this run."""
        self._serial += 1
        return self._serial

    def at(self, when: int, event: Event) -> None:
        """Let something happen at a virtual time."""
        self._serial += 1
        heapq.heappush(self._heap, (when, self._serial, event))

    def run(self, until: int) -> None:
        """Let virtual time pass."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.time, _, event = heapq.heappop(heap)
            event()
        self.time = until

    def run_while(self, condition: Callable[[], bool], *, until: int, step: int = 5 * MS) -> bool:
        """Let virtual time pass in steps while a condition holds; did it cease before `until`?"""
        while condition():
            if self.time >= until:
                return False
            self.run(min(until, self.time + step))
        return True

    def later(self, server: SimServer, delay: int, event: Event) -> None:
        """Something arrives at a server after a while, if it is still the same incarnation."""
        self.at(self.time + delay, partial(self._arrive, server, event))

    def _arrive(self, server: SimServer, event: Event) -> None:
        if server.alive:
            server.input(event)

    def draw(self, span: tuple[int, int]) -> int:
        """A duration between two."""
        low, high = span
        return low + int(self.rng_delays.random() * (high - low)) if high else 0

    def turn_delay(self) -> int:
        """How long a wake-up takes."""
        return self.draw(self.plan.turn)

    def apply_delay(self) -> int:
        """How long the state machine takes: never no time at all, or a backlog would be applied in none."""
        return self.draw(self.plan.apply) or LEAST_NS

    # -- turns ------------------------------------------------------------------------------------

    def schedule_turn(self, server: SimServer, when: int) -> None:
        """At the latest then."""
        if server.turn_at is None or when < server.turn_at:
            server.turn_at = when
            self.at(when, partial(self._turn, server, when))

    def _turn(self, server: SimServer, when: int) -> None:
        if server.turn_at != when or server.paused or self.servers.get(server.id) is not server:
            return
        server.turn_at = None
        self.turns += 1
        instant, turns = server.turns_now
        server.turns_now = (self.time, turns + 1 if instant == self.time else 1)
        if turns > TURNS_AT_ONCE_MAX and instant == self.time:
            raise Violation("a server at rest takes no turns", f"server {server.id} runs in circles")
        try:
            server.turn()
        except FatalError as error:
            self._ended(server, error)
            return
        except AssertionError as error:
            raise Violation("the product's own assertions hold", f"server {server.id}: {error!r}") from error
        state = server.engine.state
        self.trace.fold(self.time, server.id, state.merged_position, state.next_write, state.demand)
        if state.leaders != server.leaders_seen:
            self._leaders_changed(server)
        if self.keep:
            self._note_progress(server)
        for hook in self.hooks.turned:
            hook(server)
        self.moments.turned(self, server)
        wake_at = state.wake_at - server.monotonic_offset
        self.schedule_turn(server, max(self.time, wake_at))

    def _leaders_changed(self, server: SimServer) -> None:
        """A server leads a group, follows another leader, or knows of a new term."""
        leaders = server.engine.state.leaders
        for group, (seen, now) in enumerate(zip(server.leaders_seen, leaders, strict=True)):
            if seen == now:
                continue
            term, leader = now
            led_before = seen[1] == server.id
            if leader == server.id:
                self.note(server.id, "lead", f"term {term}", group=group)
                if not led_before or seen[0] != term:
                    self.moments.reached(self, "elect", server.id)
            else:
                self.note(server.id, "follow", f"term {term}", group=group, peer=leader)
        server.leaders_seen = leaders[:]

    def _note_progress(self, server: SimServer) -> None:
        """Where each group's log ends here, and how far it is committed."""
        for group, raft in enumerate(server.engine.state.replicas):
            r = raft.state
            ends = (r.log.last_index, r.log.last_term, r.commit_index)
            before, server.ends_seen[group] = server.ends_seen[group], ends
            if ends[:2] != before[:2]:
                stamp = r.log.last_timestamp
                self.note(
                    server.id, "append", f"index {ends[0]} term {ends[1]} timestamp {stamp}", group=group
                )
            if ends[2] != before[2]:
                self.note(server.id, "commit", f"index {ends[2]}", group=group)

    def _ended(self, server: SimServer, error: FatalError) -> None:
        """A server ended itself. That is right where its disk failed or the user's code raised."""
        self.note(server.id, "end", f"{type(error).__name__}: {error}")
        if isinstance(error, ApplyFailed | RestoreFailed):
            raise machine_raised(error) from error
        sound = not (server.disk.spoilt and isinstance(error, DamagedStorage))
        if sound and not isinstance(error, StorageFailed):
            raise Violation("a server ends itself only where its disk failed", f"{error!r}") from error
        self.crash(server.id, Crash.KILL if self.rng_delays.random() < 0.5 else Crash.POWER)
        self.start_later(server.id, 500 * MS)

    # -- servers ----------------------------------------------------------------------------------

    def start(self, i: ServerId) -> None:
        """Start a server on its disk, unless it runs, is held down, or refuses its disk."""
        if i in self.servers or self.down.get(i) or i in self.refused or i not in self.ids:
            return
        disk = self.disks[i]
        try:
            applier, stored, behind = find(self.plan, disk, self.machine)
            recovered = disk.recover(behind)
        except DamagedStorage as error:
            self._refused(i, error)
            return
        except StorageFailed:
            self.start_later(i, 500 * MS)
            return
        except AssertionError as error:
            raise Violation("the product's own assertions hold", f"recovery of {i}: {error!r}") from error
        if disk.spoilt and not (disk.flipped and disk.unread):
            raise Violation("a spoilt disk is refused", f"server {i} started although {disk.spoilt}")
        suspect = ", suspect" if disk.vouched else ""
        self.note(i, "start", f"counter {recovered.counter}{suspect}")
        server = self.servers[i] = SimServer(self, i, disk, recovered, applier=applier, stored=stored)
        for hook in self.hooks.started:
            hook(server)
        for other in sorted(self.servers):
            if other != i:
                self.connect_later(i, other, self.draw((1 * MS, 5 * MS)))
                self.connect_later(other, i, self.draw((1 * MS, 20 * MS)))
        self.schedule_turn(server, self.time)
        self.moments.reached(self, "start", i)

    def _refused(self, i: ServerId, error: FatalError) -> None:
        """It is the operator's turn. Refusing a disk from which nothing is missing would be a fault too."""
        disk = self.disks[i]
        self.note(i, "refuse", str(error))
        if not disk.spoilt:
            raise Violation("a sound disk is accepted", f"server {i}: {error}") from error
        self.refused[i] = str(error)

    def start_later(self, i: ServerId, delay: int) -> None:
        """As a supervisor would."""
        self.at(self.time + delay, partial(self.start, i))

    def crash(self, i: ServerId, how: Crash, *, torn: bool = False, refused: bool = True) -> None:
        """A server loses its memory. `refused`: and its peers hear that nobody listens there."""
        server = self.servers.pop(i, None)
        if server is None:
            return
        words = server.disk.crash(how, self.rng_delays, torn=torn)
        self.note(i, "crash", f"{how.value}: {words}")
        self.trace.fold(self.time, i, how is Crash.KILL)
        for operation in server.operations.values():
            self.unknown(operation)
        for attempt in list(server.attempts.values()):
            attempt.end(server, None)
        for hook in self.hooks.crashed:
            hook(server)
        for other in self.ids:
            self.disconnect((i, other), refused=False)
            self.disconnect((other, i), refused=refused)

    def stop(self, server: SimServer) -> None:
        """A server that was asked to stop ends: its clients are told what became of their requests."""
        if not server.alive:
            return
        rejected, _ = server.engine.abandon()
        for token in rejected:
            if isinstance(token, Attempt):
                token.end(server, NotReady("the server ended before it was proposed"))
            elif isinstance(token, Operation):  # else it is the operator's, who asks again
                self.reject(token, "the server ended before it was proposed")
        self.crash(server.id, Crash.KILL)

    def pause(self, i: ServerId) -> None:
        """SIGSTOP: nothing is handled, everything is buffered, connections stay."""
        if i in self.servers:
            self.servers[i].paused = True
            self.note(i, "pause")

    def resume(self, i: ServerId) -> None:
        """SIGCONT."""
        server = self.servers.get(i)
        if server is not None and server.paused:
            server.paused, server.turn_at = False, None
            self.note(i, "resume")
            self.schedule_turn(server, self.time)

    # -- disks ------------------------------------------------------------------------------------

    def wrote(self, server: SimServer, write: Write) -> None:
        """A batch is in the page cache."""
        if self.keep:
            logs = ", ".join(
                f"g{append.group} {append.truncate_from or ''}+{len(append.entries)}"
                for append in write.appends
            )
            self.note(server.id, "write", f"{write.number} {logs}".rstrip())
        for hook in self.hooks.wrote:
            hook(server, write)
        self.moments.wrote(self, server, write)

    def sync_later(self, server: SimServer, number: int) -> None:
        """The sync of a write ends after a while; not while the disk hangs."""
        self.at(
            self.time + self.draw(self.sync_spans.get(server.id, self.plan.sync)),
            partial(self._sync, server, number),
        )

    def _sync(self, server: SimServer, number: int) -> None:
        if not server.alive:
            return
        if server.disk.hung:
            self.at(self.time + 20 * MS, partial(self._sync, server, number))
            return
        try:
            server.disk.sync()
        except StorageFailed as error:
            self._ended(server, error)
            return
        if self.keep:
            self.note(server.id, "synced", str(number))
        server.input(partial(server.synced, number))
        self.moments.reached(self, "sync", server.id)

    # -- links ------------------------------------------------------------------------------------

    def connect_later(self, a: ServerId, b: ServerId, delay: int) -> None:
        """`a` tries to connect to `b` after a while."""
        self.at(self.time + delay, partial(self._connect, a, b))

    def _connect(self, a: ServerId, b: ServerId) -> None:
        way = (a, b)
        ours, theirs = self.servers.get(a), self.servers.get(b)
        cut = self.network.cuts[way] or self.network.cuts[b, a]
        if ours is None or theirs is None or cut or way in self.network.links:
            return  # whoever starts or mends tries again
        if self.operator.active:
            if not (self.operator.knows(ours, theirs) and self.operator.knows(theirs, ours)):
                self.later(ours, 100 * MS, partial(self._connect, a, b))  # as a server does that is refused
                return
            ours.input(lambda: ours.engine.met(b, theirs.disk.disk_id, ours.now()))
            theirs.input(lambda: theirs.engine.met(a, ours.disk.disk_id, theirs.now()))
        elif not (self._known(ours, theirs) and self._known(theirs, ours)):
            return
        self.network.connect(way)
        self.note(a, "link", peer=b)
        ours.input(lambda: ours.engine.link_up(b, ours.now()))

    def _known(self, ours: SimServer, theirs: SimServer) -> bool:
        """PROTOCOL 8: the first disk met under an id is remembered, and no other is let in under it."""
        known = ours.disk.peer_disks.setdefault(theirs.id, theirs.disk.disk_id)
        return known == theirs.disk.disk_id

    def disconnect(self, way: tuple[ServerId, ServerId], *, refused: bool) -> None:
        """A connection breaks."""
        if self.network.disconnect(way):
            a, b = way
            self.note(a, "unlink", "refused" if refused else "", peer=b)
            server = self.servers.get(a)
            if server is not None:
                server.input(lambda: server.engine.link_down(b, server.now(), refused=refused))

    def cut(self, a: ServerId, b: ServerId) -> None:
        """Nothing passes from `a` to `b` any more."""
        self.network.cut((a, b))
        self.at(self.time + SILENCE_NS, partial(self._notice_silence, a, b, self.network.links.get((a, b))))

    def _notice_silence(self, a: ServerId, b: ServerId, link: int | None) -> None:
        if link is not None and self.network.cuts[a, b] and self.network.links.get((a, b)) == link:
            self.disconnect((a, b), refused=False)

    def mend(self, a: ServerId, b: ServerId) -> None:
        """A fault that cut this way is over."""
        self.network.mend((a, b))
        for way in ((a, b), (b, a)):
            if way not in self.network.links:
                self.connect_later(*way, self.draw((20 * MS, 1 * SECOND)))

    # -- what servers tell ------------------------------------------------------------------------

    def applied(self, server: SimServer, entries: list[Merged], results: list[Sequence[Any] | None]) -> None:
        """A state machine has applied entries."""
        if self.keep:
            for merged in entries:
                rest = f"position {merged.position} timestamp {merged.timestamp} index {merged.index}"
                self.note(server.id, "merge", rest, group=merged.group)
            self.note(server.id, "apply", f"position {server.applied_position}")
        for merged, result in zip(entries, results, strict=True):
            if merged.clients:
                self._note_effects(merged, result)
        for hook in self.hooks.applied:
            hook(server, entries, results)

    def _note_effects(self, merged: Merged, results: Sequence[Any] | None) -> None:
        for judged in merged.clients:
            name = ClientRequest(judged.session, judged.opened, judged.request)
            if judged.verdict is Verdict.EXECUTED and name not in self.effects:
                start = sum(len(unpack(request.body)) for request in merged.requests[: judged.part])
                size = len(unpack(merged.requests[judged.part].body))
                part = None if results is None else list(results[start : start + size])
                self.effects[name] = Effect(merged.position, part, carried(part))

    def answered(
        self,
        server: SimServer,
        operation: Operation,
        results: Sequence[Any] | None,
        position: Position | None,
    ) -> None:
        """A client gets its answer."""
        server.operations.pop(operation.number, None)
        self.history.ok(operation, results, position, at=self.time)
        kind = "answer" if operation.kind == "write" else "served"
        if self.keep:
            self.note(server.id, kind, f"#{operation.number} position {position}")
        for hook in self.hooks.answered:
            hook(server, operation)
        self.settled(operation)
        self.moments.reached(self, kind, server.id)

    def committed(self, server: SimServer, operation: Operation, timestamp: Timestamp) -> None:
        """A client is told that its write is committed, and no more."""
        server.operations.pop(operation.number, None)
        ordered = self.plan.clock_error is not None
        self.history.committed(operation, timestamp, ordered=ordered, at=self.time)
        self.note(server.id, "answer", f"#{operation.number} committed at timestamp {timestamp}")
        self.trace.fold(self.time, operation.number, timestamp)
        self.settled(operation)
        self.moments.reached(self, "answer", server.id)

    def reject(self, operation: Operation, why: str) -> None:
        """A client is told that its operation has no effect and never will."""
        self.history.reject(operation, at=self.time)
        self.note(operation.server, "reject", f"#{operation.number} {why}")
        server = self.servers.get(operation.server)
        if server is not None and operation.kind == "write":
            server.operations.pop(operation.number, None)
            for hook in self.hooks.rejected:
                hook(server, operation)
        self.settled(operation)

    def unknown(self, operation: Operation) -> None:
        """A client does not learn what became of its operation."""
        self.history.unknown(operation, at=self.time)
        self.note(operation.server, "unknown", f"#{operation.number}")
        self.settled(operation)

    def note(self, server: ServerId, kind: str, rest: str = "", **where: int | None) -> None:
        """Write an event down."""
        self.trace.add(self.time, server, kind, rest, **where)

    def say(self, kind: str, rest: str) -> None:
        """Write down what happens to no server in particular."""
        self.note(WORLD, kind, rest)
