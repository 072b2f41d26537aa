"""Frames to bytes and back: the one place that knows how anything looks between processes.

Floor 1, pure. Knows messages and msgpack; must not know sockets, time, disks or randomness. Byte by byte in
`docs/reference/wire-format.md`. The ladder: `framing` < `fields` < `frames`, `handshake`;
`framing` < `plain`.
"""

from __future__ import annotations

from craft.wire.frames import CODES, decode_frame, encode_frame, encode_frames, is_urgent
from craft.wire.framing import PREFIX_BYTES, Decoder, decode_message, encode_message
from craft.wire.handshake import (
    HANDSHAKE_BYTES_MAX,
    MAGIC,
    NONCE_BYTES,
    PROTOCOL_VERSION,
    Hello,
    Refusal,
    Welcome,
    decode_answer,
    decode_hello,
    encode_answer,
    encode_hello,
    refusal,
)

__all__ = [
    "CODES",
    "HANDSHAKE_BYTES_MAX",
    "MAGIC",
    "NONCE_BYTES",
    "PREFIX_BYTES",
    "PROTOCOL_VERSION",
    "Decoder",
    "Hello",
    "Refusal",
    "Welcome",
    "decode_answer",
    "decode_frame",
    "decode_hello",
    "decode_message",
    "encode_answer",
    "encode_frame",
    "encode_frames",
    "encode_hello",
    "encode_message",
    "is_urgent",
    "refusal",
]
