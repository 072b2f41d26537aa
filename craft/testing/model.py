"""What a checker needs to know of a state machine: one key at a time, and without side effects.

Knows: requests and results as clients see them. Must not know: who asks, when, or what the servers did.
"""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum
from typing import Any, Final, Protocol, TypeAlias

Key: TypeAlias = Hashable
State: TypeAlias = Hashable


class UnknownResult(Enum):
    """The type of UNKNOWN_RESULT."""

    UNKNOWN = "unknown"


UNKNOWN_RESULT: Final = UnknownResult.UNKNOWN
"""Stands for a result that nobody saw: any result will do."""


class Model(Protocol):
    """A state machine whose state is one value a key, and whose requests concern one key each."""

    def key(self, request: bytes) -> Key:
        """The one key that a command or query concerns."""

    def initial(self, key: Key, /) -> State:
        """The state of the key before anything was written to it. States are hashable, and never None."""

    def step(self, state: Any, request: bytes, result: Any) -> State | None:
        """The state after a request with this result, or None where the request cannot have it.

        The result may be UNKNOWN_RESULT. Queries leave the state as it is.
        """

    def describe(self, request: bytes) -> str:
        """A command or query in words, for explanations."""
