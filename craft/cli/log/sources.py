"""Where `craft log` reads: a stopped server's directory, or a running server.

Both give rows, group by group as the logs stand, or merged as the state machine was given them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Protocol

import trio

from craft.cli.log.rows import Row, row_of
from craft.client import Client
from craft.engine.resuming import resume
from craft.errors import Compacted, ConfigError, RemoteError
from craft.remerging import Remerger
from craft.storage.rocks.peeking import INDEX_MAX, StoppedServer
from craft.tailing import commands_of, unpack_rows
from craft.types import Entry, GroupId, Index, Position, decode_entry
from craft.wire.fields import shown

PIECE_ENTRIES = 64
"""Read of one group before the merge asks for another."""


class Source(Protocol):
    """Some server's log."""

    notes: list[str]
    """What one should know of what was read: said at the end, on stderr."""

    @property
    def groups(self) -> int:
        """How many there are."""

    def group(self, group: GroupId) -> AsyncIterator[Row]:
        """A group's entries that are not compacted, in order."""

    def merged(self, after: Position) -> AsyncIterator[Row]:
        """The merged log after a position. Raises Compacted."""


class DirectorySource:
    """A stopped server's."""

    def __init__(self, stopped: StoppedServer, *, uncommitted: bool = False) -> None:
        self._stopped = stopped
        self._uncommitted = uncommitted
        self.notes: list[str] = []
        if stopped.torn:
            self.notes.append(
                f"the log ends in a torn or damaged batch, and is read up to there: {stopped.torn}"
            )

    @property
    def groups(self) -> int:
        """How many there are."""
        return self._stopped.groups

    async def group(self, group: GroupId) -> AsyncIterator[Row]:
        """A group's entries, those too that are not known committed."""
        start, commit = self._stopped.start(group), self._stopped.hard_state(group).commit
        _note_start(self.notes, group, start.place.index)
        for entry in self._stopped.entries(group, start.place.index + 1):
            await trio.lowlevel.checkpoint()
            yield row_of(group, entry, committed=entry.index <= commit)

    async def merged(self, after: Position) -> AsyncIterator[Row]:
        """As far as this directory knows entries committed; or, if wanted, as far as it has any."""
        stopped = self._stopped
        remerger = Remerger.from_the_beginning(stopped.groups)
        if any(stopped.start(group).place.index for group in range(stopped.groups)):
            base = stopped.base(after)
            if base is None:
                whole = [one.head.position for one in stopped.snapshots()]
                if not whole:
                    raise ConfigError(
                        f"{stopped.path}: its logs are compacted, and no whole snapshot is there to begin at;"
                        " allowed: --group"
                    )
                raise Compacted(after, min(whole))
            remerger = resume(base.head, base.parts())
        logs = [self._pieces(group, remerger.first(group)) for group in range(stopped.groups)]
        certain = True
        while piece := next(logs[group := remerger.wanted.group], ()):
            for merged, entry, _ in remerger.take(group, piece):
                await trio.lowlevel.checkpoint()
                # Where one entry is uncertain, so is the place of all that follow.
                certain = certain and entry.index <= stopped.hard_state(merged.group).commit
                if merged.position > after:
                    row = row_of(merged.group, entry, committed=certain)
                    yield row._replace(position=merged.position, commands=commands_of(merged))
        known = "goes" if self._uncommitted else "is known committed (more: --uncommitted)"
        self.notes.append(f"merged as far as group {group} {known} here")

    def _pieces(self, group: GroupId, first: Index) -> Iterator[tuple[Entry, ...]]:
        last = INDEX_MAX if self._uncommitted else self._stopped.hard_state(group).commit
        piece: list[Entry] = []
        for entry in self._stopped.entries(group, first, last):
            piece.append(entry)
            if len(piece) >= PIECE_ENTRIES:
                yield tuple(piece)
                piece = []
        if piece:
            yield tuple(piece)


class RemoteSource:
    """A running server's. What it appends while we read is read as well, up to where it was when we began."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.notes: list[str] = []

    @property
    def groups(self) -> int:
        """How many there are."""
        return self._client.groups

    async def group(self, group: GroupId) -> AsyncIterator[Row]:
        """A group's entries, those too that are not known committed."""
        index: Index = 1
        upto: Index | None = None
        while upto is None or index <= upto:
            start, commit, last, records = await self._piece(group, index)
            upto = last if upto is None else upto
            if index <= start:
                _note_start(self.notes, group, start)
                index = start + 1
                continue
            if not records:
                return
            for record in records:
                entry = decode_entry(group, record)
                if entry.index != index:
                    raise RemoteError(f"group {group}: entry {entry.index} came where {index} is next")
                yield row_of(group, entry, committed=index <= commit)
                index += 1

    async def _piece(self, group: GroupId, index: Index) -> tuple[Index, Index, Index, tuple[bytes, ...]]:
        answer = await self._client.get("log", [group, index])
        whole = type(answer) is tuple and len(answer) == 4 and all(type(one) is int for one in answer[:3])
        if not whole or type(answer[3]) is not tuple or not all(type(one) is bytes for one in answer[3]):
            raise RemoteError(
                f"an answer to log is {shown(answer)}; allowed is [start, commit, last, records]"
            )
        return answer  # type: ignore[no-any-return]

    async def merged(self, after: Position) -> AsyncIterator[Row]:
        """As it was applied there, up to where that was when we began."""
        upto = (await self._client.status())["applied_position"]
        while after < upto:
            retained, rows = await self._client.get("tail", [after, 1000])
            if rows is None:
                raise Compacted(after, retained)
            for entry in unpack_rows(rows):
                if entry.position > upto:
                    return
                position, timestamp, group, index, kind, commands = entry
                yield Row(group, index, timestamp, kind, commands, position=position)
                after = position


def _note_start(notes: list[str], group: GroupId, start: Index) -> None:
    if start:
        notes.append(f"group {group} is compacted up to index {start}")
