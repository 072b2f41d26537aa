"""Sums of 64 significant bits, as they are printed; the comparison with Redis has thousands more."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.kv.longdouble import MANTISSA_BITS, Finite, add, parse, print_human


def summed(one: bytes, other: bytes) -> bytes:
    """The printed sum of two texts."""
    first, second = parse(one), parse(other)
    assert first is not None and second is not None
    result = add(first, second)
    assert isinstance(result, Finite)
    return print_human(result)


@pytest.mark.parametrize(
    ("one", "other", "printed"),
    [
        (b"0.1", b"0.2", b"0.3"),
        (b"3.0", b"1.0000", b"4"),
        (b"10.50", b"0.1", b"10.6"),
        (b"5.0e3", b"2.0e2", b"5200"),
        (b"1", b"-1", b"0"),
        (b"-1e-30", b"0", b"0"),
        (b"9007199254740993", b"0", b"9007199254740993"),
        (b"18446744073709551616", b"1", b"18446744073709551616"),
        (b"18446744073709551616", b"3", b"18446744073709551620"),
        (b"0x1.8p1", b"0", b"3"),
    ],
)
def test_a_sum_is_printed_as_redis_prints_it(one: bytes, other: bytes, printed: bytes) -> None:
    """No zeros at the end, no surprise in the last digit, ties to the even mantissa."""
    assert summed(one, other) == printed


@pytest.mark.parametrize(
    "text", [b"", b" 1", b"1 ", b"nan", b"1e", b".", b"1e5000", b"1e-5000", b"0x", b"1\x00", b"1_0"]
)
def test_what_is_no_number_is_none(text: bytes) -> None:
    """Nor what is too large or too small to be held."""
    assert parse(text) is None


def test_the_largest_number_is_finite_and_twice_of_it_is_not() -> None:
    """2**16384 - 2**16320 is the last one."""
    largest = parse(b"1.18973149535723176502e+4932")
    assert isinstance(largest, Finite)
    assert add(largest, largest) == math.inf
    assert parse(b"1.18973149535723176509e+4932") is None


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**62), 2**62))
def test_integers_of_64_bits_are_exact(one: int, other: int) -> None:
    """As far as the sum has no more bits than a mantissa."""
    if abs(one + other) < 2**MANTISSA_BITS:
        assert summed(b"%d" % one, b"%d" % other) == b"%d" % (one + other)
