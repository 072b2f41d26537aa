"""The handshake: who is at the other end, and do the two ends belong together (PROTOCOL 8, 11)?

Nobody has proved anything yet when these are read, so they are small and every field is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import msgpack

from craft.errors import WireError
from craft.limits import ADDRESS_CHARS_MAX
from craft.types import GROUPS_MAX, ServerId
from craft.wire.fields import Check, Wrong, a_number, a_server, record_of
from craft.wire.framing import Payload, framed, unpack

PROTOCOL_VERSION = 1
MAGIC = b"craft"
TEXT_CHARS_MAX = 128  # a cluster id
REASON_CHARS_MAX = 500  # why a handshake is refused
NONCE_BYTES = 16
DISK_ID_CHARS = 32
HANDSHAKE_BYTES_MAX = 4096  # nobody has said who he is yet, so nobody may send much


class Hello(NamedTuple):
    """The first thing that a connecting process says. A client has server id 0, no disk and no groups."""

    magic: bytes
    protocol_version: int
    role: str  # "peer" or "client"
    cluster_id: str
    server_id: ServerId
    disk_id: str
    groups: int
    nonce: bytes
    client_address: str = ""  # where clients reach this peer, for other clients to be told


class Welcome(NamedTuple):
    """The answer of a server that takes the connection: who it is, and the Hello's nonce."""

    magic: bytes
    protocol_version: int
    cluster_id: str
    server_id: ServerId
    disk_id: str
    groups: int
    nonce: bytes


class Refusal(NamedTuple):
    """The answer of a server that does not, and why; then it closes the connection."""

    reason: str


def _magic(value: Any, _groups: int) -> bytes:
    if value == MAGIC and type(value) is bytes:
        return MAGIC
    raise Wrong(value, repr(MAGIC))


def _role(value: Any, _groups: int) -> str:
    if type(value) is str and value in ("peer", "client"):
        return value
    raise Wrong(value, "'peer' or 'client'")


def _text(chars_max: int) -> Check:
    def check_text(value: Any, _groups: int) -> str:
        if type(value) is str and 0 < len(value) <= chars_max and value.isprintable():
            return value
        raise Wrong(value, f"1 to {chars_max} printable characters")

    return check_text


def _disk_id(value: Any, _groups: int) -> str:
    if type(value) is str and len(value) == DISK_ID_CHARS and all(c in "0123456789abcdef" for c in value):
        return value
    raise Wrong(value, f"{DISK_ID_CHARS} lower-case hexadecimal digits")


def _disk_id_or_none(value: Any, _groups: int) -> str:
    return "" if value == "" else _disk_id(value, GROUPS_MAX)


def _group_count(value: Any, _groups: int) -> int:
    if type(value) is int and 0 <= value <= GROUPS_MAX:
        return value
    raise Wrong(value, f"0 … {GROUPS_MAX} groups")


def _nonce(value: Any, _groups: int) -> bytes:
    if type(value) is bytes and len(value) == NONCE_BYTES:
        return value
    raise Wrong(value, f"{NONCE_BYTES} bytes")


_cluster_id = _text(TEXT_CHARS_MAX)
_address = _text(ADDRESS_CHARS_MAX)


def _address_or_none(value: Any, _groups: int) -> str:
    return "" if value == "" else _address(value, GROUPS_MAX)


_hello = record_of(
    Hello,
    _magic,
    a_number,
    _role,
    _cluster_id,
    a_server,
    _disk_id_or_none,
    _group_count,
    _nonce,
    _address_or_none,
)
_welcome = record_of(Welcome, _magic, a_number, _cluster_id, a_server, _disk_id, _group_count, _nonce)
_refusal = record_of(Refusal, _text(REASON_CHARS_MAX))


def _decode_handshake(name: str, check: Check, value: Any) -> Any:
    try:
        return check(value, GROUPS_MAX)
    except Wrong as wrong:
        raise wrong.named(name) from None


def _unpack_handshake(payload: Payload) -> Any:
    return unpack("a handshake", payload, max_array_len=16, max_map_len=0, max_str_len=4 * REASON_CHARS_MAX)


def encode_hello(hello: Hello) -> bytes:
    """A Hello as it goes onto the wire."""
    return framed(msgpack.packb(hello))


def decode_hello(payload: Payload) -> Hello:
    """A Hello, every field checked by itself; `refusal` then says whether the two ends belong together."""
    hello: Hello = _decode_handshake("Hello", _hello, _unpack_handshake(payload))
    if hello.role == "peer" and not (hello.disk_id and hello.groups):
        raise WireError("Hello of a peer lacks its disk id or its number of groups")
    return hello


def encode_answer(answer: Welcome | Refusal) -> bytes:
    """A Welcome or a Refusal as it goes onto the wire. A reason is made printable and cut to its limit."""
    if isinstance(answer, Refusal):
        printable = "".join(c if c.isprintable() else "?" for c in answer.reason)
        answer = Refusal(printable[:REASON_CHARS_MAX] or "?")
    return framed(msgpack.packb(answer))


def decode_answer(payload: Payload) -> Welcome | Refusal:
    """A Welcome or a Refusal, told apart by their length, every field checked."""
    value = _unpack_handshake(payload)
    if type(value) is tuple and len(value) == 1:
        return _decode_handshake("Refusal", _refusal, value)  # type: ignore[no-any-return]  # a Refusal
    return _decode_handshake("Welcome", _welcome, value)  # type: ignore[no-any-return]  # a Welcome


def refusal(
    ours: Hello,
    theirs: Hello | Welcome,
    *,
    peers: Collection[ServerId],
    known_disk: Callable[[ServerId, str], str | None],
) -> str | None:
    """Why the two ends do not belong together, naming both values; None if they do.

    `known_disk` is asked last, when all else fits, for it may remember the disk for good (PROTOCOL 8).
    """
    for word, our, their in (
        ("protocol version", ours.protocol_version, theirs.protocol_version),
        ("cluster", ours.cluster_id, theirs.cluster_id),
    ):
        if our != their:
            return f"another {word}: theirs is {their!r}, ours is {our!r}"
    if isinstance(theirs, Hello) and theirs.role == "client":
        return None
    if theirs.groups != ours.groups:
        return f"another number of groups: theirs is {theirs.groups}, ours is {ours.groups}"
    if theirs.server_id == ours.server_id:
        return f"own id: both say that they are server {ours.server_id}"
    if theirs.server_id not in peers:
        return (
            f"unknown server id: theirs is {theirs.server_id}, known are {sorted(peers)};"
            f" to let it come: craft members add {theirs.server_id} ADDRESS"
        )
    return known_disk(theirs.server_id, theirs.disk_id)
