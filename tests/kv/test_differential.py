"""The engine against a real Redis: random commands, every reply compared byte for byte."""

from __future__ import annotations

import time
from typing import Any

import pytest

from examples.kv.commands import TABLE
from examples.kv.replies import encode
from tests.kv.generator import FLOATS_ALIKE, Args, Generator
from tests.kv.redis import Connection
from tests.kv.store import Store

pytestmark = pytest.mark.system

NAMES = {name.partition(b"|")[0] for name in TABLE}
"""OBJECT stands for what it contains."""

EXCLUDED = {b"RANDOMKEY": "whichever key it answers is right; Redis draws one at random"}
"""Commands that are not generated. SCAN and HSCAN are, with a COUNT that finds all: cursors differ."""

UNORDERED = {b"KEYS", b"SCAN", b"HGETALL", b"HKEYS", b"HVALS", b"HSCAN"}
"""The order of keys, and of a hashtable's fields, is nobody's promise. A listpack's is compared."""

TIMES = {b"TTL": 60, b"PTTL": 60_000, b"EXPIRETIME": 60, b"PEXPIRETIME": 60_000}
"""How far answers may differ where the deadline was given relatively: the two do not execute at one time."""

OPTIONS = {
    b"SET": {b"NX", b"XX", b"GET", b"KEEPTTL", b"EX", b"PX", b"EXAT", b"PXAT"},
    b"GETEX": {b"PERSIST", b"EX", b"PX", b"EXAT", b"PXAT"},
    b"EXPIRE": {b"NX", b"XX", b"GT", b"LT"},
    b"PEXPIRE": {b"NX", b"XX", b"GT", b"LT"},
    b"EXPIREAT": {b"NX", b"XX", b"GT", b"LT"},
    b"PEXPIREAT": {b"NX", b"XX", b"GT", b"LT"},
    b"COPY": {b"DB", b"REPLACE"},
    b"LCS": {b"LEN", b"IDX", b"MINMATCHLEN", b"WITHMATCHLEN"},
    b"SCAN": {b"MATCH", b"COUNT", b"TYPE"},
    b"HSCAN": {b"MATCH", b"COUNT"},
    b"FLUSHALL": {b"ASYNC", b"SYNC"},
    b"FLUSHDB": {b"ASYNC", b"SYNC"},
    b"OBJECT": {b"ENCODING"},
}
"""Every option of a covered command must have been accepted in a run, or it is not covered."""

SEEDS = range(1, 9)
LENGTH = 2500


def parsed(reply: bytes) -> Any:
    """A reply as a tree: (kind, items) or its bytes."""
    return tree(reply, 0)[0]


def tree(reply: bytes, at: int) -> tuple[Any, int]:
    kind, end = reply[at : at + 1], reply.index(b"\r\n", at)
    count, after = reply[at + 1 : end], end + 2
    if kind == b"$" and count != b"-1":
        after += int(count) + 2
    elif kind in b"*%" and count != b"-1":
        items = []
        for _ in range(int(count) * (2 if kind == b"%" else 1)):
            item, after = tree(reply, after)
            items.append(item)
        return (kind, items), after
    return reply[at:after], after


def sorted_tree(name: bytes, reply: bytes) -> Any:
    """A reply whose order does not count; fields stay with their values."""
    found = parsed(reply)
    if not isinstance(found, tuple):
        return found
    kind, items = found
    if name in (b"SCAN", b"HSCAN"):
        cursor, (kind, items) = items
        return cursor, kind, sorted(couples(items) if name == b"HSCAN" else items)
    return kind, sorted(couples(items) if name == b"HGETALL" else items)


def couples(items: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(items[::2], items[1::2], strict=True))


def same(args: Args, ours: bytes, theirs: bytes, *, ordered: bool) -> bool:
    """Are two replies the same, as far as they must be?"""
    name = args[0].upper()
    if ours == theirs:
        return True
    if name in TIMES and ours[:1] == theirs[:1] == b":" and int(ours[1:]) >= 0 <= int(theirs[1:]):
        return abs(int(ours[1:]) - int(theirs[1:])) <= TIMES[name]
    if name in UNORDERED and not ordered:
        return bool(sorted_tree(name, ours) == sorted_tree(name, theirs))
    return False


def test_every_command_of_the_table_is_generated() -> None:
    """A command counts as supported only if the comparison below draws it."""
    assert set(Generator(1).commands()) == NAMES - set(EXCLUDED)


@pytest.mark.parametrize("protocol", [2, 3])
def test_random_commands_are_answered_as_redis_answers_them(redis: Connection, protocol: int) -> None:
    """Sequences over few keys, so that they meet; every reply is compared, and every option was accepted."""
    redis.ask(b"HELLO", b"%d" % protocol)
    accepted: dict[bytes, set[bytes]] = {}
    for seed in SEEDS:
        redis.ask(b"FLUSHALL")
        commands = Generator(seed + 100 * protocol).sequence(LENGTH)
        theirs = redis.ask_all(commands)
        store = Store(time.time_ns() // 1_000_000)
        for number, (args, reply) in enumerate(zip(commands, theirs, strict=True)):
            name = args[0].upper()
            ordered = name.startswith(b"H") and store.read("OBJECT", "ENCODING", *args[1:2]) == b"listpack"
            ours = encode(store.ask(*args), protocol)
            story = f"seed {seed}, command {number}: {args!r}\nours   {ours!r}\ntheirs {reply!r}"
            assert same(args, ours, reply, ordered=ordered), story
            if not reply.startswith(b"-"):
                accepted.setdefault(name, set()).update(arg.upper() for arg in args[1:])
    assert {name for name in NAMES if name not in accepted and (FLOATS_ALIKE or b"FLOAT" not in name)} == set(
        EXCLUDED
    )
    assert {name: words - accepted[name] for name, words in OPTIONS.items() if words - accepted[name]} == {}
