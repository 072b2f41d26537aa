"""Queues: what waits for a leader waits there once (PROTOCOL 5)."""

from __future__ import annotations

import typing

from craft.testing.checkers.base import Checker, Violation

if typing.TYPE_CHECKING:
    from craft.testing.server import SimServer


class WaitsOnce(Checker):
    """A request waits in a leader's queue once, however often its origin asks.

    Else a queue that is slower than the origins' patience is filled by their repetitions, and never empty.
    """

    PROPERTY = "a request waits for a leader once"

    def turned(self, server: SimServer) -> None:
        """Look at what is left in the queues."""
        e = server.engine.state
        for group in e.led:
            waiting = e.queues[group].proposals
            if len(waiting) < 2:
                continue
            names = [proposal[:3] for proposal in waiting]
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise Violation(
                    self.PROPERTY,
                    f"in the queue of server {server.id} for group {group} request {twice[2]} of server"
                    f" {twice[0]} (session {twice[1]}) waits {names.count(twice)} times, among {len(names)}",
                )
