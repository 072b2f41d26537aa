"""Giving the system back what compactions have dropped.

RocksDB takes a dropped range away when it merges the tables that hold it, which by itself it does only when
as much has been written again. So a server that is idle after a compaction would keep what it dropped, and
a directory's size would say nothing.

Larger records lie apart, in files of values, of which the tables hold the places: a merge drops the places,
and a file goes once no table has a place in it. Logs are dropped in the order in which they were written, so
files go whole, and nobody copies what stays. But where one group moves on and another does not, what the
second keeps, keeps the files of both: then what is kept is moved together.

Invariants
- RocksDB merges in threads of its own and lets go of the interpreter's lock; what is written meanwhile is
  not held up.
- A merge rewrites tables, so it waits until the database has grown by as much as they hold; and values are
  moved when the files hold as much that is dropped as is kept. So each byte is rewritten about once, and the
  database stays below twice what it holds and `RECLAIM_BYTES_MIN`.
"""

from __future__ import annotations

import pathlib

from rocksdict import BottommostLevelCompaction, CompactOptions, Rdict

from craft.storage.rocks import layout

RECLAIM_BYTES_MIN = 16 * 1024 * 1024
"""Less than this is not worth a merge: a write buffer."""


class Reclaimer:
    """What the last merge left of one log database."""

    def __init__(self, database: pathlib.Path, groups: int) -> None:
        self._database = database
        self._first, self._end = layout.entry_key(0, 0), layout.entries_end(groups - 1)
        self._left = 0
        self._tables_left = 0

    def reclaim(self, db: Rdict) -> None:
        """Merge away what was dropped, if there is enough. Blocks; raises what RocksDB raises."""
        grown = database_bytes(self._database) - self._left
        if grown < max(RECLAIM_BYTES_MIN, self._tables_left):
            return
        db.compact_range(self._first, self._end)
        apart, dropped = _property(db, "live-blob-file-size"), _property(db, "live-blob-file-garbage-size")
        if dropped >= max(RECLAIM_BYTES_MIN, apart - dropped):
            self._move_together(db)
        self._left = database_bytes(self._database)
        self._tables_left = _property(db, "total-sst-files-size")

    def _move_together(self, db: Rdict) -> None:
        """Copy the values that are kept to files of their own."""
        everything = CompactOptions()
        everything.set_bottommost_level_compaction(BottommostLevelCompaction.force())
        db.set_options({"enable_blob_garbage_collection": "true", "blob_garbage_collection_age_cutoff": "1"})
        try:
            db.compact_range(self._first, self._end, everything)
        finally:
            db.set_options({"enable_blob_garbage_collection": "false"})


def _property(db: Rdict, name: str) -> int:
    """One of RocksDB's figures; 0 where it has none."""
    return db.property_int_value(f"rocksdb.{name}") or 0


def database_bytes(database: pathlib.Path) -> int:
    """What a database's files hold. Files come and go meanwhile."""
    total = 0
    for path in database.iterdir():
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total
