"""Sums of INCRBYFLOAT: numbers of 64 significant bits (the long double of x86), as Redis has them there.

Knows: how such numbers are read, rounded and printed. Must not know: commands, keys.

Invariants:
- No float of the machine takes part: the same bytes on every server, whatever its processor.
- A finite number is m * 2**e with at most 64 bits in m; only infinities are floats.

Reference: Redis 7.0, util.c, string2ld() and ld2string(LD_STR_HUMAN); IEEE 754 double extended precision.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

MANTISSA_BITS = 64
EXPONENT_MIN = -16445
"""Of the last bit of the smallest numbers."""
EXPONENT_MAX = 16384
"""Of two, for the first number that is too large."""
DECIMAL_EXPONENT_MAX = 5000
"""Beyond, a number is infinite or zero for certain; what is larger is never multiplied out."""
EXPONENT_DIGITS_MAX = 9
"""More digits than any exponent needs that the rest of a text could make up for."""
DIGITS_AT_ONCE = 4000
"""Python converts no more than 4,300 at once."""

TEXT_BYTES_MAX = 5 * 1024 - 1
PLACES = 17
"""Digits behind the point: Redis prints no more, and cuts zeros at the end."""

DECIMAL = re.compile(rb"([+-]?)(?=\.?[0-9])([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]+))?")
HEXADECIMAL = re.compile(
    rb"([+-]?)0[xX](?=\.?[0-9a-fA-F])([0-9a-fA-F]*)(?:\.([0-9a-fA-F]*))?(?:[pP]([+-]?[0-9]+))?"
)
INFINITE = re.compile(rb"([+-]?)(?:inf|infinity)", re.IGNORECASE)


class Finite(NamedTuple):
    """mantissa * 2**exponent, the mantissa with its sign."""

    mantissa: int
    exponent: int


ZERO = Finite(0, 0)
Number = Finite | float
"""A finite long double, or an infinity."""


def parse(text: bytes) -> Number | None:
    """The number of a text, rounded; None where it is none, or is too large or too small to be held."""
    if not text or len(text) > TEXT_BYTES_MAX:
        return None
    if found := INFINITE.fullmatch(text):
        return -math.inf if found[1] == b"-" else math.inf
    if found := DECIMAL.fullmatch(text):
        return scaled(found, base=10, step=10)
    if found := HEXADECIMAL.fullmatch(text):
        return scaled(found, base=16, step=2)
    return None


def scaled(found: re.Match[bytes], *, base: int, step: int) -> Number | None:
    """Sign, digits and exponent as one rounded number; digits are scaled by `step` to the exponent."""
    sign, whole, part, exponent_text = found.groups(b"")
    mantissa = to_natural(whole + part) if base == 10 else int(whole + part, base)
    if mantissa == 0:
        return ZERO
    exponent_digits = exponent_text.lstrip(b"+-0") or b"0"
    if len(exponent_digits) > EXPONENT_DIGITS_MAX:
        return None
    exponent = -int(exponent_digits) if exponent_text.startswith(b"-") else int(exponent_digits)
    exponent -= len(part) * (1 if base == 10 else 4)
    if abs(exponent * math.log10(step) + mantissa.bit_length() * math.log10(2)) > DECIMAL_EXPONENT_MAX:
        return None
    mantissa = -mantissa if sign == b"-" else mantissa
    if base == 16:
        number = rounded(mantissa, 1, exponent)
    elif exponent < 0:
        number = rounded(mantissa, 10**-exponent)
    else:
        number = rounded(mantissa * 10**exponent, 1)
    # A text beyond the largest number is refused (ERANGE), and so is one that underflows to zero.
    return None if number == ZERO or isinstance(number, float) else number


def rounded(numerator: int, denominator: int, exponent: int = 0) -> Number:
    """The number of 64 bits nearest to a fraction times 2**exponent; an infinity where that is too large."""
    if numerator == 0:
        return ZERO
    size = abs(numerator)
    # A quotient of a by b bits has a - b or a - b + 1 bits: here 64, or one too many.
    shift = MANTISSA_BITS - size.bit_length() + denominator.bit_length()
    shift = min(shift, exponent - EXPONENT_MIN)
    mantissa = quotient(size, denominator, shift)
    if mantissa.bit_length() > MANTISSA_BITS:
        shift -= 1
        mantissa = quotient(size, denominator, shift)
    if mantissa == 0:
        return ZERO
    if mantissa.bit_length() + exponent - shift > EXPONENT_MAX:
        return math.inf if numerator > 0 else -math.inf
    return Finite(mantissa if numerator > 0 else -mantissa, exponent - shift)


def quotient(size: int, denominator: int, shift: int) -> int:
    """The integer nearest to size * 2**shift / denominator, of two the even one."""
    if shift >= 0:
        size <<= shift
    else:
        denominator <<= -shift
    whole, rest = divmod(size, denominator)
    return whole + (2 * rest > denominator or (2 * rest == denominator and whole % 2 == 1))


def add(one: Number, other: Number) -> Number:
    """The sum, rounded; an infinity or NaN where one takes part or it is too large."""
    if isinstance(one, float) or isinstance(other, float):
        return (one if isinstance(one, float) else 0.0) + (other if isinstance(other, float) else 0.0)
    low = min(one.exponent, other.exponent)
    first = one.mantissa << (one.exponent - low)
    second = other.mantissa << (other.exponent - low)
    return rounded(first + second, 1, low)


def print_human(number: Finite) -> bytes:
    """`%.17Lf`, without zeros at the end and without a point that nothing follows."""
    units = quotient(abs(number.mantissa) * 10**PLACES, 1, number.exponent)
    sign = b"-" if number.mantissa < 0 and units else b""
    whole, part = divmod(units, 10**PLACES)
    return sign + (from_natural(whole) + b".%017d" % part).rstrip(b"0").rstrip(b".")


def to_natural(digits: bytes) -> int:
    """The number of decimal digits, however many."""
    if len(digits) <= DIGITS_AT_ONCE:
        return int(digits)
    high, low = to_natural(digits[:-DIGITS_AT_ONCE]), int(digits[-DIGITS_AT_ONCE:])
    scale: int = 10**DIGITS_AT_ONCE
    return high * scale + low


def from_natural(number: int) -> bytes:
    """The decimal digits of a number, however many."""
    high, low = divmod(number, 10**DIGITS_AT_ONCE)
    return from_natural(high) + b"%0*d" % (DIGITS_AT_ONCE, low) if high else b"%d" % low
