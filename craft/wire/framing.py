"""Framing: length · crc32 · payload, and plain msgpack values in it.

Invariants
- The checksum covers length and payload, so a damaged byte is an error and never another value.
- A claim beyond the limit is refused when its four bytes have arrived, before anything is buffered for it.
- Cutting costs at most two copies of a byte, whatever the sizes of frames and pieces.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, TypeAlias

import msgpack

from craft.errors import WireError
from craft.wire.fields import shown

ITEMS_MAX = 2**16
"""Items in one array. msgpack reserves 8 bytes an item at once and nests up to 1024 deep, hence no more."""

_PREFIX = struct.Struct(">II")
PREFIX_BYTES = _PREFIX.size
_LENGTH = struct.Struct(">I")
_LENGTH_BYTES = _LENGTH.size

Payload: TypeAlias = bytes | memoryview


def framed(payload: bytes) -> bytes:
    """The payload behind its length and the checksum of both."""
    length = len(payload).to_bytes(_LENGTH_BYTES, "big")
    checksum = zlib.crc32(payload, zlib.crc32(length))
    return b"".join((length, checksum.to_bytes(4, "big"), payload))


class Decoder:
    """Cuts a stream of bytes into checked payloads. Feed, then take payloads until there is none.

    A payload is a view of what was fed, not a copy; it stays valid. After an error the stream has no more.
    """

    def __init__(self, frame_bytes_max: int) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._whole = memoryview(b"")  # never resized, so that views of it may be handed out
        self._at = 0
        self._partial = bytearray()  # the beginning of a frame, once all of `_whole` is taken
        self._broken: str | None = None

    @property
    def pending(self) -> int:
        """Bytes that were fed and are not handed out."""
        return len(self._whole) - self._at + len(self._partial)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take more bytes. Drain the payloads before feeding again, or they are copied once more."""
        if self._at < len(self._whole):
            self._keep_rest()
        if self._partial:
            self._partial += data
        else:
            self._whole, self._at = memoryview(data), 0

    def next_payload(self) -> memoryview | None:
        """The next complete payload, or None until more is fed.

        Raises WireError for damage or a claim beyond the limit, now and ever after.
        """
        if self._broken is not None:
            raise WireError(self._broken)
        if self._partial:
            if self._end_of_frame(self._partial, 0) is None:
                return None
            # The buffer itself is handed over and a new one begun: no copy of a large frame.
            self._whole, self._at, self._partial = memoryview(self._partial), 0, bytearray()
        if self._at == len(self._whole):
            return None  # as a rule: what was read was whole frames
        end = self._end_of_frame(self._whole, self._at)
        if end is None:
            self._keep_rest()
            return None
        return self._take(end)

    def __iter__(self) -> Iterator[memoryview]:
        """All payloads that are complete."""
        while (payload := self.next_payload()) is not None:
            yield payload

    def _end_of_frame(self, buffer: bytearray | memoryview, at: int) -> int | None:
        """Where the frame at `at` ends, if it is all there. The claim is judged as soon as it can be read."""
        if len(buffer) - at < _LENGTH_BYTES:
            return None
        (length,) = _LENGTH.unpack_from(buffer, at)
        if length > self._frame_bytes_max:
            raise self._break(f"a frame claims {length} bytes; allowed are {self._frame_bytes_max}")
        end: int = at + PREFIX_BYTES + length
        return end if end <= len(buffer) else None

    def _take(self, end: int) -> memoryview:
        at, self._at = self._at, end
        payload = self._whole[at + PREFIX_BYTES : end]
        checksum = zlib.crc32(payload, zlib.crc32(self._whole[at : at + _LENGTH_BYTES]))
        if _PREFIX.unpack_from(self._whole, at)[1] != checksum:
            raise self._break(f"checksum mismatch in a frame of {len(payload)} bytes")
        return payload

    def _keep_rest(self) -> None:
        self._partial = bytearray(self._whole[self._at :])
        self._whole, self._at = memoryview(b""), 0

    def _break(self, reason: str) -> WireError:
        self._broken = reason
        self._whole, self._at, self._partial = memoryview(b""), 0, bytearray()
        return WireError(reason)


def unpack(what: str, payload: Payload, **limits: int) -> Any:
    """One msgpack value and nothing behind it; arrays become tuples. Extension types are refused."""
    try:
        return msgpack.unpackb(payload, use_list=False, strict_map_key=True, max_ext_len=0, **limits)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        reason = f"{type(error).__name__} {error}"
        raise WireError(f"{what} is not msgpack within its limits: {shown(reason)}") from None


def encode_message(value: object) -> bytes:
    """A plain value (None, bool, int, float, str, bytes, arrays, maps) as it goes onto the wire, framed."""
    return framed(msgpack.packb(value))


def decode_message(payload: Payload, *, items_max: int = ITEMS_MAX) -> Any:
    """A plain value; arrays become tuples, keys are str or bytes.

    Raises WireError, also where an array or map has more than `items_max` items.
    """
    items_max = min(items_max, len(payload))
    return unpack("a message", payload, max_array_len=items_max, max_map_len=items_max)
