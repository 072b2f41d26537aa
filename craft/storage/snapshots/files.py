"""What the snapshot store wants of a directory, and the two directories that the product has.

A simulated one, which loses what a power cut may take, is `craft.testing.files`.

Invariants
- Every method raises OSError and nothing else for what a system may refuse.
- What `sync` and `sync_names` covered survives a power cut; nothing else need.
"""

from __future__ import annotations

import os
import pathlib
from typing import Protocol


class Files(Protocol):
    """One flat directory of files that grow at their ends."""

    def names(self) -> list[str]:
        """What is there, sorted."""

    def size(self, name: str) -> int:
        """Bytes of a file; FileNotFoundError where there is none."""

    def read(self, name: str, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`; fewer at the end."""

    def create(self, name: str) -> None:
        """An empty file, also where there was one."""

    def append(self, name: str, data: bytes) -> None:
        """Add bytes at the end."""

    def truncate(self, name: str, size: int) -> None:
        """Drop what is behind `size`."""

    def sync(self, name: str) -> None:
        """A file's bytes are durable."""

    def rename(self, name: str, new_name: str) -> None:
        """Another name for a file; whatever had it is gone."""

    def remove(self, name: str) -> None:
        """The file is gone."""

    def sync_names(self) -> None:
        """Which names there are, and of what files, is durable."""


class DirectoryFiles:
    """A directory of the system's, made when it is first used."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        if not path.is_dir():
            path.mkdir()
            _sync(path.parent)

    def names(self) -> list[str]:
        """What is there, sorted."""
        return sorted(entry.name for entry in self.path.iterdir() if entry.is_file())

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return (self.path / name).stat().st_size

    def read(self, name: str, offset: int, count: int) -> bytes:
        """Bytes from `offset` on."""
        with (self.path / name).open("rb", buffering=0) as file:
            file.seek(offset)
            return file.read(count) or b""

    def create(self, name: str) -> None:
        """An empty file."""
        (self.path / name).write_bytes(b"")

    def append(self, name: str, data: bytes) -> None:
        """Bytes at the end."""
        with (self.path / name).open("ab", buffering=0) as file:
            written = file.write(data)
        if written != len(data):
            raise OSError(f"only {written} of {len(data)} bytes written to {name}")

    def truncate(self, name: str, size: int) -> None:
        """Drop what is behind `size`."""
        os.truncate(self.path / name, size)

    def sync(self, name: str) -> None:
        """Make its bytes durable."""
        _sync(self.path / name)

    def rename(self, name: str, new_name: str) -> None:
        """Another name."""
        (self.path / name).replace(self.path / new_name)

    def remove(self, name: str) -> None:
        """Gone."""
        (self.path / name).unlink()

    def sync_names(self) -> None:
        """Make the names durable."""
        _sync(self.path)


def _sync(path: pathlib.Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class MemoryFiles:
    """A directory in memory, in which everything is durable at once."""

    def __init__(self) -> None:
        self.contents: dict[str, bytearray] = {}

    def _found(self, name: str) -> bytearray:
        if name not in self.contents:
            raise FileNotFoundError(f"there is no file {name}")
        return self.contents[name]

    def names(self) -> list[str]:
        """What is there, sorted."""
        return sorted(self.contents)

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return len(self._found(name))

    def read(self, name: str, offset: int, count: int) -> bytes:
        """Bytes from `offset` on."""
        return bytes(memoryview(self._found(name))[offset : offset + count])

    def create(self, name: str) -> None:
        """An empty file."""
        self.contents[name] = bytearray()

    def append(self, name: str, data: bytes) -> None:
        """Bytes at the end."""
        self._found(name).extend(data)

    def truncate(self, name: str, size: int) -> None:
        """Drop what is behind `size`."""
        del self._found(name)[size:]

    def sync(self, name: str) -> None:
        """Make its bytes durable."""
        self._found(name)

    def rename(self, name: str, new_name: str) -> None:
        """Another name."""
        self.contents[new_name] = self._found(name)
        del self.contents[name]

    def remove(self, name: str) -> None:
        """Gone."""
        self._found(name)
        del self.contents[name]

    def sync_names(self) -> None:
        """Make the names durable."""
