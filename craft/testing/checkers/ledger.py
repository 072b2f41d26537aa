"""What several checkers have to know of a run: what was committed, merged and voted, over all crashes.

Knows: what the servers' engines say. Judges nothing: the checkers beside this one do. It must come before
them in the list of a world's checkers, so that they find it up to date.

Invariants
- A place in the committed or merged log, and a vote, keep what was seen there first.
- Work is proportional to what is new: a turn that changed nothing costs one comparison a group.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from craft.messages import Frame, RequestVote, RequestVoteResult
from craft.raft.state import RaftState, Role
from craft.ready import Merged
from craft.testing.checkers.base import Checker
from craft.types import Entry, GroupId, Index, ServerId, Term

if typing.TYPE_CHECKING:
    from craft.testing.server import SimServer

DiskId: TypeAlias = str


class Seen(NamedTuple):
    """A replica at a glance."""

    role: Role
    term: Term
    commit_index: Index
    last_index: Index


UNSEEN = Seen(Role.FOLLOWER, 0, 0, 0)


class Move(NamedTuple):
    """A replica that is not what it was at the last look."""

    replica: RaftState
    before: Seen
    now: Seen


class Fresh(NamedTuple):
    """An entry that no server had known committed before."""

    group: GroupId
    entry: Entry


class Ledger(Checker):
    """Raises nothing. One a run."""

    def __init__(self) -> None:
        self.committed: list[list[Entry]] = []
        """Of each group, the entry at each index (from 1), as the first server that knew it had it."""
        self.commit_terms: list[list[Term]] = []
        """Of each of them the term in which it was committed, or a later one."""
        self.merged: list[Merged] = []
        """The entry at each position (from 1), as the first server that applied it had it."""
        self.votes: dict[tuple[DiskId, GroupId, Term], ServerId] = {}
        """Who was given a disk's vote first. A candidate that asks for votes has given itself its own."""
        self.voters: dict[tuple[ServerId, GroupId, Term], dict[ServerId, set[DiskId]]] = {}
        """Who gave a candidate its vote, on which disks: it counts although a disk was wiped since."""
        self.suspects: dict[tuple[ServerId, GroupId, Term], set[ServerId]] = {}
        """Those of them who were suspect when they gave it: by their platters, not by their word."""
        self.moves: list[Move] = []
        """What changed in the turn that was just taken."""
        self.elected: list[RaftState] = []
        """Those of them that have begun to lead a term."""
        self.fresh: list[Fresh] = []
        """What became known in the turn that was just taken."""
        self._seen: dict[ServerId, list[Seen]] = {}

    def started(self, server: SimServer) -> None:
        """Whatever the new incarnation has is new."""
        groups = len(server.engine.state.replicas)
        while len(self.committed) < groups:
            self.committed.append([])
            self.commit_terms.append([])
        self._seen[server.id] = [UNSEEN] * groups

    def sent(self, server: SimServer, peer: ServerId, frame: Frame) -> None:
        """Note votes."""
        for message in frame.messages:
            if isinstance(message, RequestVoteResult):
                candidate, given = peer, message.granted and not message.pre
            elif isinstance(message, RequestVote):
                candidate, given = server.id, not message.pre
            else:
                continue
            if given:
                key = (server.disk.disk_id, message.group, message.term)
                if self.votes.setdefault(key, candidate) == candidate:
                    election = (candidate, message.group, message.term)
                    disks = self.voters.setdefault(election, {}).setdefault(server.id, set())
                    disks.add(server.disk.disk_id)
                    if message.group in server.disk.synced.suspicions:
                        self.suspects.setdefault(election, set()).add(server.id)

    def turned(self, server: SimServer) -> None:
        """Look at what has changed."""
        self.moves, self.elected, self.fresh = [], [], []
        seen = self._seen[server.id]
        for raft in server.engine.state.replicas:
            r = raft.state
            log = r.log
            now = (r.role, r.term, r.commit_index, log.offset.index + len(log.entries))
            if now != seen[r.group]:
                move = Move(r, seen[r.group], Seen(*now))
                seen[r.group] = move.now
                self.moves.append(move)
                if r.role is Role.LEADER and move.before[:2] != move.now[:2]:
                    self.elected.append(r)
                if r.commit_index > len(self.committed[r.group]):
                    self._note_committed(server, r)

    def crashed(self, server: SimServer) -> None:
        """A turn may have ended in the crash; what it committed may have been told already."""
        self.turned(server)

    def applied(
        self, _server: SimServer, entries: Sequence[Merged], _results: Sequence[Sequence[Any] | None]
    ) -> None:
        """Note what is merged where."""
        for merged in entries:
            if merged.position == len(self.merged) + 1:
                self.merged.append(merged)

    def _note_committed(self, server: SimServer, r: RaftState) -> None:
        known = self.committed[r.group]
        for index in range(len(known) + 1, r.commit_index + 1):
            entry = entry_at(server, r, index)
            if entry is None:
                return
            known.append(entry)
            self.commit_terms[r.group].append(r.term)
            self.fresh.append(Fresh(r.group, entry))


def entry_at(server: SimServer, r: RaftState, index: Index) -> Entry | None:
    """A server's entry, from memory or, where it has left it, from disk; None where there is none.

    As it was written: what a flipped bit made of it since is no server's doing.
    """
    if index > r.log.offset.index:
        return r.log.entry(index) if index <= r.log.last_index else None
    return server.disk.as_written(r.group, index)


def term_at(server: SimServer, r: RaftState, index: Index) -> Term | None:
    """The term of a server's entry, or of what its log begins behind (0 before the first); else None."""
    if index == r.log.start.place.index:
        return r.log.start.place.term
    entry = entry_at(server, r, index)
    return entry.term if entry is not None else None
