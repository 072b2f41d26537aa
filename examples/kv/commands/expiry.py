"""Deadlines: EXPIRE and its relatives, and what is left of a key's time.

Knows: how times are given and told. Must not know: any clock; `now` is the view's.

Invariants:
- A deadline is milliseconds since the epoch and fits 64 bits. A time given relatively counts from the
  timestamp of its command's batch: all servers come to the same deadline.

Reference: Redis 7.0, expire.c; t_string.c, getExpireMillisecondsOrReply().
"""

from __future__ import annotations

from examples.kv.commands.arguments import Args, c_string, integer, invalid_expiry
from examples.kv.commands.table import Command, Read, Write
from examples.kv.keyspace import Editor, View
from examples.kv.replies import Refused, Reply
from examples.kv.values import INT64_MAX

INCOMPATIBLE_NX = "ERR NX and XX, GT or LT options at the same time are not compatible"
INCOMPATIBLE_GT = "ERR GT and LT options at the same time are not compatible"


def parse_deadline(editor: Editor, name: bytes, unit: bytes, text: bytes) -> int:
    """The deadline of EX, PX, EXAT or PXAT: a time above zero."""
    time = integer(text)
    if unit in (b"EX", b"EXAT"):
        time *= 1000
    if not 0 < time <= INT64_MAX:
        raise invalid_expiry(name)
    if unit in (b"EX", b"PX"):
        time += editor.now
    if time > INT64_MAX:
        raise invalid_expiry(name)
    return time


def conditions(args: Args) -> set[bytes]:
    """The options NX, XX, GT and LT."""
    found = set()
    for text in args[3:]:
        if text.upper() not in (b"NX", b"XX", b"GT", b"LT"):
            raise Refused(b"ERR Unsupported option %b" % c_string(text).rstrip(b"\r\n"))
        found.add(text.upper())
    if b"NX" in found and len(found) > 1:
        raise Refused(INCOMPATIBLE_NX)
    if {b"GT", b"LT"} <= found:
        raise Refused(INCOMPATIBLE_GT)
    return found


def holds(found: set[bytes], current: int | None, deadline: int) -> bool:
    """Do the options let the deadline be set? No deadline is later than any."""
    if b"NX" in found and current is not None:
        return False
    if b"XX" in found and current is None:
        return False
    if b"GT" in found and (current is None or deadline <= current):
        return False
    return not (b"LT" in found and current is not None and deadline >= current)


def expire(editor: Editor, args: Args) -> Reply:
    """EXPIRE key s, PEXPIRE key ms, EXPIREAT key s, PEXPIREAT key ms, each with [NX | XX | GT | LT]."""
    found = conditions(args)
    deadline = integer(args[2])
    name, key = args[0].upper(), args[1]
    if name in (b"EXPIRE", b"EXPIREAT"):
        deadline *= 1000
        # C divides towards zero: what is one multiple below the least integer is refused on either side.
        if abs(deadline) > INT64_MAX:
            raise invalid_expiry(name)
    if name in (b"EXPIRE", b"PEXPIRE"):
        deadline += editor.now
    if deadline > INT64_MAX:
        raise invalid_expiry(name)
    if editor.value(key) is None or not holds(found, editor.deadline(key), deadline):
        return 0
    if deadline <= editor.now:
        editor.remove(key)
    else:
        editor.set_deadline(key, deadline)
    return 1


def persist(editor: Editor, args: Args) -> Reply:
    """PERSIST key."""
    if editor.value(args[1]) is None or editor.deadline(args[1]) is None:
        return 0
    editor.set_deadline(args[1], None)
    return 1


def ttl(view: View, args: Args) -> Reply:
    """TTL, PTTL: what is left; EXPIRETIME, PEXPIRETIME: until when. -1: for ever, -2: no such key."""
    name = args[0].upper()
    if view.value(args[1]) is None:
        return -2
    deadline = view.deadline(args[1])
    if deadline is None:
        return -1
    time = max(deadline - view.now, 0) if name in (b"TTL", b"PTTL") else deadline
    return time if name in (b"PTTL", b"PEXPIRETIME") else (time + 500) // 1000


COMMANDS: tuple[Command, ...] = (
    Write(b"EXPIRE", -3, expire),
    Write(b"PEXPIRE", -3, expire),
    Write(b"EXPIREAT", -3, expire),
    Write(b"PEXPIREAT", -3, expire),
    Read(b"TTL", 2, ttl),
    Read(b"PTTL", 2, ttl),
    Read(b"EXPIRETIME", 2, ttl),
    Read(b"PEXPIRETIME", 2, ttl),
    Write(b"PERSIST", 2, persist),
)
