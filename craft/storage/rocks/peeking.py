"""A stopped server's directory, looked at without changing a byte of it: for `craft log` and its kind.

Invariants
- Nothing in it is opened for writing: the lock is shared, and the database is opened read-only through links
  in a directory of our own, for rocksdict writes a file beside it even then, and RocksDB says what it does.
- A running server's directory is refused: its database changes under whoever reads it.
- Every record is checked before it is handed out. A log that ends in a torn or damaged batch is read up to
  there, and that is said; also where RocksDB itself would skip it, or read it for ever (`wal`).
"""

from __future__ import annotations

import fcntl
import os
import pathlib
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from rocksdict import AccessType, Rdict

from craft.errors import DamagedSnapshot, DamagedStorage, StorageFailed, WrongDirectory
from craft.recovery import check_record
from craft.snapshots import Decoder
from craft.storage import Identity
from craft.storage.rocks import layout
from craft.storage.rocks.database import COLUMN_FAMILY, options, reading, records, scan_kind
from craft.storage.rocks.directory import standing_log, unpack_identity
from craft.storage.rocks.wal import spoil, strange_manifest, strange_stretch
from craft.storage.snapshots import WHOLE
from craft.types import (
    BEGINNING,
    Cut,
    Entry,
    GroupId,
    HardState,
    Head,
    Index,
    Position,
    SnapshotPart,
)

INDEX_MAX = 2**64 - 1

READ_BYTES = 256 * 1024
"""Of a snapshot, at a time."""


class Peeked(NamedTuple):
    """A snapshot that is whole."""

    path: pathlib.Path
    head: Head

    def parts(self) -> Iterator[SnapshotPart]:
        """Its parts, checked again. Raises DamagedSnapshot."""
        decoder = Decoder()
        with self.path.open("rb") as file:
            while data := file.read(READ_BYTES):
                yield from decoder.feed(data)
        decoder.finish()


class StoppedServer:
    """What a directory holds. Made by `peek`."""

    def __init__(self, path: pathlib.Path, identity: Identity, db: Rdict, torn: str) -> None:
        self.path = path
        self.identity = identity
        self.torn = torn
        """Why the log is read only so far; empty: it is whole."""
        self._db = db
        with reading(f"reading {path}"):
            self._starts = {
                int.from_bytes(key[1:3], "big"): layout.start_of(key, value)
                for key, value in scan_kind(db, layout.START)
            }
            self._states = {
                int.from_bytes(key[1:3], "big"): layout.hard_state_of(key, value).hard_state
                for key, value in scan_kind(db, layout.HARD_STATE)
            }

    @property
    def groups(self) -> int:
        """How many there are."""
        return self.identity.groups

    def start(self, group: GroupId) -> Cut:
        """Behind which place a group's log begins."""
        return self._starts.get(group, BEGINNING)

    def hard_state(self, group: GroupId) -> HardState:
        """A group's term, vote and commit, as stored."""
        return self._states.get(group, HardState(0, None, 0))

    def snapshots(self) -> list[Peeked]:
        """Those that are whole, by a look at every byte, the oldest first; damaged ones are left out."""
        found = []
        for path in sorted((self.path / "snapshots").glob(f"*{WHOLE}")):
            decoder = Decoder()
            try:
                with path.open("rb") as file:
                    while data := file.read(READ_BYTES):
                        for _ in decoder.feed(data):
                            pass
                found.append(Peeked(path, decoder.finish()))
            except DamagedSnapshot:
                continue
        return found

    def base(self, after: Position) -> Peeked | None:
        """The newest whole snapshot at or before a position, behind which the logs are there."""
        fitting = [
            one
            for one in self.snapshots()
            if one.head.position <= after
            and all(
                self.start(group).place.index <= cut.place.index for group, cut in enumerate(one.head.cuts)
            )
        ]
        return fitting[-1] if fitting else None

    def last(self, group: GroupId) -> Entry | None:
        """A group's last entry, checked; None: there is none. Reads all of them."""
        found = deque(self.entries(group, self.start(group).place.index + 1), maxlen=1)
        return found[0] if found else None

    def entries(self, group: GroupId, first: Index, last: Index = INDEX_MAX) -> Iterator[Entry]:
        """A group's entries in order, checked. Raises DamagedStorage."""
        expected = first
        with reading(f"reading entries of group {group} in {self.path}"):
            for index, record in records(self._db, group, first, last):
                if index != expected:
                    raise DamagedStorage(
                        f"{self.path}: group {group}: entries {expected} to {index - 1} are missing"
                    )
                yield check_record(group, index, record)
                expected += 1


@contextmanager
def peek(path: pathlib.Path) -> Iterator[StoppedServer]:
    """Look at a stopped server's directory.

    Raises WrongDirectory where there is none, or where its server runs; DamagedStorage, StorageFailed.
    """
    with ExitStack() as stack:
        try:
            stored = (path / "identity").read_bytes()
        except OSError as error:
            raise WrongDirectory(
                f"{path} is no data directory: its file 'identity' is not readable ({error.strerror});"
                " allowed: the data_dir of a server that is stopped"
            ) from error
        identity = unpack_identity(stored, path / "identity")
        stack.enter_context(_shared_lock(path / "lock"))
        links = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="craft-log-")))
        torn = _link(standing_log(path), links)
        try:
            db = _open(links, strict=not torn)
        except DamagedStorage as error:
            if torn:
                raise
            torn = str(error)
            db = _open(links, strict=False)
        stack.callback(db.close)
        yield StoppedServer(path, identity, db, torn)


def _link(database: pathlib.Path, links: pathlib.Path) -> str:
    """Every file of RocksDB's under another roof; what is strange about its log files, which are copied then.

    The copies end where RocksDB would read for ever.
    """
    if not database.is_dir():
        raise DamagedStorage(f"{database.parent}: the log database {database.name!r} is missing")
    if strange := strange_manifest(database):
        raise DamagedStorage(f"{database}: {strange}")
    strange = strange_stretch(database)
    for file in database.iterdir():
        if strange and file.suffix == ".log":
            shutil.copyfile(file, links / file.name)
        elif file.is_file() and file.suffix != ".json" and file.name not in {"LOG", "LOCK"}:
            (links / file.name).symlink_to(file.absolute())
    if strange:
        spoil(links)
    return strange


def _open(links: pathlib.Path, *, strict: bool) -> Rdict:
    with reading("opening the log database for reading"):
        chosen, read_only = options(strict=strict), AccessType.read_only()
        return Rdict(str(links), chosen, column_families={COLUMN_FAMILY: chosen}, access_type=read_only)


@contextmanager
def _shared_lock(path: pathlib.Path) -> Iterator[None]:
    """No server may begin to use the directory while we read it, nor we while one does."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # a copy of a directory, which nobody has used yet
        yield
        return
    except OSError as error:
        raise StorageFailed(f"{path} cannot be opened: {error}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
        raise WrongDirectory(
            f"{path.parent} is in use by its server (pid {holder}); allowed: a stopped server's directory, or"
            " --connect with the address of a running one"
        ) from None
    finally:
        os.close(fd)
