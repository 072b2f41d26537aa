"""Hashes: HSET and its relatives.

Knows: what each does to a key. Must not know: how a command reached the server.

Invariants:
- A hash is never empty: with its last field, the key goes.
- A command that is refused has created nothing.

Reference: Redis 7.0, t_hash.c.
"""

from __future__ import annotations

from examples.kv.commands.arguments import Args, hash_of, integer, total, wrong_arity
from examples.kv.commands.counting import long_double, printed_sum
from examples.kv.commands.table import Command, Read, Write
from examples.kv.keyspace import Editor, View
from examples.kv.replies import OK, Refused, Reply
from examples.kv.values import Hash


def fields_of(view: View, key: bytes) -> dict[bytes, bytes]:
    """What a hash holds; nothing where there is none."""
    held = hash_of(view, key)
    return held.fields if held is not None else {}


def put(editor: Editor, key: bytes, items: Args) -> int:
    """Set fields (and values, in turn) of a hash that may not exist yet; how many were new?"""
    held = hash_of(editor, key)
    held = editor.owned(key, held) if held is not None else Hash(editor.space.epoch)
    created = sum([held.put(items[at], items[at + 1]) for at in range(0, len(items), 2)])
    editor.replace(key, held)
    return created


def hset(editor: Editor, args: Args) -> Reply:
    """HSET key field value …: how many fields are new; HMSET: OK."""
    if len(args) % 2 == 1:
        raise wrong_arity(args[0])
    created = put(editor, args[1], args[2:])
    return OK if args[0].upper() == b"HMSET" else created


def hsetnx(editor: Editor, args: Args) -> Reply:
    """HSETNX key field value."""
    if args[2] in fields_of(editor, args[1]):
        return 0
    return put(editor, args[1], args[2:])


def hdel(editor: Editor, args: Args) -> Reply:
    """HDEL key field …."""
    key = args[1]
    held = hash_of(editor, key)
    if held is None or held.fields.keys().isdisjoint(args[2:]):
        return 0
    held = editor.owned(key, held)
    removed = sum([held.remove(field) for field in args[2:]])
    if held.fields:
        editor.touch(key)
    else:
        editor.remove(key)
    return removed


def hincrby(editor: Editor, args: Args) -> Reply:
    """HINCRBY key field amount."""
    amount = integer(args[3])
    held = fields_of(editor, args[1]).get(args[2], b"0")
    changed = total(integer(held, "ERR hash value is not an integer"), amount)
    put(editor, args[1], [args[2], b"%d" % changed])
    return changed


def hincrbyfloat(editor: Editor, args: Args) -> Reply:
    """HINCRBYFLOAT key field amount."""
    amount = long_double(args[3])
    if isinstance(amount, float):
        raise Refused("ERR value is NaN or Infinity")
    held = fields_of(editor, args[1]).get(args[2], b"0")
    changed = printed_sum(long_double(held, "ERR hash value is not a float"), amount)
    put(editor, args[1], [args[2], changed])
    return changed


def hget(view: View, args: Args) -> Reply:
    """HGET key field."""
    return fields_of(view, args[1]).get(args[2])


def hmget(view: View, args: Args) -> Reply:
    """HMGET key field …."""
    fields = fields_of(view, args[1])
    return [fields.get(field) for field in args[2:]]


def hgetall(view: View, args: Args) -> Reply:
    """HGETALL key."""
    return dict(fields_of(view, args[1]))


def hkeys(view: View, args: Args) -> Reply:
    """HKEYS key."""
    return list(fields_of(view, args[1]))


def hvals(view: View, args: Args) -> Reply:
    """HVALS key."""
    return list(fields_of(view, args[1]).values())


def hlen(view: View, args: Args) -> Reply:
    """HLEN key."""
    return len(fields_of(view, args[1]))


def hexists(view: View, args: Args) -> Reply:
    """HEXISTS key field."""
    return int(args[2] in fields_of(view, args[1]))


def hstrlen(view: View, args: Args) -> Reply:
    """HSTRLEN key field."""
    return len(fields_of(view, args[1]).get(args[2], b""))


COMMANDS: tuple[Command, ...] = (
    Write(b"HSET", -4, hset),
    Write(b"HMSET", -4, hset),
    Write(b"HSETNX", 4, hsetnx),
    Write(b"HDEL", -3, hdel),
    Write(b"HINCRBY", 4, hincrby),
    Write(b"HINCRBYFLOAT", 4, hincrbyfloat),
    Read(b"HGET", 3, hget),
    Read(b"HMGET", -3, hmget),
    Read(b"HGETALL", 2, hgetall),
    Read(b"HKEYS", 2, hkeys),
    Read(b"HVALS", 2, hvals),
    Read(b"HLEN", 2, hlen),
    Read(b"HEXISTS", 3, hexists),
    Read(b"HSTRLEN", 3, hstrlen),
)
