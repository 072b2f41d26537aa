"""A snapshot as a file: blocks that each vouch for all that stands before them
(docs/reference/disk-format.md).

Knows: heads, parts, bytes. Must not know: files, directories, who sends what to whom.

Invariants
- A block's checksum covers the block and, by the checksum before it, all earlier ones: what was cut, changed,
  swapped or mixed with another file is noticed at the first block that is not as it was written.
- Only the end block says that a file is whole; nothing stands behind it.
- Nothing is ever held but one part and what was fed: a snapshot may be larger than memory.
- Equal heads are equal bytes.

Reference: PROTOCOL 7.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator

from craft.errors import DamagedSnapshot
from craft.types import (
    GROUPS_MAX,
    TIMESTAMP_MAX,
    Cut,
    Head,
    Place,
    SnapshotKind,
    SnapshotPart,
    pack_configuration,
    unpack_configuration,
)

MAGIC = b"craft\x00s1"
"""The first bytes of a snapshot; the last digit is the version of its format."""

BLOCK_BYTES_MAX = 256 * 1024
"""One block's payload, and so what is read, checked or held back at a time; a larger part is split."""

PART_BYTES_MAX = 256 * 1024 * 1024
"""One part, which is put together in memory again. State machines give theirs in pieces far smaller."""

_BLOCK = struct.Struct(">IIB")  # crc32 of the rest, begun with that of the block before · length · kind
_BODY = struct.Struct(">IB")
BLOCK_HEADER_BYTES = _BLOCK.size

_HEAD = 0
_END = 127
_MORE = 128  # the part goes on in the next block
_KINDS = {kind.value: kind for kind in SnapshotKind}

_ENDING = struct.Struct(">QQ")  # blocks · bytes, both without the end block
_CUT = struct.Struct(">QQQQQH")  # term · index · timestamp · the configuration's term, index and length


# -- heads ----------------------------------------------------------------------------------------


def pack_head(head: Head) -> bytes:
    """A head as it stands in a snapshot and travels to peers."""
    cluster = head.cluster_id.encode()
    packed = [
        struct.pack(">H", len(cluster)) + cluster,
        struct.pack(">QQB", head.position, head.timestamp, len(head.digest)) + head.digest,
        struct.pack(">H", len(head.cuts)),
    ]
    for cut in head.cuts:
        configuration = pack_configuration(cut.configuration)
        fields = (*cut.place, cut.timestamp, *cut.configuration_at, len(configuration))
        packed.append(_CUT.pack(*fields) + configuration)
    return b"".join(packed)


def unpack_head(packed: bytes) -> Head:
    """The head in such bytes; raises DamagedSnapshot for any others."""
    try:
        head = _Reader(packed).head()
        if pack_head(head) == packed:
            return head
    except (ValueError, struct.error) as error:
        raise DamagedSnapshot(f"{packed[:64].hex()} is no snapshot's head: {error}") from error
    raise DamagedSnapshot(
        f"{packed[:64].hex()} is no snapshot's head: more follows, or a field is not in order"
    )


class _Reader:
    """Takes fields from the front."""

    def __init__(self, packed: bytes) -> None:
        self._packed, self._at = packed, 0

    def take(self, count: int) -> bytes:
        taken = self._packed[self._at : self._at + count]
        if len(taken) != count:
            raise ValueError("it is cut")
        self._at += count
        return taken

    def numbers(self, layout: str) -> tuple[int, ...]:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def head(self) -> Head:
        (length,) = self.numbers(">H")
        cluster = self.take(length).decode()
        position, timestamp, length = self.numbers(">QQB")
        digest = self.take(length)
        (groups,) = self.numbers(">H")
        if timestamp > TIMESTAMP_MAX or groups > GROUPS_MAX:
            raise ValueError(f"{groups} groups at timestamp {timestamp}")
        return Head(cluster, position, timestamp, digest, tuple(self.cut() for _ in range(groups)))

    def cut(self) -> Cut:
        term, index, timestamp, at_term, at_index, length = self.numbers(_CUT.format)
        if timestamp > TIMESTAMP_MAX:
            raise ValueError(f"a cut at timestamp {timestamp}")
        configuration = unpack_configuration(self.take(length))
        return Cut(Place(term, index), timestamp, configuration, Place(at_term, at_index))


# -- writing --------------------------------------------------------------------------------------


def encode(head: Head, parts: Iterable[SnapshotPart]) -> Iterator[bytes]:
    """A snapshot's bytes, a block or a part's beginning at a time. Raises ValueError for too large a part."""
    writer = _Writer()
    yield MAGIC
    yield from writer.blocks(_HEAD, pack_head(head))
    for part in parts:
        if len(part.data) > PART_BYTES_MAX:
            raise ValueError(
                f"a snapshot's part of kind {part.kind.name} has {len(part.data)} bytes;"
                f" allowed are {PART_BYTES_MAX}"
            )
        yield from writer.blocks(part.kind, part.data)
    yield from writer.blocks(_END, _ENDING.pack(writer.count, writer.size))


class _Writer:
    def __init__(self) -> None:
        self.count, self.size = 0, len(MAGIC)
        self._checksum = zlib.crc32(MAGIC)

    def blocks(self, kind: int, data: bytes) -> Iterator[bytes]:
        view, last = memoryview(data), max(0, len(data) - 1) // BLOCK_BYTES_MAX
        for number in range(last + 1):
            payload = view[number * BLOCK_BYTES_MAX : (number + 1) * BLOCK_BYTES_MAX]
            yield self._block(kind | (_MORE if number < last else 0), payload)

    def _block(self, kind: int, payload: memoryview) -> bytes:
        body = _BODY.pack(len(payload), kind)
        self._checksum = zlib.crc32(payload, zlib.crc32(body, self._checksum))
        self.count += 1
        self.size += BLOCK_HEADER_BYTES + len(payload)
        return b"".join((self._checksum.to_bytes(4, "big"), body, payload))


# -- reading --------------------------------------------------------------------------------------


class Decoder:
    """Reads a snapshot from its beginning, in whatever pieces it comes.

    `clean` bytes are known to be as they were written, up to the end of a block. `head` is there once it was
    read; `ended` once all was.
    """

    def __init__(self) -> None:
        self.clean = 0
        self.head: Head | None = None
        self.ended = False
        self._pending = bytearray()  # behind `clean`
        self._checksum = 0
        self._count = 0
        self._partial: list[bytes] = []  # of the part that goes on
        self._partial_kind: int | None = None
        self._partial_bytes = 0

    def feed(self, data: bytes) -> Iterator[SnapshotPart]:
        """Take more bytes; yields the parts that they complete. Raises DamagedSnapshot, naming the byte."""
        self._pending += data
        if not self.clean:
            self._take_magic()
        while (part := self._next_block()) is not None:
            if isinstance(part, SnapshotPart):
                yield part

    def finish(self) -> Head:
        """There is no more. Raises DamagedSnapshot if there should be."""
        if not self.ended or self.head is None:
            raise DamagedSnapshot(f"it is cut behind byte {self.clean}: there is no end block")
        return self.head

    def _take_magic(self) -> None:
        if not MAGIC.startswith(self._pending[: len(MAGIC)]):
            raise DamagedSnapshot(
                f"it begins with {bytes(self._pending[: len(MAGIC)])!r}, not with {MAGIC!r}"
            )
        if len(self._pending) >= len(MAGIC):
            del self._pending[: len(MAGIC)]
            self.clean, self._checksum = len(MAGIC), zlib.crc32(MAGIC)

    def _next_block(self) -> SnapshotPart | bool | None:
        """Take one block: the part that it completes, True if it completes none; None: it is not all here."""
        pending = self._pending
        if self.ended and pending:
            raise self._damaged("bytes follow the end block")
        if not self.clean or len(pending) < BLOCK_HEADER_BYTES:
            return None
        checksum, length, kind = _BLOCK.unpack_from(pending)
        if length > BLOCK_BYTES_MAX:
            raise self._damaged(f"a block claims {length} bytes; allowed are {BLOCK_BYTES_MAX}")
        end = BLOCK_HEADER_BYTES + length
        if len(pending) < end:
            return None
        if zlib.crc32(memoryview(pending)[4:end], self._checksum) != checksum:
            raise self._damaged("the checksum of a block does not hold")
        payload = bytes(memoryview(pending)[BLOCK_HEADER_BYTES:end])
        del pending[:end]
        taken = self._take(kind, payload)
        self._checksum = checksum
        self.clean += end
        self._count += 1
        return taken

    def _take(self, kind: int, payload: bytes) -> SnapshotPart | bool:
        whole, more = kind & ~_MORE, bool(kind & _MORE)
        if self._partial_kind not in (None, whole):
            raise self._damaged("a part is not continued")
        self._partial.append(payload)
        self._partial_bytes += len(payload)
        if self._partial_bytes > PART_BYTES_MAX:
            raise self._damaged(f"a part has more than {PART_BYTES_MAX} bytes")
        self._partial_kind = whole
        if more:
            return True
        data = payload if len(self._partial) == 1 else b"".join(self._partial)
        self._partial, self._partial_kind, self._partial_bytes = [], None, 0
        return self._take_whole(whole, data)

    def _take_whole(self, kind: int, data: bytes) -> SnapshotPart | bool:
        if (kind == _HEAD) != (self.head is None):
            raise self._damaged("the head does not come first, or twice")
        if kind == _HEAD:
            self.head = unpack_head(data)
            return True
        if kind == _END:
            if data != _ENDING.pack(self._count, self.clean):
                raise self._damaged(f"the end block says {data.hex()}")
            self.ended = True
            return True
        if kind not in _KINDS:
            raise self._damaged(f"a part of the unknown kind {kind}")
        return SnapshotPart(_KINDS[kind], data)

    def _damaged(self, what: str) -> DamagedSnapshot:
        return DamagedSnapshot(f"behind byte {self.clean}: {what}")
