"""Replies as bytes of RESP2 and RESP3, and as plain values that survive msgpack."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from examples.kv.replies import NO_ARRAY, encode, error, is_error

REPLIES: list[tuple[Any, bytes, bytes]] = [
    (None, b"$-1\r\n", b"_\r\n"),
    ("OK", b"+OK\r\n", b"+OK\r\n"),
    (-7, b":-7\r\n", b":-7\r\n"),
    (b"a\r\nb", b"$4\r\na\r\nb\r\n", b"$4\r\na\r\nb\r\n"),
    (b"", b"$0\r\n\r\n", b"$0\r\n\r\n"),
    (True, b":1\r\n", b"#t\r\n"),
    (False, b":0\r\n", b"#f\r\n"),
    (2.5, b"$3\r\n2.5\r\n", b",2.5\r\n"),
    (float("inf"), b"$3\r\ninf\r\n", b",inf\r\n"),
    ([b"a", [1, None]], b"*2\r\n$1\r\na\r\n*2\r\n:1\r\n$-1\r\n", b"*2\r\n$1\r\na\r\n*2\r\n:1\r\n_\r\n"),
    ([], b"*0\r\n", b"*0\r\n"),
    ({b"f": 1}, b"*2\r\n$1\r\nf\r\n:1\r\n", b"%1\r\n$1\r\nf\r\n:1\r\n"),
    ({}, b"*0\r\n", b"%0\r\n"),
    (NO_ARRAY, b"*-1\r\n", b"_\r\n"),
    (error("ERR no\r\nway"), b"-ERR no  way\r\n", b"-ERR no  way\r\n"),
    (error(b"ERR \xff"), b"-ERR \xff\r\n", b"-ERR \xff\r\n"),
]


@pytest.mark.parametrize(("reply", "second", "third"), REPLIES, ids=[repr(reply) for reply, *_ in REPLIES])
def test_a_reply_is_written_as_each_protocol_has_it(reply: Any, second: bytes, third: bytes) -> None:
    """What RESP2 has no type for becomes the nearest that it has."""
    assert encode(reply, 2) == second
    assert encode(reply, 3) == third


@pytest.mark.parametrize("reply", [reply for reply, *_ in REPLIES], ids=repr)
def test_a_reply_survives_msgpack(reply: Any) -> None:
    """Results are kept for clients that ask again, so what is packed must be written as before."""
    back = msgpack.unpackb(msgpack.packb(reply))
    assert encode(back, 2) == encode(reply, 2)
    assert encode(back, 3) == encode(reply, 3)


def test_only_an_error_is_an_error() -> None:
    """A map with a field of that name is none: its keys are bytes."""
    assert is_error(error("ERR no"))
    assert not any(map(is_error, (None, "ERR", b"-ERR", NO_ARRAY, {b"error": b"ERR no"}, [error("ERR no")])))


def test_what_is_no_reply_is_refused() -> None:
    """A mistake of ours is not sent to a client."""
    for wrong in (object(), {1, 2}, [object()]):
        with pytest.raises(TypeError):
            encode(wrong)  # type: ignore[arg-type]
