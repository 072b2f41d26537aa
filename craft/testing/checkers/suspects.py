"""Suspects: whoever may have lost a synced tail counts for nothing, until it has again what it vouched for.

Knows the disks from inside: what each held when it was last trusted. Reference: PROTOCOL 10 (†).
"""

from __future__ import annotations

import typing

from craft.messages import AppendAccepted, Frame, LeaderPersisted, ReadReport, RequestVoteResult
from craft.testing.checkers.base import Checker, Violation
from craft.testing.checkers.ledger import Ledger
from craft.types import GroupId, ServerId, Write

if typing.TYPE_CHECKING:
    from craft.testing.server import SimServer


class SuspectsSaySo(Checker):
    """A server that started as a suspect vouches for nothing before its platter says that it is none."""

    PROPERTY = "a suspect says so"

    def __init__(self) -> None:
        self._suspects: dict[ServerId, set[GroupId]] = {}

    def started(self, server: SimServer) -> None:
        """In which groups is it suspect?"""
        self._suspects[server.id] = set(server.disk.synced.suspicions)

    def sent(self, server: SimServer, _peer: ServerId, frame: Frame) -> None:
        """Look at what speaks for a log."""
        suspects = self._suspects[server.id]
        if not suspects:
            return
        suspects &= server.disk.synced.suspicions.keys()
        for message in frame.messages:
            group = _vouches(message, suspects)
            if group is not None:
                raise Violation(
                    self.PROPERTY,
                    f"server {server.id} is suspect in group {group}"
                    f" ({server.disk.synced.suspicions[group]}), and says {type(message).__name__} like any",
                )


def _vouches(message: object, suspects: set[GroupId]) -> GroupId | None:
    """Does this speak for a log as if nothing were missing? Of which of these groups?"""
    if isinstance(message, AppendAccepted | LeaderPersisted):
        return message.group if message.group in suspects else None
    if isinstance(message, RequestVoteResult):
        trusted = message.granted and not message.suspect
        return message.group if trusted and message.group in suspects else None
    if isinstance(message, ReadReport):
        return next((g for g in sorted(suspects) if not message.groups[g].suspect), None)
    return None


class ClearedIsWhole(Checker):
    """Where a suspicion ends, the log holds again what it held when it was last trusted and is committed."""

    PROPERTY = "a suspect that is cleared has again what it vouched for"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def wrote(self, server: SimServer, write: Write) -> None:
        """By log matching the last such entry speaks for those before it."""
        for group, reason in write.suspicions:
            before = server.disk.vouched.get(group)
            if reason or before is None:
                continue
            committed = self._ledger.committed[group]
            index = min(before.last_index, len(committed))
            while index > before.start_index and before.term_at(index) != committed[index - 1].term:
                index -= 1
            if index <= before.start_index:
                continue
            term = committed[index - 1].term
            if not server.disk.written.logs[group].holds(index, term):
                raise Violation(
                    self.PROPERTY,
                    f"server {server.id} is no longer suspect in group {group}, and its log does not hold the"
                    f" committed entry {index} of term {term}, which it had answered for",
                )
