"""A server's data directory: whose it is, that nobody else uses it, and its small files.

Invariants
- `identity` is written last when a directory is made: a directory without it was never used, or is not ours.
- What warns of the log (the mark `suspect`) is synced before the log changes, and goes when the log itself
  says so of every group; what speaks for it (`boot`) is synced after the log was judged and before it is
  written to.
"""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import zlib

from rocksdict import WriteBatch

from craft.errors import DamagedStorage, WrongDirectory
from craft.storage import FORMAT_VERSION, Identity, new_disk_id
from craft.storage.rocks import files, layout
from craft.storage.rocks.database import open_database

BOOT_ID_FILE = pathlib.Path("/proc/sys/kernel/random/boot_id")

FIRST_BATCH = 1
"""The batch of the directory's creation: a log database without any batch has lost something."""

_LOCK, _CREATING, IDENTITY_FILE = "lock", "creating", "identity"
_LOG, _JUDGED, _KEPT, _LOOKED_AT = "log", "judged", "kept", "looked-at"
_SYNCED, _BALLOTS, _BOOT, _SUSPECT = "synced", "ballots", "boot", "suspect"
_SNAPSHOTS = "snapshots"
_NOT_OURS = frozenset({_LOCK, "lost+found"})  # what an unused directory may contain
_BEFORE_CREATING = "creating.new"  # of a creation that ended before its marker had its name


class Directory:
    """The directory, locked until `close`."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.log = path / _LOG
        self.judged = path / _JUDGED
        self.kept = path / _KEPT
        self.looked_at = path / _LOOKED_AT
        self.synced_file = path / _SYNCED
        self.ballots_file = path / _BALLOTS
        self.suspect_file = path / _SUSPECT
        self.snapshots = path / _SNAPSHOTS
        self._identity_file = path / IDENTITY_FILE
        self._boot_file = path / _BOOT
        path.mkdir(parents=True, exist_ok=True)
        self._lock: int | None = _lock(path / _LOCK)

    def close(self) -> None:
        """Let others use the directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # -- identity -------------------------------------------------------------------------------------

    def identify(self, *, cluster_id: str, server_id: int, groups: int, origin: str = "") -> Identity:
        """Check whose directory this is, or make it ours if it is empty."""
        creating = self.path / _CREATING
        stored = files.read_if_there(self._identity_file)
        if stored is not None:
            creating.unlink(missing_ok=True)
            found = unpack_identity(stored, self._identity_file)
            _check_identity(found, Identity(cluster_id, server_id, found.disk_id, groups), self.path)
            return found
        if not creating.exists():
            self._check_unused()
        identity = Identity(cluster_id, server_id, new_disk_id(origin), groups)
        self._create(identity, creating)
        return identity

    def _check_unused(self) -> None:
        harmless = _NOT_OURS | {_BEFORE_CREATING}
        found = sorted(path.name for path in self.path.iterdir() if path.name not in harmless)
        if found:
            raise WrongDirectory(
                f"{self.path} is not empty (it contains {found[0]!r}) and has no file {IDENTITY_FILE!r}:"
                " name an empty directory, or one that a server of this cluster made"
            )

    def _create(self, identity: Identity, creating: pathlib.Path) -> None:
        """Make a new directory. A crash before the end leaves `creating`: the next start begins afresh."""
        files.replace_synced(creating, b"")
        for leftover in (self.log, self.judged, self.kept, self.snapshots):
            files.remove_tree(leftover)
        files.TwoSlotFile.create(self.synced_file, FIRST_BATCH, b"")
        blank = layout.pack_ballots(((0, None),) * identity.groups)
        files.TwoSlotFile.create(self.ballots_file, FIRST_BATCH, blank)
        _create_database(self.log, identity)
        files.sync_path(self.path.parent)
        files.replace_synced(self._identity_file, pack_identity(identity))
        creating.unlink()

    # -- what earlier runs left -------------------------------------------------------------------------

    def settle(self) -> None:
        """Finish or undo an exchange of logs that a crash interrupted."""
        if not self.log.exists():
            if standing_log(self.path) != self.kept:
                raise DamagedStorage(f"{self.path}: the log database {_LOG!r} is missing")
            self.kept.rename(self.log)
            files.sync_path(self.path)
        files.remove_tree(self.judged)
        files.remove_tree(self.looked_at)

    def exchange(self) -> None:
        """Put the judged copy in the log's place and keep what the log was before, without its tables.

        The tables are the judged copy's as well; the log files are the evidence.
        """
        files.sync_tree(self.judged)
        files.remove_tree(self.kept)
        self.log.rename(self.kept)
        self.judged.rename(self.log)
        files.sync_path(self.path)
        for path in sorted(self.kept.iterdir()):
            if path.suffix in files.TABLES:
                path.unlink()

    def suspect_mark(self) -> str:
        """Why an earlier start found this directory suspect; empty if none did."""
        stored = files.read_if_there(self.suspect_file)
        if stored is None:
            return ""
        return stored.decode(errors="replace").strip() or "marked, without a reason"

    def mark_suspect(self, reason: str) -> None:
        """Remember the suspicion, durably. The file's presence is the mark: damage cannot clear it."""
        files.replace_synced(self.suspect_file, reason.encode() + b"\n")

    def unmark_suspect(self) -> None:
        """The suspicion is stored in the log database, with every group: the mark has done its work."""
        if self.suspect_file.exists():
            self.suspect_file.unlink()
            files.sync_path(self.path)

    def remembered_boot(self) -> str | None:
        """The boot id of the last run that recovered; None if there was none."""
        stored = files.read_if_there(self._boot_file)
        return None if stored is None else stored.decode(errors="replace").strip()

    def remember_boot(self, boot_id: str | None) -> None:
        """Remember the running kernel's boot id, before the first write of this run."""
        files.replace_synced(self._boot_file, (boot_id or "").encode() + b"\n")


def standing_log(path: pathlib.Path) -> pathlib.Path:
    """Where a directory's log database is: as `settle` will find it, for those who only look."""
    log, kept, judged = path / _LOG, path / _KEPT, path / _JUDGED
    return kept if not log.exists() and kept.exists() and judged.exists() else log


def _lock(path: pathlib.Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
            raise WrongDirectory(f"{path.parent} is in use by another process (pid {holder})") from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_boot_id(path: pathlib.Path) -> str | None:
    """The running kernel's boot id; None where there is none, which is never the same boot as any."""
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def pack_identity(identity: Identity) -> bytes:
    """One line of JSON, then its CRC-32 as eight hexadecimal digits."""
    return _with_checksum(json.dumps(identity._asdict(), sort_keys=True).encode() + b"\n")


def _with_checksum(line: bytes) -> bytes:
    return line + f"{zlib.crc32(line):08x}\n".encode()


def unpack_identity(stored: bytes, path: pathlib.Path) -> Identity:
    """The identity in such bytes, read from `path`. Raises DamagedStorage, WrongDirectory."""
    line = stored[: stored.find(b"\n") + 1]
    if _with_checksum(line) != stored:
        raise DamagedStorage(f"{path} is damaged: its checksum does not hold")
    fields = json.loads(line)
    version = fields.get("format_version")
    if version != FORMAT_VERSION:
        raise WrongDirectory(f"{path.parent} has format version {version}; only {FORMAT_VERSION} is readable")
    return Identity(**fields)


def _check_identity(found: Identity, wanted: Identity, path: pathlib.Path) -> None:
    differing = [
        f"{name} is {theirs!r}, not {ours!r}"
        for name, theirs, ours in zip(Identity._fields, found, wanted, strict=True)
        if theirs != ours
    ]
    if differing:
        raise WrongDirectory(f"{path} belongs to another server: its {', its '.join(differing)}")


def _create_database(path: pathlib.Path, identity: Identity) -> None:
    batch = WriteBatch(raw_mode=True)
    key = layout.ring_key(FIRST_BATCH)
    batch.put(key, layout.number_value(key, FIRST_BATCH))
    batch.put(layout.IDENTITY_KEY, layout.seal(layout.IDENTITY_KEY, pack_identity(identity)))
    db = open_database(path, strict=True, create=True)
    try:
        db.write(batch)
        db.flush_wal(True)
    finally:
        db.close()
    files.sync_tree(path)
