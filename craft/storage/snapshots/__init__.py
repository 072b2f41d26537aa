"""One server's snapshots, kept as files: the store that the port promises, over whatever directory there is.

Files are named by position and random number, and by what they are:

- `….snapshot` whole: it got this name after it was synced, and its name is synced since;
- `….part` a peer's that is being taken, which a restart goes on with; its name says how long it will be;
- `….new` being written: of no use to anyone after a crash;
- `….damaged` one that was found damaged. It is kept for whoever wants to know why, one at most, and under
  this name no start reads it again.

Invariants
- A snapshot that was once kept is removed only when two newer ones are, or the one just written and one
  other; or one that was kept later is of the same position. (†) Of two such either may cover more of some
  log, and a start must find the one behind which the logs go on.
- A file is kept under the name of a whole one only after every block of it was checked.
- What is read is checked again while it is read: a bit may flip at any time.
- Long files are synced as they grow, so that no sync of the log waits for gigabytes of a snapshot.
- One may be written while another is taken, and others read: which are kept changes under a lock that is held
  for a rename, so that what is read for a peer is whole or no longer there.
"""

from __future__ import annotations

import errno
import logging
import re
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from craft import logs
from craft.errors import DamagedSnapshot, InvariantViolation, StorageFailed
from craft.snapshots import Decoder, encode
from craft.storage.snapshots.files import DirectoryFiles, Files, MemoryFiles
from craft.types import Head, SnapshotId, SnapshotInfo, SnapshotPart

__all__ = ["DirectoryFiles", "Files", "MemoryFiles", "Snapshots", "check_file", "file_name"]

log = logging.getLogger("craft.storage")

KEPT_MAX = 2
"""A damaged newest one costs time then, not the server (PROTOCOL 7)."""

NONCE_BITS = 63
"""Of the random number in a name: it travels as a number of the wire."""

READ_BYTES = 256 * 1024
"""Read, checked and handed on at a time."""

WRITE_BYTES = 256 * 1024
"""Written at a time, at least; a block and a part's end more at most."""

SYNC_BYTES = 8 * 1024 * 1024
"""A growing file is synced this often: what a disk takes in a few tens of milliseconds."""

WHOLE, TAKEN, WRITTEN, DAMAGED = ".snapshot", ".part", ".new", ".damaged"
_PART = re.compile(r"(\d{20})-([0-9a-f]{16})-(\d+)\.part")
_NAME = re.compile(r"(\d{20})-([0-9a-f]{16})(\.\w+)")


class _Taking(NamedTuple):
    """A peer's snapshot, as far as it is here."""

    id: SnapshotId
    size: int
    here: int


class Snapshots:
    """A `SnapshotStore` over files, for a cluster of that name and so many groups."""

    def __init__(
        self,
        files: Files,
        *,
        cluster_id: str,
        groups: int,
        nonce: Callable[[], int] = lambda: secrets.randbits(NONCE_BITS),
    ) -> None:
        self._files = files
        self._nonce = nonce
        self._cluster_id = cluster_id
        self._groups = groups
        self._kept: list[SnapshotInfo] | None = None  # None: nobody has asked yet
        self._taking: _Taking | None = None
        self._lock = threading.RLock()  # over which are kept

    # -- what is kept -------------------------------------------------------------------------------

    def kept(self) -> tuple[SnapshotInfo, ...]:
        """The whole ones, the oldest first; the first call reads each to its end."""
        with self._lock:
            if self._kept is None:
                with _failing("reading the snapshots"):
                    self._kept = self._look()
            return tuple(self._kept)

    def _look(self) -> list[SnapshotInfo]:
        found: list[SnapshotInfo] = []
        for name in self._files.names():
            snapshot_id = id_of(name, WHOLE)
            if snapshot_id is not None:
                info = self._judge(name, snapshot_id)
                found += [] if info is None else [info]
            elif name.endswith(WRITTEN):
                self._files.remove(name)
        return sorted(found)

    def _judge(self, name: str, snapshot_id: SnapshotId) -> SnapshotInfo | None:
        """A file that a start finds; a damaged one is named and put aside."""
        try:
            return self.check(name, snapshot_id)
        except DamagedSnapshot as error:
            logs.event(log, logging.WARNING, "damaged snapshot put aside", file=name, error=str(error))
        for other in self._files.names():
            if other.endswith(DAMAGED):
                self._files.remove(other)
        self._files.rename(name, file_name(snapshot_id, DAMAGED))
        self._files.sync_names()
        return None

    def check(self, name: str, snapshot_id: SnapshotId) -> SnapshotInfo:
        """Read a file to its end; is it what its name says, and ours? Raises DamagedSnapshot if not."""
        head = check_file(self._files, name)
        if head.position != snapshot_id.position:
            raise DamagedSnapshot(f"{name} is of position {head.position}")
        if (head.cluster_id, len(head.cuts)) != (self._cluster_id, self._groups):
            raise DamagedSnapshot(
                f"{name} is of cluster {head.cluster_id!r} with {len(head.cuts)} groups, not of"
                f" {self._cluster_id!r} with {self._groups}"
            )
        return SnapshotInfo(snapshot_id, self._files.size(name), head)

    # -- writing ------------------------------------------------------------------------------------

    def write(self, head: Head, parts: Iterable[SnapshotPart]) -> SnapshotInfo:
        """Write one beside the others; when it returns it is durable, and all but two are gone."""
        self.kept()  # the first look takes away what a crash left of such a file
        snapshot_id = SnapshotId(head.position, self._nonce())
        name = file_name(snapshot_id, WRITTEN)
        try:
            with _failing(f"writing {name}"):
                self._files.create(name)
            self._write_blocks(name, encode(head, parts))
            return self._keep(name, snapshot_id)
        except BaseException:
            with suppress(OSError):
                self._files.remove(name)
            raise

    def _write_blocks(self, name: str, blocks: Iterable[bytes]) -> None:
        unsynced = 0
        for data in _gathered(blocks):
            with _failing(f"writing {name}"):
                self._files.append(name, data)
                unsynced += len(data)
                if unsynced >= SYNC_BYTES:
                    self._files.sync(name)
                    unsynced = 0

    def _keep(self, name: str, snapshot_id: SnapshotId) -> SnapshotInfo:
        """Check a file to its end, let it be one of those that are kept, durably, and drop the others."""
        with _failing(f"keeping {name}"):
            self._files.sync(name)
            info = self.check(name, snapshot_id)
        with self._lock, _failing(f"keeping {name}"):
            before = [info for info in self.kept() if info.id != snapshot_id]
            others = [info for info in before if info.id.position != snapshot_id.position]
            self._files.rename(name, file_name(snapshot_id, WHOLE))
            self._files.sync_names()
            self._kept = sorted([*others[1 - KEPT_MAX :], info])
            for gone in [info for info in before if info not in self._kept]:
                self._files.remove(file_name(gone.id, WHOLE))
            if len(others) < len(before):
                self._files.sync_names()  # a start could not tell which of the two was the later
        return info

    # -- reading ------------------------------------------------------------------------------------

    def parts(self, snapshot_id: SnapshotId) -> Iterator[SnapshotPart]:
        """Its parts, in the order and the pieces in which they were written. Raises DamagedSnapshot."""
        name = file_name(snapshot_id, WHOLE)
        with _failing(f"reading {name}"):
            yield from _read_parts(self._files, name, Decoder())

    def read(self, snapshot_id: SnapshotId, *, offset: int, bytes_max: int) -> bytes | None:
        """Bytes of its file, for a peer, none behind its end; None if it is kept no more."""
        with self._lock, _failing("reading a snapshot for a peer"):
            info = next((info for info in self.kept() if info.id == snapshot_id), None)
            if info is None:
                return None
            if offset >= info.size:  # what others ask for may be more than a system takes for a place
                return b""
            return self._files.read(file_name(snapshot_id, WHOLE), offset, bytes_max)

    # -- taking a peer's ----------------------------------------------------------------------------

    def begin(self, snapshot_id: SnapshotId, size: int) -> int:
        """Begin to take a peer's, or go on with what is here of that very one: returns how many bytes are."""
        name = part_name(snapshot_id, size)
        with _failing(f"taking {name}"):
            self._drop_parts(but=name)
            here = self._clean_prefix(name, size) if name in self._files.names() else 0
            if not here:
                self._files.create(name)
        self._taking = _Taking(snapshot_id, size, here)
        return here

    def partial(self) -> tuple[SnapshotId, int] | None:
        """The one that an earlier run had begun to take, and its size; None if there is none."""
        with _failing("looking for parts of snapshots"):
            names = self._files.names()
        for match in filter(None, map(_PART.fullmatch, names)):
            return SnapshotId(int(match[1]), int(match[2], 16)), int(match[3])
        return None

    def _drop_parts(self, *, but: str = "") -> None:
        for name in self._files.names():
            if name.endswith(TAKEN) and name != but:
                self._files.remove(name)

    def _clean_prefix(self, name: str, size: int) -> int:
        """Cut what a crash left of a part behind its last block that holds; returns how much remains."""
        decoder = Decoder()
        try:
            for _ in _read_parts(self._files, name, decoder):
                pass
        except DamagedSnapshot as error:
            logs.event(log, logging.INFO, "part of a snapshot taken again", file=name, error=str(error))
        if decoder.clean > size:
            return 0
        self._files.truncate(name, decoder.clean)
        return decoder.clean

    def append(self, snapshot_id: SnapshotId, *, offset: int, data: bytes) -> None:
        """The next bytes of the one that is being taken."""
        taking = self._taking
        if taking is None or taking.id != snapshot_id or taking.here != offset:
            raise InvariantViolation(f"bytes from {offset} of {snapshot_id}; being taken is {taking}")
        end = offset + len(data)
        if end > taking.size:
            raise DamagedSnapshot(f"{snapshot_id} was to have {taking.size} bytes and has {end} at least")
        name = part_name(snapshot_id, taking.size)
        with _failing(f"taking {name}"):
            self._files.append(name, data)
            if end // SYNC_BYTES != offset // SYNC_BYTES:
                self._files.sync(name)
        self._taking = taking._replace(here=end)

    def finish(self, snapshot_id: SnapshotId) -> SnapshotInfo:
        """Check it to its end, make it durable and keep it. Raises DamagedSnapshot; nothing is left then."""
        taking, self._taking = self._taking, None
        if taking is None or taking.id != snapshot_id:
            raise InvariantViolation(f"{snapshot_id} ends; being taken is {taking}")
        try:
            return self._keep(part_name(snapshot_id, taking.size), snapshot_id)
        except DamagedSnapshot:
            with _failing("dropping a damaged snapshot"):
                self._drop_parts()
            raise


def _gathered(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces that are worth a call of the system's: state machines may give tiny parts."""
    gathered: list[bytes] = []
    size = 0
    for block in blocks:
        gathered.append(block)
        size += len(block)
        if size >= WRITE_BYTES:
            yield b"".join(gathered)
            gathered, size = [], 0
    yield b"".join(gathered)


def file_name(snapshot_id: SnapshotId, suffix: str = WHOLE) -> str:
    """The name of a snapshot's file: by position, so that names sort as snapshots do."""
    return f"{snapshot_id.position:020d}-{snapshot_id.nonce:016x}{suffix}"


def part_name(snapshot_id: SnapshotId, size: int) -> str:
    """The name of a peer's while it is being taken."""
    return f"{file_name(snapshot_id, '')}-{size}{TAKEN}"


def id_of(name: str, suffix: str = WHOLE) -> SnapshotId | None:
    """Whose name this is, if it ends so."""
    match = _NAME.fullmatch(name)
    if match is None or match[3] != suffix:
        return None
    return SnapshotId(int(match[1]), int(match[2], 16))


def check_file(files: Files, name: str) -> Head:
    """Read a snapshot to its end. Raises DamagedSnapshot, naming the file."""
    decoder = Decoder()
    for _ in _read_parts(files, name, decoder):
        pass
    assert decoder.head is not None  # the end was reached
    return decoder.head


def _read_parts(files: Files, name: str, decoder: Decoder) -> Iterator[SnapshotPart]:
    """All parts of a file; raises DamagedSnapshot, also for what the disk cannot read back."""
    offset = 0
    try:
        while data := files.read(name, offset, READ_BYTES):
            offset += len(data)
            yield from decoder.feed(data)
        decoder.finish()
    except DamagedSnapshot as error:
        raise DamagedSnapshot(f"{name}: {error}") from error
    except OSError as error:
        if error.errno == errno.EIO:
            raise DamagedSnapshot(f"{name}: cannot be read behind byte {offset}: {error}") from error
        raise


@contextmanager
def _failing(what: str) -> Iterator[None]:
    """What the system refuses is this server's failure."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(f"{what}: {error}") from error
