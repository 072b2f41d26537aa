"""Strings: SET and GET with their relatives, and parts of strings.

Knows: what each does to a key. Must not know: how a command reached the server.

Reference: Redis 7.0, t_string.c.
"""

from __future__ import annotations

from examples.kv.commands.arguments import SYNTAX, Args, check_length, integer, string, wrong_arity
from examples.kv.commands.expiry import parse_deadline
from examples.kv.commands.table import ALL_KEYS, KEYS_AND_VALUES, Command, Read, Write
from examples.kv.keyspace import Editor, View
from examples.kv.replies import OK, REPLIES_BYTES_MAX, TOO_LARGE, Refused, Reply, size
from examples.kv.values import Raw

TIMES = (b"EX", b"PX", b"EXAT", b"PXAT")


class Options:
    """The options of SET or GETEX, as they were given."""

    __slots__ = ("flags", "time", "unit")

    def __init__(self, args: Args, at: int, words: tuple[bytes, ...]) -> None:
        self.flags: set[bytes] = set()
        self.unit: bytes | None = None
        self.time = b""
        while at < len(args):
            word = args[at].upper()
            if word in TIMES and at + 1 < len(args) and self.allows_time(word):
                self.unit, self.time = word, args[at + 1]
                at += 2
            elif word in words and self.allows(word):
                self.flags.add(word)
                at += 1
            else:
                raise Refused(SYNTAX)

    def allows_time(self, unit: bytes) -> bool:
        """One unit only (but the same one again), and nothing else that says what becomes of the deadline."""
        return self.unit in (None, unit) and not self.flags & {b"KEEPTTL", b"PERSIST"}

    def allows(self, word: bytes) -> bool:
        """Does a word agree with those before?"""
        if word in (b"KEEPTTL", b"PERSIST"):
            return self.unit is None
        opposite = {b"NX": b"XX", b"XX": b"NX"}.get(word)
        return opposite not in self.flags

    def deadline(self, editor: Editor, name: bytes) -> int | None:
        """When the key is to expire."""
        return None if self.unit is None else parse_deadline(editor, name, self.unit, self.time)


def get(view: View, args: Args) -> Reply:
    """GET key."""
    return string(view, args[1])


def set_(editor: Editor, args: Args) -> Reply:
    """SET key value [NX | XX] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]."""
    if len(args) == 3:
        editor.put(args[1], args[2])
        return OK
    key = args[1]
    options = Options(args, 3, (b"NX", b"XX", b"GET", b"KEEPTTL"))
    deadline = options.deadline(editor, args[0])
    asked = b"GET" in options.flags
    old = string(editor, key) if asked else editor.value(key)
    answer: Reply = old if asked and isinstance(old, bytes) else None
    if (b"NX" in options.flags and old is not None) or (b"XX" in options.flags and old is None):
        return answer
    if b"KEEPTTL" in options.flags:
        editor.replace(key, args[2])
    else:
        editor.put(key, args[2], deadline)
    return answer if asked else OK


def setnx(editor: Editor, args: Args) -> Reply:
    """SETNX key value."""
    if editor.value(args[1]) is not None:
        return 0
    editor.put(args[1], args[2])
    return 1


def setex(editor: Editor, args: Args) -> Reply:
    """SETEX key s value; PSETEX key ms value."""
    unit = b"EX" if args[0].upper() == b"SETEX" else b"PX"
    editor.put(args[1], args[3], parse_deadline(editor, args[0], unit, args[2]))
    return OK


def getset(editor: Editor, args: Args) -> Reply:
    """GETSET key value."""
    old = string(editor, args[1])
    editor.put(args[1], args[2])
    return old


def getdel(editor: Editor, args: Args) -> Reply:
    """GETDEL key."""
    old = string(editor, args[1])
    if old is not None:
        editor.remove(args[1])
    return old


def getex(editor: Editor, args: Args) -> Reply:
    """GETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST]."""
    key = args[1]
    options = Options(args, 2, (b"PERSIST",))
    held = string(editor, key)
    if held is None:
        return None
    deadline = options.deadline(editor, args[0])
    if deadline is not None and deadline <= editor.now:
        editor.remove(key)
    elif deadline is not None or (b"PERSIST" in options.flags and editor.deadline(key) is not None):
        editor.set_deadline(key, deadline)
    return held


def mget(view: View, args: Args) -> Reply:
    """MGET key …; what is no string is nil."""
    values: list[Reply] = []
    room = REPLIES_BYTES_MAX
    for key in args[1:]:
        value = view.value(key)
        values.append(value if isinstance(value, bytes) else None)
        room -= size(values[-1])
        if room < 0:  # on a disk there may be more than memory holds
            raise Refused(f"{TOO_LARGE}: the reply has more than {REPLIES_BYTES_MAX} bytes")
    return values


def mset(editor: Editor, args: Args) -> Reply:
    """MSET key value …."""
    if len(args) % 2 == 0:
        raise wrong_arity(args[0])
    for at in range(1, len(args), 2):
        editor.put(args[at], args[at + 1])
    return OK


def msetnx(editor: Editor, args: Args) -> Reply:
    """MSETNX key value …: all or, if any is there, none."""
    if len(args) % 2 == 0:
        raise wrong_arity(args[0])
    if any(editor.value(key) is not None for key in args[1::2]):
        return 0
    mset(editor, args)
    return 1


def append(editor: Editor, args: Args) -> Reply:
    """APPEND key value."""
    held = string(editor, args[1])
    if held is None:
        editor.put(args[1], args[2])
        return len(args[2])
    check_length(len(held) + len(args[2]))
    editor.replace(args[1], Raw(held + args[2]))
    return len(held) + len(args[2])


def strlen(view: View, args: Args) -> Reply:
    """STRLEN key."""
    return len(string(view, args[1]) or b"")


def getrange(view: View, args: Args) -> Reply:
    """GETRANGE key start end or SUBSTR: both ends are included, negative ones count from the end."""
    start, end = integer(args[2]), integer(args[3])
    held = string(view, args[1]) or b""
    if start < 0 and end < 0 and start > end:
        return b""
    start = max(start + len(held), 0) if start < 0 else start
    end = max(end + len(held), 0) if end < 0 else end
    return bytes(held[start : end + 1])


def setrange(editor: Editor, args: Args) -> Reply:
    """SETRANGE key offset value: zeros fill what is missing before it."""
    offset = integer(args[2])
    if offset < 0:
        raise Refused("ERR offset is out of range")
    held = string(editor, args[1])
    part = args[3]
    if not part:
        return len(held or b"")
    check_length(offset + len(part))
    old = held or b""
    changed = old[:offset].ljust(offset, b"\0") + part + old[offset + len(part) :]
    editor.replace(args[1], Raw(changed))
    return len(changed)


COMMANDS: tuple[Command, ...] = (
    Read(b"GET", 2, get),
    Write(b"SET", -3, set_),
    Write(b"SETNX", 3, setnx),
    Write(b"SETEX", 4, setex),
    Write(b"PSETEX", 4, setex),
    Write(b"GETSET", 3, getset),
    Write(b"GETDEL", 2, getdel),
    Write(b"GETEX", -2, getex),
    Read(b"MGET", -2, mget, ALL_KEYS),
    Write(b"MSET", -3, mset, KEYS_AND_VALUES),
    Write(b"MSETNX", -3, msetnx, KEYS_AND_VALUES),
    Write(b"APPEND", 3, append),
    Read(b"STRLEN", 2, strlen),
    Read(b"GETRANGE", 4, getrange),
    Read(b"SUBSTR", 4, getrange),
    Write(b"SETRANGE", 4, setrange),
)
