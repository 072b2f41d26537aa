"""Logs in memory, of a storage that may forget and of a simulated disk.

Invariants
- `entries` follow `start` without a gap; a write that would leave one is refused before it changes anything.
- A log never keeps what a start drops, and a start is only accepted where the log has that very entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from craft.errors import InvariantViolation
from craft.recovery import (
    RecoveredLog,
    begin_check,
    check_asked,
    check_record,
    end_after,
    end_after_start,
    read_log,
)
from craft.types import (
    BEGINNING,
    Append,
    Cut,
    Entry,
    EntryKind,
    GroupId,
    Index,
    Place,
    Start,
    Term,
    Write,
)


class HeldLog:
    """One group's log behind its start."""

    __slots__ = ("entries", "start")

    def __init__(self, start: Cut = BEGINNING, entries: Iterable[Entry] = ()) -> None:
        self.start = start
        self.entries = list(entries)

    @property
    def start_index(self) -> Index:
        """What is at or below this index is gone."""
        return self.start.place.index

    @property
    def last_index(self) -> Index:
        """Where the log ends."""
        return self.start.place.index + len(self.entries)

    def get(self, index: Index) -> Entry | None:
        """The entry at an index; None where there is none, or none any more."""
        position = index - self.start.place.index - 1
        return self.entries[position] if 0 <= position < len(self.entries) else None

    def term_at(self, index: Index) -> Term | None:
        """The term at an index, that of the start included; None elsewhere."""
        entry = self.get(index)
        if entry is None:
            return self.start.place.term if index == self.start.place.index else None
        return entry.term

    def holds(self, index: Index, term: Term) -> bool:
        """Does it have this entry? Below its start it had what was committed there."""
        return index < self.start.place.index or self.term_at(index) == term

    def copy(self) -> HeldLog:
        """A twin that changes by itself."""
        return HeldLog(self.start, self.entries)

    def begin(self, start: Start) -> None:
        """Carry out a start."""
        self.entries = self.entries[start.cut.place.index - self.start.place.index :] if start.keep else []
        self.start = start.cut

    def append(self, append: Append) -> None:
        """Cut and append."""
        if append.truncate_from:
            del self.entries[append.truncate_from - self.start.place.index - 1 :]
        self.entries.extend(append.entries)

    def replace(self, entry: Entry, *, index: Index) -> None:
        """Put another entry in the place of one."""
        self.entries[index - self.start.place.index - 1] = entry

    def read(
        self, group: GroupId, first_index: Index, last_index: Index, bytes_max: int
    ) -> tuple[Entry, ...]:
        """What the port's `entries` owes."""
        check_asked(group, first_index, last_index, start=self.start_index, end=self.last_index)
        found: list[Entry] = []
        size = 0
        for index in range(first_index, min(last_index, self.last_index) + 1):
            entry = check_record(group, index, self.entries[index - self.start_index - 1].record)
            size += entry.size
            if found and size > bytes_max:
                break
            found.append(entry)
        return tuple(found)

    def records(self, after: Index) -> Iterator[tuple[Index, bytes]]:
        """The records behind an index, with the indexes under which they are stored."""
        for index in range(after + 1, self.last_index + 1):
            yield index, self.entries[index - self.start.place.index - 1].record

    def recover(
        self, group: GroupId, *, commit: Index, tail_bytes_max: int, behind: Cut = BEGINNING
    ) -> RecoveredLog:
        """Check it as a real disk would, from a usable snapshot's cut on."""
        there = self.get(behind.place.index)
        begin = begin_check(group, self.start, behind=behind, record=None if there is None else there.record)
        earlier = self.entries[: begin.place.index - self.start_index]
        return read_log(
            group,
            self.records(begin.place.index),
            commit=commit,
            tail_bytes_max=tail_bytes_max,
            start=self.start,
            behind=begin,
            earlier=[entry for entry in earlier if entry.kind is EntryKind.CONFIGURATION],
        )


def check_write(logs: Sequence[HeldLog], write: Write) -> None:
    """Raise InvariantViolation if a write would leave a gap, or a start that its log does not have."""
    bounds = {group: (log.start_index, log.last_index) for group, log in enumerate(logs)}
    for start in write.starts:
        first, last = bounds[start.group]
        end = end_after_start(start, last, before=first)
        if start.keep:
            _check_cut(logs[start.group], start)
        bounds[start.group] = (start.cut.place.index, end)
    for append in write.appends:
        first, last = bounds[append.group]
        bounds[append.group] = (first, end_after(append, last, start=first))


def _check_cut(log: HeldLog, start: Start) -> None:
    entry = log.get(start.cut.place.index)
    have = (Place(entry.term, entry.index), entry.timestamp) if entry is not None else log.start[:2]
    if have != start.cut[:2]:
        raise InvariantViolation(f"group {start.group}: start at {start.cut[:2]} of a log with {have} there")


def carry_out(logs: Sequence[HeldLog], write: Write) -> None:
    """What a write does to the logs."""
    for start in write.starts:
        logs[start.group].begin(start)
    for append in write.appends:
        logs[append.group].append(append)


def suspicions_after(suspicions: Mapping[GroupId, str], write: Write) -> dict[GroupId, str]:
    """What a write does to the suspicions, by group (PROTOCOL 10)."""
    after = {**suspicions, **dict(write.suspicions)}
    return {group: reason for group, reason in after.items() if reason}
