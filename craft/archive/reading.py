"""A backup read back, with every check: what it was taken of, entry by entry.

Invariants
- Nothing is handed out before its checksum, group, index, term and timestamp were checked.
- Nothing behind what the manifest names is handed out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from craft.archive.files import BASE, Manifest, frames, read_manifest, segments
from craft.engine.resuming import resume
from craft.errors import ConfigError, DamagedBackup, DamagedStorage
from craft.recovery import check_record, check_successor
from craft.remerging import Remerged, Remerger
from craft.snapshots import Decoder
from craft.types import BEGINNING, Cut, Entry, GroupId, Head, Index, SnapshotPart, Term, Timestamp

READ_BYTES = 256 * 1024
PIECE_ENTRIES = 64
"""Read of one group before the merge asks for another."""


def snapshot_parts(path: Path, decoder: Decoder) -> Iterator[SnapshotPart]:
    """The parts of a snapshot's file, read to its end. Raises DamagedSnapshot, DamagedBackup."""
    try:
        with path.open("rb") as file:
            while data := file.read(READ_BYTES):
                yield from decoder.feed(data)
    except FileNotFoundError:
        raise DamagedBackup(f"{path} is missing") from None
    decoder.finish()


class _Before(NamedTuple):
    """What the next entry must follow."""

    index: Index  # type: ignore[assignment]  # the field's own word; tuple.index is never wanted here
    term: Term
    timestamp: Timestamp


def _checked(path: Path, group: GroupId, record: bytes, before: _Before) -> Entry:
    try:
        entry = check_record(group, before.index + 1, record)
        check_successor(group, entry, **before._asdict())
    except DamagedStorage as error:
        raise DamagedBackup(f"{path}: {error}") from error
    return entry


class Backup:
    """A backup in a directory. Raises ConfigError where there is none."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        found = read_manifest(directory) if directory.is_dir() else None
        if found is None:
            raise ConfigError(f"{directory} holds no backup; allowed: a directory that `craft backup` made")
        self.manifest: Manifest = found
        self.head: Head | None = self._read_head()

    # -- the base ----------------------------------------------------------------------------------

    def _read_head(self) -> Head | None:
        if not self.manifest.begin_position:
            return None
        decoder = Decoder()
        for _ in snapshot_parts(self.directory / BASE, decoder):
            pass
        return decoder.finish()

    def base_parts(self) -> Iterator[SnapshotPart]:
        """The parts of the snapshot that it begins with. Raises DamagedSnapshot."""
        return snapshot_parts(self.directory / BASE, Decoder())

    def remerger(self) -> Remerger:
        """What merges the logs, from the base on."""
        if self.head is None:
            return Remerger.from_the_beginning(self.manifest.groups)
        return resume(self.head, self.base_parts())

    def cut(self, group: GroupId) -> Cut:
        """Behind which place a group's log begins."""
        return BEGINNING if self.head is None else self.head.cuts[group]

    # -- the logs ----------------------------------------------------------------------------------

    def entries(self, group: GroupId) -> Iterator[Entry]:
        """A group's entries, checked. Raises DamagedBackup."""
        cut, last = self.cut(group), self.manifest.last[group]
        (term, index), timestamp = cut.place, cut.timestamp
        for first, path in segments(self.directory, group):
            if first > last:
                break
            for record, _ in frames(path):
                if index == last:
                    break
                entry = _checked(path, group, record, _Before(index, term, timestamp))
                index, term, timestamp = entry.index, entry.term, entry.timestamp
                yield entry
        if index < last:
            raise DamagedBackup(f"{self.directory}: group {group}: entries {index + 1} to {last} are missing")

    def merged(self, remerger: Remerger) -> Iterator[Remerged]:
        """The merged log behind the base, to the end. Raises DamagedBackup, also where it is another one."""
        logs = [self._pieces(group) for group in range(self.manifest.groups)]
        while piece := next(logs[group := remerger.wanted.group], ()):
            yield from remerger.take(group, piece)
        found = (remerger.state.merged_position, remerger.state.digest.hex())
        if found != (self.manifest.position, self.manifest.digest):
            raise DamagedBackup(
                f"{self.directory}: its logs merge to position {found[0]} with digest {found[1]}, and its"
                f" manifest says position {self.manifest.position} with digest {self.manifest.digest}"
            )

    def _pieces(self, group: GroupId) -> Iterator[tuple[Entry, ...]]:
        piece: list[Entry] = []
        for entry in self.entries(group):
            piece.append(entry)
            if len(piece) >= PIECE_ENTRIES:
                yield tuple(piece)
                piece = []
        if piece:
            yield tuple(piece)
