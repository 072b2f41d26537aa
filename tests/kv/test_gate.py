"""What comes over a connection: whole requests, however they were cut, and clear faults."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.kv.resp.gate import (
    ARGUMENTS_MAX_UNKNOWN,
    LINE_BYTES_MAX,
    Gate,
    GateLimits,
    ProtocolFault,
    Unauthenticated,
)
from tests.kv.redis import packed


def gate(request_bytes_max: int = 1000, *, known: bool = True) -> Gate:
    found = Gate(GateLimits(request_bytes_max))
    found.known = known
    return found


def fed(data: bytes) -> list[list[bytes]]:
    return gate().feed(data)


def test_requests_and_inline_commands_come_in_their_order() -> None:
    """Both kinds may follow each other; empty ones are no requests."""
    data = (
        b"PING\r\n"
        + packed([b"GET", b"a\r\nb"])
        + b"\r\n*0\r\n*-1\r\n*-7\r\nset  k v\n"
        + packed([b"", b"\0"])
    )
    assert fed(data) == [[b"PING"], [b"GET", b"a\r\nb"], [b"set", b"k", b"v"], [b"", b"\0"]]


@given(
    st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=5), max_size=6),
    st.lists(st.integers(1, 60), min_size=1),
)
def test_it_does_not_matter_how_the_bytes_are_cut(requests: list[list[bytes]], cuts: list[int]) -> None:
    """A network may hand them over one by one."""
    data = b"".join(map(packed, requests))
    one, found = gate(), []
    while data:
        size = cuts[len(data) % len(cuts)]
        found += one.feed(data[:size])
        data = data[size:]
    assert found == requests
    assert one.held == 0


@given(st.binary(max_size=300), st.lists(st.integers(1, 60), min_size=1))
def test_any_bytes_are_requests_or_a_fault(data: bytes, cuts: list[int]) -> None:
    """Nothing else comes of them, and no more is held than a request may have."""
    one = gate(request_bytes_max=200)
    while data:
        size = cuts[len(data) % len(cuts)]
        try:
            found = one.feed(data[:size])
        except ProtocolFault:
            return
        assert all(type(arg) is bytes for request in found for arg in request)
        assert all(found)
        assert one.held <= LINE_BYTES_MAX
        data = data[size:]


@pytest.mark.parametrize("method", [b"POST", b"GET", b"PUT"])
def test_a_browsers_request_is_none_here(method: bytes) -> None:
    """A page that knows the port can send one, and what is in its body must not be taken for commands."""
    one, requests = gate(), []
    with contextlib.suppress(ProtocolFault):
        requests = one.feed(method + b" / HTTP/1.1\r\nHost: localhost:6379\r\n\r\nFLUSHALL\r\n")
    assert one.fault is not None
    assert [b"FLUSHALL"] not in requests


def test_what_came_before_a_fault_is_answered() -> None:
    """Then the fault is told."""
    one = gate()
    assert one.feed(packed([b"PING"]) + b"*x\r\n" + packed([b"PING"])) == [[b"PING"]]
    assert str(one.fault) == "invalid multibulk length"
    with pytest.raises(ProtocolFault):
        one.feed(packed([b"PING"]))


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"*1\r\n$4294967296\r\n", "invalid bulk length"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$ 1\r\na\r\n", "invalid bulk length"),
        (b"*1\r\n:1\r\n", "expected '$', got ':'"),
        (b"*100000000\r\n", "invalid multibulk length"),
        (b"*+1\r\n", "invalid multibulk length"),
        (b"*01\r\n", "invalid multibulk length"),
        (b"*1\r\n$01\r\na\r\n", "invalid bulk length"),
        (b"*" + b"1" * LINE_BYTES_MAX, "too big mbulk count string"),
        (b"*1\r\n$" + b"1" * LINE_BYTES_MAX, "too big bulk count string"),
        (b"a" * LINE_BYTES_MAX, "too big inline request"),
        (b'SET "a\n', "unbalanced quotes in request"),
        (b"SET 'a'b\n", "unbalanced quotes in request"),
        (b"*2\r\n$600\r\n" + b"a" * 600 + b"\r\n$600\r\n", "request exceeds 1000 bytes"),
    ],
)
def test_what_claims_too_much_is_refused_before_it_comes(data: bytes, complaint: str) -> None:
    """Redis's own words, where it has any."""
    with pytest.raises(ProtocolFault) as caught:
        fed(data)
    assert str(caught.value) == complaint


def test_who_has_not_said_who_he_is_may_ask_little() -> None:
    """AUTH is short."""
    one = gate(known=False, request_bytes_max=10**6)
    assert one.feed(packed([b"AUTH", b"alice", b"x" * 1000]))
    with pytest.raises(ProtocolFault, match="unauthenticated multibulk length"):
        one.feed(b"*%d\r\n" % (ARGUMENTS_MAX_UNKNOWN + 1))
    with pytest.raises(ProtocolFault, match="unauthenticated bulk length"):
        gate(known=False).feed(b"*1\r\n$16385\r\n")


def test_what_is_too_large_for_a_stranger_waits_behind_his_password() -> None:
    """Nothing of it is lost, and while it waits it is no more than came at once."""
    one = gate(known=False, request_bytes_max=10**6)
    large, many = [b"SET", b"k", b"x" * 20_000], [b"DEL", *[b"k"] * 20]
    data = packed(large) + packed(many)
    assert one.feed(packed([b"AUTH", b"secret"]) + data[:10_000]) == [[b"AUTH", b"secret"]]
    assert isinstance(one.fault, Unauthenticated)
    assert one.welcome() == []
    assert one.feed(data[10_000:]) == [large, many]
    assert one.held == 0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (rb'set "a b" c', [b"set", b"a b", b"c"]),
        (rb'"\x41\n\"\q" ' + rb"'it\'s \n'", [b'A\n"q', rb"it's \n"]),
        (rb'a"b"', [b"ab"]),
        (b'""', [b""]),
    ],
)
def test_inline_words_are_quoted_as_redis_quotes_them(line: bytes, words: list[bytes]) -> None:
    """sdssplitargs() knows two kinds of quotes."""
    assert fed(line + b"\r\n") == [words]
