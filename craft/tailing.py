"""The tail of the merged log: what was applied of late, as many entries as fit, for those who subscribe.

Knows: entries that were applied, in order. Must not know: who reads, how they wait, the disk.

Invariants
- Its entries are contiguous by position and end at the last one that was applied here.
- It holds at most `bytes_max`, plus one entry.
- A position is at or after the first one, or it is no longer here: nothing between is ever left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from craft.applying import unpack
from craft.errors import WireError
from craft.ready import Merged, Request
from craft.types import EntryKind, GroupId, Index, Position, Timestamp
from craft.wire.fields import shown

ENTRY_OVERHEAD_BYTES = 256
"""What an entry costs in memory beside its commands."""


class TailEntry(NamedTuple):
    """One entry of the merged log, as it was applied."""

    position: Position
    """1, 2, 3, … without a gap; equal on all servers."""

    timestamp: Timestamp
    """Nanoseconds since the Unix epoch; rising, and equal only between groups."""

    group: GroupId
    """Through which group it came."""

    index: Index  # type: ignore[assignment]  # the field's own word; tuple.index is never wanted here
    """Its place in that group's log."""

    kind: EntryKind

    commands: tuple[bytes, ...]
    """What took effect, in order: exactly what the state machine was given. May be empty."""


def commands_of(merged: Merged) -> tuple[bytes, ...]:
    """What the state machine is given of an entry."""
    return tuple(command for request in merged.requests for command in unpack(request.body))


def tail_entry(merged: Merged) -> TailEntry:
    """An entry for whoever subscribes."""
    position, timestamp, group, index, kind, *_ = merged
    return TailEntry(position, timestamp, group, index, kind, commands_of(merged))


class _Kept(NamedTuple):
    merged: Merged  # without anybody's tokens
    size: int


class Recent:
    """The last applied entries."""

    def __init__(self, position: Position, *, bytes_max: int) -> None:
        self.bytes = 0
        self._bytes_max = bytes_max
        self._kept: list[_Kept] = []
        self._gone = 0  # how many at the front of the list are no longer here
        self.end = position

    @property
    def start(self) -> Position:
        """Everything after this position is here."""
        return self.end - (len(self._kept) - self._gone)

    def note(self, entries: Iterable[Merged]) -> None:
        """These were applied. After a jump (an installed snapshot) nothing before is here any more."""
        for merged in entries:
            if merged.position != self.end + 1:
                self.jump(merged.position - 1)
            kept = _without_tokens(merged)
            self._kept.append(kept)
            self.bytes += kept.size
            self.end = merged.position
        while self.bytes > self._bytes_max and self._gone < len(self._kept) - 1:
            self.bytes -= self._kept[self._gone].size
            self._kept[self._gone] = _NOTHING  # its memory is free at once
            self._gone += 1
        if self._gone > len(self._kept) // 2:
            del self._kept[: self._gone]
            self._gone = 0

    def jump(self, position: Position) -> None:
        """Everything up to `position` is applied, and was not seen here."""
        self._kept.clear()
        self._gone = self.bytes = 0
        self.end = position

    def after(self, position: Position, *, bytes_max: int) -> tuple[TailEntry, ...] | None:
        """The entries after a position, up to about `bytes_max` (at least one); none: they are not yet.

        None: they are no longer here.
        """
        if position < self.start:
            return None
        found: list[TailEntry] = []
        size = 0
        at = self._gone + position - self.start
        while at < len(self._kept) and (not found or size < bytes_max):
            size += self._kept[at].size
            found.append(tail_entry(self._kept[at].merged))
            at += 1
        return tuple(found)


def _without_tokens(merged: Merged) -> _Kept:
    """Who waits for an answer must not be kept in memory by what is remembered."""
    requests = merged.requests
    size = ENTRY_OVERHEAD_BYTES
    waited_for = bool(merged.clients or merged.members)
    for token, body in requests:
        size += len(body)
        waited_for = waited_for or token is not None
    if waited_for:  # else, as on all servers but one, it is kept as it is
        requests = tuple([Request(None, body) for _, body in requests])
        merged = merged._replace(requests=requests, clients=(), members=())
    return _Kept(merged, size)


_NOTHING = _Kept(Merged(0, 0, 0, 0, EntryKind.EMPTY, ()), 0)


# -- on the wire -----------------------------------------------------------------------------------


def pack_rows(entries: Sequence[TailEntry]) -> list[list[Any]]:
    """Entries as plain values, for the wire."""
    return [[*entry[:4], int(entry.kind), list(entry.commands)] for entry in entries]


def unpack_rows(rows: Any) -> tuple[TailEntry, ...]:
    """Such values as entries. Raises WireError for any others."""
    try:
        return tuple(_unpack_row(row) for row in rows)
    except (TypeError, ValueError) as error:
        raise WireError(f"a batch of the tail is {shown(rows)}: {error}") from None


def _unpack_row(row: Any) -> TailEntry:
    *numbers, kind, commands = row
    position, timestamp, group, index = numbers
    if not all(type(one) is int for one in (*numbers, kind)):
        raise ValueError("a place is made of integers")
    if not all(type(command) is bytes for command in commands):
        raise ValueError("commands are bytes")
    return TailEntry(position, timestamp, group, index, EntryKind(kind), tuple(commands))
