"""Small files that survive a crash: replaced whole, or overwritten in two slots by turns."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import struct
import zlib

from craft.storage.rocks.wal import spoil

SLOT_ALIGNMENT_BYTES = 4096
"""Slots share no sector and no page, so that a torn write of one cannot touch the other."""

TABLES = frozenset((".sst", ".blob"))
"""What RocksDB's files are called that are written once and then only read: tables, and values apart."""

_SLOT = struct.Struct(">IQI")  # crc32 of all that follows · number · length of the payload


class TwoSlotFile:
    """A number and a payload, overwritten in place: the newer of two checksummed slots counts.

    A write goes to the slot that does not count, so a torn write leaves the other. Made whole and synced when
    the directory is created: overwriting allocates nothing and cannot run out of space.
    """

    def __init__(self, path: pathlib.Path, payload_bytes: int) -> None:
        self._slot_bytes = _aligned(_SLOT.size + payload_bytes)
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._next_slot = 0

    @classmethod
    def create(cls, path: pathlib.Path, number: int, payload: bytes) -> None:
        """Write a new file, its first slot filled, and sync it."""
        slot_bytes = _aligned(_SLOT.size + len(payload))
        write_synced(path, _slot(number, payload).ljust(2 * slot_bytes, b"\0"))

    def load(self) -> tuple[int, bytes] | None:
        """The newer valid slot's number and payload; None if neither is valid."""
        found = [self._load_slot(slot) for slot in (0, 1)]
        numbers = [-1 if slot is None else slot[0] for slot in found]
        newest = numbers.index(max(numbers))
        self._next_slot = 1 - newest
        return found[newest]

    def _load_slot(self, slot: int) -> tuple[int, bytes] | None:
        data = os.pread(self._fd, self._slot_bytes, slot * self._slot_bytes)
        if len(data) < _SLOT.size:
            return None
        checksum, number, length = _SLOT.unpack_from(data)
        body = data[4 : _SLOT.size + length]
        if len(body) != _SLOT.size - 4 + length or zlib.crc32(body) != checksum:
            return None
        return number, body[_SLOT.size - 4 :]

    def damaged_slots(self) -> list[int]:
        """The slots that hold something that is not valid."""
        return [
            slot
            for slot in (0, 1)
            if self._load_slot(slot) is None
            and any(os.pread(self._fd, self._slot_bytes, slot * self._slot_bytes))
        ]

    def store(self, number: int, payload: bytes = b"", *, sync: bool) -> None:
        """Overwrite the slot that does not count, which then counts."""
        data = _slot(number, payload)
        written = os.pwrite(self._fd, data, self._next_slot * self._slot_bytes)
        if written != len(data):
            raise OSError(f"only {written} of {len(data)} bytes written")
        if sync:
            os.fdatasync(self._fd)
        self._next_slot = 1 - self._next_slot

    def close(self) -> None:
        """Close the file; once."""
        os.close(self._fd)


def _aligned(size: int) -> int:
    return -(-size // SLOT_ALIGNMENT_BYTES) * SLOT_ALIGNMENT_BYTES


def _slot(number: int, payload: bytes) -> bytes:
    body = _SLOT.pack(0, number, len(payload))[4:] + payload
    return zlib.crc32(body).to_bytes(4, "big") + body


def sync_path(path: pathlib.Path) -> None:
    """Sync a file, or a directory's names."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_tree(directory: pathlib.Path) -> None:
    """Sync a directory's files and names, one level."""
    for path in directory.iterdir():
        sync_path(path)
    sync_path(directory)


def write_synced(path: pathlib.Path, data: bytes) -> None:
    """Write a file and sync it; its name is not synced yet."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_synced(path: pathlib.Path, data: bytes) -> None:
    """Replace a file: after a crash it is the old one or the new one, and after the return the new one."""
    fresh = path.with_name(path.name + ".new")
    write_synced(fresh, data)
    fresh.replace(path)
    sync_path(path.parent)


def read_if_there(path: pathlib.Path) -> bytes | None:
    """A file's bytes; None if there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def remove_tree(directory: pathlib.Path) -> None:
    """Remove a directory if it is there."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory)


def copy_database(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copy a RocksDB that nobody has open. Its tables never change, so links to them will do.

    The copy's log files end where RocksDB would read for ever.
    """
    target.mkdir()
    for path in sorted(source.iterdir()):
        if path.name == "LOCK" or path.name.startswith("LOG"):
            continue
        if path.suffix in TABLES:
            _link(path, target / path.name)
        else:
            shutil.copyfile(path, target / path.name)
    spoil(target)


def _link(source: pathlib.Path, target: pathlib.Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)
