"""What a request asks for: whatever comes is understood, or refused by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.kv.http import asking
from examples.kv.http.asking import Condition, Tags
from examples.kv.http.problems import Problem
from examples.kv.store import Mode


def refusal(function: object, *args: object) -> str:
    assert callable(function)
    with pytest.raises(Problem) as caught:
        function(*args)
    assert caught.value.kind == "bad-request"
    return caught.value.detail


@given(st.binary(max_size=20))
def test_a_key_is_any_bytes(key: bytes) -> None:
    """Percent-encoded as a client likes: all of it, or what must be."""
    from urllib.parse import quote_from_bytes

    for safe in ("", "/", "/!$&'()*+,;=:@"):
        assert asking.key(b"/keys/" + quote_from_bytes(key, safe=safe).encode()) == key


@given(st.binary(max_size=40))
def test_any_query_is_understood_or_refused(query: bytes) -> None:
    """Nothing else comes of it."""
    try:
        found = asking.parameters(query, frozenset({"prefix", "after"}))
    except Problem as problem:
        assert problem.status == 400
    else:
        assert found.keys() <= {"prefix", "after"}


def test_parameters_are_bytes_and_known() -> None:
    """A misspelt one is no wish, and of two the server would have to choose."""
    allowed = frozenset({"prefix", "limit"})
    assert asking.parameters(b"prefix=%ff%00a&limit=", allowed) == {"prefix": b"\xff\0a", "limit": b""}
    assert asking.parameters(b"", allowed) == {}
    assert "'prefixx' is not known; allowed: limit, prefix" in refusal(
        asking.parameters, b"prefixx=1", allowed
    )
    assert "comes twice" in refusal(asking.parameters, b"limit=1&limit=2", allowed)
    assert "more than 16" in refusal(asking.parameters, b"&".join([b"a=1"] * 17), allowed)


@pytest.mark.parametrize("text", ["", "-1", "+1", " 1", "1_0", "\u0661", "1e3", str(2**63)])
def test_a_number_is_digits(text: str) -> None:
    """And no more than a position may be."""
    assert "allowed: 0 to 9223372036854775807" in refusal(asking.number, "after", text)


def test_how_fresh_a_read_is_to_be() -> None:
    """Linearizable unless a client says otherwise; a session needs to know what it saw."""
    assert asking.freshness(None, None) == (Mode.LINEARIZABLE, 0)
    assert asking.freshness(b"stale", None).mode is Mode.STALE
    assert asking.freshness(b"session", "7") == (Mode.SESSION, 7)
    assert "needs the header Craft-Position" in refusal(asking.freshness, b"session", None)
    assert "allowed: linearizable, session, stale" in refusal(asking.freshness, b"fresh", None)


@given(st.text(max_size=20))
def test_any_header_of_tags_is_understood_or_refused(text: str) -> None:
    """Nothing else comes of it."""
    try:
        found = asking.tags("If-Match", text)
    except Problem as problem:
        assert problem.status == 400
    else:
        assert isinstance(found, Tags)


def test_tags_match_strongly_or_weakly() -> None:
    """A weak tag is never enough for a write."""
    found = asking.tags("If-None-Match", '"1" , W/"2","a,b"')
    assert found == Tags(False, frozenset({"1", "a,b"}), frozenset({"2"}))
    assert found.matches(1, weakly=False) and not found.matches(2, weakly=False)
    assert found.matches(2, weakly=True) and not found.matches(3, weakly=True)
    star = asking.tags("If-Match", " * ")
    assert star is not None and star.matches(9, weakly=False) and not star.matches(None, weakly=True)
    for wrong in ("1", '"1', '"1" "2"', '"1",', "", 'w/"1"', '"a b"'):
        assert "is not allowed" in refusal(asking.tags, "If-Match", wrong)


def test_the_condition_of_a_write() -> None:
    """What the log can decide; a tag that no server has given never holds."""
    assert asking.condition(None, None) == Condition()
    assert asking.condition("*", None) == Condition(present=True)
    assert asking.condition('"7"', None) == Condition(present=True, version=7)
    assert asking.condition(None, "*") == Condition(absent=True)
    for never in ('"abc"', 'W/"7"', '"07"', f'"{2**63}"', '""'):
        assert asking.condition(never, None) is None
    for pair in (('"1"', "*"), ('"1", "2"', None), (None, '"1"')):
        refusal(asking.condition, *pair)
