"""Persist before you answer: what leaves a server, or counts towards a quorum, is on the platter.

Reference: PROTOCOL 1. Knows the disks from inside: `SimulatedDisk.synced` is what a power cut leaves.
"""

from __future__ import annotations

import typing

from craft import quorum
from craft.messages import (
    AppendAccepted,
    AppendEntries,
    AppendRejected,
    Frame,
    RequestVote,
    RequestVoteResult,
    TimeoutNow,
)
from craft.testing.checkers.base import Checker, Violation
from craft.testing.checkers.ledger import Fresh, Ledger
from craft.types import Configuration, GroupId, HardState, Index, ServerId, Term

if typing.TYPE_CHECKING:
    from craft.raft.state import RaftState
    from craft.testing.disk import SimulatedDisk
    from craft.testing.server import SimServer
    from craft.testing.world import World

_OTHERS = (AppendEntries, AppendAccepted, AppendRejected, TimeoutNow)
"""What else tells a term. (A pre-vote's term is nobody's yet, and heartbeats only repeat leaders' terms.)"""


def _platter(server: SimServer, group: GroupId) -> HardState:
    return server.disk.synced.hard_states[group] or HardState(0, None, 0)


class VotesAreDurable(Checker):
    """Nothing that a group says leaves before its term and vote are durable; of a vote, not without it."""

    PROPERTY = "persisted before answered: term and vote"

    def sent(self, server: SimServer, peer: ServerId, frame: Frame) -> None:
        """Look at the sender's platter. (A pre-vote promises nothing: its term is nobody's yet.)"""
        for message in frame.messages:
            vote: ServerId | None = None
            if isinstance(message, RequestVoteResult):
                if message.pre:
                    continue
                vote = peer if message.granted else None
            elif isinstance(message, RequestVote):
                if message.pre:
                    continue
                vote = server.id
            elif not isinstance(message, _OTHERS):
                continue
            self._check(server, message.group, message.term, vote, message)

    def _check(
        self, server: SimServer, group: GroupId, term: Term, vote: ServerId | None, message: object
    ) -> None:
        platter = _platter(server, group)
        if platter.term < term or (vote is not None and platter.term == term and platter.vote != vote):
            raise Violation(
                self.PROPERTY,
                f"server {server.id} sends {type(message).__name__} of group {group} in term {term}"
                f"{f' with its vote for server {vote}' if vote is not None else ''}; its platter holds term"
                f" {platter.term} and a vote for {platter.vote}",
            )


def in_snapshot(disk: SimulatedDisk, group: GroupId, index: Index) -> bool:
    """Does a kept snapshot hold what was committed there? It is durable before the logs begin behind it.

    Or did one: what has become of that since lets nobody write other entries in their place.
    """
    return index <= disk.synced.logs[group].start.place.index or any(
        index <= info.head.cuts[group].place.index for info in disk.snapshots.kept()
    )


class AcknowledgementsAreDurable(Checker):
    """What a follower acknowledges is on its platter, and equals the log of the leader that it tells."""

    PROPERTY = "persisted before answered: entries"

    def sent(self, server: SimServer, peer: ServerId, frame: Frame) -> None:
        """An acknowledgement of an earlier term was true when it was made: its log may be another now."""
        for message in frame.messages:
            if type(message) is not AppendAccepted or not message.match_index:
                continue
            if message.term == server.engine.state.raft(message.group).term:
                self._check(server, peer, message)

    def _check(self, server: SimServer, peer: ServerId, m: AppendAccepted) -> None:
        platter = server.disk.synced.logs[m.group]
        if in_snapshot(server.disk, m.group, m.match_index):
            return
        durable = platter.term_at(m.match_index)
        own = server.engine.state.raft(m.group).log.term_at(m.match_index)
        leaders = self._leaders_term(server, peer, m)
        if durable is None or own not in (None, durable) or leaders not in (None, durable):
            raise Violation(
                self.PROPERTY,
                f"server {server.id} acknowledges entry {m.match_index} of group {m.group} to server {peer}"
                f" in term {m.term}; its platter ends at {platter.last_index} and has term {durable} there,"
                f" its log in memory term {own}, the leader's log term {leaders}",
            )

    @staticmethod
    def _leaders_term(server: SimServer, peer: ServerId, m: AppendAccepted) -> Term | None:
        leader = server.world.servers.get(peer)
        if leader is None:
            return None
        r = leader.engine.state.raft(m.group)
        return r.log.term_at(m.match_index) if r.leads and r.term == m.term else None


class CountedIsHeld(Checker):
    """What a leader counts on a follower is on that follower's platter, as the leader has it.

    Unless the follower has met a later term since, whose leader may cut it, or its disk has lost it: what it
    had when it was last trusted may be counted until its leader hears that it is suspect.
    """

    PROPERTY = "what a leader counts on a server is on its platter"

    def __init__(self) -> None:
        self._counted: dict[tuple[ServerId, int, GroupId], tuple[Term, dict[ServerId, Index]]] = {}

    def turned(self, server: SimServer) -> None:
        """Look at what has moved."""
        for group in server.engine.state.led:
            r = server.engine.state.raft(group)
            key = (server.id, server.incarnation, group)
            term, counted = self._counted.get(key, (0, {}))
            if term != r.term:
                counted = {}
                self._counted[key] = r.term, counted
            for peer, progress in r.progress.items():
                if progress.counted != counted.get(peer, 0):
                    counted[peer] = progress.counted
                    self._look(server, r, peer, progress.counted)

    def _look(self, server: SimServer, r: RaftState, peer: ServerId, match: Index) -> None:
        world, term = server.world, r.log.term_at(match)
        disk: SimulatedDisk | None = world.disks[peer]
        if peer in world.wiped:  # which disk that was is known where it is bound
            disk = world.operator.disk(peer, r.bound[peer]) if peer in r.bound else None
        if disk is None or disk.spoilt or term is None:
            return
        hard = disk.synced.hard_states[r.group]
        if hard is not None and hard.term > r.term:
            return
        if match and not (disk.vouches(r.group, match, term) or in_snapshot(disk, r.group, match)):
            found = disk.synced.logs[r.group].term_at(match)
            raise Violation(
                self.PROPERTY,
                f"server {server.id} leads group {r.group} in term {r.term} and counts entry {match} of term"
                f" {term} on server {peer}, where it is {'missing' if found is None else f'of term {found}'}",
            )


class CommitsAreDurable(Checker):
    """An entry that is known committed is on the platters of a majority, suspects' left out.

    A disk that lost it later had it. Where the configuration binds an id to a disk, that one counts, and no
    other under the same id (PROTOCOL 8).
    """

    PROPERTY = "what is committed is durable on a majority"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.needed: dict[tuple[GroupId, ServerId], Index] = {}
        """The last entry that would not have been committed without this server."""

    def turned(self, server: SimServer) -> None:
        """Count the platters that hold what has just become known committed."""
        for fresh in self._ledger.fresh:
            r = server.engine.state.raft(fresh.group)
            in_force = _in_force(r, fresh.entry.index)
            holders = [(one, self._holders(server.world, one, fresh)) for one in in_force]
            for i in set().union(*(some for _, some in holders)):
                if not any(quorum.is_quorum(one, some - {i}) for one, some in holders):
                    self.needed[fresh.group, i] = fresh.entry.index
            if not any(quorum.is_quorum(one, some) for one, some in holders):
                raise Violation(
                    self.PROPERTY,
                    f"server {server.id} takes entry {fresh.entry.index} of group {fresh.group} (term"
                    f" {fresh.entry.term}) for committed; it is on the platters of servers"
                    f" {[sorted(some) for _, some in holders]} of {in_force}",
                )

    def crashed(self, server: SimServer) -> None:
        """In its last turn, perhaps."""
        self.turned(server)

    @staticmethod
    def _holders(world: World, configuration: Configuration, fresh: Fresh) -> set[ServerId]:
        (group, entry), bound, holders = fresh, dict(configuration.disks), set[ServerId]()
        for i, disk in world.disks.items():
            voter = world.operator.disk(i, bound[i]) if i in bound else disk
            if voter is None or (i in world.wiped and i not in bound):
                holders.add(i)  # nobody can tell any more
            elif voter.vouches(group, entry.index, entry.term) or in_snapshot(voter, group, entry.index):
                holders.add(i)
        return holders


def _in_force(r: RaftState, index: Index) -> list[Configuration]:
    """By which configurations an entry may have been committed in the turn that was taken.

    The latest; and where that came behind the entry, perhaps later in the turn, the one before.
    """
    if r.configuration_at.index <= index:
        return [r.configuration]
    found = r.log.configuration_upto(r.configuration_at.index - 1)
    return [r.configuration, r.created if found is None else found[1]]
