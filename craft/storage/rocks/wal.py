"""A look at RocksDB's write-ahead log files that RocksDB itself does not take.

With absolute consistency RocksDB refuses a cut or changed record. But it skips a zeroed header, and with it
the rest of its 32 KiB block, without a word (a leftover of log files written through a memory map). A file
system may leave exactly this behind after a power cut, and a bad disk may too: such a log must not count as
cleanly opened.
"""

from __future__ import annotations

import pathlib
import struct

BLOCK_BYTES = 32 * 1024
_HEADER = struct.Struct("<IHB")  # masked crc32c · length of the fragment · type; a type 0 is never written


def zeroed_stretch(database: pathlib.Path) -> str:
    """Name the first zeroed record header in a database's log files; empty if there is none."""
    for path in sorted(database.glob("*.log")):
        offset = _first_zeroed_header(path)
        if offset is not None:
            return f"zeroed from byte {offset} of {path.name}"
    return ""


def _first_zeroed_header(path: pathlib.Path) -> int | None:
    with path.open("rb", buffering=0) as file:
        start = 0
        while block := file.read(BLOCK_BYTES):
            offset = _zeroed_header_in(block)
            if offset is not None:
                return start + offset
            start += len(block)
    return None


def _zeroed_header_in(block: bytes) -> int | None:
    offset = 0
    while offset + _HEADER.size <= len(block):
        _, length, kind = _HEADER.unpack_from(block, offset)
        if length == 0 and kind == 0:
            return offset
        offset += _HEADER.size + length
    return None
