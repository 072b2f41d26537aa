"""Reading the arguments of commands, and what is answered where they cannot be read.

Knows: numbers, options and the error texts that commands share. Must not know: what any command does.
"""

from __future__ import annotations

from examples.kv.keyspace import View
from examples.kv.replies import Refused
from examples.kv.values import INT64_MAX, INT64_MIN, Hash, to_int

Args = list[bytes]
"""A command as a client sends it: its name, then its arguments."""

NOT_AN_INTEGER = "ERR value is not an integer or out of range"
SYNTAX = "ERR syntax error"
WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
OVERFLOW = "ERR increment or decrement would overflow"
INVALID_CURSOR = "ERR invalid cursor"

STRING_BYTES_MAX = 512 * 1024 * 1024
TOO_LONG = "ERR string exceeds maximum allowed size (proto-max-bulk-len)"

SPACE = b" \t\n\v\f\r"


def string(view: View, key: bytes) -> bytes | None:
    """The string that a key holds; refused where it holds something else."""
    value = view.value(key)
    if isinstance(value, Hash):
        raise Refused(WRONG_TYPE)
    return value


def hash_of(view: View, key: bytes) -> Hash | None:
    """The hash that a key holds; refused where it holds something else."""
    value = view.value(key)
    if isinstance(value, bytes):
        raise Refused(WRONG_TYPE)
    return value


def integer(text: bytes, complaint: str = NOT_AN_INTEGER) -> int:
    """A 64-bit integer."""
    number = to_int(text)
    if number is None:
        raise Refused(complaint)
    return number


def total(one: int, other: int) -> int:
    """The sum, if it is a 64-bit integer."""
    if not INT64_MIN <= one + other <= INT64_MAX:
        raise Refused(OVERFLOW)
    return one + other


def wrong_arity(name: bytes) -> Refused:
    """Too few or too many arguments."""
    return Refused(b"ERR wrong number of arguments for '%b' command" % name.lower())


def invalid_expiry(name: bytes) -> Refused:
    """A time that is not allowed or does not fit."""
    return Refused(b"ERR invalid expire time in '%b' command" % name.lower())


def check_length(length: int) -> None:
    """A string may not grow beyond what a client may send."""
    if length > STRING_BYTES_MAX:
        raise Refused(TOO_LONG)


def c_string(text: bytes) -> bytes:
    """What C sees of it."""
    return text.partition(b"\0")[0]


def cursor(text: bytes) -> int:
    """As C's `strtoul` reads it: a sign is allowed, an empty text is 0."""
    text = c_string(text)
    digits = text.lstrip(b"+-")
    if not text:
        return 0
    if text[:1] in SPACE or len(text) - len(digits) > 1 or not digits.isdigit():
        raise Refused(INVALID_CURSOR)
    significant = digits.lstrip(b"0") or b"0"
    if len(significant) > 20 or (number := int(significant)) >= 2**64:
        raise Refused(INVALID_CURSOR)
    return -number % 2**64 if text[:1] == b"-" else number
