"""PUBLISH: a message goes through the merged log, so it reaches every server's subscribers, in one order.

Knows: that somebody tells the subscribers. Must not know: who they are.
"""

from __future__ import annotations

from examples.kv.commands.arguments import Args
from examples.kv.commands.table import NO_KEYS, Command, Write
from examples.kv.keyspace import Editor
from examples.kv.replies import Reply


def publish(editor: Editor, args: Args) -> Reply:
    """PUBLISH channel message: how many heard it, of those connected to the server that was asked."""
    return editor.publish(args[1], args[2])


COMMANDS: tuple[Command, ...] = (Write(b"PUBLISH", 3, publish, NO_KEYS),)
