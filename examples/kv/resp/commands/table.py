"""What the table says of a command that never reaches the engine.

Knows: the shape of an entry. Must not know: any command.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from examples.kv.commands.arguments import Args
from examples.kv.replies import Reply
from examples.kv.resp.client import Client

Answer: TypeAlias = "Reply | Awaitable[Reply]"


@dataclass(frozen=True, slots=True)
class Local:
    """A command about the connection or the server."""

    name: bytes
    """In capitals; with a `|` between a container's name and its own."""
    arity: int
    """How many arguments with the name; negative: at least so many."""
    function: Callable[[Client, Args], Answer]
    queued: bool = True
    """May it be queued between MULTI and EXEC? Then it waits for nothing."""
    immediate: bool = False
    """Does it run at once between MULTI and EXEC?"""
    anonymous: bool = False
    """May it be used by who has not said who he is?"""
    subscribed: bool = False
    """May it be used by a subscriber in RESP2?"""
