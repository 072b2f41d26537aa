"""`Server`: one turn after another, each carrying out one `Ready`.

Invariants
- The engine is called from the event loop only, never while another call of it runs.
- Frames leave before this server's own disk write; what must wait for the write is held back by the engine.
- At most one sync is in flight, in a worker thread; ticks never wait behind it (PROTOCOL 9, 10).
- However the server ends, every waiting caller is told what became of its command.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, Literal, TypeVar, overload

import trio

from craft import logs
from craft.applying import Answer
from craft.clock import Clock, RunningClock, clock_status
from craft.config import Address, Config
from craft.engine import Engine
from craft.engine.status import recent_merged
from craft.errors import CraftError, NotReady, Rejected, RemoteError
from craft.ready import Load, Merged, Ready
from craft.server.answering import OpenCalls
from craft.server.calls import Call, Committed, Level, Singles, checked, checked_level, refusal
from craft.server.doors import Doors
from craft.server.inbox import ServerInbox
from craft.server.making import make_engine
from craft.server.measures import Measures
from craft.server.membership import ServerMembers
from craft.server.moving import Leaders
from craft.server.reads import Read, Reads, Stale
from craft.server.reclaiming import Reclaiming
from craft.server.roll import Roll, founding
from craft.server.snapshots import SnapshotWork
from craft.server.space import Space
from craft.server.starting import Started
from craft.server.suspecting import Suspicions
from craft.server.syncing import Syncer
from craft.server.tailing import Subscription, Tails
from craft.server.waking import Waker, set_alarm
from craft.server.watching import Watch
from craft.server.working import Worker
from craft.state_machine import StateMachine
from craft.storage import Storage
from craft.transport import Transport
from craft.types import GroupId, Instant, Position, ServerId, Write

log = logging.getLogger("craft.server")

M = TypeVar("M", bound=StateMachine)
T = TypeVar("T")

SECOND_NS = 1_000_000_000


class Server(Generic[M]):
    """A running server. Made by `open_server`.

    Every method is for the Trio task that opened it or its children.
    """

    def __init__(
        self,
        config: Config,
        state_machine: M,
        *,
        clock: Clock,
        storage: Storage,
        started: Started,
        transport: Transport,
        roll: Roll | None = None,
        doors: Doors | None = None,
    ) -> None:
        self.config = config
        self.state_machine = state_machine
        self.disk_id = storage.identity.disk_id
        self.client_addresses: list[Address] = []
        self._clock = clock
        self._storage = storage
        self.transport = transport
        self._applier = started.applier
        roll = roll or founding(config)
        disk = self.disk_id if transport.tells_disks else ""
        self._engine = make_engine(config, roll, started, disk=disk, now=self._now())
        self.members = ServerMembers(self, roll, doors)
        """Who belongs to the cluster, and changing it."""
        self._waker = Waker()
        self._wake = self._waker.wake
        self._session_open = trio.Event()
        self._quiet = trio.Event()
        self._machine = Worker(self._wake)  # the state machine's thread, where it is used in one
        self._syncer: Syncer | None = None  # while the server runs
        self._reclaiming = Reclaiming(storage)
        self._suspicions = Suspicions(self._engine)
        self._writing = 0  # the number of the write that is being synced
        self._synced: int | None = None
        self._sync_error: BaseException | None = None
        self._apply_queue: list[Merged] = []
        self._reads = Reads(self._engine, clock, state_machine, reads_max=config.engine.reads_max)
        self.measures = Measures()
        self._calls = OpenCalls(self.measures)
        self._singles = Singles(config.engine)
        self._inbox = ServerInbox(config.transport.receive_queue_bytes_max, self._wake, doors)
        self._complaints = logs.RateLimited(
            log, interval_ms=config.transport.complaint_interval_ms, monotonic_s=trio.current_time
        )
        close_ms = config.close_timeout_ms
        self.leaders = Leaders(self._engine, self._now, self._wake, self.check_open, close_ms)
        self._watch = Watch(self._engine.state, self._complaints)
        self._space = Space(config.data_dir, config.disk_free_bytes_min, self._engine.state)
        self._ended = False
        self.disk_hangs = False
        """At the end: a sync did not come back, and closing the storage would wait for it."""
        self.measures.watch(self._engine.state)
        self.measures.watch_clocks(self._engine.state, clock, self._now)
        self.tails = Tails(self._engine, storage, config.tail, self.measures.metrics)
        self.snapshots = SnapshotWork(
            self._engine,
            storage.snapshots,
            started.applier,
            machine=self._machine,
            in_thread=config.apply_in_thread,
            wake=self._wake,
            jumped=self.tails.jump,
            metrics=self.measures.metrics,
        )

    # -- what users call --------------------------------------------------------------------------

    @overload
    async def propose(self, command: bytes, *, level: Literal["applied"] = "applied") -> Any: ...

    @overload
    async def propose(self, command: bytes, *, level: Literal["committed"]) -> Committed: ...

    async def propose(self, command: bytes, *, level: Level = "applied") -> Any:
        """Propose one command; returns what `apply_batch` returned for it on this server.

        Once applied in merged order; at the level `committed` (PROTOCOL 4), once it cannot be lost any more,
        a `Committed` without a result.

        It takes effect exactly once, across leader changes. Raises Rejected (and its kinds Overloaded,
        CommandTooLarge, NotReady): no effect, ever. Unknown: the server ended before it was known. Cancelling
        means unknown too.
        """
        if not isinstance(command, bytes):
            raise TypeError(f"a command must be bytes, not {type(command).__name__}: {command!r:.80}")
        checked_level(level)
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self.check_open()
            pending_bytes = self._engine.state.pending_bytes
            call = self._singles.add(command, pending_bytes=pending_bytes, level=level)
        except Rejected:
            await self._refused()
            raise
        self._wake()
        slot = await call.wait()
        if call.committed is not None:
            return call.committed
        return None if call.results is None else call.results[slot]

    @overload
    async def propose_many(
        self, commands: Sequence[bytes], *, level: Literal["applied"] = "applied"
    ) -> Sequence[Any] | None: ...

    @overload
    async def propose_many(
        self, commands: Sequence[bytes], *, level: Literal["committed"]
    ) -> Committed | None: ...

    async def propose_many(
        self, commands: Sequence[bytes], *, level: Level = "applied"
    ) -> Sequence[Any] | Committed | None:
        """Propose commands that take effect together: all or none, in this order, at one position.

        The high-throughput path: one wake-up a call. Returns one result a command, or None where
        `apply_batch` returns None; at the level `committed`, a `Committed`, or None for no commands.
        Raises as `propose` does; the whole call is limited by `entry_bytes_max`.
        """
        commands = checked(commands)
        call = Call(commands, many=True, started=trio.current_time(), level=checked_level(level))
        await trio.lowlevel.checkpoint_if_cancelled()
        if commands:
            await self.submit(call)
            return call.results if call.committed is None else call.committed
        self.check_open()
        await trio.lowlevel.checkpoint()
        return [] if level == "applied" else None

    async def read(self, query: Callable[[M], T], *, at_least: Position | None = None) -> T:
        """Call `query(state_machine)` when all that was answered anywhere before is applied here.

        Linearizable, from any server, without a leader or a clock. With `at_least` instead: when the merged
        log is applied here up to that position, which asks nobody. `query` runs between two applies and must
        not block or change anything. Raises what it raises; NotReady if the server ends first, Overloaded
        beyond `reads_max`. Waits while no majority is in touch, or the position is not reached.
        """
        if at_least is not None and at_least < 0:
            raise ValueError(f"at_least is {at_least!r}; allowed is a position, 0 or greater")
        result: T = await self._read(lambda: self._reads.add(query, at_least))
        return result

    async def read_stale(self, query: Callable[[M], T]) -> Stale[T]:
        """Call `query(state_machine)` at once, on whatever this server has applied.

        Asks nobody and waits for nothing but an `apply_batch` that is running. Raises as `read` does.
        """
        seen: Stale[T] = await self._read(lambda: self._reads.add_stale(query))
        return seen

    @property
    def position(self) -> Position:
        """How far the merged log is applied here.

        Take it where you were answered, and a read anywhere that is `at_least` so new sees what you saw.
        """
        return self._engine.state.applied_position

    def subscribe(self, after: Position | None = None) -> Subscription:
        """Follow the merged log: `async with server.subscribe(after=position) as batches:`, then `async for`.

        Yields batches of what is applied here after that position, without a gap; None: from now on. Never
        slows the cluster: raises TooSlow, with the position to go on from, for who falls behind what memory
        holds. Raises Compacted, which says where one may begin, Overloaded, NotReady (the server ended).
        """
        return self.tails.follow(self.tails.begin(after))

    async def take_snapshot(self) -> Position:
        """Take a snapshot of what is applied here; returns its position when it is durable.

        One that is there already at this very position will do. Raises SnapshotFailed (nothing was taken, the
        server goes on); NotReady if the server ends first. Waits while nothing is applied at all.
        """
        return await self.snapshots.take(self.position)

    async def _read(self, add: Callable[[], Read]) -> Any:
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self.check_open()
            read = add()
        except Rejected:
            await self._refused()
            raise
        self._wake()
        return await self._reads.wait(read)

    async def wait_ready(self) -> None:
        """Wait until its session is open: from then on `propose` waits for nothing but its own command."""
        self.check_open()
        await self._session_open.wait()
        self.check_open()

    def status(self) -> dict[str, Any]:
        """Everything one wants to see of this server, as plain values (see the reference for the keys)."""
        return {
            "cluster": self.config.cluster,
            "ready": self._engine.session_open,
            "rungs": self.measures.rungs(),
            "disk": self._space.status(),
            "snapshots": self.snapshots.status(),
            "clock": {**clock_status(self._clock), "error_ms_max": self.config.clock.error_ms_max},
            **self._engine.status(self._now()),
        }

    def recent_merged(self, after: int = 0) -> list[dict[str, Any]]:
        """The last merged entries after a position (at most 4096), with the digest of the log up to each."""
        return recent_merged(self._engine.state, after)

    def metrics(self) -> list[dict[str, Any]]:
        """Every counter, gauge and histogram as plain values with names, units and help."""
        return self.measures.collect(self._inbox, self._applier)

    def trust(self) -> list[GroupId]:
        """Nothing that was synced is missing, by the operator's word; returns the groups suspect so far."""
        self._wake()
        return self._suspicions.trust(self._now())

    # -- plumbing ---------------------------------------------------------------------------------

    def _now(self) -> Instant:
        return Instant(int(trio.current_time() * SECOND_NS), self._clock.now())

    async def _refused(self) -> None:
        """A call was refused at once. Who tries again at once must not keep the turns from running."""
        self.measures.rejected.value += 1
        await trio.lowlevel.checkpoint()

    def check_open(self) -> None:
        """Raise NotReady where the server takes nothing any more."""
        if self._ended:
            raise NotReady("the server has ended")
        if self._engine.state.stopping:
            raise NotReady("the server is stopping and takes no commands")

    def _submit(self, call: Call) -> None:
        call.propose(self._engine)
        self._calls.add(call)

    async def submit(self, call: Call) -> None:
        """Let a call be merged, and wait until it is answered. Raises as `propose` does."""
        try:
            self.check_open()
            self._submit(call)
        except Rejected:
            await self._refused()
            raise
        self._wake()
        await call.wait()

    @property
    def engine(self) -> Engine:
        """What runs in it: for the listener to look at."""
        return self._engine

    # -- the turn ---------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Everything that a server does, until cancelled or failed. Raises what ended it."""
        self._syncer = Syncer(self._storage.sync, self._sync_done)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.transport.run, self._inbox)
                if isinstance(self._clock, RunningClock):
                    nursery.start_soon(self._clock.run)
                nursery.start_soon(self._reclaiming.run)
                nursery.start_soon(self._space.run)
                nursery.start_soon(self._machine.run)
                nursery.start_soon(self.snapshots.run)
                task_status.started()
                try:
                    await self._turns()
                finally:
                    self._end()  # at once: the nursery waits for the thread that applies, which may hang
        finally:
            self.disk_hangs = not await self._syncer.stop()

    async def _turns(self) -> None:
        while True:
            # One alarm for many turns: to set one up for each would cost a tenth of it.
            with trio.CancelScope() as alarm:
                while True:
                    set_alarm(alarm, self._engine.wake_at)
                    await self._waker.until_due(answered=self._calls.woken)
                    self._measured_turn()
            self._measured_turn()

    def _measured_turn(self) -> None:
        self._waker.begin()
        self._calls.woken = False
        started = time.perf_counter()
        self._turn()
        self.measures.take_turn(time.perf_counter() - started, self._engine.state)

    def _turn(self) -> None:
        now = self._now()
        engine = self._engine
        if self._sync_error is not None:
            raise self._sync_error
        self._inbox.pass_on(engine, now, self._fault)
        if self._synced is not None:
            engine.persisted(self._synced, now)
            self._synced = None
            self._reclaiming.synced()
            self._suspicions.look()
        self._machine.pass_on(now)
        self.snapshots.pass_on(now)
        for call in self._singles.take():
            self._submit_singles(call)
        if now.monotonic_ns >= engine.wake_at:
            engine.tick(now)
            self._watch.look(self._clock.error())
        self._carry_out(engine.ready(now), now)
        if engine.session_open and not self._session_open.is_set():
            logs.event(log, logging.INFO, "ready", server=self.config.server_id)
            self._session_open.set()
        if engine.state.stopping and self._is_quiet():
            self._quiet.set()

    def _fault(self, sender: ServerId, error: RemoteError) -> None:
        self.measures.remote_errors.value += 1
        self._complaints.event(
            ("remote", sender), logging.WARNING, "peer broke the protocol", peer=sender, error=str(error)
        )
        self.transport.disconnect(sender, str(error))

    def _submit_singles(self, call: Call) -> None:
        try:
            self._submit(call)
        except CraftError as error:
            self.measures.rejected.value += 1
            call.fail(error)

    def _carry_out(self, ready: Ready, now: Instant) -> None:
        self.members.look(ready.peers)
        for peer, frame in ready.frames.items():
            self.transport.send(peer, frame)
        self.measures.frames_sent.value += len(ready.frames)
        if ready.write is not None:
            self._write(ready.write)
        self._calls.committed(ready.committed)
        for load in ready.loads:
            self._load(load, now)
        self.snapshots.carry_out(ready, now)
        self._calls.settled(ready.settled)
        if ready.apply:
            self._begin_apply(ready.apply)
        self._serve_reads(ready.reads)

    def _write(self, write: Write) -> None:
        self._storage.write(write)
        self._reclaiming.wrote(write)
        self.snapshots.wrote(write)
        self._writing = write.number
        assert self._syncer is not None
        self._syncer.request()
        self.measures.take_write(write)

    def _sync_done(self, seconds: float, error: BaseException | None) -> None:
        """One sync at a time; what is written meanwhile is the next batch (PROTOCOL 10)."""
        self.measures.sync_seconds.record(seconds)
        self._synced, self._sync_error = (self._writing if error is None else None), error
        self._wake()

    def _load(self, load: Load, now: Instant) -> None:
        entries = self._storage.entries(
            load.group, first_index=load.first_index, last_index=load.last_index, bytes_max=load.bytes_max
        )
        self._engine.loaded(load.number, entries, now)
        self._wake()

    # -- applying ---------------------------------------------------------------------------------

    def _begin_apply(self, entries: list[Merged]) -> None:
        self._apply_queue = entries
        if self.config.apply_in_thread:
            self._machine.submit(partial(self._applier.run, entries), self._finish_apply)
        else:
            self._finish_apply(self._applier.run(entries), self._now())
            if self._engine.has_more:
                self._wake()

    def _finish_apply(self, answers: list[Answer], now: Instant) -> None:
        entries, self._apply_queue = self._apply_queue, []
        self._engine.applied(entries[-1].position, now)
        self.tails.note(entries)
        self._calls.applied(entries, answers)
        self._serve_reads()

    def _serve_reads(self, reached: Sequence[Any] = ()) -> None:
        changing = bool(self._apply_queue) or self.snapshots.busy
        self.measures.reads.value += self._reads.serve(reached, applying=changing)

    # -- ending -----------------------------------------------------------------------------------

    async def close(self) -> None:
        """Stop gracefully: give every group away and wait for what can still be answered."""
        self._engine.hand_over(self._now())
        self._wake()
        with trio.move_on_after(self.config.close_timeout_ms / 1000):
            await self._quiet.wait()

    def _is_quiet(self) -> bool:
        """While stopping: is nothing left to answer, and nothing left to hand over, or nobody to take it?"""
        linked = any(peer.linked for peer in self._engine.state.peers.values())
        waited_for = self._calls or self._singles.count or self._reads.waiting
        return not (waited_for or (linked and self._engine.leads_any))

    def _end(self) -> None:
        """Tell every caller what became of its command."""
        self._ended = True
        self._session_open.set()  # whoever waits for it learns that the server has ended
        self.members.wake()
        rejected, _ = self._engine.abandon()
        for call in self._singles.take():
            self.measures.rejected.value += 1
            call.fail(refusal("the server ended before the command was proposed"))
        self._calls.end(rejected)
        self._reads.end()
        self.snapshots.end()
        self.tails.end()
