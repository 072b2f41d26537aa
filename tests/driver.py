"""A deterministic cluster of pure engines: virtual time, one event heap, one seed, every fault on demand.

No Trio, no threads, no real clock. As the shell does, a server drains all that arrived, takes one turn, and
carries out one `Ready`: on `MemoryStorage`, on links that delay, lose, repeat and reorder, and on a state
machine that may be slow. A test cuts links, crashes, pauses and stops servers, sets clocks, and looks at what
every server applied.

What is checked at all times
- The replicas' own invariants; one leader a group and term; no two servers disagree about a committed entry.
- What the servers merged are prefixes of one another, and no command takes effect twice.
- Real time: a write proposed after another was answered is merged later; a read sees every write that was
  answered, and all that an earlier read saw, before it began.
- What was rejected never takes effect.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import msgpack

from craft.engine import Engine
from craft.errors import FatalError, WireError
from craft.limits import EngineLimits
from craft.messages import Frame, Message
from craft.raft import RaftState, invariants
from craft.ready import Merged, Ready, Receive, ReceiveAppend, ReceiveBegin, SnapshotRead
from craft.storage import Identity
from craft.storage.memory import MemoryStorage
from craft.types import Entry, Instant, SnapshotInfo, SnapshotKind, SnapshotPart, StoredSnapshots
from craft.wire.frames import decode_frame, encode_frames
from craft.wire.framing import PREFIX_BYTES

MS = 1_000_000
SECOND = 1000 * MS
EPOCH = 1_700_000_000 * SECOND
TURNS_AT_ONCE_MAX = 200
"""More turns than this at one instant of virtual time: the engine is running in circles."""


class Server:
    """One server: an engine, its disk, what it applied, and what its callers were answered."""

    def __init__(self, cluster: Cluster, server_id: int, storage: MemoryStorage) -> None:
        self.cluster, self.id, self.storage = cluster, server_id, storage
        self.incarnation = next(cluster.serial)
        self.applied: list[tuple[int, int, bytes]] = []  # (position, timestamp, command)
        self.answers: dict[Any, tuple[int, int]] = {}  # token -> (position, timestamp)
        self.committed: dict[Any, int] = {}  # token -> timestamp
        self.served: list[Any] = []
        self.inbox: list[Callable[[], None]] = []
        self.next_turn: int | None = None
        self.turns_now = (0, 0)  # (instant, turns at it)
        self.checked_commits = [0] * cluster.groups
        self.checked: list[tuple[Any, ...]] = [()] * cluster.groups
        self.snapshots = storage.snapshots
        self.settled: list[Any] = []
        kept = self.snapshots.kept()
        newest = kept[-1] if kept else None
        self.engine = Engine(
            server_id,
            cluster.ids,
            storage.recover(),
            limits=cluster.limits,
            rng=random.Random(cluster.rng.getrandbits(64)),
            now=self.now(),
            cluster_id="test",
            captures=True,
            stored=StoredSnapshots(
                kept, None if newest is None else (newest, self.restore(newest)), self.snapshots.partial()
            ),
        )

    def restore(self, info: SnapshotInfo) -> tuple[SnapshotPart, ...]:
        """Take a snapshot's state; returns the engine's parts."""
        parts = tuple(self.snapshots.parts(info.id))
        [machine] = [part.data for part in parts if part.kind is SnapshotKind.MACHINE]
        self.applied = [tuple(item) for item in msgpack.unpackb(machine)]
        return tuple(part for part in parts if part.kind is SnapshotKind.ENGINE)

    def now(self) -> Instant:
        return Instant(self.cluster.time, self.cluster.clock_of(self.id))

    @property
    def position(self) -> int:
        """How far its state machine is."""
        return self.engine.state.applied_position


def _link_up(peer: int, server: Server) -> None:
    server.engine.link_up(peer, server.now())


def _link_down(peer: int, refused: bool, server: Server) -> None:
    server.engine.link_down(peer, server.now(), refused=refused)


def _loaded(number: int, entries: tuple[Entry, ...], server: Server) -> None:
    server.engine.loaded(number, entries, server.now())


def _snapshot_read(piece: SnapshotRead, data: bytes | None, server: Server) -> None:
    server.engine.snapshots.read(piece, data, server.now())


def _receive(step: Receive, server: Server) -> None:
    store, engine, now = server.snapshots, server.engine, server.now()
    if isinstance(step, ReceiveBegin):
        engine.snapshots.begun(step.snapshot, store.begin(step.snapshot, step.size), now)
    elif isinstance(step, ReceiveAppend):
        store.append(step.snapshot, offset=step.offset, data=step.data)
        engine.snapshots.appended(step.snapshot, step.offset + len(step.data), now)
    else:
        info = store.finish(step.snapshot)
        parts = tuple(part for part in store.parts(info.id) if part.kind is SnapshotKind.ENGINE)
        engine.snapshots.received(info, parts, now)


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
        apply: tuple[int, int] = (0, 0),
        turn: tuple[int, int] = (0, 0),
        loss: float = 0.0,
        repeat: float = 0.0,
        reorder: float = 0.0,
        wire: bool = False,
        tail_bytes_max: int | None = None,
        start: bool = True,
    ) -> None:
        self.rng = random.Random(seed)
        self.ids = list(range(servers))
        self.groups, self.limits = groups, limits or EngineLimits()
        self.delay, self.sync, self.apply, self.turn_delay = delay, sync, apply, turn
        self.loss, self.repeat, self.reorder, self.wire = loss, repeat, reorder, wire
        self.time = SECOND
        self.serial = itertools.count(1)
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self.clocks: dict[int, Callable[[int], int]] = {}
        self.syncs: dict[int, tuple[int, int]] = {}  # servers with a disk of their own speed
        self.cuts: set[tuple[int, int]] = set()  # (from, to): dropped without a word
        self.links: dict[tuple[int, int], int] = {}  # (from, to) -> which connection; absent: none
        self.held: set[int] = set()  # servers whose syncs do not complete
        self.paused: set[int] = set()
        self.servers: dict[int, Server] = {}
        tail = {} if tail_bytes_max is None else {"tail_bytes_max": tail_bytes_max}
        self.disks = {i: MemoryStorage(Identity("test", i, f"{i:032x}", groups), **tail) for i in self.ids}
        self.ended: dict[int, FatalError] = {}  # servers that ended themselves, and why
        self.wire_errors: list[WireError] = []
        self.intercept: Callable[[int, int, Frame], Frame | None] = lambda _sender, _receiver, frame: frame
        """What becomes of a frame as it leaves: itself, another, or None (lost)."""
        self.frames_sent = 0
        self.writes = 0
        self.loads = 0
        self.tokens = itertools.count(1)
        self.history = History()
        if start:
            for i in self.ids:
                self.start(i)

    # -- servers ----------------------------------------------------------------------------------

    def start(self, i: int) -> Server:
        """Start a server on its disk, and link it with whoever runs."""
        assert i not in self.servers
        self.ended.pop(i, None)
        self.servers[i] = Server(self, i, self.disks[i])
        for other in sorted(self.servers):
            if other != i:
                self.link(i, other)
        self._schedule(self.servers[i], self.time)
        return self.servers[i]

    def crash(self, i: int, *, refused: bool = True, keep: int = 0) -> None:
        """SIGKILL, or power off: of what was not synced, the first `keep` batches are found."""
        storage = self.servers.pop(i).storage
        self.disks[i] = storage.crash(keep=min(keep, storage.unsynced))
        self.paused.discard(i)
        for other in sorted(self.servers):
            self.unlink(i, other, refused=refused)

    def stop(self, i: int) -> tuple[list[Any], list[Any]]:
        """A server ends in good order: its callers hear which requests were rejected, and which unknown."""
        rejected, unknown = self.servers[i].engine.abandon()
        self.history.reject(rejected)
        self.crash(i, keep=1)
        return rejected, unknown

    def restart(self, i: int, *, keep: int = 0) -> Server:
        self.crash(i, keep=keep)
        return self.start(i)

    def pause(self, i: int) -> None:
        """SIGSTOP: nothing is handled, everything is buffered, connections stay."""
        self.paused.add(i)

    def resume(self, i: int) -> None:
        self.paused.discard(i)
        if i in self.servers:
            self.servers[i].next_turn = None
            self._schedule(self.servers[i], self.time)

    def clock_of(self, i: int) -> int:
        clock = self.clocks.get(i)
        return EPOCH + self.time if clock is None else clock(self.time)

    # -- links ------------------------------------------------------------------------------------

    def cut(self, a: int, b: int) -> None:
        """Drop everything between two servers, silently, like a pulled cable."""
        self.cuts |= {(a, b), (b, a)}

    def cut_one_way(self, sender: int, receiver: int) -> None:
        """Drop everything that one server sends to another."""
        self.cuts.add((sender, receiver))

    def heal(self) -> None:
        self.cuts.clear()

    def link(self, a: int, b: int) -> None:
        """Both servers are told that their connection to the other is made."""
        for one, other in ((a, b), (b, a)):
            self.links[one, other] = next(self.serial)
            self._input(self.servers[one], partial(_link_up, other))

    def unlink(self, a: int, b: int, *, refused: bool = False) -> None:
        """Both connections break; what is under way on them is lost."""
        for one, other in ((a, b), (b, a)):
            self.links.pop((one, other), None)
            if one in self.servers:
                self._input(self.servers[one], partial(_link_down, other, refused))

    # -- events -----------------------------------------------------------------------------------

    def at(self, delay: int, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.time + delay, next(self.serial), event))

    def alive(self, server: Server) -> bool:
        return self.servers.get(server.id) is server

    def _input(self, server: Server, event: Callable[[Server], None]) -> None:
        """Something has arrived: the next turn takes it."""
        if self.alive(server):
            server.inbox.append(lambda: event(server))
            self._schedule(server, self.time + self._draw(self.turn_delay))

    def _later(self, server: Server, delay: int, event: Callable[[Server], None]) -> None:
        self.at(delay, lambda: self._input(server, event))

    def _draw(self, between: tuple[int, int]) -> int:
        return self.rng.randint(*between) if between[1] else 0

    def _schedule(self, server: Server, when: int) -> None:
        if server.next_turn is not None and server.next_turn <= when:
            return
        server.next_turn = when

        def turn() -> None:
            if self.alive(server) and server.next_turn == when and server.id not in self.paused:
                self._turn(server)

        self.at(when - self.time, turn)

    def _turn(self, server: Server) -> None:
        server.next_turn = None
        instant, turns = server.turns_now
        server.turns_now = (self.time, turns + 1 if instant == self.time else 1)
        assert server.turns_now[1] < TURNS_AT_ONCE_MAX, (
            f"server {server.id} runs in circles\n{self.describe()}"
        )
        inbox, server.inbox = server.inbox, []
        try:
            for event in inbox:
                event()
            server.engine.tick(server.now())
            self._carry_out(server, server.engine.ready(server.now()))
        except FatalError as error:
            self.ended[server.id] = error
            self.crash(server.id)
            return
        self._check(server)
        self._schedule(server, max(self.time, server.engine.wake_at))

    # -- carrying out a Ready ---------------------------------------------------------------------

    def _carry_out(self, server: Server, ready: Ready) -> None:
        for peer, frame in ready.frames.items():
            self._send(server, peer, frame)
        if ready.write is not None:
            self.writes += 1
            server.storage.write(ready.write)
            self._later_synced(server, ready.write.number)
        for load in ready.loads:
            self.loads += 1
            entries = server.storage.entries(
                load.group, first_index=load.first_index, last_index=load.last_index, bytes_max=load.bytes_max
            )
            self._later(server, 50_000, partial(_loaded, load.number, entries))
        self._carry_out_snapshots(server, ready)
        server.committed.update(ready.committed)
        for token in ready.reads:
            server.served.append(token)
            self.history.served(token, server.position)
        if ready.apply:
            merged = tuple(ready.apply)
            self._later(server, self._draw(self.apply), lambda s: self._apply(s, merged))

    def _carry_out_snapshots(self, server: Server, ready: Ready) -> None:
        store = server.snapshots
        if ready.capture is not None:
            machine = SnapshotPart(SnapshotKind.MACHINE, msgpack.packb(server.applied))
            head, parts = ready.capture.head, (*ready.capture.parts, machine)
            self._later(
                server, 5 * MS, lambda s: s.engine.snapshots.captured(store.write(head, parts), s.now())
            )
        for piece in ready.snapshot_reads:
            data = store.read(piece.snapshot, offset=piece.offset, bytes_max=piece.bytes_max)
            self._later(server, MS, partial(_snapshot_read, piece, data))
        for step in ready.receive:
            self._later(server, MS, partial(_receive, step))
        if ready.settled:
            server.settled += ready.settled
        if ready.restore is not None:
            info = ready.restore

            def restored(s: Server) -> None:
                s.restore(info)
                s.engine.snapshots.restored(s.now())

            self._later(server, 5 * MS, restored)

    def _apply(self, server: Server, run: tuple[Merged, ...]) -> None:
        for merged in run:
            for request in merged.requests:
                for command in msgpack.unpackb(request.body):
                    item = (merged.position, merged.timestamp, command)
                    self.history.merge(len(server.applied), item, server.id)
                    server.applied.append(item)
                if request.token is not None:
                    server.answers[request.token] = (merged.position, merged.timestamp)
                    self.history.answered(request.token, merged.position, merged.timestamp)
        server.engine.applied(run[-1].position, server.now())

    def _later_synced(self, server: Server, number: int) -> None:
        def done(s: Server) -> None:
            s.storage.sync()
            s.engine.persisted(number, s.now())

        def when_not_held() -> None:
            if server.id in self.held:
                self.at(MS, when_not_held)
            else:
                self._input(server, done)

        self.at(self._draw(self.syncs.get(server.id, self.sync)), when_not_held)

    def _send(self, server: Server, peer: int, frame: Frame) -> None:
        self.frames_sent += 1
        link = self.links.get((server.id, peer))
        passed = self.intercept(server.id, peer, frame)
        if passed is None or link is None or (server.id, peer) in self.cuts or self.rng.random() < self.loss:
            return
        for one in self._over_the_wire(passed):
            self.at(self._draw(self.delay), partial(self._deliver, server.id, peer, link, one))
            if self.repeat and self.rng.random() < self.repeat:
                again = self._draw(self.delay) * self.rng.choice((1, 5, 100))
                self.at(again, partial(self._deliver, server.id, peer, None, one))

    def _over_the_wire(self, frame: Frame) -> list[Frame]:
        if not self.wire:
            return [frame]
        encoded = encode_frames(frame, 4 * 1024 * 1024)
        return [decode_frame(one[PREFIX_BYTES:], groups=self.groups) for one in encoded]

    def _deliver(self, sender: int, receiver: int, link: int | None, frame: Frame) -> None:
        """A frame arrives on the connection it was sent on (a repeated one: on any)."""
        server = self.servers.get(receiver)
        if server is None or (sender, receiver) in self.cuts:
            return
        if link is not None and self.links.get((sender, receiver)) != link:
            return
        if self.reorder and self.rng.random() < self.reorder:
            self.at(self.rng.randint(MS, 100 * MS), lambda: self._deliver(sender, receiver, link, frame))
            return
        self._input(server, lambda s: self._receive(s, sender, frame))

    def _receive(self, server: Server, sender: int, frame: Frame) -> None:
        try:
            server.engine.receive(sender, frame, server.now())
        except WireError as error:
            self.wire_errors.append(error)

    # -- what must hold at all times --------------------------------------------------------------

    def _check(self, server: Server) -> None:
        for group, raft in enumerate(server.engine.state.replicas):
            r = raft.state
            log = r.log
            now = (r.term, r.role, r.commit_index, log.last_index, log.last_term, log.persisted, log.offset)
            if now == server.checked[group]:
                continue
            server.checked[group] = now
            invariants.check(r)
            if r.leads:
                self.history.leads(group, r.term, server.id)
            first = max(server.checked_commits[group], r.log.offset.index) + 1
            if first <= r.commit_index:
                entries = r.log.slice(first, last_index=r.commit_index, bytes_max=1 << 40)
                self.history.committed(group, [(entry.index, entry.record) for entry in entries], server.id)
                server.checked_commits[group] = r.commit_index
            assert r.commit_index >= server.checked_commits[group], "the commit index fell"

    # -- what tests do ----------------------------------------------------------------------------

    def run(self, duration: int) -> None:
        """Let virtual time pass."""
        end = self.time + duration
        while self._events and self._events[0][0] <= end:
            self.time, _, event = heapq.heappop(self._events)
            event()
        self.time = end

    def run_until(self, condition: Callable[[], bool], limit: int = 30 * SECOND) -> int:
        """Let virtual time pass until a condition holds, and say how much did; fails beyond `limit`."""
        begin = self.time
        while not condition():
            assert self._events and self._events[0][0] <= begin + limit, (
                f"not reached within {limit / SECOND} s\n{self.describe()}"
            )
            self.time, _, event = heapq.heappop(self._events)
            event()
        return self.time - begin

    def propose(self, i: int, *commands: bytes, committed: bool = False) -> int:
        """Propose on a server; returns a token that appears in its `answers`, or in its `committed`."""
        token = next(self.tokens)
        server = self.servers[i]
        server.engine.propose(token, msgpack.packb(list(commands)), committed=committed)
        self.history.proposed(token, commands)
        self._schedule(server, self.time + self._draw(self.turn_delay))
        return token

    def read(self, i: int) -> int:
        token = next(self.tokens)
        self.servers[i].engine.read(token)
        self.history.reading(token)
        self._schedule(self.servers[i], self.time + self._draw(self.turn_delay))
        return token

    def write_and_wait(self, i: int, *commands: bytes, limit: int = 10 * SECOND) -> int:
        """Propose, and say how long the answer took (virtual ns)."""
        token = self.propose(i, *commands)
        return self.run_until(lambda: self.answered(i, token), limit)

    def read_and_wait(self, i: int, limit: int = 10 * SECOND) -> int:
        """Read, and say how long it took (virtual ns)."""
        token = self.read(i)
        return self.run_until(lambda: token in self.servers[i].served, limit)

    def drop(self, *kinds: type, to: int | None = None, sender: int | None = None) -> None:
        """From now on lose these kinds of message, to or from one server or all; `pass_all` ends it."""
        before = self.intercept

        def intercept(a: int, b: int, frame: Frame) -> Frame | None:
            passed = before(a, b, frame)
            if passed is None or to not in {None, b} or sender not in {None, a}:
                return passed
            return passed._replace(messages=tuple(m for m in passed.messages if not isinstance(m, kinds)))

        self.intercept = intercept

    def pass_all(self) -> None:
        self.intercept = lambda _sender, _receiver, frame: frame

    def inject(self, sender: int, receiver: int, *messages: Message) -> None:
        """Hand a server a frame as if a peer had sent it; raises what the engine raises."""
        server = self.servers[receiver]
        clock = self.clock_of(sender)
        frame = Frame(clock, self.time, 0, 0, 0, (), (), messages)
        server.engine.receive(sender, frame, server.now())
        self._schedule(server, self.time)

    def settle(self) -> None:
        """Run until every group has a leader and every server's session is open."""
        self.run_until(
            lambda: self.open() and all(self.leader(group) is not None for group in range(self.groups))
        )

    def settle_evenly(self) -> None:
        """Run until every group is led where it belongs."""
        self.settle()
        self.run_until(lambda: self.leaders() == [self.ids[g % len(self.ids)] for g in range(self.groups)])

    def quiesce(self) -> None:
        """Run until all servers applied the same, and nothing is left to merge or to write."""
        self.run_until(
            lambda: (
                len({server.position for server in self.servers.values()}) == 1
                and all(
                    not server.engine.state.demand and server.engine.state.writing is None
                    for server in self.servers.values()
                )
            )
        )

    def open(self) -> bool:
        return all(server.engine.session_open for server in self.servers.values())

    def answered(self, i: int, token: int) -> bool:
        return i in self.servers and token in self.servers[i].answers

    def leader(self, group: int) -> int | None:
        """The leader of the highest term, among those who run."""
        led = [
            (server.engine.state.raft(group).term, i)
            for i, server in self.servers.items()
            if server.engine.state.raft(group).leads
        ]
        return max(led)[1] if led else None

    def leading(self, group: int) -> int:
        leader = self.leader(group)
        assert leader is not None, f"group {group} has no leader"
        return leader

    def raft(self, i: int, group: int) -> RaftState:
        return self.servers[i].engine.state.raft(group)

    def leaders(self) -> list[int | None]:
        return [self.leader(group) for group in range(self.groups)]

    def commands(self, i: int) -> list[bytes]:
        return [command for _, _, command in self.servers[i].applied]

    def check_answers(self) -> None:
        """Every server that runs has applied everything that anyone was answered, exactly once."""
        for i in sorted(self.servers):
            commands = self.commands(i)
            assert len(set(commands)) == len(commands), f"server {i} applied a command twice"
            missing = self.history.answered_commands() - set(commands)
            assert not missing, f"server {i} lacks answered commands {sorted(missing)[:5]}"

    def describe(self) -> str:
        lines = [
            f"at {self.time / SECOND:.3f} s; cuts {sorted(self.cuts)}; held {self.held}; paused {self.paused}"
        ]
        for i, server in sorted(self.servers.items()):
            status = server.engine.status(server.now())
            lines.append(
                f"server {i}: {status['session']}, demand {status['demand']},"
                f" closed {status['closed_timestamps']}, applied {status['applied_position']},"
                f" unanswered {status['pending_requests']}, reads {status['pending_reads']}"
            )
            lines += [f"  {group}" for group in status["groups"]]
        return "\n".join(lines)


class History:
    """What happened, as the clients and an all-seeing witness saw it."""

    def __init__(self) -> None:
        self.merged: list[tuple[int, int, bytes]] = []  # the longest merged log seen
        self._places: dict[bytes, int] = {}
        self._commands: dict[Any, tuple[bytes, ...]] = {}
        self._after: dict[
            Any, int
        ] = {}  # token -> the position that its effect must come after, or its read must see
        self._answered: dict[Any, int] = {}
        self._rejected: set[bytes] = set()
        self._known = 0  # the greatest position that any client has learnt of
        self._leaders: dict[tuple[int, int], int] = {}
        self._committed: dict[tuple[int, int], bytes] = {}

    def proposed(self, token: Any, commands: tuple[bytes, ...]) -> None:
        self._commands[token] = commands
        self._after[token] = self._known

    def merge(self, place: int, item: tuple[int, int, bytes], server: int) -> None:
        if place == len(self.merged):
            assert item[2] not in self._places, f"{item} took effect already, at {self._places[item[2]]}"
            assert item[2] not in self._rejected, f"{item} was rejected, and takes effect"
            self.merged.append(item)
            self._places[item[2]] = place
        assert self.merged[place] == item, f"server {server} merged {item}, another {self.merged[place]}"

    def answered(self, token: Any, position: int, timestamp: int) -> None:
        assert token not in self._answered, f"request {token} was answered twice"
        after = self._after.get(token, 0)
        assert position > after, (
            f"request {token} came after position {after} was answered, and is at {position}"
        )
        self._answered[token] = position
        self._known = max(self._known, position)

    def reading(self, token: Any) -> None:
        self._after[token] = self._known

    def served(self, token: Any, position: int) -> None:
        must = self._after[token]
        assert position >= must, f"read {token} sees position {position}; {must} was known before it began"
        self._known = max(self._known, position)

    def reject(self, tokens: list[Any]) -> None:
        for token in tokens:
            for command in self._commands[token]:
                assert command not in self._places, f"{command!r} took effect, and was rejected"
                self._rejected.add(command)

    def leads(self, group: int, term: int, server: int) -> None:
        known = self._leaders.setdefault((group, term), server)
        assert known == server, f"group {group} term {term}: led by {known} and by {server}"

    def committed(self, group: int, entries: list[tuple[int, bytes]], server: int) -> None:
        for index, record in entries:
            known = self._committed.setdefault((group, index), record)
            assert known == record, f"group {group} index {index}: server {server} committed another entry"

    def answered_commands(self) -> set[bytes]:
        return {command for token in self._answered for command in self._commands[token]}

    def timestamps(self) -> list[int]:
        return [timestamp for _, timestamp, _ in self.merged]
