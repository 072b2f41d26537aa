"""The task that lets a storage give back what compactions have dropped, off the event loop.

Invariants
- At most one at a time, and only behind a synced write that dropped something.
- The end of the server does not wait for it: closing the storage ends it.
"""

from __future__ import annotations

import trio

from craft.storage import Storage
from craft.types import Write


class Reclaiming:
    """One storage's, while its server runs."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._dropped = False
        self._wanted = trio.Event()

    def wrote(self, write: Write) -> None:
        """A write is on its way to the disk."""
        self._dropped = self._dropped or bool(write.starts)

    def synced(self) -> None:
        """It is durable: what it dropped may go."""
        if self._dropped:
            self._dropped = False
            self._wanted.set()

    async def run(self) -> None:
        """Until cancelled. Raises StorageFailed."""
        own = trio.CapacityLimiter(1)  # a merge of gigabytes takes seconds
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            await trio.to_thread.run_sync(self._storage.reclaim, limiter=own, abandon_on_cancel=True)
