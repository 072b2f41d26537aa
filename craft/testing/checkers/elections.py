"""Elections: who leads, who voted for whom, and what a leader must have.

Reference: Raft 5.2, 5.4, figure 3; PROTOCOL 1.
"""

from __future__ import annotations

import typing

from craft import quorum
from craft.messages import AppendAccepted, AppendEntries, Frame, RequestVote, RequestVoteResult, TimeoutNow
from craft.raft.state import MS, RaftState
from craft.testing.checkers.base import Checker, Violation
from craft.testing.checkers.ledger import DiskId, Ledger, term_at
from craft.types import GroupId, Index, ServerId, Term

if typing.TYPE_CHECKING:
    from craft.testing.server import SimServer


class _Leaders(Checker):
    """Looks at every new leader of a group."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def turned(self, server: SimServer) -> None:
        """Has it begun to lead?"""
        for r in self._ledger.elected:
            self.leads(server, r)

    def crashed(self, server: SimServer) -> None:
        """In its last turn, perhaps."""
        self.turned(server)

    def leads(self, server: SimServer, r: RaftState) -> None:
        """A server leads a group in a new term."""


class OneLeader(_Leaders):
    """A group has one leader a term at most, over all crashes; one incarnation of it."""

    PROPERTY = "one leader a group and term"

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        self._leaders: dict[tuple[GroupId, Term], tuple[ServerId, int]] = {}

    def leads(self, server: SimServer, r: RaftState) -> None:
        """Did anybody else lead this term?"""
        me = (server.id, server.incarnation)
        first = self._leaders.setdefault((r.group, r.term), me)
        if first != me:
            raise Violation(
                self.PROPERTY,
                f"group {r.group} term {r.term} is led by server {me[0]} (incarnation {me[1]}), and was led"
                f" by server {first[0]} (incarnation {first[1]})",
            )


class LeaderCompleteness(_Leaders):
    """A leader's log holds every entry that was committed in its group before its term (Raft 5.4)."""

    PROPERTY = "a leader has everything that was committed before its term"

    def leads(self, server: SimServer, r: RaftState) -> None:
        """Is the last of them there? By log matching, which is checked too, so are those before it."""
        index = self._last_committed_before(r)
        if index < r.log.start.place.index or not index:
            return  # it begins behind a committed entry, which is checked too
        term, expected = term_at(server, r, index), self._ledger.committed[r.group][index - 1].term
        if term != expected:
            raise Violation(
                self.PROPERTY,
                f"server {server.id} leads group {r.group} in term {r.term}; entry {index} was committed with"
                f" term {expected}, and its log, which ends at {r.log.last_index}, has term {term} there",
            )

    def _last_committed_before(self, r: RaftState) -> Index:
        terms = self._ledger.commit_terms[r.group]
        index = len(terms)
        while index and terms[index - 1] >= r.term:
            index -= 1
        return index


class LeadersAreElected(_Leaders):
    """A leader was given the votes of a quorum in its term, its own among them durable where it counts.

    Suspects do not count, unless everyone voted for it (PROTOCOL 10); nor does another disk than the one that
    the leader's configuration binds to a voter's id (8).
    """

    PROPERTY = "a leader has the votes of a quorum"

    def leads(self, server: SimServer, r: RaftState) -> None:
        """Count the votes that were sent to it, and what its own platter says."""
        bound = dict(r.configuration.disks)
        votes = self._ledger.voters.get((server.id, r.group, r.term), {})
        voters = {voter for voter, disks in votes.items() if bound.get(voter) in {None, *disks}}
        own = server.disk.synced.hard_states[r.group]
        if own is not None and (own.term, own.vote) == (r.term, server.id):
            voters.add(server.id)
        else:
            voters.discard(server.id)
        suspects = set(self._ledger.suspects.get((server.id, r.group, r.term), ()))
        everyone = r.configuration.voters | r.configuration.outgoing
        if not (quorum.is_quorum(r.configuration, voters - suspects) or everyone <= voters):
            raise Violation(
                self.PROPERTY,
                f"server {server.id} leads group {r.group} in term {r.term} with the votes of servers"
                f" {sorted(voters)} among the voters {sorted(everyone)}; suspect were {sorted(suspects)}",
            )


class OneVote(Checker):
    """A server gives one candidate a term its vote, over all crashes of it (Raft 5.2)."""

    PROPERTY = "one vote a server, group and term"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def sent(self, server: SimServer, peer: ServerId, frame: Frame) -> None:
        """Was the vote given to somebody else before?"""
        for message in frame.messages:
            if isinstance(message, RequestVoteResult) and message.granted and not message.pre:
                self._voted(server, peer, message.group, message.term)
            elif isinstance(message, RequestVote) and not message.pre:
                self._voted(server, server.id, message.group, message.term)

    def _voted(self, server: SimServer, candidate: ServerId, group: GroupId, term: Term) -> None:
        first = self._ledger.votes[server.disk.disk_id, group, term]
        if first != candidate:
            raise Violation(
                self.PROPERTY,
                f"server {server.id} votes for server {candidate} in group {group} term {term}, and has voted"
                f" for server {first}",
            )


class TermsAreRemembered(Checker):
    """A server that starts again is in no lower term than it has voted, acknowledged or led in."""

    PROPERTY = "a restart forgets no term"

    def __init__(self) -> None:
        self._told: dict[tuple[DiskId, GroupId], Term] = {}

    def sent(self, server: SimServer, _peer: ServerId, frame: Frame) -> None:
        """Note the terms of votes and acknowledgements, and of leaders."""
        for message in frame.messages:
            if isinstance(message, (AppendAccepted, AppendEntries)):
                promise = True
            elif isinstance(message, RequestVoteResult):
                promise = message.granted and not message.pre
            elif isinstance(message, RequestVote):
                promise = not message.pre
            else:
                continue
            place = (server.disk.disk_id, message.group)
            if promise and message.term > self._told.get(place, 0):
                self._told[place] = message.term

    def started(self, server: SimServer) -> None:
        """Compare."""
        for raft in server.engine.state.replicas:
            r = raft.state
            told = self._told.get((server.disk.disk_id, r.group), 0)
            if r.term < told:
                raise Violation(
                    self.PROPERTY,
                    f"server {server.id} starts in term {r.term} of group {r.group}; it had told peers"
                    f" {told}",
                )


class HungLeadersStepDown(Checker):
    """A server whose disk takes nothing for `disk_stall_ms_max` leads no more: others could."""

    PROPERTY = "a leader whose disk hangs steps down"
    HEARTBEATS = 3
    """It looks at each heartbeat; and it may win an election whose vote its disk still took."""

    def __init__(self) -> None:
        self._since: dict[ServerId, int] = {}

    def turned(self, server: SimServer) -> None:
        """Does it still lead?"""
        e = server.engine.state
        limits = e.limits
        hangs = e.writing is not None and e.now.monotonic_ns - e.write_began > limits.disk_stall_ms_max * MS
        if not (hangs and e.led and e.peers):
            self._since.pop(server.id, None)
            return
        since = self._since.setdefault(server.id, e.now.monotonic_ns)
        if e.now.monotonic_ns - since > self.HEARTBEATS * limits.heartbeat_interval_ms * MS:
            raise Violation(
                self.PROPERTY,
                f"server {server.id} leads groups {sorted(e.led)}, and write {e.writing} has been under way"
                f" for {(e.now.monotonic_ns - e.write_began) // MS} ms",
            )


class HandOversAreReady(Checker):
    """Who is told to take over holds the whole log of the leader that says so (dissertation 3.10)."""

    PROPERTY = "a group is handed to a server that holds its whole log"

    def sent(self, server: SimServer, peer: ServerId, frame: Frame) -> None:
        """Is the target as far, unless another term has begun there?"""
        target = server.world.servers.get(peer)
        for message in frame.messages:
            if type(message) is not TimeoutNow or target is None or target.disk.spoilt:
                continue
            ours, theirs = server.engine.state.raft(message.group), target.engine.state.raft(message.group)
            if theirs.term == message.term == ours.term and theirs.log.last_index < ours.log.last_index:
                raise Violation(
                    self.PROPERTY,
                    f"server {server.id} hands group {message.group} to server {peer}, whose log ends at"
                    f" {theirs.log.last_index}; its own ends at {ours.log.last_index}",
                )
