"""What a command answers, as plain values, and how each is written in RESP2 and RESP3.

Knows: the two protocols. Must not know: commands, keys, sockets.

Invariants:
- A reply is made of what msgpack packs (results of clients' requests are kept and travel), and means the same
  in both protocols: who encodes it chooses, per connection.
- A dict with bytes as keys is a map; one with a single str as its key is a mark: an error, an absent array,
  a push, or several replies to one command.

    None            null                    float          double (RESP2: its digits as a bulk string)
    bytes           bulk string             bool           boolean (RESP2: 1 or 0)
    str             simple string           list           array
    int             integer                 {bytes: …}     map (RESP2: an array of keys and values in turn)
    {"error": b}    error                   {"absent": "array"}   null array (what an aborted EXEC answers)
    {"push": […]}   push (RESP2: array)     {"several": […]}      one after another (what SUBSCRIBE answers)

Reference: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

Reply: TypeAlias = "bool | int | float | str | bytes | Sequence[Reply] | Mapping[Any, Any] | None"

OK: Reply = "OK"
NO_ARRAY: Reply = {"absent": "array"}

TOO_LARGE = "REJECTED no effect, too large"
"""How the error begins of what goes beyond a limit of bytes."""

REPLIES_BYTES_MAX = 64 * 1024 * 1024
"""What a command answers, or all those of an entry of the log together."""

LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")


class Refused(Exception):
    """A command that is answered with an error and has changed nothing."""

    def __init__(self, text: str | bytes) -> None:
        super().__init__(text)
        self.reply = error(text)


def error(text: str | bytes) -> Reply:
    """An error reply; the text starts with its code (`ERR`, `WRONGTYPE`). Line ends become spaces."""
    text = text.encode() if isinstance(text, str) else text
    return {"error": text.translate(LINE_ENDS)}


def push(*items: Reply) -> Reply:
    """What a client is told beside the answers to its commands."""
    return {"push": items}


def several(replies: Sequence[Reply]) -> Reply:
    """Replies to one command, one after another."""
    return {"several": replies}


def is_error(reply: Reply) -> bool:
    """Is it an error reply?"""
    return isinstance(reply, dict) and "error" in reply


def size(reply: Reply) -> int:
    """About the bytes that a reply takes."""
    if isinstance(reply, (bytes, str)):
        return len(reply)
    if isinstance(reply, Mapping):
        return sum([size(key) + size(value) for key, value in reply.items()])
    if isinstance(reply, (list, tuple)):
        # Most are bytes or "OK": they are measured without a call each.
        return sum([len(item) if type(item) is bytes or type(item) is str else size(item) for item in reply])
    return 8


def encode(reply: Reply, protocol: int = 2) -> bytes:
    """The bytes of a reply in RESP2 or RESP3."""
    return encode_all((reply,), protocol)


def encode_all(replies: Iterable[Reply], protocol: int = 2) -> bytes:
    """The bytes of replies, one after another."""
    parts: list[bytes] = []
    write = write3 if protocol == 3 else write2
    for reply in replies:
        if reply == "OK":  # most replies to most writes
            parts.append(b"+OK\r\n")
        else:
            write(reply, parts)
    return b"".join(parts)


def write_both(reply: Reply, parts: list[bytes]) -> None:
    """What both protocols write alike."""
    if isinstance(reply, bytes):
        parts.append(b"$%d\r\n%b\r\n" % (len(reply), reply))
    elif isinstance(reply, int):
        parts.append(b":%d\r\n" % reply)
    elif isinstance(reply, str):
        parts.append(b"+%b\r\n" % reply.encode().translate(LINE_ENDS))
    elif isinstance(reply, Mapping) and "error" in reply:
        parts.append(b"-%b\r\n" % reply["error"])
    else:
        raise TypeError(f"no reply: {reply!r}")


def write2(reply: Reply, parts: list[bytes]) -> None:
    """RESP2: what it has no type for becomes the nearest it has."""
    if reply is None:
        parts.append(b"$-1\r\n")
    elif isinstance(reply, float):
        write_both(digits(reply), parts)
    elif isinstance(reply, (list, tuple)):
        parts.append(b"*%d\r\n" % len(reply))
        for item in reply:
            write2(item, parts)
    elif reply == NO_ARRAY:
        parts.append(b"*-1\r\n")
    elif isinstance(reply, Mapping) and "push" in reply:
        write2(reply["push"], parts)
    elif isinstance(reply, Mapping) and "several" in reply:
        for item in reply["several"]:
            write2(item, parts)
    elif isinstance(reply, Mapping) and "error" not in reply:
        parts.append(b"*%d\r\n" % (2 * len(reply)))
        for key, value in reply.items():
            write2(key, parts)
            write2(value, parts)
    else:
        write_both(reply, parts)


def write3(reply: Reply, parts: list[bytes]) -> None:
    """RESP3: every type as itself."""
    if reply is None or reply == NO_ARRAY:
        parts.append(b"_\r\n")
    elif isinstance(reply, bool):
        parts.append(b"#t\r\n" if reply else b"#f\r\n")
    elif isinstance(reply, float):
        parts.append(b",%b\r\n" % digits(reply))
    elif isinstance(reply, (list, tuple)):
        parts.append(b"*%d\r\n" % len(reply))
        for item in reply:
            write3(item, parts)
    elif isinstance(reply, Mapping) and "push" in reply:
        parts.append(b">%d\r\n" % len(reply["push"]))
        for item in reply["push"]:
            write3(item, parts)
    elif isinstance(reply, Mapping) and "several" in reply:
        for item in reply["several"]:
            write3(item, parts)
    elif isinstance(reply, Mapping) and "error" not in reply:
        parts.append(b"%%%d\r\n" % len(reply))
        for key, value in reply.items():
            write3(key, parts)
            write3(value, parts)
    else:
        write_both(reply, parts)


def digits(number: float) -> bytes:
    """A double as Redis 7.0 prints it: up to 17 significant digits, `inf` and `nan` by name."""
    return b"%.17g" % number
