"""Suspects: whoever may have lost a synced tail counts for nothing, until it has again what it vouched for.

Knows the disks from inside: what each held when it was last trusted. Reference: PROTOCOL 10 (†).
"""

from __future__ import annotations

import typing

from craft import quorum
from craft.messages import AppendAccepted, Frame, LeaderPersisted, ReadReport, RequestVoteResult
from craft.testing.checkers.base import Checker, Violation
from craft.testing.checkers.durability import CommitsAreDurable, in_snapshot
from craft.testing.checkers.ledger import Ledger
from craft.types import GroupId, Index, ServerId, Write

if typing.TYPE_CHECKING:
    from craft.testing.disk import SimulatedDisk
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
    """Where a suspicion ends, the log holds again what it held when it was last trusted and is committed.

    At least that which would not have been committed without it. Of the rest what it had answered may have
    reached nobody; but those who lack that and are trusted must not be able to decide anything.
    """

    PROPERTY = "a suspect that is cleared has again what it vouched for"

    def __init__(self, ledger: Ledger, commits: CommitsAreDurable) -> None:
        self._ledger = ledger
        self._commits = commits

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
            needed = min(index, self._commits.needed.get((group, server.id), 0))
            lacks_needed = needed > 0 and self._lacks(server.disk, group, needed)
            lacking = {
                i
                for i, disk in server.world.disks.items()
                if (i == server.id or group not in disk.vouched) and self._lacks(disk, group, index)
            }
            if lacks_needed or quorum.is_quorum(server.engine.state.raft(group).configuration, lacking):
                raise Violation(
                    self.PROPERTY,
                    f"server {server.id} is no longer suspect in group {group}, and of the committed entries"
                    f" to {index}, which it had answered for, it lacks some, as do servers {sorted(lacking)}"
                    f" (up to {needed} none was committed without it)",
                )

    def _lacks(self, disk: SimulatedDisk, group: GroupId, index: Index) -> bool:
        term = self._ledger.committed[group][index - 1].term
        return not disk.written.logs[group].holds(index, term) and not in_snapshot(disk, group, index)
