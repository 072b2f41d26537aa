"""Walking over keys and fields: KEYS, SCAN, HSCAN.

Knows: patterns, types and cursors. Must not know: how a command reached the server.

Invariants:
- What is there from the first call of a walk to its last is found, on whichever servers the calls are made: a
  cursor is a slot (`slots.py`), no state of any server.

Reference: Redis 7.0, db.c, scanGenericCommand().
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from examples.kv.commands.arguments import SYNTAX, Args, cursor, hash_of, integer
from examples.kv.commands.table import NO_KEYS, Command, Read
from examples.kv.globs import matcher
from examples.kv.keyspace import View
from examples.kv.replies import Refused, Reply
from examples.kv.values import type_name

COUNT = 10
"""Unless a client says otherwise."""


@dataclass
class Options:
    """COUNT, MATCH and TYPE."""

    count: int = COUNT
    matches: Callable[[bytes], bool] | None = None
    type: str | None = None


def options_of(args: Args, at: int, *, typed: bool) -> Options:
    """The options from an argument on; TYPE is for keys only."""
    options = Options()
    while at < len(args):
        word = args[at].upper()
        if at + 1 == len(args):
            raise Refused(SYNTAX)
        if word == b"COUNT":
            options.count = integer(args[at + 1])
            if options.count < 1:
                raise Refused(SYNTAX)
        elif word == b"MATCH":
            options.matches = None if args[at + 1] == b"*" else matcher(args[at + 1])
        elif word == b"TYPE" and typed:
            options.type = args[at + 1].decode("latin-1").lower()
        else:
            raise Refused(SYNTAX)
        at += 2
    return options


def keys(view: View, args: Args) -> Reply:
    """KEYS pattern."""
    if args[1] == b"*":
        return view.keys()
    return list(filter(matcher(args[1]), view.keys()))


def scan(view: View, args: Args) -> Reply:
    """SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]."""
    start = cursor(args[1])
    options = options_of(args, 2, typed=True)
    following, found = view.scan(start, options.count)
    there = [
        key
        for key in found
        if not view.is_due(key)
        and (options.matches is None or options.matches(key))
        and options.type in (None, type_name(view.values[key]))
    ]
    return [b"%d" % following, there]


def hscan(view: View, args: Args) -> Reply:
    """HSCAN key cursor [MATCH pattern] [COUNT count]: a small hash comes at once, in its order."""
    start = cursor(args[2])
    held = hash_of(view, args[1])
    if held is None:
        return [b"0", []]
    options = options_of(args, 3, typed=False)
    if held.listpack:
        following, found = 0, list(held.fields)
    else:
        following, found = held.indexed().scan(start, options.count)
    answer: list[Reply] = []
    for field in found:
        if options.matches is None or options.matches(field):
            answer += (field, held.fields[field])
    return [b"%d" % following, answer]


COMMANDS: tuple[Command, ...] = (
    Read(b"KEYS", 2, keys, NO_KEYS),
    Read(b"SCAN", -2, scan, NO_KEYS),
    Read(b"HSCAN", -3, hscan),
)
