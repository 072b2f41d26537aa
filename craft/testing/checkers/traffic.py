"""Traffic: what servers have to tell each other comes to an end, or at least does not run in circles."""

from __future__ import annotations

import typing

from craft.testing.checkers.base import Checker, Violation
from craft.types import ServerId

if typing.TYPE_CHECKING:
    from craft.messages import Frame
    from craft.testing.server import SimServer

SECOND = 1_000_000_000

FRAMES_A_SECOND_MAX = 50_000
"""From one server to another, in virtual time. Busy seeds come to a tenth of it. Who answers each answer at
once, without getting on, sends as fast as the network is."""


class NoCircles(Checker):
    """Two servers do not keep each other busy with the same for ever."""

    PROPERTY = "servers do not talk in circles"

    def __init__(self) -> None:
        self._second = 0
        self._frames: dict[tuple[ServerId, ServerId], int] = {}

    def sent(self, server: SimServer, peer: ServerId, frame: Frame) -> None:
        """One frame more in this second."""
        second = server.world.time // SECOND
        if second != self._second:
            self._second = second
            self._frames.clear()
        way = (server.id, peer)
        self._frames[way] = count = self._frames.get(way, 0) + 1
        if count > FRAMES_A_SECOND_MAX:
            kinds = ", ".join(sorted({type(message).__name__ for message in frame.messages})) or "no message"
            raise Violation(
                self.PROPERTY,
                f"server {server.id} sent server {peer} {count} frames within a second, at last {kinds}",
            )
