"""Giving the system back what compactions have dropped.

RocksDB takes a dropped range away when it merges the tables that hold it, which by itself it does only when
as much has been written again. So a server that is idle after a compaction would keep what it dropped, and
a directory's size would say nothing.

Invariants
- RocksDB merges in threads of its own and lets go of the interpreter's lock; what is written meanwhile is
  not held up.
- A merge rewrites what is kept, so it waits until the directory has grown by as much as that: each byte is
  rewritten about once, and the directory stays below twice what it holds and `RECLAIM_BYTES_MIN`.
"""

from __future__ import annotations

import pathlib

from rocksdict import Rdict

from craft.storage.rocks import layout

RECLAIM_BYTES_MIN = 32 * 1024 * 1024
"""Less than this is not worth a merge; half a write buffer."""


class Reclaimer:
    """What the last merge left of one log database."""

    def __init__(self, database: pathlib.Path, groups: int) -> None:
        self._database = database
        self._first, self._end = layout.entry_key(0, 0), layout.entries_end(groups - 1)
        self._left = 0

    def reclaim(self, db: Rdict) -> None:
        """Merge away what was dropped, if there is enough. Blocks; raises what RocksDB raises."""
        if database_bytes(self._database) - self._left < max(RECLAIM_BYTES_MIN, self._left):
            return
        db.compact_range(self._first, self._end)
        self._left = database_bytes(self._database)


def database_bytes(database: pathlib.Path) -> int:
    """What a database's files hold. Files come and go meanwhile."""
    total = 0
    for path in database.iterdir():
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total
