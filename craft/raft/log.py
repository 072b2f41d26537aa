"""The tail of one group's log that is held in memory, and how much of the log storage has made durable.

Knows: entries, indexes, terms, timestamps. Must not know: roles, peers, time, disks.

Invariants
- Indexes are contiguous; terms never fall; timestamps rise strictly (PROTOCOL 2). Asserted on append.
- `offset.index <= persisted <= last_index`, and `handed <= last_index`: a truncation lowers all three at
  once. So a write that completes after its entries were overwritten can never vouch for their successors (the
  ABA of etcd-io/etcd#1690).
- Only committed and persisted entries leave memory; what a truncation cuts is therefore always in memory.
- `start.place.index <= offset.index`: what is at or below `start` is compacted, gone from disk as well.
- `configurations` holds every configuration entry behind `start`, in memory or not (PROTOCOL 8).

Reference: Raft 5.3; PROTOCOL 1, 10.
"""

from __future__ import annotations

from collections.abc import Sequence

from craft.marks import mark
from craft.types import (
    Append,
    Configuration,
    Cut,
    Entry,
    EntryKind,
    Index,
    Place,
    RecoveredGroup,
    Term,
    Timestamp,
    is_command,
    size_of,
    unpack_configuration,
)

_EMPTY = EntryKind.EMPTY

ENTRY_OVERHEAD_BYTES = 200
"""What an entry takes in memory beside its record. A closing entry is little else, and most entries are."""


def memory_of(entries: Sequence[Entry]) -> int:
    """Bytes that these take in memory, about."""
    return size_of(entries) + ENTRY_OVERHEAD_BYTES * len(entries)


class Log:
    """One group's entries above `offset`.

    What is at or below `offset` is on disk only; what is at or below `start` is nowhere.
    """

    __slots__ = (
        "bytes",
        "configurations",
        "cut",
        "entries",
        "handed",
        "last_command",
        "last_command_timestamp",
        "last_index",
        "offset",
        "offset_timestamp",
        "persisted",
        "start",
    )

    def __init__(self, recovered: RecoveredGroup) -> None:
        self.start = recovered.start
        self.configurations = list(recovered.configurations)
        self.offset = recovered.offset
        self.offset_timestamp = recovered.offset_timestamp
        self.entries: list[Entry] = list(recovered.tail)
        self.last_index: Index = self.offset.index + len(self.entries)  # 0 if there is none
        self.bytes = memory_of(recovered.tail)
        self.last_command = recovered.last_command
        self.last_command_timestamp: Timestamp = self._find_last_command()[1]
        self.persisted = self.handed = self.last_index
        self.cut: Index = 0
        self._check_joins(self.offset_timestamp, self.offset, recovered.tail)

    @property
    def last_term(self) -> Term:
        """The term of the last entry; 0 if there is none."""
        return self.entries[-1].term if self.entries else self.offset.term

    @property
    def last_timestamp(self) -> Timestamp:
        """The timestamp of the last entry; 0 if there is none. The floor of the next stamp (PROTOCOL 2)."""
        return self.entries[-1].timestamp if self.entries else self.offset_timestamp

    def entry(self, index: Index) -> Entry:
        """The entry at an index that is in memory."""
        assert self.offset.index < index <= self.last_index
        return self.entries[index - self.offset.index - 1]

    def term_at(self, index: Index) -> Term | None:
        """The term at an index, or None where it is beyond the log or no longer in memory."""
        if index > self.last_index:
            return None
        position = index - self.offset.index - 1
        if position >= 0:
            return self.entries[position].term
        return self.offset.term if position == -1 else None

    def may_follow(self, entry: Entry) -> bool:
        """Do the entry's term and stamp fit behind what stands just before its index? That is in memory."""
        index = entry.index - 1
        if not index:
            return True
        term = self.term_at(index)
        assert term is not None, "the entry before is in memory or is the offset"
        stamp = self.offset_timestamp if index == self.offset.index else self.entry(index).timestamp
        return term <= entry.term and stamp < entry.timestamp

    def slice(self, first_index: Index, *, last_index: Index, bytes_max: int) -> tuple[Entry, ...]:
        """Entries in memory from `first_index`, up to `last_index` or about `bytes_max`; at least one."""
        assert self.offset.index < first_index <= last_index <= self.last_index
        start = first_index - self.offset.index - 1
        stop = last_index - self.offset.index
        if stop == start + 1:
            return (self.entries[start],)
        budget = bytes_max
        for position in range(start, stop):
            budget -= len(self.entries[position].record)
            if budget < 0 and position > start:
                stop = position
                break
        return tuple(self.entries[start:stop])

    def append(self, entries: tuple[Entry, ...]) -> None:
        """Append entries that follow the last one."""
        last = self.entries[-1] if self.entries else None
        if last is None:
            self._check_joins(self.offset_timestamp, self.offset, entries)
        else:
            self._check_joins(last.timestamp, (last.term, last.index), entries)
        self.entries.extend(entries)
        self.last_index += len(entries)
        self.bytes += memory_of(entries)
        for entry in entries:
            if entry.kind is _EMPTY:
                continue
            if is_command(entry.kind):
                self.last_command = Place(entry.term, entry.index)
                self.last_command_timestamp = entry.timestamp
            else:
                self.configurations.append(entry)

    def truncate_from(self, index: Index) -> None:
        """Drop the entry at `index` and all after it. The next write tells storage to do the same."""
        assert self.offset.index < index <= self.last_index
        dropped = self.entries[index - self.offset.index - 1 :]
        del self.entries[index - self.offset.index - 1 :]
        self.last_index = index - 1
        self.bytes -= memory_of(dropped)
        while self.configurations and self.configurations[-1].index >= index:
            self.configurations.pop()
        if self.handed >= index:
            self.cut = min(self.cut or index, index)
        if self.persisted < index <= self.handed:
            mark("entries cut while being written")
        self.persisted = min(self.persisted, index - 1)
        self.handed = min(self.handed, index - 1)
        if self.last_command.index >= index:
            self.last_command, self.last_command_timestamp = self._find_last_command()

    def _find_last_command(self) -> tuple[Place, Timestamp]:
        for entry in reversed(self.entries):
            if is_command(entry.kind):
                return Place(entry.term, entry.index), entry.timestamp
        # Further back is on disk. The offset is at or past it; too high a place only makes a read wait
        # (PROTOCOL 6), and too high a timestamp only makes someone close once more.
        return self.offset, self.offset_timestamp

    def configuration_upto(self, index: Index) -> tuple[Place, Configuration] | None:
        """The latest configuration at or before `index`; None: that of the cluster's creation.

        Also where a cut says what that was: each server knows that itself, and perhaps more of its own id.
        """
        for entry in reversed(self.configurations):
            if entry.index <= index:
                return Place(entry.term, entry.index), unpack_configuration(entry.payload)
        start = self.start
        return (start.configuration_at, start.configuration) if start.configuration_at.index else None

    def compact(self, cut: Cut) -> None:
        """What is at or below `cut` leaves the disk, and so memory too. The next write tells storage."""
        assert self.start.place.index < cut.place.index <= self.persisted
        index = cut.place.index
        if index > self.offset.index:
            self._drop_oldest(index - self.offset.index)
        self.start = cut
        self.configurations = [entry for entry in self.configurations if entry.index > index]

    def reset(self, cut: Cut) -> None:
        """The log is that of an installed snapshot: empty, behind its cut."""
        self.entries.clear()
        self.bytes = self.cut = 0
        self.configurations.clear()
        self.start, self.offset, self.offset_timestamp = cut, cut.place, cut.timestamp
        self.last_command, self.last_command_timestamp = cut.place, cut.timestamp
        self.persisted = self.handed = self.last_index = cut.place.index

    def take_append(self, group: int) -> Append | None:
        """What storage has not been handed yet, or None. Handing it over is not yet persisting it."""
        if self.handed == self.last_index and not self.cut:
            return None
        append = Append(group, self.cut, tuple(self.entries[self.handed - self.offset.index :]))
        self.handed, self.cut = self.last_index, 0
        return append

    def mark_persisted(self, upto: Index) -> None:
        """A write that ended at `upto` is durable; what was cut since then is not counted (`handed` fell)."""
        self.persisted = max(self.persisted, min(upto, self.handed))

    def unsynced_bytes(self) -> int:
        """Bytes of the entries that are not durable yet; only memory holds them."""
        return size_of(self.entries[self.persisted - self.offset.index :])

    def evict(self, upto: Index, *, bytes_max: int) -> None:
        """Let the oldest entries at or below `upto` leave memory until it holds about `bytes_max`.

        It takes as long as moving all that stay: let many go at a time.
        """
        assert upto <= self.persisted
        count = 0
        for entry in self.entries:
            if self.bytes <= bytes_max or entry.index > upto:
                break
            self.bytes -= len(entry.record) + ENTRY_OVERHEAD_BYTES
            count += 1
        if count:
            self._leave_memory(count)

    def _drop_oldest(self, count: int) -> None:
        self.bytes -= memory_of(self.entries[:count])
        self._leave_memory(count)

    def _leave_memory(self, count: int) -> None:
        last = self.entries[count - 1]
        self.offset, self.offset_timestamp = Place(last.term, last.index), last.timestamp
        del self.entries[:count]

    def _check_joins(
        self, timestamp: Timestamp, place: tuple[Term, Index], entries: tuple[Entry, ...]
    ) -> None:
        term, index = place
        for entry in entries:
            # PROTOCOL 2: timestamps rise strictly along each group's log, across terms and leaders.
            assert (
                entry.index == index + 1
                and entry.term >= term
                and (entry.timestamp > timestamp or index == 0)
            ), f"entry {entry[:4]} does not follow ({term=}, {index=}, {timestamp=})"
            term, index, timestamp = entry.term, entry.index, entry.timestamp
