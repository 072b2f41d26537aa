"""What the table says of a command.

Knows: the shape of an entry. Must not know: any command.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from examples.kv.commands.arguments import Args
from examples.kv.keyspace import Editor, View
from examples.kv.replies import Reply

NO_KEYS = (0, 0, 0)
ONE_KEY = (1, 1, 1)
TWO_KEYS = (1, 2, 1)
ALL_KEYS = (1, -1, 1)
KEYS_AND_VALUES = (1, -1, 2)


@dataclass(frozen=True, slots=True)
class Read:
    """A command that changes nothing: any server may answer it from what it has."""

    name: bytes
    """In capitals; with a `|` between a container's name and its own."""
    arity: int
    """How many arguments with the name; negative: at least so many."""
    function: Callable[[View, Args], Reply]
    keys: tuple[int, int, int] = ONE_KEY
    """First and last argument that is a key (negative: counted from the end), and the step between."""

    @property
    def writes(self) -> bool:
        """Must it go through the log?"""
        return False


@dataclass(frozen=True, slots=True)
class Write:
    """A command that may change data: it goes through the merged log."""

    name: bytes
    arity: int
    function: Callable[[Editor, Args], Reply]
    keys: tuple[int, int, int] = ONE_KEY

    @property
    def writes(self) -> bool:
        """Must it go through the log?"""
        return True


Command: TypeAlias = Read | Write
