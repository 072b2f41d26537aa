"""Strings that count: INCR and its relatives.

Knows: what each does to a key. Must not know: how a command reached the server.

Reference: Redis 7.0, t_string.c.
"""

from __future__ import annotations

from examples.kv.commands.arguments import Args, integer, string, total
from examples.kv.commands.table import Command, Write
from examples.kv.keyspace import Editor
from examples.kv.longdouble import Number, add, parse, print_human
from examples.kv.replies import Refused, Reply
from examples.kv.values import INT64_MIN, Printed

NOT_A_FLOAT = "ERR value is not a valid float"
NOT_FINITE = "ERR increment would produce NaN or Infinity"


def change(editor: Editor, key: bytes, amount: int) -> Reply:
    """Add to the integer that a key holds; an absent one counts as 0."""
    held = string(editor, key)
    changed = total(integer(b"0" if held is None else held), amount)
    editor.replace(key, b"%d" % changed)
    return changed


def incr(editor: Editor, args: Args) -> Reply:
    """INCR key."""
    return change(editor, args[1], 1)


def decr(editor: Editor, args: Args) -> Reply:
    """DECR key."""
    return change(editor, args[1], -1)


def incrby(editor: Editor, args: Args) -> Reply:
    """INCRBY key amount."""
    return change(editor, args[1], integer(args[2]))


def decrby(editor: Editor, args: Args) -> Reply:
    """DECRBY key amount."""
    amount = integer(args[2])
    if amount == INT64_MIN:
        raise Refused("ERR decrement would overflow")
    return change(editor, args[1], -amount)


def long_double(text: bytes, complaint: str = NOT_A_FLOAT) -> Number:
    """A number with a fraction."""
    number = parse(text)
    if number is None:
        raise Refused(complaint)
    return number


def printed_sum(one: Number, other: Number) -> bytes:
    """The sum of two numbers with fractions, as it is stored and answered."""
    result = add(one, other)
    if isinstance(result, float):  # an infinity, or no number at all
        raise Refused(NOT_FINITE)
    return print_human(result)


def incrbyfloat(editor: Editor, args: Args) -> Reply:
    """INCRBYFLOAT key amount."""
    held = string(editor, args[1])
    changed = printed_sum(long_double(b"0" if held is None else held), long_double(args[2]))
    editor.replace(args[1], Printed(changed))
    return changed


COMMANDS: tuple[Command, ...] = (
    Write(b"INCR", 2, incr),
    Write(b"DECR", 2, decr),
    Write(b"INCRBY", 3, incrby),
    Write(b"DECRBY", 3, decrby),
    Write(b"INCRBYFLOAT", 3, incrbyfloat),
)
