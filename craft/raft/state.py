"""The state of one replica, grouped as the Raft specification groups it.

Persistent, volatile, candidate, leader.

Knows: everything one replica remembers. Must not know: how it changes (`election`, `replication`), I/O.

Invariants
- `term` never falls; `vote` changes within a term only from None.
- `commit_index` never falls, and never passes `log.last_index`.
- While `hard_dirty` or an unfinished write holds (term, vote), nothing that this replica says leaves the
  server (PROTOCOL 1: persist before you answer). The engine holds its outbox back.

Reference: raft.tla; PROTOCOL 1.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from craft.limits import EngineLimits
from craft.messages import Message
from craft.raft.log import Log
from craft.raft.progress import Progress
from craft.types import NOBODY, NOWHERE, Configuration, GroupId, HardState, Index, Place, ServerId, Term

if typing.TYPE_CHECKING:
    from random import Random

MS = 1_000_000  # nanoseconds


class Role(Enum):
    """What a replica is, in its term."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


_LEADER = Role.LEADER  # looking a member up costs more than comparing it, and `leads` is asked all the time


class FormerLead(NamedTuple):
    """A term that was led here: how far each follower's log may have counted in it (PROTOCOL 10)."""

    term: Term
    noop_index: Index
    counted: dict[ServerId, Index]


@dataclass(slots=True)
class RaftState:
    """One replica. Free functions in the modules beside this one change it."""

    group: GroupId
    me: ServerId
    limits: EngineLimits
    rng: Random
    gone: set[ServerId]
    """Servers whose link broke and whose reconnect was refused.

    Shared by all groups of a server (PROTOCOL 9).
    """
    disks: Mapping[ServerId, str]
    """The disk of each peer's connection, and our own (PROTOCOL 8). Shared by all groups of a server."""

    # persistent
    log: Log
    term: Term = 0
    vote: ServerId | None = None
    hard_dirty: bool = False
    hard_write: int = 0  # the number of the write that carries (term, vote)

    # volatile
    created: Configuration = NOBODY  # that of the cluster's creation; NOBODY: this server joined later
    configuration: Configuration = NOBODY  # the latest in the log, else in its start, else `created`
    configuration_at: Place = NOWHERE
    bound: dict[ServerId, str] = field(default_factory=dict)  # its disks
    commit_index: Index = 0
    known_commit: tuple[Index, Term, ServerId] = (0, 0, 0)  # the farthest commit that a peer told of, and who
    lacking_since: int | None = None  # since when a known commit has not arrived
    suspicion: str = ""  # why a synced tail of the log may be missing (PROTOCOL 10); empty: nothing is
    suspicion_due: bool = False  # it is new here, and must be stored before anything else is said
    incarnation: int = 0  # a random number of this start
    clears_at: Place | None = None  # whoever holds this durably, or what comes behind it, is trusted again
    clearing_write: int = 0  # the number of the write that ends the suspicion
    role: Role = Role.FOLLOWER
    leader_id: ServerId | None = None
    heard_at: int = 0  # when the leader was last heard
    election_timeout: int = 0  # drawn anew with each change of leader or role
    election_deadline: int = 0
    verified: Index = 0  # what is known to agree with the leader's log, in this term
    leader_persisted: Index = 0  # how far that log is durable at the leader
    leader_commit: Index = 0  # how far it is committed, by the leader's own word in this term
    probed: bool = True  # the leader may be sending nothing more before it has our answer
    ack_due: bool = False  # received, not yet durable: acknowledge after the sync
    transfer_term: Term = 0  # the last term that began with a hand-over
    outbox: list[tuple[ServerId, Message]] = field(default_factory=list)

    # candidate
    votes: dict[ServerId, bool] = field(default_factory=dict)
    doubtful: set[ServerId] = field(default_factory=set)  # who answered as a suspect

    # leader
    progress: dict[ServerId, Progress] = field(default_factory=dict)
    noop_due: bool = False
    noop_index: Index = 0
    told_durable: Index = 0  # how far followers may know that our log is durable
    clearing_due: bool = False  # a suspect waits for an entry that is appended after it was heard
    former: FormerLead | None = None  # the last term that was led here, in this incarnation
    transfer_to: ServerId | None = None
    transfer_deadline: int = 0
    transfer_hold_ms: int = 0  # what the target is told with it
    retiring: bool = False  # a removed leader has tried to hand over
    quorum_checked_at: int = 0

    @property
    def leads(self) -> bool:
        """Is this replica the leader of its term, to its own knowledge?"""
        return self.role is _LEADER

    @property
    def suspect(self) -> bool:
        """May this replica have lost what it answered for?"""
        return bool(self.suspicion)

    @property
    def votes_here(self) -> bool:
        """Does this server's vote count in the latest configuration?"""
        return self.me in self.configuration.voters or self.me in self.configuration.outgoing

    @property
    def commit_place(self) -> Place:
        """The place of the last entry known committed."""
        return Place(self.commit_term, self.commit_index)

    @property
    def commit_term(self) -> Term:
        """The term of the last entry known committed; 0 if there is none."""
        term = self.log.term_at(self.commit_index) if self.commit_index else 0
        assert term is not None, "the committed entry is in memory or is the offset"
        return term

    def send(self, peer: ServerId, message: Message) -> None:
        """Queue a message; it leaves when (term, vote) are durable."""
        assert peer != self.me
        self.outbox.append((peer, message))

    def peers(self) -> list[ServerId]:
        """All other members, in sorted order."""
        return sorted(self.configuration.members - {self.me})

    def hard_state(self) -> HardState:
        """What storage must not forget."""
        return HardState(self.term, self.vote, self.commit_index)
