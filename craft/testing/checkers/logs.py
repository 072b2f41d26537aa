"""Logs: what two logs have in common, what is committed, what may be cut.

Reference: Raft 5.3, 5.4, figure 3; PROTOCOL 1, 2.
"""

from __future__ import annotations

import typing

from craft.errors import InvariantViolation
from craft.raft import RaftState, invariants
from craft.testing.checkers.base import Checker, Violation
from craft.testing.checkers.ledger import Ledger, entry_at
from craft.types import Append, Entry, GroupId, Index, ServerId, Term, Timestamp, Write

if typing.TYPE_CHECKING:
    from craft.testing.server import SimServer

INVARIANTS_EVERY = 64
"""Changes of a server's replicas between two looks at all invariants of one: that is O(log)."""


def words(entry: Entry | None) -> str:
    """An entry, for people."""
    if entry is None:
        return "nothing"
    return f"({entry.kind.name.lower()}, term {entry.term}, timestamp {entry.timestamp}, {entry.size} bytes)"


class LogMatching(Checker):
    """Entries with the same index and term are the same, and so is all that stands before them (Raft 5.3).

    The term of the entry before says so of the whole log, by induction.
    """

    PROPERTY = "log matching"

    def __init__(self) -> None:
        self._entries: dict[GroupId, dict[tuple[Index, Term], tuple[Entry, Term]]] = {}

    def wrote(self, server: SimServer, write: Write) -> None:
        """Each entry is looked at once a server."""
        for append in write.appends:
            _, term, _ = _before(server, append)
            known = self._entries.setdefault(append.group, {})
            for entry in append.entries:
                first, first_term = known.setdefault((entry.index, entry.term), (entry, term))
                if first_term != term or first.record != entry.record:
                    raise Violation(
                        self.PROPERTY,
                        f"entry {entry.index} of group {append.group} is {words(entry)} behind term {term} on"
                        f" server {server.id}, and was {words(first)} behind term {first_term} elsewhere",
                    )
                term = entry.term


class CommittedInItsTerm(Checker):
    """Who commits first counts entries of the leader's own term only, and the earlier ones with them.

    An entry of an earlier term on a majority may still be overwritten (Raft 5.4.2, figure 8). Followers
    that infer commits are held to it as leaders are.
    """

    PROPERTY = "a commit goes through an entry of its leader's term"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def turned(self, server: SimServer) -> None:
        """Look at the last of what nobody knew committed before."""
        last = {fresh.group: fresh.entry for fresh in self._ledger.fresh}
        for move in self._ledger.moves:
            entry = last.get(move.replica.group)
            # A follower's term may have risen after the commit, within the turn.
            term = move.now.term if move.replica.leads else move.before.term
            if entry is not None and entry.term < term:
                raise Violation(
                    self.PROPERTY,
                    f"server {server.id}, in term {term} of group {move.replica.group}, is the first to hold"
                    f" entry {entry.index} of term {entry.term} for committed",
                )

    def crashed(self, server: SimServer) -> None:
        """A turn may have ended in the crash; what it committed may have been told already."""
        self.turned(server)


class StampsRise(Checker):
    """Indexes are contiguous, terms never fall and timestamps rise strictly along a log (PROTOCOL 2)."""

    PROPERTY = "timestamps rise strictly within a group"

    def wrote(self, server: SimServer, write: Write) -> None:
        """Compare each entry with the one before it."""
        for append in write.appends:
            index, term, stamp = _before(server, append)
            for entry in append.entries:
                if entry.index != index + 1 or entry.term < term or entry.timestamp <= stamp:
                    raise Violation(
                        self.PROPERTY,
                        f"group {append.group} on server {server.id}: entry {entry.index} {words(entry)}"
                        f" follows entry {index} of term {term} with timestamp {stamp}",
                    )
                index, term, stamp = entry[:3]


class TermsCoverLogs(Checker):
    """A server is in no earlier term than the end of its log.

    Else it could obey a leader that the entry's own term has deposed (Raft 5.1).
    """

    PROPERTY = "no log is ahead of its server's term"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def turned(self, server: SimServer) -> None:
        """Look at what has moved."""
        for r, _, now in self._ledger.moves:
            if r.log.last_term > now.term:
                raise Violation(
                    self.PROPERTY,
                    f"server {server.id} is in term {now.term} of group {r.group}; its log ends at"
                    f" {r.log.last_index} in term {r.log.last_term}",
                )


def _before(server: SimServer, append: Append) -> tuple[Index, Term, Timestamp]:
    """Index, term and timestamp of the entry before those that were just written, or of the log's start."""
    log = server.disk.written.logs[append.group]
    entry = log.get(log.last_index - len(append.entries))
    if entry is not None:
        return entry[:3]
    term, index = log.start.place
    return (index, term, log.start.timestamp) if index else (0, 0, -1)


class StateMachineSafety(Checker):
    """An entry that is committed is the same on every server for ever; no commit index falls (Raft 5.4)."""

    PROPERTY = "state-machine safety"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def turned(self, server: SimServer) -> None:
        """Compare what this server has learnt to be committed. After a start, that is all it has."""
        for r, before, now in self._ledger.moves:
            if now.commit_index < before.commit_index:
                raise Violation(
                    self.PROPERTY,
                    f"the commit index of group {r.group} on server {server.id} falls from"
                    f" {before.commit_index} to {now.commit_index}",
                )
            if now.commit_index == before.commit_index:
                continue
            known = self._ledger.committed[r.group]
            start = r.log.start.place
            if before.commit_index < start.index:
                self._check_start(server, r)
            for index in range(max(before.commit_index, start.index) + 1, now.commit_index + 1):
                entry = entry_at(server, r, index)
                first = known[index - 1] if index <= len(known) else None
                if entry is not first and (entry is None or first is None or entry != first):
                    raise Violation(
                        self.PROPERTY,
                        f"entry {index} of group {r.group} is committed as {words(entry)} on server"
                        f" {server.id}, and was committed as {words(first)}",
                    )

    def _check_start(self, server: SimServer, r: RaftState) -> None:
        """A log begins behind a committed entry: of what came before, nothing but that can be compared."""
        start, known = r.log.start, self._ledger.committed[r.group]
        index = start.place.index
        first = known[index - 1] if index <= len(known) else None
        if first is None or (first.term, first.timestamp) != (start.place.term, start.timestamp):
            raise Violation(
                self.PROPERTY,
                f"the log of group {r.group} on server {server.id} begins behind entry {index} of term"
                f" {start.place.term} with timestamp {start.timestamp}; committed there is {words(first)}",
            )

    def crashed(self, server: SimServer) -> None:
        """In its last turn, perhaps."""
        self.turned(server)


class CommittedStays(Checker):
    """A server that holds a committed entry, in the term of its commit or later, never cuts it.

    (In an earlier term it may: the entry was committed without this server.)
    """

    PROPERTY = "what is committed is never cut"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._held: dict[ServerId, list[Index]] = {}  # how far each log agrees with what is committed

    def started(self, server: SimServer) -> None:
        """What is left of its log after a crash is looked at anew."""
        replicas = server.engine.state.replicas
        self._held[server.id] = [0] * len(replicas)
        for raft in replicas:
            self._look(server, raft.state)

    def wrote(self, server: SimServer, write: Write) -> None:
        """The disk's log is cut. Its platter has what it had before: one write is under way at a time.

        The entries behind the first that is cut need no look: where it differs from what is committed, so do
        they.
        """
        for append in write.appends:
            cut, platter = append.truncate_from, server.disk.synced.logs[append.group]
            known = self._ledger.committed[append.group]
            if not 0 < cut <= min(platter.last_index, len(known)):
                continue
            term = server.engine.state.raft(append.group).term
            if platter.holds(cut, known[cut - 1].term) and self._counts(append.group, cut, term):
                raise Violation(
                    self.PROPERTY,
                    f"server {server.id} cuts the log of group {append.group} on its disk from {cut}; it held"
                    f" {words(known[cut - 1])} there, which is committed",
                )

    def _counts(self, group: GroupId, index: Index, term: Term) -> bool:
        return self._ledger.commit_terms[group][index - 1] <= term

    def turned(self, server: SimServer) -> None:
        """The log in memory."""
        for r, _, _ in self._ledger.moves:
            self._still_there(server, r)
            self._look(server, r)
        if self._ledger.fresh:
            for group in {fresh.group for fresh in self._ledger.fresh}:
                for other in server.world.servers.values():
                    self._look(other, other.engine.state.raft(group))

    def _still_there(self, server: SimServer, r: RaftState) -> None:
        held = self._held[server.id][r.group]
        if not held:
            return
        term, expected = r.log.term_at(held), self._ledger.committed[r.group][held - 1].term
        if r.log.last_index < held or term not in (None, expected):
            raise Violation(
                self.PROPERTY,
                f"server {server.id} held the committed entry {held} of group {r.group} with term {expected};"
                f" now its log ends at {r.log.last_index} and has term {term} there",
            )

    def _look(self, server: SimServer, r: RaftState) -> None:
        known = self._ledger.committed[r.group]
        held = self._held[server.id][r.group]
        if held == len(known):
            return
        limit = min(r.log.last_index, len(known))
        held = max(held, min(r.log.start.place.index, len(known)))  # what is compacted was committed
        while held < limit and self._counts(r.group, held + 1, r.term):
            entry = entry_at(server, r, held + 1)
            if entry is None or entry.term != known[held].term:
                break
            held += 1
        self._held[server.id][r.group] = held


class Invariants(Checker):
    """What `craft.raft.invariants` says of a replica, now and then, and at the end."""

    PROPERTY = "a replica's invariants"

    def __init__(self, ledger: Ledger, *, every: int = INVARIANTS_EVERY) -> None:
        self._ledger = ledger
        self._every = every
        self._changes: dict[ServerId, int] = {}

    def turned(self, server: SimServer) -> None:
        """Look at one replica of many that changed."""
        moves = self._ledger.moves
        if not moves:
            return
        changes = self._changes.get(server.id, 0) + len(moves)
        if changes >= self._every:
            changes = 0
            self._check(moves[-1].replica)
        self._changes[server.id] = changes

    def ended(self, world: typing.Any) -> None:
        """Look at all."""
        for _, server in sorted(world.servers.items()):
            for raft in server.engine.state.replicas:
                self._check(raft.state)

    def _check(self, r: RaftState) -> None:
        try:
            invariants.check(r)
        except InvariantViolation as error:
            raise Violation(self.PROPERTY, str(error)) from error
