"""What must hold of a change of members (PROTOCOL 8; dissertation 4.3)."""

from __future__ import annotations

import typing
from collections.abc import Set as AbstractSet
from functools import lru_cache
from itertools import combinations, pairwise

from craft import quorum
from craft.testing.checkers.base import Checker, Violation
from craft.testing.checkers.ledger import DiskId, Ledger
from craft.types import Configuration, Entry, EntryKind, GroupId, ServerId, unpack_configuration

if typing.TYPE_CHECKING:
    from craft.raft.state import RaftState
    from craft.testing.server import SimServer

PAIRS_MAX = 4096
"""Judgements that are remembered: every server of a cluster comes by the same pairs."""


class ConfigurationsOverlap(Checker):
    """Of two configurations that follow one another in a log, no two quorums miss each other.

    A voter is a server on a disk; who is not bound yet is whichever disk is there.
    """

    PROPERTY = "quorums of neighbouring configurations meet"

    def __init__(self) -> None:
        self._seen: dict[tuple[int, GroupId], tuple[int, int]] = {}

    def turned(self, server: SimServer) -> None:
        """Look at every new configuration in a log."""
        for raft in server.engine.state.replicas:
            r = raft.state
            key = (server.incarnation, r.group)
            if self._seen.get(key) == r.configuration_at:
                continue
            self._seen[key] = r.configuration_at
            chain = [
                Configuration(r.created.voters),
                *(unpack_configuration(entry.payload) for entry in r.log.configurations),
            ]
            if r.log.start.configuration.voters:
                chain[0] = r.log.start.configuration
            self._judge(server, r.group, chain[-2:])

    def _judge(self, server: SimServer, group: GroupId, chain: list[Configuration]) -> None:
        for before, after in pairwise(chain):
            if after.version < before.version or not meet(before, after):
                raise Violation(
                    self.PROPERTY,
                    f"server {server.id} holds {after} after {before} in the log of group {group}",
                )


@lru_cache(maxsize=PAIRS_MAX)
def meet(before: Configuration, after: Configuration) -> bool:
    """Has every quorum of one a disk in common with every quorum of the other?

    Not if the disks that vote in both can be dealt out so that each side, with its own others, decides. An id
    that either does not bind to a disk is one with whatever the other says.
    """
    ours, theirs = (one.voters | one.outgoing for one in (before, after))
    disks, others = dict(before.disks), dict(after.disks)
    shared = {
        server
        for server in ours & theirs
        if disks.get(server, "") in ("", others.get(server, "")) or not others.get(server)
    }
    return not any(
        quorum.is_quorum(before, ours.difference(some))
        and quorum.is_quorum(after, theirs.difference(shared).union(some))
        for size in range(len(shared) + 1)
        for some in combinations(sorted(shared), size)
    )


class OneChangeAtATime(Checker):
    """A leader appends a configuration only where the one before is committed, and an entry of its term.

    Until then what an earlier leader began may still come true beside it (Ongaro 2015).
    """

    PROPERTY = "a configuration follows a committed one"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._seen: dict[tuple[int, GroupId], tuple[int, int]] = {}

    def turned(self, server: SimServer) -> None:
        """Look at leaders' own configurations."""
        for group in sorted(server.engine.state.led):
            r = server.engine.state.raft(group)
            key = (server.incarnation, group)
            if self._seen.get(key) == r.configuration_at:
                continue
            self._seen[key] = r.configuration_at
            if not r.log.configurations or r.log.configurations[-1].term != r.term:
                continue
            self._judge(server, r)

    def _judge(self, server: SimServer, r: RaftState) -> None:
        committed, last = self._ledger.committed[r.group], r.log.configurations[-1]
        for before in r.log.configurations[-2:-1]:
            if before.index > len(committed):
                raise Violation(
                    self.PROPERTY,
                    f"server {server.id} appended the configuration at {last.index} of group {r.group} before"
                    f" that at {before.index} was committed",
                )
        known = min(len(committed), last.index - 1)
        if not known or committed[known - 1].term < r.term:
            raise Violation(
                self.PROPERTY,
                f"server {server.id} appended the configuration at {last.index} of group {r.group} before any"
                f" entry of its term {r.term} was committed",
            )


class DoneIsDone(Checker):
    """What is told as done is done: every group's last committed configuration is final, of that version."""

    PROPERTY = "a change that is told as done is done in every group"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._seen = 0

    def turned(self, server: SimServer) -> None:
        """Compare what a server says with what was committed."""
        e = server.engine.state
        if e.reached_version <= self._seen:
            return
        self._seen = e.reached_version
        for group, entries in enumerate(self._ledger.committed):
            last = _last_configuration(entries)
            wanted = e.members.servers.keys() if e.members.version == e.reached_version else None
            if last is None or not _is_done(last, e.reached_version, wanted):
                raise Violation(
                    self.PROPERTY,
                    f"server {server.id} says that version {e.reached_version} is reached; the last committed"
                    f" configuration of group {group} is {last}",
                )


class RemovedInItsLife(Checker):
    """A server says that it is removed by no version that was there before its disk was."""

    PROPERTY = "a server is removed by what came after it"

    def __init__(self) -> None:
        self._newest = 0
        self._before: dict[DiskId, int] = {}  # the newest version when a disk came

    def started(self, server: SimServer) -> None:
        """Note what there was when its disk came."""
        self._before.setdefault(server.disk.disk_id, self._newest)

    def turned(self, server: SimServer) -> None:
        """Is it told that it is removed, and by what?"""
        e = server.engine.state
        version = e.members.version
        self._newest = max(self._newest, version)
        if version and e.removed and version <= self._before[server.disk.disk_id]:
            raise Violation(
                self.PROPERTY,
                f"server {server.id} says that it is removed by version {version}; when its disk came,"
                f" version {self._before[server.disk.disk_id]} was there",
            )


def _is_done(last: Configuration, version: int, servers: AbstractSet[ServerId] | None) -> bool:
    """Is the group where this version leads, or on its way from there?"""
    final = not last.joint and (servers is None or last.voters == servers)
    return last.version > version or (last.version == version and final)


def _last_configuration(entries: list[Entry]) -> Configuration | None:
    for entry in reversed(entries):
        if entry.kind is EntryKind.CONFIGURATION:
            return unpack_configuration(entry.payload)
    return None
