"""What is worth a line in the log: leaders, and a clock that is clamped or breaks its promise."""

from __future__ import annotations

import logging

from craft import logs
from craft.engine.state import EngineState
from craft.types import ServerId, Term

log = logging.getLogger("craft.server")


class Watch:
    """Looks at the engine after each tick."""

    def __init__(self, state: EngineState, complaints: logs.RateLimited) -> None:
        self._state = state
        self._complaints = complaints
        self._leaders_seen: list[tuple[Term, ServerId | None]] = []

    def look(self, clock_error_ns: int | None) -> None:
        """Say what has changed. `clock_error_ns`: what this server's clock says of itself."""
        e = self._state
        if e.leaders != self._leaders_seen:
            self._tell_leaders()
        if e.clamped_since is not None:
            self._complaints.event(
                "clamped", logging.WARNING, "clock is ahead of a majority's clocks and clamped"
            )
        bound = e.clock_error_ns
        e.clock_breached = clock_error_ns is not None and bound is not None and clock_error_ns > bound
        if e.clock_breached:
            self._complaints.event(
                "breached",
                logging.WARNING,
                "clock may be further off than clock.error_ms_max: commands that want no more than committed"
                " wait for the merge",
                error_ns=clock_error_ns,
                error_ns_max=bound,
            )

    def _tell_leaders(self) -> None:
        leaders = self._state.leaders
        seen = self._leaders_seen or [(0, None)] * len(leaders)
        for group, (before, (term, leader)) in enumerate(zip(seen, leaders, strict=True)):
            if before != (term, leader) and leader is not None:
                logs.event(log, logging.INFO, "leader", group=group, term=term, leader=leader)
        self._leaders_seen = list(leaders)
