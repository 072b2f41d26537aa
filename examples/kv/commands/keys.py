"""Keys, whatever they hold: DEL, EXISTS, RENAME, COPY, FLUSHALL, OBJECT ENCODING and the like.

Knows: what each does to a key. Must not know: how a command reached the server.

Reference: Redis 7.0, db.c, object.c.
"""

from __future__ import annotations

from examples.kv.commands.arguments import SYNTAX, Args, integer
from examples.kv.commands.table import ALL_KEYS, NO_KEYS, TWO_KEYS, Command, Read, Write
from examples.kv.keyspace import Editor, View
from examples.kv.replies import OK, Refused, Reply
from examples.kv.values import Hash, encoding, type_name

NO_SUCH_KEY = "ERR no such key"
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


def delete(editor: Editor, args: Args) -> Reply:
    """DEL key …, UNLINK key …."""
    removed = 0
    for key in args[1:]:
        if editor.value(key) is not None:
            editor.remove(key)
            removed += 1
    return removed


def exists(view: View, args: Args) -> Reply:
    """EXISTS key …, TOUCH key …: a key counts as often as it is named."""
    return sum([view.value(key) is not None for key in args[1:]])


def type_(view: View, args: Args) -> Reply:
    """TYPE key."""
    return type_name(view.value(args[1]))


def rename(editor: Editor, args: Args) -> Reply:
    """RENAME key new, RENAMENX key new: the deadline goes with it."""
    key, new = args[1], args[2]
    only_if_absent = args[0].upper() == b"RENAMENX"
    value = editor.value(key)
    if value is None:
        raise Refused(NO_SUCH_KEY)
    if key == new:
        return 0 if only_if_absent else OK
    if editor.value(new) is not None:
        if only_if_absent:
            return 0
        editor.remove(new)
    editor.put(new, value, editor.deadline(key))
    editor.remove(key)
    return 1 if only_if_absent else OK


def copy_options(args: Args) -> bool:
    """REPLACE and DB: there is one database, of number 0."""
    replaces, at = False, 3
    while at < len(args):
        word = args[at].upper()
        if word == b"REPLACE":
            replaces = True
        elif word == b"DB" and at + 1 < len(args):
            at += 1
            database = integer(args[at])
            if not INT32_MIN <= database <= INT32_MAX:
                raise Refused(f"ERR value is out of range, value must between {INT32_MIN} and {INT32_MAX}")
            if database != 0:
                raise Refused("ERR DB index is out of range")
        else:
            raise Refused(SYNTAX)
        at += 1
    return replaces


def copy(editor: Editor, args: Args) -> Reply:
    """COPY key new [DB 0] [REPLACE]."""
    replaces = copy_options(args)
    key, new = args[1], args[2]
    if key == new:
        raise Refused("ERR source and destination objects are the same")
    value = editor.value(key)
    if value is None:
        return 0
    if editor.value(new) is not None:
        if not replaces:
            return 0
        editor.remove(new)
    value = value.copy(editor.space.epoch) if isinstance(value, Hash) else value
    editor.put(new, value, editor.deadline(key))
    return 1


def randomkey(view: View, _args: Args) -> Reply:
    """RANDOMKEY: from a slot that the time picks, so that all servers pick the same within a transaction."""
    start = cursor = (
        view.now * 2_654_435_761 % 2**14
    )  # Knuth's multiplier spreads times that lie close together
    wrapped = False
    while not (wrapped and cursor >= start):
        cursor, found = view.scan(cursor, 1)
        there = [key for key in found if not view.is_due(key)]
        if there:
            return there[view.now % len(there)]
        if cursor == 0:
            if wrapped:
                break
            wrapped = True
    return None


def dbsize(view: View, _args: Args) -> Reply:
    """DBSIZE: without those that have expired."""
    return view.count()


def flush(editor: Editor, args: Args) -> Reply:
    """FLUSHALL [ASYNC | SYNC], FLUSHDB [ASYNC | SYNC]: there is one database, and it is emptied at once."""
    if len(args) > 2 or (len(args) == 2 and args[1].upper() not in (b"ASYNC", b"SYNC")):
        raise Refused(SYNTAX)
    editor.flush()
    return OK


def object_encoding(view: View, args: Args) -> Reply:
    """OBJECT ENCODING key."""
    value = view.value(args[2])
    return None if value is None else encoding(value)


COMMANDS: tuple[Command, ...] = (
    Write(b"DEL", -2, delete, ALL_KEYS),
    Write(b"UNLINK", -2, delete, ALL_KEYS),
    Read(b"EXISTS", -2, exists, ALL_KEYS),
    Read(b"TOUCH", -2, exists, ALL_KEYS),
    Read(b"TYPE", 2, type_),
    Write(b"RENAME", 3, rename, TWO_KEYS),
    Write(b"RENAMENX", 3, rename, TWO_KEYS),
    Write(b"COPY", -3, copy, TWO_KEYS),
    Read(b"RANDOMKEY", 1, randomkey, NO_KEYS),
    Read(b"DBSIZE", 1, dbsize, NO_KEYS),
    Write(b"FLUSHDB", -1, flush, NO_KEYS),
    Write(b"FLUSHALL", -1, flush, NO_KEYS),
    Read(b"OBJECT|ENCODING", 3, object_encoding, (2, 2, 1)),
)
