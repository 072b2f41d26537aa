"""A server's snapshots, carried out: the state forked on time, files written and read in threads.

Invariants
- The state machine is forked between two applies, and nothing is applied or read until it is. Where it is
  called in a thread, it is forked in that thread.
- Nothing is applied or read while it is restored; what a restore leaves half-way is never used.
- A snapshot is written in steps between which the event loop has the interpreter for as long again.
- What `snapshot()` or its chunks raise costs that snapshot and nothing else: all servers run the same code,
  and would all end, and all again behind each restart. What a disk refuses ends this server.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import trio

from craft import logs
from craft.applying import Applier
from craft.engine import Engine
from craft.engine.compacting import log_bytes
from craft.errors import DamagedSnapshot, FatalError, NotReady, RestoreFailed, SnapshotFailed
from craft.ready import Capture, Ready, Receive, ReceiveAppend, ReceiveBegin, SnapshotRead
from craft.restoring import Forked, engines, fork, restore
from craft.server.working import DiskThread, Stopped, Worker
from craft.state_machine import Snapshots
from craft.stats import Metrics
from craft.storage import SnapshotStore
from craft.types import Instant, Position, SnapshotInfo, SnapshotPart, Write

log = logging.getLogger("craft.server")

STEP_S = 0.002
"""Of work on a snapshot at a time: less than what a turn under load takes."""

SECOND_NS = 1_000_000_000


def lacking(machine: object) -> str:
    """Why a state machine has no part in snapshots."""
    return f"{type(machine).__name__} has no methods snapshot and restore"


class Taking:
    """One snapshot that is taken, and who waits for it."""

    def __init__(self) -> None:
        self.position = 0  # known once it is captured
        self.started = 0.0
        self.done = trio.Event()
        self.error: SnapshotFailed | NotReady | None = None

    async def wait(self) -> Position:
        """Its position, when it is durable. Raises SnapshotFailed, NotReady."""
        await self.done.wait()
        if self.error is not None:
            # Each waiter gets an exception of its own: tracebacks must not pile up on a shared one.
            raise type(self.error)(*self.error.args)
        return self.position

    def end(self, error: SnapshotFailed | NotReady | None = None) -> None:
        """It is durable, or never will be."""
        self.error = error
        self.done.set()


class SnapshotWork:
    """One server's."""

    def __init__(
        self,
        engine: Engine,
        store: SnapshotStore,
        applier: Applier,
        *,
        machine: Worker,
        in_thread: bool,
        wake: Callable[[], None],
        jumped: Callable[[Position], None],
        metrics: Metrics,
    ) -> None:
        """`machine`: the state machine's thread; `in_thread`: it is applied there.

        `jumped` is told to which position a peer's snapshot has brought the state machine.
        """
        self._engine, self._store, self._applier = engine, store, applier
        self._machine, self._in_thread, self._wake = machine, in_thread, wake
        self._jumped = jumped
        self.threads = DiskThread(), DiskThread()
        """What is written and what is moved is held up by the disk."""
        self._writer, self._mover = (Worker(wake, thread) for thread in self.threads)
        self._forking = False
        self._ended = False
        self._taking: Taking | None = None  # captured
        self._next: Taking | None = None  # asked for
        self._last_error = ""
        self._count(metrics)

    # -- from the server ---------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Is the state machine being forked or restored, or without any state? Then nobody may read it."""
        return self._forking or self._engine.snapshots.restoring

    async def take(self, at_least: Position) -> Position:
        """See to it that there is one at a position or beyond; returns its position when it is durable.

        Raises SnapshotFailed; NotReady if the server ends first.
        """
        if not self._engine.state.snapshots.supported:
            raise SnapshotFailed(f"no snapshot was taken: {lacking(self._applier.machine)}")
        await trio.lowlevel.checkpoint()
        if self._ended:
            raise NotReady("the server has ended")
        kept = self._engine.snapshots.kept
        if kept and kept[-1].head.position >= at_least and not self._engine.snapshots.restoring:
            return kept[-1].head.position
        taking = self._taking
        if taking is None or taking.position < at_least:
            taking = self._next = self._next or Taking()
            self._engine.snapshots.take()
            self._wake()
        return await taking.wait()

    async def run(self) -> None:
        """Until cancelled. Raises StorageFailed, RestoreFailed."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._writer.run)
            nursery.start_soon(self._mover.run)

    def pass_on(self, now: Instant) -> None:
        """Tell the engine what was done since the last turn."""
        self._writer.pass_on(now)
        self._mover.pass_on(now)

    def carry_out(self, ready: Ready, now: Instant) -> None:
        """Begin what a turn wants of snapshots."""
        if ready.capture is not None:
            self._capture(ready.capture, now)
        for piece in ready.snapshot_reads:
            self._mover.submit(partial(self._read, piece), partial(self._was_read, piece))
        for step in ready.receive:
            self._receive(step)
        if ready.restore is not None:
            info = ready.restore
            self._machine.submit(partial(self._restore, info), partial(self._restored, info))

    def wrote(self, write: Write) -> None:
        """A write is on its way to the disk."""
        self._compactions.value += sum(start.keep for start in write.starts)

    def end(self) -> None:
        """The server ends: what runs stops, and who waits is told."""
        self._ended = True
        for thread in self.threads:
            thread.end()
        for taking in filter(None, (self._taking, self._next)):
            taking.end(NotReady("the server ended before the snapshot was taken"))
        self._taking = self._next = None

    # -- taking one --------------------------------------------------------------------------------

    def _capture(self, capture: Capture, now: Instant) -> None:
        taking, self._next = self._next or Taking(), None
        taking.position, taking.started = capture.head.position, trio.current_time()
        self._taking = taking
        if self._in_thread:
            self._forking = True
            self._machine.submit(partial(self._fork, capture), self._forked)
        else:
            self._forked(self._fork(capture), now)

    def _fork(self, capture: Capture) -> Forked | SnapshotFailed:
        started = time.perf_counter()
        try:
            forked = fork(capture, self._applier)
        except Exception as error:  # noqa: BLE001  # the user's own: it is told, and the server goes on
            return _failed(capture.head.position, error)
        self._fork_seconds.record(time.perf_counter() - started)
        return forked

    def _forked(self, forked: Forked | SnapshotFailed, now: Instant) -> None:
        self._forking = False
        if isinstance(forked, SnapshotFailed):
            self._written(forked, now)
        else:
            self._writer.submit(partial(self._write, forked), self._written)

    def _write(self, forked: Forked) -> SnapshotInfo | SnapshotFailed:
        try:
            return self._store.write(forked.head, self._in_steps(forked.parts))
        except FatalError:
            raise
        except Exception as error:  # noqa: BLE001  # as above
            return _failed(forked.head.position, error)

    def _in_steps(self, parts: Iterable[SnapshotPart]) -> Iterator[SnapshotPart]:
        """The parts; between two steps of work others have the interpreter for as long."""
        began = time.thread_time()
        for part in parts:
            yield part
            if self._ended:
                raise Stopped
            spent = time.thread_time() - began
            if spent >= STEP_S:
                time.sleep(spent)
                began = time.thread_time()

    def _written(self, result: SnapshotInfo | SnapshotFailed, now: Instant) -> None:
        """It is durable, or was given up."""
        taking, self._taking = self._taking, None
        assert taking is not None
        if isinstance(result, SnapshotFailed):
            self._failed.value += 1
            self._last_error = str(result)
            logs.event(log, logging.ERROR, "snapshot failed", error=str(result))
            self._engine.snapshots.captured(None, now)
            taking.end(result)
        else:
            seconds = trio.current_time() - taking.started
            self._seconds.record(seconds)
            self._bytes.value += result.size
            self._last_error = ""
            logs.event(
                log,
                logging.INFO,
                "snapshot taken",
                position=result.head.position,
                bytes=result.size,
                seconds=round(seconds, 3),
            )
            self._engine.snapshots.captured(result, now)
            taking.end()

    # -- those on their way ------------------------------------------------------------------------

    def _read(self, piece: SnapshotRead) -> bytes | None:
        return self._store.read(piece.snapshot, offset=piece.offset, bytes_max=piece.bytes_max)

    def _was_read(self, piece: SnapshotRead, data: bytes | None, now: Instant) -> None:
        self._sent.value += len(data or b"")
        self._engine.snapshots.read(piece, data, now)

    def _receive(self, step: Receive) -> None:
        calls, snapshot = self._engine.snapshots, step.snapshot
        if isinstance(step, ReceiveBegin):
            logs.event(log, logging.INFO, "snapshot offered", position=snapshot.position, bytes=step.size)
            begin = partial(self._store.begin, snapshot, step.size)
            self._mover.submit(begin, partial(calls.begun, snapshot))
        elif isinstance(step, ReceiveAppend):
            self._received.value += len(step.data)
            append = partial(self._store.append, snapshot, offset=step.offset, data=step.data)
            upto = step.offset + len(step.data)
            self._mover.submit(append, lambda _, now: calls.appended(snapshot, upto, now))
        else:
            self._mover.submit(partial(self._finish, step.snapshot), self._finished)

    def _finish(self, snapshot: Any) -> tuple[SnapshotInfo, tuple[SnapshotPart, ...]] | DamagedSnapshot:
        try:
            info = self._store.finish(snapshot)
            return info, engines(self._store.parts(info.id))
        except DamagedSnapshot as error:
            return error

    def _finished(
        self, result: tuple[SnapshotInfo, tuple[SnapshotPart, ...]] | DamagedSnapshot, now: Instant
    ) -> None:
        if isinstance(result, DamagedSnapshot):
            logs.event(log, logging.WARNING, "received snapshot damaged, and dropped", error=str(result))
            self._engine.snapshots.received(None, (), now)
        else:
            self._engine.snapshots.received(*result, now)

    # -- restoring ---------------------------------------------------------------------------------

    def _restore(self, info: SnapshotInfo) -> None:
        if not isinstance(self._applier.machine, Snapshots):
            raise RestoreFailed(
                f"a peer's snapshot at position {info.head.position} must be restored, because the peers have"
                f" compacted what this server lacks; but {lacking(self._applier.machine)}"
            )
        try:
            restore(self._unless_ended(self._store.parts(info.id)), self._applier)
        except DamagedSnapshot as error:
            raise RestoreFailed(
                f"the state machine holds a part of a snapshot, for the rest became unreadable: {error};"
                " start the server again"
            ) from error

    def _unless_ended(self, parts: Iterable[SnapshotPart]) -> Iterator[SnapshotPart]:
        for part in parts:
            if self._ended:
                raise Stopped
            yield part

    def _restored(self, info: SnapshotInfo, _: None, now: Instant) -> None:
        logs.event(
            log, logging.INFO, "snapshot restored", position=info.head.position, bytes=info.size, of="a peer"
        )
        self._engine.snapshots.restored(now)
        self._jumped(info.head.position)

    # -- what is told ------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """What there is, what moves, and what the logs take (see the reference for the keys)."""
        s = self._engine.state.snapshots
        receiving = s.receiving
        return {
            "supported": s.supported,
            "kept": [
                {"position": info.head.position, "timestamp": info.head.timestamp, "bytes": info.size}
                for info in s.kept
            ],
            "taking": s.capturing,
            "taken": s.taken,
            "failed": self._failed.value,
            "last_error": self._last_error,
            "log_bytes": self._log_bytes(),
            "since_bytes": s.logged_bytes,
            "installed": s.installed,
            "restoring": s.restoring,
            "unfounded": s.unfounded,
            "receiving": None
            if receiving is None
            else {
                "from": receiving.peer,
                "position": receiving.snapshot.position,
                "bytes": receiving.size,
                "here_bytes": receiving.written,
            },
            "sending": [
                {"to": peer, "position": sending.snapshot.position}
                for peer, sending in sorted(s.sending.items())
            ],
        }

    def _log_bytes(self) -> list[int]:
        e = self._engine.state
        return [log_bytes(e, group) for group in range(len(e.replicas))]

    def _count(self, metrics: Metrics) -> None:
        s = self._engine.state.snapshots
        counter, histogram, gauge = metrics.counter, metrics.histogram, metrics.gauge
        taken = "Snapshots taken by this server."
        counter("craft_snapshots_taken_total", unit="snapshots", help=taken, read=lambda: s.taken)
        self._failed = counter(
            "craft_snapshots_failed_total",
            unit="snapshots",
            help="Snapshots given up because snapshot() or its chunks raised.",
        )
        self._fork_seconds = histogram(
            "craft_snapshot_fork_seconds",
            unit="seconds",
            help="How long snapshot() took: nothing is applied meanwhile.",
        )
        self._seconds = histogram(
            "craft_snapshot_seconds",
            unit="seconds",
            help="From the capture of a snapshot until it was durable.",
        )
        self._bytes = counter(
            "craft_snapshot_written_bytes_total", unit="bytes", help="Of snapshots taken by this server."
        )
        counter(
            "craft_snapshots_installed_total",
            unit="snapshots",
            help="Snapshots of peers installed since the start.",
            read=lambda: s.installed,
        )
        self._sent = counter(
            "craft_snapshot_sent_bytes_total", unit="bytes", help="Pieces of snapshots sent to peers."
        )
        self._received = counter(
            "craft_snapshot_received_bytes_total", unit="bytes", help="Pieces of snapshots taken from peers."
        )
        self._compactions = counter(
            "craft_compactions_total", unit="compactions", help="Logs of groups that were compacted."
        )
        gauge(
            "craft_snapshot_position",
            unit="entries",
            help="Position of the newest snapshot; 0: there is none.",
            read=lambda: s.kept[-1].head.position if s.kept else 0,
        )
        gauge(
            "craft_log_bytes",
            unit="bytes",
            help="Log kept, of all groups, as far as it was read since the start.",
            read=lambda: sum(self._log_bytes()),
        )


def _failed(position: Position, error: Exception) -> SnapshotFailed:
    return SnapshotFailed(
        f"the snapshot at position {position} was given up: {error!r}; the server goes on, and its logs grow"
        " until one succeeds"
    )
