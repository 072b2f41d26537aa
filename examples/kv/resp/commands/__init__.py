"""Every command about a connection or a server: those that the engine does not run.

Invariants:
- `LOCAL` and the engine's `TABLE` together are all commands; no name is in both.
"""

from __future__ import annotations

from examples.kv.commands import CONTAINERS, QUOTED_BYTES_MAX, TABLE, Args, Command
from examples.kv.commands import find as find_engine
from examples.kv.commands.arguments import c_string, wrong_arity
from examples.kv.replies import Refused
from examples.kv.resp.commands import about, clients, connection, merged, subscribing, transactions
from examples.kv.resp.commands.table import Answer, Local

__all__ = ["LOCAL", "Answer", "Local", "find"]

ALL: dict[bytes, Command | Local] = dict(TABLE)

LOCAL: dict[bytes, Local] = {
    command.name: command
    for commands in (
        connection.COMMANDS,
        clients.COMMANDS,
        transactions.COMMANDS,
        subscribing.COMMANDS,
        about.COMMANDS,
        about.about(ALL),
        merged.COMMANDS,
    )
    for command in commands
}
assert not LOCAL.keys() & TABLE.keys()
ALL.update(LOCAL)

LOCAL_CONTAINERS = frozenset(name.partition(b"|")[0] for name in LOCAL if b"|" in name)
assert not LOCAL_CONTAINERS & CONTAINERS


def find(args: Args) -> Command | Local:
    """The command that arguments name, of either kind; Refused if it is unknown or has a wrong arity."""
    name = args[0].upper()
    command = None if b"|" in name else LOCAL.get(name)  # one of a container is named by two arguments
    if name in LOCAL_CONTAINERS and (len(args) > 1 or command is None):
        if len(args) == 1:
            raise wrong_arity(name)
        command = LOCAL.get(b"%b|%b" % (name, args[1].upper()))
        if command is None:
            raise Refused(
                b"ERR unknown subcommand '%b'. Try %b HELP." % (c_string(args[1])[:QUOTED_BYTES_MAX], name)
            )
    if command is None:
        return find_engine(args)
    if len(args) != command.arity and (command.arity > 0 or len(args) < -command.arity):
        raise wrong_arity(command.name)
    return command
