"""The store as a state machine that keeps its data itself (craft's `Durable`).

Knows: craft's port. Must not know: how data are kept.

Invariants:
- A batch, with its position and timestamp, is written in one piece and not synced: a killed process has lost
  nothing, and what a power cut takes is given again.
- Where a restore is cut short, `last_applied` is 0, 0, and what is there counts for nothing.
- Between batches everything that has been applied is written: a fork needs nothing of memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import craft
from examples.kv import snapshots
from examples.kv.disk.database import open_database
from examples.kv.disk.keyspace import DiskKeyspace
from examples.kv.disk.table import CACHE_BYTES_MAX
from examples.kv.keyspace import Content
from examples.kv.machine import KeyValue
from examples.kv.replies import Reply
from examples.kv.values import Hash

RESTORED_BYTES = 1024 * 1024
"""Written at a time while a snapshot is restored: rocksdict holds the interpreter's lock meanwhile."""


class DurableKeyValue(KeyValue):
    """The replicated key-value store, with its data in a directory of its own."""

    def __init__(
        self, directory: Path, *, history_bytes_max: int = 0, cache_bytes_max: int = CACHE_BYTES_MAX
    ) -> None:
        """Opens the directory, or makes it; call `close` in the end. Raises craft.StorageFailed."""
        super().__init__(history_bytes_max=history_bytes_max)
        self._db = open_database(directory)
        self.disk = DiskKeyspace(self._db, cache_bytes_max=cache_bytes_max)
        meta = self.disk.table.meta
        self.now, self.position, self.timestamp = meta.now, meta.position, meta.timestamp
        self.space = self._remembering(self.disk)

    def close(self) -> None:
        """Nothing is asked of it any more."""
        self._db.close()

    def last_applied(self) -> craft.LastApplied:
        """Of the data on the disk."""
        meta = self.disk.table.meta
        return craft.LastApplied(meta.position, meta.timestamp) if meta.complete else craft.LastApplied()

    def apply_batch(self, batch: craft.Batch) -> list[Reply]:
        """Execute a batch's commands, and write what they changed; one reply each."""
        replies = super().apply_batch(batch)
        self.disk.commit(now=self.now, position=self.position, timestamp=self.timestamp)
        return replies

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Take over a snapshot; where it is not complete, nothing is left."""
        self.disk.reset()
        self.now = self.position = self.timestamp = 0
        filling = Filling(self.disk)
        try:
            moment = snapshots.read(chunks, filling)
        except BaseException:
            self.disk.reset()
            self._remembering(self.disk)
            raise
        self.disk.flushed_at = filling.flushed_at
        self.disk.commit(**moment._asdict())
        self.disk.table.sync()
        self.now, self.position, self.timestamp = moment
        self._remembering(self.disk)


class Filling:
    """Writes what a snapshot holds as it comes, so that it need not fit into memory."""

    def __init__(self, space: DiskKeyspace) -> None:
        self._space = space
        self._bytes = 0
        self.flushed_at = 0

    def keep(self, content: Content) -> None:
        """A key."""
        self._space.keep(content)
        value = content.value
        fields = value.fields.items() if isinstance(value, Hash) else [(b"", value)]
        self._bytes += sum([len(field) + len(held) for field, held in fields]) + len(content.key)
        if self._bytes > RESTORED_BYTES:
            self._space.commit(now=0, position=0, timestamp=0)
            self._bytes = 0

    def keep_gone(self, slot: int, position: int) -> None:
        """The last removal in a slot."""
        self._space.keep_gone(slot, position)
