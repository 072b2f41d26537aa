"""A look at RocksDB's log files, and its manifest, that RocksDB itself does not take.

Both are made of records behind small headers. With absolute consistency RocksDB refuses a cut or changed
record, but for two kinds of header:

- a zeroed one, which it skips with the rest of its 32 KiB block, without a word (a leftover of log files
  written through a memory map). A file system may leave exactly this behind after a power cut;
- one with the type of a recycled file (5 to 8), one flipped bit away from the types that we have. It is
  read for ever: the opening never ends, in every recovery mode. As a file's first, it hides the whole file.

Such files must not count as cleanly opened. (We never recycle log files.)
"""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Iterator
from typing import NamedTuple

BLOCK_BYTES = 32 * 1024
_HEADER = struct.Struct("<IHB")  # masked crc32c · length of the fragment · type; a type 0 is never written
_TYPE_AT = 6

_RECYCLED = range(5, 9)
_NO_TYPE = 130
"""A type that RocksDB takes for damage, as it should."""


class Strange(NamedTuple):
    """A header that RocksDB would not take for damage."""

    path: pathlib.Path
    offset: int
    recycled: bool

    def __str__(self) -> str:
        """What is wrong where."""
        what = "a record of a recycled file at" if self.recycled else "zeroed from"
        return f"{what} byte {self.offset} of {self.path.name}"


def strange_stretch(database: pathlib.Path) -> str:
    """Name the first such header in a database's log files; empty if there is none."""
    return next((str(strange) for path in sorted(database.glob("*.log")) for strange in _look(path)), "")


def strange_manifest(database: pathlib.Path) -> str:
    """The same for its manifest, whose opening would never end."""
    found = (strange for path in sorted(database.glob("MANIFEST-*")) for strange in _look(path))
    return next((str(strange) for strange in found if strange.recycled), "")


def spoil(database: pathlib.Path) -> None:
    """Make such records of a copy's log files ones that RocksDB takes for damage, at which reading ends."""
    for path in database.glob("*.log"):
        for strange in _look(path):
            if strange.recycled:
                with path.open("r+b") as file:
                    file.seek(strange.offset + _TYPE_AT)
                    file.write(bytes([_NO_TYPE]))


def _look(path: pathlib.Path) -> Iterator[Strange]:
    with path.open("rb", buffering=0) as file:
        start = 0
        while block := file.read(BLOCK_BYTES):
            for offset, recycled in _strange_in(block):
                yield Strange(path, start + offset, recycled)
            start += len(block)


def _strange_in(block: bytes) -> Iterator[tuple[int, bool]]:
    """Offsets of strange headers in a block. Behind a zeroed one there is nothing to go by."""
    offset = 0
    while offset + _HEADER.size <= len(block):
        _, length, kind = _HEADER.unpack_from(block, offset)
        if length == 0 and kind == 0:
            yield offset, False
            return
        if kind in _RECYCLED:
            yield offset, True
        offset += _HEADER.size + length
