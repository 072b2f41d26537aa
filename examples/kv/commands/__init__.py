"""Every command of the engine: a table from its name to what it takes and does, and the ways to run one.

Knows: names, arities, and which error an unknown command gets. Must not know: connections, the log.

Invariants:
- `TABLE` is the only list of commands: who routes, checks or documents them reads it.
- A command that is refused has changed nothing.
- A transaction is executed as one: all servers see all of it at one position, or none of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from examples.kv.commands import counting, expiry, hashes, keys, lcs, publishing, scanning, strings
from examples.kv.commands.arguments import Args, c_string, wrong_arity
from examples.kv.commands.table import Command, Read, Write
from examples.kv.keyspace import Editor, View
from examples.kv.replies import NO_ARRAY, Refused, Reply, size

__all__ = ["TABLE", "Args", "Command", "Read", "Write", "answer", "execute", "find", "keys_of", "transact"]

TABLE: dict[bytes, Command] = {
    command.name: command
    for theme in (strings, counting, keys, scanning, expiry, hashes, lcs, publishing)
    for command in theme.COMMANDS
}

NAMED_BY_ONE = {name: command for name, command in TABLE.items() if b"|" not in name}
"""By their first argument; those of a container are named by two."""

CONTAINERS = frozenset(name.partition(b"|")[0] for name in TABLE if b"|" in name)
"""Commands that do nothing without the name of another behind them."""

QUOTED_BYTES_MAX = 128


def find(args: Args) -> Command:
    """The command that arguments name; refused (as a queue of MULTI does) if unknown or of a wrong arity."""
    command = NAMED_BY_ONE.get(args[0].upper())
    if command is None:
        command = contained(args)
    arity = command.arity
    if len(args) != arity and (arity > 0 or len(args) < -arity):
        raise wrong_arity(command.name)
    return command


def contained(args: Args) -> Command:
    """A command of a container; refused where there is none of the name."""
    container = args[0].upper()
    if container not in CONTAINERS:
        raise unknown(args)
    if len(args) == 1:
        raise wrong_arity(container)
    command = TABLE.get(b"%b|%b" % (container, args[1].upper()))
    if command is None:
        name = c_string(args[1])[:QUOTED_BYTES_MAX]
        raise Refused(b"ERR unknown subcommand '%b'. Try %b HELP." % (name, container))
    return command


def unknown(args: Args) -> Refused:
    """Redis's own words: the name, and what fits of the arguments. Its strings end at a zero byte."""
    quoted = b""
    for arg in args[1:]:
        if len(quoted) >= QUOTED_BYTES_MAX:
            break
        quoted += b"'%b' " % c_string(arg)[: QUOTED_BYTES_MAX - len(quoted)]
    name = c_string(args[0])[:QUOTED_BYTES_MAX]
    return Refused(b"ERR unknown command '%b', with args beginning with: %b" % (name, quoted))


def keys_of(args: Args) -> list[bytes]:
    """The keys among a command's arguments, for who checks rights or routes."""
    first, last, step = find(args).keys
    if step == 0:
        return []
    return args[first : (last if last > 0 else len(args) + last) + 1 : step]


def execute(editor: Editor, args: Args) -> Reply:
    """What a command of the log answers and does."""
    try:
        return find(args).function(editor, args)
    except Refused as refused:
        return refused.reply


def answer(view: View, args: Args) -> Reply:
    """What a command answers that changes nothing; one that may is refused."""
    try:
        command = find(args)
        if isinstance(command, Write):
            raise Refused(b"ERR '%b' writes: it must go through the log" % command.name.lower())
        return command.function(view, args)
    except Refused as refused:
        return refused.reply


def transact(
    editor: Editor, watched: Sequence[tuple[bytes, int]], commands: Sequence[Args], most: int
) -> Reply:
    """Run all commands, as EXEC does; no array (nil) if a watched key has not the version it had.

    None where they have run and their replies have more bytes than allowed.
    """
    if any(editor.version(key) != version for key, version in watched):
        return NO_ARRAY
    replies: list[Reply] = []
    for args in commands:
        replies.append(execute(editor, args))
        most -= size(replies[-1])
        if most < 0:
            replies.clear()
    return replies if most >= 0 else None
