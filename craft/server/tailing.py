"""Who follows the merged log: from memory, and further back from the logs, merged once more.

Invariants
- Nobody waits for a subscriber: what it has not taken when it leaves memory is gone for it, and it is told
  where it was.
- A batch that was handed out is never handed out again to the same subscriber, and nothing is left out.
- One piece of the logs is read back at a time, for all subscribers together, in a worker thread, and then as
  long again nothing is: so they take at most half of a core, and little of the disk, from the cluster.
- Only what is applied here is handed out, though more may be merged.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from typing import NamedTuple, TypeAlias, TypeVar

import trio

from craft.engine import Engine
from craft.engine.resuming import resume
from craft.errors import (
    Compacted,
    CraftError,
    DamagedSnapshot,
    NotReady,
    Overloaded,
    StorageFailed,
    TooSlow,
)
from craft.limits import TailLimits
from craft.logs import event
from craft.ready import Merged
from craft.remerging import Remerged, Remerger, Wanted
from craft.server.working import DiskThread, Stopped
from craft.stats import Metrics
from craft.storage import Storage
from craft.tailing import Recent, TailEntry, tail_entry
from craft.types import Entry, GroupId, Index, Position, SnapshotId, SnapshotInfo

Subscription: TypeAlias = "AbstractAsyncContextManager[trio.abc.ReceiveChannel[tuple[TailEntry, ...]]]"
"""Entered, it hands out batches of entries."""

log = logging.getLogger("craft.server")

T = TypeVar("T")

NO_FILE_LEFT = os.strerror(errno.EMFILE), os.strerror(errno.ENFILE)
"""The process or the system is at its end, not the disk. RocksDB says it in words, and in no other way."""

PARKED_MAX = 8
"""Readers of the logs that remote subscribers left where they were, to go on with their next request."""


class Piece(NamedTuple):
    """Some of a group's log."""

    start: Index  # compacted up to here
    commit: Index  # known committed up to here
    last: Index
    entries: tuple[Entry, ...]


class Tails:
    """The tail of one server's merged log, and who follows it."""

    def __init__(self, engine: Engine, storage: Storage, limits: TailLimits, metrics: Metrics) -> None:
        self.limits = limits
        self.recent = Recent(engine.state.applied_position, bytes_max=limits.memory_bytes_max)
        self.ended = False
        self._engine = engine
        self._storage = storage
        self._subscribers = 0
        self._more = trio.Event()
        self._waiting = False
        self._reading = trio.CapacityLimiter(1)
        self.thread = DiskThread()
        self._pause_until = trio.current_time()  # as long as the last piece took
        self._parked: dict[Position, Cursor] = {}  # the one left longest ago first
        self._damaged: set[SnapshotId] = set()  # found so while they were read here
        self.handed_out = metrics.counter(
            "craft_tail_entries_total", unit="entries", help="Merged entries handed to subscribers."
        )
        self.reread_bytes = metrics.counter(
            "craft_tail_reread_bytes_total", unit="bytes", help="Read back from the logs for subscribers."
        )
        self.dropped = metrics.counter(
            "craft_tail_dropped_total",
            unit="subscribers",
            help="Subscribers dropped because they did not keep up.",
        )
        gauge = metrics.gauge
        gauge(
            "craft_tail_subscribers",
            unit="subscribers",
            help="Who follows the merged log.",
            read=lambda: self._subscribers,
        )
        gauge(
            "craft_tail_memory_bytes",
            unit="bytes",
            help="Applied entries kept in memory for subscribers.",
            read=lambda: self.recent.bytes,
        )

    # -- from the server ---------------------------------------------------------------------------

    def note(self, entries: Sequence[Merged]) -> None:
        """These were applied."""
        self.recent.note(entries)
        self.wake()

    def jump(self, position: Position) -> None:
        """A snapshot was restored: what it covers was not seen here."""
        self.recent.jump(position)
        self.wake()

    def wake(self) -> None:
        """There is something new, or there never will be."""
        if self._waiting:
            self._waiting = False
            self._more.set()
            self._more = trio.Event()

    def end(self) -> None:
        """The server ends: nothing comes any more, and everybody is told."""
        self.ended = True
        self.thread.end()
        self.wake()

    # -- following ---------------------------------------------------------------------------------

    def begin(self, after: Position | None) -> Position:
        """Where a subscriber begins; None: now, and not when it asks for its first batch."""
        if after is not None and after < 0:
            raise ValueError(f"after is {after!r}; allowed is a position, 0 or greater")
        return self.recent.end if after is None else after

    @trio.as_safe_channel
    async def follow(self, after: Position) -> AsyncGenerator[tuple[TailEntry, ...], None]:
        """Batches after a position."""
        with self._counted():
            cursor = Cursor(self, after)
            while True:
                yield await cursor.next()

    async def poll(self, after: Position, wait_ms: int) -> tuple[TailEntry, ...]:
        """The next batch, for a remote subscriber; none after so long. Raises Compacted, Overloaded."""
        with self._counted():
            cursor = self._parked.pop(after, None) or Cursor(self, after, remote=True)
            batch: tuple[TailEntry, ...] = ()
            with trio.move_on_after(wait_ms / 1000):
                batch = await cursor.next()
            if cursor.rereads:  # a long way may take many requests
                self._parked[cursor.position] = cursor
                while len(self._parked) > PARKED_MAX:
                    del self._parked[next(iter(self._parked))]
            return batch

    @contextmanager
    def _counted(self) -> Iterator[None]:
        if self._subscribers >= self.limits.subscribers_max:
            raise Overloaded(
                f"{self._subscribers} follow the merged log, which is tail.subscribers_max ="
                f" {self.limits.subscribers_max}"
            )
        self._subscribers += 1
        try:
            yield
        finally:
            self._subscribers -= 1

    async def wait(self) -> None:
        """Until something was applied, or the server ended."""
        self.check()
        self._waiting = True
        await self._more.wait()

    def check(self) -> None:
        """Raise NotReady where nothing comes any more."""
        if self.ended:
            raise NotReady("the server has ended")

    # -- further back than memory ------------------------------------------------------------------

    @property
    def retained(self) -> Position:
        """The first position that one may subscribe after."""
        if not any(self._start(group) for group in range(len(self._engine.state.replicas))):
            return 0
        return min([self.recent.start, *(info.head.position for info in self._bases())])

    def _start(self, group: int) -> Index:
        return self._engine.state.raft(group).log.start.place.index

    def _bases(self) -> list[SnapshotInfo]:
        """The snapshots behind which all logs are there."""
        return [
            info
            for info in self._engine.state.snapshots.kept
            if info.id not in self._damaged
            and all(self._start(group) <= cut.place.index for group, cut in enumerate(info.head.cuts))
        ]

    async def reread(self, after: Position) -> Remerger:
        """What merges the logs once more, from a place at or before a position. Raises Compacted."""
        while True:
            if self.retained > after:
                raise Compacted(after, self.retained)
            bases = [info for info in self._bases() if info.head.position <= after]
            if not bases:
                return Remerger.from_the_beginning(len(self._engine.state.replicas))
            async with self._reading:
                self.check()
                remerger = await self._in_thread(partial(self._resume, max(bases)))
            if remerger is not None:
                return remerger
            # Not from that one. If it went while we read, the engine hears of it with a turn: look again.

    def _resume(self, base: SnapshotInfo) -> Remerger | None:
        """From a snapshot on; None where it is kept no more, or turns out damaged."""
        store = self._storage.snapshots
        try:
            return resume(base.head, store.parts(base.id))
        except (CraftError, OSError) as error:
            if base not in store.kept():
                return None
            if not isinstance(error, DamagedSnapshot):
                raise
            self._damaged.add(base.id)
            event(log, logging.ERROR, "damaged snapshot: the next start puts it aside", error=str(error))
            return None

    async def read_piece(self, remerger: Remerger, position: Position) -> list[Remerged]:
        """Merge one more piece of the logs. Raises Compacted."""
        wanted = remerger.wanted
        last = self._engine.state.cursor[wanted.group]
        assert wanted.first_index <= last, "what was applied here can be merged once more"
        async with self._reading:
            await trio.sleep_until(self._pause_until)
            self.check()
            if self._start(wanted.group) >= wanted.first_index:
                raise Compacted(position, self.retained)
            began = trio.current_time()
            entries = await self._entries(wanted, last, position)
            merged = remerger.take(wanted.group, entries)
            # Nothing may wait between taking and handing out: who is cancelled there would lose it.
            # An instant, not a time: who asks again and again, and never waits that long, comes to it too.
            self._pause_until = trio.current_time() + (trio.current_time() - began)
            self.reread_bytes.value += sum(len(entry.record) for entry in entries)
            return merged

    async def read_log(self, group: GroupId, first: Index) -> Piece:
        """A group's log from an index on, as it stands on the disk; no entries where it does not reach."""
        async with self._reading:
            await trio.sleep_until(self._pause_until)
            self.check()
            raft = self._engine.state.raft(group)
            log = raft.log
            entries: tuple[Entry, ...] = ()
            if log.start.place.index < first <= log.persisted:
                # What is not committed may be cut off while we read: it is read by itself.
                committed = first <= raft.commit_index
                last = min(log.persisted, raft.commit_index) if committed else log.persisted
                try:
                    entries = await self._read(group, first, last)
                except CraftError:
                    if committed and log.start.place.index < first:  # else it went while we read
                        raise
            return Piece(log.start.place.index, raft.commit_index, log.persisted, entries)

    async def snapshots(self) -> tuple[SnapshotInfo, ...]:
        """Those that are kept, the oldest first."""
        async with self._reading:
            self.check()
            return await self._in_thread(self._storage.snapshots.kept)

    async def read_snapshot(self, snapshot_id: SnapshotId, offset: int) -> bytes | None:
        """Bytes of a snapshot's file; None where it is kept no more."""
        read = partial(
            self._storage.snapshots.read, snapshot_id, offset=offset, bytes_max=self.limits.batch_bytes_max
        )
        async with self._reading:
            self.check()
            return await self._in_thread(read)

    async def _read(self, group: GroupId, first: Index, last: Index) -> tuple[Entry, ...]:
        return await self._in_thread(
            partial(
                self._storage.entries,
                group,
                first_index=first,
                last_index=last,
                bytes_max=self.limits.reread_bytes,
            )
        )

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Read; whoever holds `_reading`. Raises NotReady where the server ends first, Overloaded."""
        try:
            return await self.thread.run(work)
        except Stopped:
            raise NotReady("the server has ended") from None
        except StorageFailed as error:
            if not any(words in str(error) for words in NO_FILE_LEFT):
                raise
            raise Overloaded(f"nothing can be read now: {error}") from error

    async def _entries(self, wanted: Wanted, last: Index, position: Position) -> tuple[Entry, ...]:
        try:
            return await self._read(wanted.group, wanted.first_index, last)
        except CraftError:
            if self._start(wanted.group) >= wanted.first_index:  # it was compacted while we read
                raise Compacted(position, self.retained) from None
            raise


class Cursor:
    """One subscriber's place."""

    def __init__(self, tails: Tails, position: Position, *, remote: bool = False) -> None:
        """A remote one is asked for batch by batch, and is never too slow: the logs have what memory lost."""
        self.position = position
        self._tails = tails
        self._remote = remote
        self._follows = False  # it has been at the end: from there on it must keep up
        self._remerger: Remerger | None = None

    @property
    def rereads(self) -> bool:
        """Is it still on its way from further back than memory?"""
        return self._remerger is not None

    async def next(self) -> tuple[TailEntry, ...]:
        """The next batch; waits for it. Raises TooSlow, Compacted, NotReady."""
        while True:
            await trio.lowlevel.checkpoint()  # not between a batch and its return, where it would be lost
            self._tails.check()
            batch = self._tails.recent.after(self.position, bytes_max=self._tails.limits.batch_bytes_max)
            if batch is None:
                batch = await self._from_logs()
            elif not batch:
                self._follows, self._remerger = not self._remote, None
                await self._tails.wait()
            if batch:
                self.position = batch[-1].position
                self._tails.handed_out.value += len(batch)
                return batch

    async def _from_logs(self) -> tuple[TailEntry, ...]:
        """What one more piece of the logs gives, where memory does not reach."""
        if self._follows:
            self._tails.dropped.value += 1
            raise TooSlow(self.position)
        if self._remerger is None:
            self._remerger = await self._tails.reread(self.position)
        remerged = await self._tails.read_piece(self._remerger, self.position)
        end = self._tails.recent.end
        if remerged and remerged[-1].merged.position > end:
            # The logs hold what is not applied yet. It is not handed out, and would not come out again.
            self._remerger = None
        return tuple(tail_entry(one.merged) for one in remerged if self.position < one.merged.position <= end)
