"""A backup's files, byte by byte (docs/reference/backup-format.md).

- `backup` the manifest: what is in it, and up to where it is whole. Replaced as a whole, last of all.
- `base.snapshot` a server's snapshot, as it was; none where the backup begins at the beginning.
- `log-GGGGG-IIII…` committed entries of group G from index I on: frames of a length and a record.
- `lock` is held by who writes.

Invariants
- What the manifest names was synced before the manifest was; what is behind it counts for nothing.
- One process writes: what two append to one file is nobody's log.
- Every record carries its own checksum, group and index, and the manifest the digest of the merged log: what
  was changed, cut, swapped or mixed with another backup is noticed.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from craft.errors import ConfigError, DamagedBackup
from craft.types import Entry, GroupId, Index, Position, Timestamp

FORMAT_VERSION = 1
MANIFEST, BASE, LOCK = "backup", "base.snapshot", "lock"
MAGIC = b"craft\x00b1"
"""The first bytes of a log's file; the last digit is the version of its format."""

SEGMENT_BYTES_MAX = 64 * 1024 * 1024
"""A log's file is followed by the next one from here on."""

_LENGTH = struct.Struct(">I")
RECORD_BYTES_MAX = 1 << 30
"""A longer claim is damage."""

_NAME = re.compile(r"log-(\d{5})-(\d{20})")


_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})
"""Of a file system that has none: there the operator must see to it."""


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Write a directory's backup, and nobody else. Raises ConfigError where somebody does."""
    fd = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{directory} holds a backup that is taken by another process; allowed: a directory for each"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
    finally:
        os.close(fd)


class Manifest(NamedTuple):
    """What a backup holds. `last` is the last index of each group, `first` the one before its first."""

    cluster_id: str
    groups: int
    begin_position: Position
    begin_timestamp: Timestamp
    position: Position
    timestamp: Timestamp
    digest: str
    """32 hexadecimal digits: of the merged log up to `position`."""
    first: tuple[Index, ...]
    last: tuple[Index, ...]
    format_version: int = FORMAT_VERSION


def pack_manifest(manifest: Manifest) -> bytes:
    """One line of JSON, then its CRC-32 as eight hexadecimal digits."""
    line = json.dumps(manifest._asdict(), sort_keys=True).encode() + b"\n"
    return line + f"{zlib.crc32(line):08x}\n".encode()


def unpack_manifest(stored: bytes, path: Path) -> Manifest:
    """The manifest in such bytes. Raises DamagedBackup, ConfigError for another version."""
    line = stored[: stored.find(b"\n") + 1]
    if line + f"{zlib.crc32(line):08x}\n".encode() != stored:
        raise DamagedBackup(f"{path} is damaged: its checksum does not hold")
    fields = json.loads(line)
    version = fields.get("format_version")
    if version != FORMAT_VERSION:
        raise ConfigError(f"{path} is of format version {version}; only {FORMAT_VERSION} is readable")
    return Manifest(**{**fields, "first": tuple(fields["first"]), "last": tuple(fields["last"])})


def read_manifest(directory: Path) -> Manifest | None:
    """What a directory holds; None: there is no backup in it."""
    path = directory / MANIFEST
    try:
        stored = path.read_bytes()
    except FileNotFoundError:
        return None
    return unpack_manifest(stored, path)


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Replace it, durably."""
    new = directory / f"{MANIFEST}.new"
    _write_synced(new, pack_manifest(manifest))
    new.rename(directory / MANIFEST)
    sync_names(directory)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_names(directory: Path) -> None:
    """Which names a directory holds is durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# -- logs ------------------------------------------------------------------------------------------


def segment_name(group: GroupId, first: Index) -> str:
    """The name of a log's file."""
    return f"log-{group:05}-{first:020}"


def segments(directory: Path, group: GroupId) -> list[tuple[Index, Path]]:
    """A group's files with the index that each begins with, in order."""
    found = []
    for path in directory.iterdir():
        match = _NAME.fullmatch(path.name)
        if match and int(match[1]) == group:
            found.append((int(match[2]), path))
    return sorted(found)


def frames(path: Path) -> Iterator[tuple[bytes, int]]:
    """The records of a file, each with where it ends. Raises DamagedBackup for what is no frame.

    A file that ends in the middle of one ends there, without an error: who reads knows what it lacks.
    """
    with path.open("rb") as file:
        magic = file.read(len(MAGIC))
        if magic != MAGIC[: len(magic)]:
            raise DamagedBackup(f"{path} begins with {magic!r}, not with {MAGIC!r}")
        at = len(magic)
        while len(head := file.read(_LENGTH.size)) == _LENGTH.size:
            (length,) = _LENGTH.unpack(head)
            if length > RECORD_BYTES_MAX:
                raise DamagedBackup(f"{path}: a record of {length} bytes behind byte {at}")
            record = file.read(length)
            if len(record) < length:
                return
            at += _LENGTH.size + length
            yield record, at


class LogWriter:
    """Appends a group's entries behind `last`. What an earlier run left behind that is dropped."""

    def __init__(self, directory: Path, group: GroupId, last: Index) -> None:
        self._directory = directory
        self._group = group
        self._path: Path | None = None
        self._size = 0
        self._dirty: set[Path] = set()
        there = segments(directory, group)
        for first, path in reversed(there):
            if first <= last:
                self._path, self._size = path, _end_of(path, last - first + 1)
                os.truncate(path, self._size)
                self._dirty.add(path)
                break
            path.unlink()

    def append(self, entries: Iterable[Entry]) -> None:
        """The next ones; durable after `sync`."""
        for entry in entries:
            if self._path is None or self._size >= SEGMENT_BYTES_MAX:
                self._path, self._size = self._directory / segment_name(self._group, entry.index), 0
            data = _LENGTH.pack(len(entry.record)) + entry.record
            data = data if self._size else MAGIC + data
            with self._path.open("ab") as file:
                file.write(data)
            self._size += len(data)
            self._dirty.add(self._path)

    def sync(self) -> None:
        """Everything appended is durable."""
        for path in sorted(self._dirty):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        self._dirty.clear()


def _end_of(path: Path, count: int) -> int:
    """Where so many records of a file end."""
    end = len(MAGIC)
    for number, (_, at) in enumerate(frames(path), start=1):
        end = at
        if number == count:
            return end
    raise DamagedBackup(f"{path} ends before its manifest says so")
