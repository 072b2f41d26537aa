"""What must hold of a change of members (PROTOCOL 8; dissertation 4.3)."""

from __future__ import annotations

import typing
from collections.abc import Set as AbstractSet
from itertools import combinations, pairwise

from craft import quorum
from craft.testing.checkers.base import Checker, Violation
from craft.testing.checkers.ledger import Ledger
from craft.types import Configuration, Entry, EntryKind, GroupId, ServerId, unpack_configuration

if typing.TYPE_CHECKING:
    from craft.testing.server import SimServer

Disks = frozenset[tuple[ServerId, str]]


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
            fine = after.version >= before.version and all(
                _meet(a, b) for a in _quorums(before) for b in _quorums(after)
            )
            if not fine:
                raise Violation(
                    self.PROPERTY,
                    f"server {server.id} holds {after} after {before} in the log of group {group}",
                )


def _meet(a: Disks, b: Disks) -> bool:
    """Is somebody in both? An id that either does not bind to a disk is one with whatever the other says."""
    there = dict(b)
    return any(server in there and (there[server] in ("", disk) or not disk) for server, disk in a)


def _quorums(configuration: Configuration) -> list[Disks]:
    """Every least set of disks that decides."""
    disks = dict(configuration.disks)
    voters = sorted(configuration.voters | configuration.outgoing)
    found: list[Disks] = []
    for size in range(len(voters) + 1):
        for some in combinations(voters, size):
            chosen = frozenset((server, disks.get(server, "")) for server in some)
            if quorum.is_quorum(configuration, some) and not any(one <= chosen for one in found):
                found.append(chosen)
    return found


class OneChangeAtATime(Checker):
    """A leader appends a configuration only where the one before is committed."""

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
            if len(r.log.configurations) < 2 or r.log.configurations[-1].term != r.term:
                continue
            before, last = r.log.configurations[-2:]
            if before.index > len(self._ledger.committed[group]):
                raise Violation(
                    self.PROPERTY,
                    f"server {server.id} appended the configuration at {last.index} of group {group} before"
                    f" that at {before.index} was committed",
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


def _is_done(last: Configuration, version: int, servers: AbstractSet[ServerId] | None) -> bool:
    """Is the group where this version leads, or on its way from there?"""
    final = not last.joint and (servers is None or last.voters == servers)
    return last.version > version or (last.version == version and final)


def _last_configuration(entries: list[Entry]) -> Configuration | None:
    for entry in reversed(entries):
        if entry.kind is EntryKind.CONFIGURATION:
            return unpack_configuration(entry.payload)
    return None
