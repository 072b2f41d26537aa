"""What a checker is: something that watches a run and says, in words, which property does not hold.

A checker sees everything: every server's engine, disk and state machine. It changes nothing. The hooks are
called by the world at the moments that they name; a checker overrides those that it needs.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence
from typing import Any

from craft.errors import ApplyFailed, RestoreFailed

if typing.TYPE_CHECKING:
    from craft.messages import Frame
    from craft.ready import Merged
    from craft.testing.history import Operation
    from craft.testing.server import SimServer
    from craft.testing.world import World
    from craft.types import ServerId, Write


class Violation(Exception):
    """A property does not hold. `property_` is its name in words, `detail` what was seen."""

    def __init__(self, property_: str, detail: str) -> None:
        super().__init__(f"{property_}: {detail}")
        self.property = property_
        self.detail = detail

    def __reduce__(self) -> tuple[type[Violation], tuple[str, str]]:
        """It travels between processes."""
        return Violation, (self.property, self.detail)


def machine_raised(error: ApplyFailed | RestoreFailed) -> Violation:
    """What does not hold where the user's code ends a server."""
    refused = isinstance(error, ApplyFailed)
    does = "refuses no command by raising" if refused else "restores what it has captured"
    return Violation(f"the state machine {does}", str(error))


class Checker:
    """Watches one run. Every hook may raise Violation."""

    def started(self, server: SimServer) -> None:
        """A server has started on its disk (its engine is made, nothing has arrived)."""

    def restored(self, server: SimServer) -> None:
        """Its state machine was replaced by a snapshot of a peer's: it goes on behind that."""

    def sent(self, server: SimServer, peer: ServerId, frame: Frame) -> None:
        """A frame leaves a server, whether it will arrive or not."""

    def wrote(self, server: SimServer, write: Write) -> None:
        """A batch was written, unsynced."""

    def turned(self, server: SimServer) -> None:
        """A server has taken a turn and its Ready was carried out."""

    def applied(
        self, server: SimServer, entries: Sequence[Merged], results: Sequence[Sequence[Any] | None]
    ) -> None:
        """The state machine applied entries; one item of `results` an entry: a result a command, or None."""

    def answered(self, server: SimServer, operation: Operation) -> None:
        """A client's write was answered, or its read served, on this server."""

    def rejected(self, server: SimServer, operation: Operation) -> None:
        """A client was told that its write has no effect and never will."""

    def crashed(self, server: SimServer) -> None:
        """A server lost its memory: engine and state machine are gone, its disk is as it will be found."""

    def ended(self, world: World) -> None:
        """The run is over: all faults healed but the permanent ones, everything outstanding completed."""


class Hooks:
    """Of each hook, those checkers that have one: most moments concern few checkers."""

    def __init__(self, checkers: Sequence[Checker]) -> None:
        self.started = _overridden(checkers, "started")
        self.restored = _overridden(checkers, "restored")
        self.sent = _overridden(checkers, "sent")
        self.wrote = _overridden(checkers, "wrote")
        self.turned = _overridden(checkers, "turned")
        self.applied = _overridden(checkers, "applied")
        self.answered = _overridden(checkers, "answered")
        self.rejected = _overridden(checkers, "rejected")
        self.crashed = _overridden(checkers, "crashed")


def _overridden(checkers: Sequence[Checker], hook: str) -> list[Callable[..., None]]:
    return [
        getattr(checker, hook)
        for checker in checkers
        if getattr(type(checker), hook) is not getattr(Checker, hook)
    ]
