"""A write as one RocksDB batch: which keys are put, which go (docs/reference/disk-format.md).

Invariants
- A write that would leave a gap, or a start that its log does not reach, raises before anything is written.
- The bounds and configurations that it returns are those of the logs once the batch is written; they are
  adopted only then.
"""

from __future__ import annotations

from operator import attrgetter
from typing import NamedTuple

from rocksdict import WriteBatch

from craft.recovery import end_after, end_after_start
from craft.storage.rocks import layout
from craft.types import Append, EntryKind, GroupId, Index, Start, Write

_CONFIGURATION = EntryKind.CONFIGURATION
_kind = attrgetter("kind")


class Bounds(NamedTuple):
    """A group's log:

    what is at or below `start` is gone; it ends at `last`. And where configurations stand.
    """

    start: Index
    last: Index
    configurations: tuple[Index, ...]


BLANK = Bounds(0, 0, ())


def add_logs(batch: WriteBatch, write: Write, bounds: list[Bounds]) -> dict[GroupId, Bounds]:
    """Add what a write changes in the logs; returns the bounds of those groups afterwards."""
    after: dict[GroupId, Bounds] = {}
    for start in write.starts:
        after[start.group] = _add_start(batch, start, after.get(start.group, bounds[start.group]))
    for append in write.appends:
        after[append.group] = _add_append(batch, append, after.get(append.group, bounds[append.group]))
    return after


def _add_start(batch: WriteBatch, start: Start, before: Bounds) -> Bounds:
    """Drop what the start drops, and put the cut.

    A compaction drops a hundred thousand entries at a time: deleting them key by key would hold up the
    event loop for as long as writing them did. One range tombstone a group costs nothing here, and the
    reads that must look at it end when `reclaim` takes it away together with what it covers.
    """
    group, index = start.group, start.cut.place.index
    last = end_after_start(start, before.last, before=before.start)
    end = layout.entry_key(group, index + 1) if start.keep else layout.entries_end(group)
    batch.delete_range(layout.entry_key(group, 0), end)
    kept = tuple(at for at in before.configurations if start.keep and at > index)
    for at in before.configurations:
        if at not in kept:
            batch.delete(layout.configuration_key(group, at))
    key = layout.start_key(group)
    batch.put(key, layout.start_value(key, start.cut))
    return Bounds(index, last, kept)


def _add_append(batch: WriteBatch, append: Append, before: Bounds) -> Bounds:
    """Put the entries and delete what a cut leaves behind them.

    A cut takes few entries, none of them committed. Deletes of single keys cost less than a range
    tombstone, which every later read would have to look at.
    """
    group = append.group
    end = end_after(append, before.last, start=before.start)
    for entry in append.entries:
        batch.put(layout.entry_key(group, entry.index), entry.record)
    for index in range(end + 1, before.last + 1):
        batch.delete(layout.entry_key(group, index))
    if not append.truncate_from and _CONFIGURATION not in map(_kind, append.entries):
        return Bounds(before.start, end, before.configurations)
    return Bounds(before.start, end, _mark_configurations(batch, append, before))


def add_suspicions(batch: WriteBatch, write: Write) -> None:
    """Put the reasons of suspicions that begin, and drop those that end (PROTOCOL 10)."""
    for group, reason in write.suspicions:
        key = layout.suspicion_key(group)
        if reason:
            batch.put(key, layout.seal(key, reason.encode()))
        else:
            batch.delete(key)


def _mark_configurations(batch: WriteBatch, append: Append, before: Bounds) -> tuple[Index, ...]:
    """Mark the configurations that are put, and no longer those that are cut."""
    group, cut = append.group, append.truncate_from or before.last + 1
    for index in before.configurations:
        if index >= cut:
            batch.delete(layout.configuration_key(group, index))
    fresh = tuple(entry.index for entry in append.entries if entry.kind is EntryKind.CONFIGURATION)
    for index in fresh:
        key = layout.configuration_key(group, index)
        batch.put(key, layout.seal(key, b""))
    return (*(index for index in before.configurations if index < cut), *fresh)
