"""What the operator is told of suspicions: when they are found, when each ends, and which end by hand.

Invariants
- Nothing is decided here: the engine ends suspicions by the protocol (PROTOCOL 10), or by that word.
"""

from __future__ import annotations

import logging

from craft import logs
from craft.engine import Engine
from craft.types import GroupId, Instant

log = logging.getLogger("craft.server")


class Suspicions:
    """One server's, while it runs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[GroupId, str] = {}
        self.look()

    def look(self) -> None:
        """After a write, which may have ended some: say what is new. Called every turn that ends a sync."""
        suspicions = self._engine.suspicions
        if suspicions == self._known:
            return
        fresh = {group: why for group, why in suspicions.items() if group not in self._known}
        ended = [group for group in self._known if group not in suspicions]
        self._known = suspicions
        for reason in sorted(set(fresh.values())):
            groups = _words([group for group, why in fresh.items() if why == reason])
            logs.event(log, logging.WARNING, "suspect: counts for nothing", groups=groups, reason=reason)
        if ended:
            logs.event(log, logging.INFO, "suspect no longer: it has everything again", groups=_words(ended))

    def trust(self, now: Instant) -> list[GroupId]:
        """The operator knows that nothing is missing. Returns the groups that were suspect."""
        for group, reason in self._known.items():
            logs.event(log, logging.WARNING, "trusted by the operator", group=group, reason=reason)
        groups = sorted(self._known)
        self._engine.trust(now)
        return groups


def _words(groups: list[GroupId]) -> str:
    return ",".join(map(str, groups))
