"""The storage port: what a server's disk owes the engine, in prose; adapters in `memory.py` and `rocks.py`.

Obligations (PROTOCOL 10)
- `write` makes a batch visible to `entries` at once and orders it after earlier batches; it is atomic: after
  a crash all of it is there or none. It does not wait for the disk and is called on the event loop.
- `sync` makes every batch written before the call durable. It blocks, is called from a worker thread, one at
  a time, and must let other threads run. When it returns, what it covered may be acknowledged to others.
- A failure in either raises `StorageFailed`; the caller ends the process and never retries: what the failed
  call covered is unknown.
- `recover` is called once, first. It returns only what is safe to use, or raises `DamagedStorage` (something
  synced is missing; the error names what) or `WrongDirectory`. Where a synced tail *may* be missing, it says
  so of each group (`RecoveredGroup.suspicion`), and so does every later recovery until a write ends it.
- Every record is checked (checksum, group, contiguity, rising timestamps) before it is handed out.
- A snapshot is there whole and durable, or not at all: written beside the others, synced, renamed. Two are
  kept. A damaged one is skipped with a warning that names it, and never handed out.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import NamedTuple, Protocol

from craft.types import (
    Cut,
    Entry,
    GroupId,
    Head,
    Index,
    Position,
    Recovered,
    ServerId,
    SnapshotId,
    SnapshotInfo,
    SnapshotPart,
    Write,
)

FORMAT_VERSION = 1

RESTORED = "00000000"
"""Random disk ids do not begin so."""

ORIGIN_DIGITS = 8


def new_disk_id(origin: str = "") -> str:
    """Random; of a directory that is made from a backup it begins with what that came to (`origin_of`)."""
    return f"{RESTORED}{origin}{secrets.token_hex(8)}" if origin else secrets.token_hex(16)


def origin(position: Position, digest: bytes) -> str:
    """Names the state that a directory begins with, where it is made from a backup."""
    return blake2b(b"%d " % position + digest, digest_size=ORIGIN_DIGITS // 2).hexdigest()


def origin_of(disk_id: str) -> str:
    """The origin of that disk's server; empty: it was not made from a backup."""
    return disk_id[len(RESTORED) :][:ORIGIN_DIGITS] if disk_id.startswith(RESTORED) else ""


class Identity(NamedTuple):
    """Whose directory this is. Stored when the directory is created, compared at every start."""

    cluster_id: str
    server_id: ServerId
    disk_id: str  # 32 hexadecimal digits, made with the directory (`new_disk_id`)
    groups: int
    format_version: int = FORMAT_VERSION


class Storage(Protocol):
    """One server's disk, for all its groups."""

    @property
    def identity(self) -> Identity:
        """Whose directory this is."""

    @property
    def snapshots(self) -> SnapshotStore:
        """This server's snapshots. They may be looked at before `recover`."""

    def recover(self, behind: tuple[Cut, ...] = ()) -> Recovered:
        """Read back everything that matters, or raise; called once, before anything else.

        `behind` are the cuts of a usable snapshot, one a group: what a log holds at or below them need not be
        read, and what is damaged there shows only when it is read later. A log that ends before its cut, or
        has another entry there, is handed out as it is (a crash came between keeping an installed snapshot
        and writing the logs): the engine replaces it.
        """

    def write(self, write: Write) -> None:
        """Write one batch, unsynced."""

    def sync(self) -> None:
        """Block until every batch written so far is durable. Called from a worker thread."""

    def entries(
        self, group: GroupId, *, first_index: Index, last_index: Index, bytes_max: int
    ) -> tuple[Entry, ...]:
        """Entries from `first_index` on, contiguous, up to `last_index` or about `bytes_max`.

        At least one. Raises DamagedStorage, and InvariantViolation for entries that are not there, or not any
        more.
        """

    def reclaim(self) -> None:
        """Give the system back what starts have dropped, if it is worth the work.

        Blocks, other threads go on; called from a worker thread, one at a time, beside `write` and `sync`.
        `close` ends it early. Raises StorageFailed.
        """

    def peer_disks(self) -> dict[ServerId, str]:
        """The disk id first met under each server id (PROTOCOL 8)."""

    def remember_peer_disk(self, server_id: ServerId, disk_id: str) -> None:
        """Remember it durably before returning."""

    def close(self) -> None:
        """Release the directory. Unsynced batches may be lost."""


class SnapshotStore(Protocol):
    """One server's snapshots (PROTOCOL 7). Every method may block, in any thread.

    One `write` at a time, one of `begin`, `append` and `finish`, and anything else beside them.
    """

    def kept(self) -> tuple[SnapshotInfo, ...]:
        """The whole ones, the oldest first; each was read and checked to its end since this start."""

    def write(self, head: Head, parts: Iterable[SnapshotPart]) -> SnapshotInfo:
        """Write one beside the others; when it returns it is durable, and all but the newest two are gone.

        Raises StorageFailed, and whatever `parts` raises; the others are as they were then.
        """

    def parts(self, snapshot_id: SnapshotId) -> Iterator[SnapshotPart]:
        """Its parts, in the order and the pieces in which they were written. Raises DamagedSnapshot."""

    def read(self, snapshot_id: SnapshotId, *, offset: int, bytes_max: int) -> bytes | None:
        """Bytes of its file, for a peer; None if it is kept no more."""

    def begin(self, snapshot_id: SnapshotId, size: int) -> int:
        """Begin to take a peer's, or go on with what is here of that very one: returns how many bytes are.

        What is here of any other is dropped: at most one is being taken.
        """

    def partial(self) -> tuple[SnapshotId, int] | None:
        """The one that an earlier run had begun to take, and its size; None if there is none."""

    def append(self, snapshot_id: SnapshotId, *, offset: int, data: bytes) -> None:
        """The next bytes of the one that is being taken."""

    def finish(self, snapshot_id: SnapshotId) -> SnapshotInfo:
        """Check it to its end, make it durable and keep it, as `write` does. Raises DamagedSnapshot.

        Then nothing is left of it.
        """
