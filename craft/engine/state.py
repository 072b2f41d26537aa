"""The state of one server's engine: every group, and what joins them.

Knows: everything one server remembers between turns. Must not know: how it changes (the modules beside this
one), I/O.

Invariants
- `demand` is 0 or above `merger.safe`: it is forgotten once the merge has reached it (PROTOCOL 3).
- `cursor[g] <= min(commit, persisted)` of group g: only what is committed *and* durable here is merged (†).
- At most one write and one list of merged entries are outstanding at a time.
"""

from __future__ import annotations

import typing
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from craft.client_sessions import ClientSessions
from craft.clock.interval import Readings
from craft.clock.offsets import Offsets
from craft.limits import EngineLimits
from craft.membership import Members
from craft.merge import Merger
from craft.messages import AppendAccepted, AppendEntries, Message, SnapshotWanted
from craft.placement import Placement
from craft.raft import Raft, RaftState
from craft.reads import QuorumReads
from craft.ready import Load, Merged, Receive, SnapshotRead
from craft.sessions import Sessions
from craft.types import (
    NOWHERE,
    GroupId,
    Index,
    Instant,
    Member,
    Place,
    Position,
    Proposal,
    ServerId,
    SnapshotId,
    SnapshotInfo,
    SnapshotPart,
    Start,
    Term,
    Timestamp,
)

if typing.TYPE_CHECKING:
    from random import Random

MS = 1_000_000
RECENT_MERGED_MAX = 4096
"""How many merged entries status remembers: enough to compare servers that are a little apart."""


@dataclass(slots=True)
class Peer:
    """What this server knows of another one, and has to tell it."""

    id: ServerId
    linked: bool = False  # our connection to it is up
    heard_at: int | None = None  # monotonic
    echo: int = 0  # its newest send time
    reached_at: int = 0  # monotonic: when we sent what it has heard
    links: tuple[ServerId, ...] = ()  # whom it hears directly
    declines: bool = False  # it wants to lead nothing
    asked_at: int | None = None  # monotonic: its last question for a read
    out: list[Message] = field(default_factory=list)
    later: dict[tuple[GroupId, Index], AppendEntries | AppendAccepted] = field(default_factory=dict)
    """For the next frame, as nobody there waits for them; by group and first index (acknowledgements: 0)."""
    watched: deque[tuple[int, AppendEntries | AppendAccepted]] = field(default_factory=deque)
    """Since when (monotonic) messages were held back that had better leave, should a disk be slow."""
    commits_due: set[GroupId] = field(default_factory=set)
    durable_due: set[GroupId] = field(default_factory=set)  # led here, and durable further than it knows
    frame_due: bool = False
    leads_version: int = 0  # the list of groups it leads, as last heard
    leads: tuple[tuple[GroupId, Term], ...] = ()
    acked_version: int = 0  # which list of ours it has
    refused: tuple[tuple[GroupId, Term], ...] = ()


class SessionState(Enum):
    """How far a starting server is on its way to taking commands (PROTOCOL 5)."""

    READING = "reading what its predecessors were answered"
    NUMBERING = "making its session counter durable"
    OPENING = "opening its session"
    OPEN = "open"


class Stage(Enum):
    """Where a request of this server is."""

    UNROUTED = 0
    QUEUED = 1  # waits here for a led group's turn
    APPENDED = 2  # in a log, or on its way to another server


@dataclass(slots=True)
class Pending:
    """One request of this server that is not answered yet."""

    token: Any
    request: int
    body: bytes
    stage: Stage = Stage.UNROUTED
    group: GroupId = 0
    term: Term = 0
    asked: ServerId | None = None  # to whom it was last forwarded, the leader or not
    retry_at: int = 0
    upto: Index | None = None  # the end of its group's log here when its patience first ended
    attempts: int = 0  # how often it may have been appended, refusals not counted: each retry waits longer
    told: bool = False  # that it is committed, which is all that its caller wanted
    sent: bool = False  # it left this server, or was appended here: from then on its fate is not ours to know
    floor: Timestamp = 0  # the greatest timestamp that the client behind it was answered at


@dataclass(slots=True)
class LeaderQueue:
    """Proposals that wait for their group's leader, which is here."""

    proposals: deque[Proposal] = field(default_factory=deque)
    bytes: int = 0
    foreign_bytes: int = 0  # of other servers
    foreign: set[tuple[ServerId, int, int]] = field(default_factory=set)  # which requests these are
    uncommitted: deque[Index] = field(default_factory=deque)  # command entries of this leadership in flight


class LoadPurpose(Enum):
    """For whom older entries are read back from disk."""

    MERGE = 0
    APPEND = 1
    FETCH = 2


@dataclass(slots=True)
class Loading:
    """A read from disk under way."""

    purpose: LoadPurpose
    group: GroupId
    peer: ServerId
    next_index: Index
    prev_term: Term | None = None  # of the entry before `next_index`, where it is known already


@dataclass(slots=True)
class Probe:
    """A command entry of a leader here, watched on its way up the rungs."""

    index: Index
    term: Term
    token: Any  # of the first of this server's requests in it; None: it has none
    at: list[int]  # monotonic: when it reached each rung, from `appended` on


class Climb(NamedTuple):
    """A command entry that has reached every rung."""

    group: GroupId
    token: Any  # of the first of this server's requests in it; None: it has none
    at: tuple[int, ...]  # monotonic: when it reached each rung


class Applied(NamedTuple):
    """The last entry of a group that is applied, or delivered, here."""

    place: Place
    timestamp: Timestamp


class Landmark(NamedTuple):
    """An entry that a log may be compacted up to, and how much of the log came before its end."""

    place: Place
    timestamp: Timestamp
    bytes: int


@dataclass(slots=True)
class Sending:
    """A snapshot on its way to a peer, who asks for it piece by piece."""

    snapshot: SnapshotId
    asked: SnapshotRead | None  # not read yet
    moved_at: int  # monotonic


@dataclass(slots=True)
class Receiving:
    """A snapshot on its way here."""

    peer: ServerId
    snapshot: SnapshotId
    size: int
    moved_at: int  # monotonic: when it last made progress
    asked_at: int = 0  # monotonic: when the piece at `arrived` was last asked for
    begun: bool = False  # we know how much of it is here
    arrived: int = 0  # bytes
    written: int = 0  # bytes
    finishing: bool = False


@dataclass(slots=True)
class Snapshots:
    """What a server knows of its own snapshots, of those on their way, and what they let it forget."""

    supported: bool  # can the state machine be captured?
    kept: tuple[SnapshotInfo, ...]  # the oldest first
    groups: int
    asked: bool = False  # somebody wants one, now
    capturing: bool = False
    captured_at: int = 0  # monotonic: when the last was begun
    captured_position: Position = 0
    logged_bytes: int = 0  # delivered since then
    taken: int = 0  # of this server's own, since it started
    delivered: list[Applied] = field(default_factory=list)  # by group
    applied: list[Applied] = field(default_factory=list)  # of command entries, by group
    totals: list[int] = field(default_factory=list)  # bytes delivered since the start, by group
    landmarks: list[deque[Landmark]] = field(default_factory=list)  # by group
    compaction_due: bool = False
    starts: dict[GroupId, Start] = field(default_factory=dict)  # for the next write
    unfounded: bool = False  # the logs are compacted, and there is no snapshot to begin from
    wanted: dict[ServerId, SnapshotWanted] = field(default_factory=dict)  # who asked for one, and for which
    damaged: int = 0  # the random number of the last one whose file did not hold
    sending: dict[ServerId, Sending] = field(default_factory=dict)
    allowed_at: int = 0  # monotonic: when the next piece may be read for a peer
    partial: tuple[SnapshotId, int] | None = None  # what an earlier run had begun to receive, and its size
    partial_asked: set[ServerId] = field(default_factory=set)  # who does not have it
    partial_until: int = 0  # monotonic: so long it is looked for
    receiving: Receiving | None = None
    receive: list[Receive] = field(default_factory=list)
    received: tuple[SnapshotInfo, tuple[SnapshotPart, ...]] | None = None  # to be installed
    restoring: bool = False
    ahead: Position = 0  # the state machine's own data go so far, which may be beyond what is applied
    installed: int = 0  # of others' snapshots, since the start

    def __post_init__(self) -> None:
        nothing = Applied(NOWHERE, 0)
        self.delivered, self.applied = [nothing] * self.groups, [nothing] * self.groups
        self.totals = [0] * self.groups
        self.landmarks = [deque() for _ in range(self.groups)]


@dataclass(slots=True)
class EngineState:
    """One server. Free functions in the modules beside this one change it."""

    me: ServerId
    limits: EngineLimits
    clock_error_ns: int | None  # the cluster-wide bound that the operator states
    rng: Random
    now: Instant
    nonce: bytes
    replicas: list[Raft]
    peers: dict[ServerId, Peer]
    gone: set[ServerId]
    readings: Readings
    offsets: Offsets
    merger: Merger
    sessions: Sessions
    members: Members
    roll: Members  # as this server last knew it, before it restarted or joined
    disk: str  # our own disk's id; empty: nobody is bound to a disk
    disks: dict[ServerId, str]  # of each peer's connection, and ours
    reads: QuorumReads
    placement: Placement
    snapshots: Snapshots
    cluster_id: str = ""

    # the turn
    started: int = 0  # monotonic: an echo from before belongs to an earlier incarnation
    dirty: set[GroupId] = field(default_factory=set)
    wake_at: int = 0
    next_heartbeat: int = 0

    # leaders here
    led: set[GroupId] = field(default_factory=set)
    leads_version: int = 1
    leads: tuple[tuple[GroupId, Term], ...] = ()
    leaders: list[tuple[Term, ServerId | None]] = field(default_factory=list)  # as last seen, per group
    queues: list[LeaderQueue] = field(default_factory=list)
    demand: Timestamp = 0
    unhurried: Timestamp = 0  # of a command appended here that is not demanded yet; 0: none
    hurry_at: int = 0  # monotonic: when it is
    greatest_timestamp: Timestamp = 0  # appended in any group here
    greatest_command_timestamp: Timestamp = 0  # of a command entry
    led_command_timestamp: Timestamp = 0  # of one that we appended as a leader
    clamped_since: int | None = None
    clamps: int = 0
    floor_waiting: list[tuple[int, GroupId, Proposal]] = field(default_factory=list)
    announced: list[Index] = field(default_factory=list)
    announced_durable: list[Index] = field(default_factory=list)  # of the logs led here
    announced_closed: list[Timestamp] = field(default_factory=list)  # and what was closed here by then
    commit_rotation: int = 0
    fetches: dict[tuple[ServerId, GroupId], Index] = field(default_factory=dict)
    fetch_asked: dict[GroupId, Index] = field(default_factory=dict)  # the last index that we asked a peer for
    heard: tuple[ServerId, ...] | None = None  # whom we hear directly, once asked in this turn
    all_heard: bool | None = None  # does everybody hear everybody directly? Likewise
    led_commands: dict[ServerId | None, Timestamp] | None = None  # by leader, the last one; likewise

    # membership
    members_seen: dict[ServerId, Member] | None = None
    configurations_seen: list[Place] = field(default_factory=list)
    unsettled: bool = True  # something about the members is under way, or may be
    was_member: bool = False  # who joins has yet to merge that it is wanted
    nameless: bool = False  # it is by a set that names no disk under our id, which may be another's yet
    peers_due: bool = True  # the driver is to be told of them
    wished_version: int = 0  # the wanted set that is worked for
    wished_at: int = 0  # monotonic
    reached_version: int = -1  # of the wanted set: every group's final configuration has it
    reached_at: int = 0  # monotonic
    caught_up: dict[GroupId, tuple[int, frozenset[ServerId]]] = field(default_factory=dict)
    """Who is caught up in a group, by its leader's word, and when (monotonic) that was."""

    # storage
    next_write: int = 1
    writing: int | None = None
    write_began: int = 0  # monotonic
    writing_groups: tuple[GroupId, ...] = ()
    durable_write: int = 0
    unwritten: set[GroupId] = field(default_factory=set)
    held: deque[tuple[int, ServerId, Message]] = field(default_factory=deque)
    next_load: int = 1
    loads: dict[int, Loading] = field(default_factory=dict)
    load_requests: list[Load] = field(default_factory=list)

    # merge and apply
    cursor: list[Index] = field(default_factory=list)
    outstanding: list[deque[Index]] = field(default_factory=list)  # command entries delivered and not applied
    merging_load: set[GroupId] = field(default_factory=set)
    starved: set[GroupId] = field(default_factory=set)  # not delivered, because too much is unmerged
    merged_position: Position = 0
    applied_position: Position = 0
    applying: list[Merged] = field(default_factory=list)
    applied_timestamp: Timestamp = 0
    clients: ClientSessions = field(default_factory=ClientSessions)
    digest: bytes = bytes(16)
    recent: deque[tuple[Position, Timestamp, GroupId, Index, int, bytes]] = field(
        default_factory=lambda: deque(maxlen=RECENT_MERGED_MAX)
    )

    # where the time goes
    probes: dict[GroupId, Probe] = field(default_factory=dict)
    climbs: list[Climb] = field(default_factory=list)  # for whoever keeps figures

    # this server's session and requests
    session_state: SessionState = SessionState.READING
    counter: int = 0
    counter_lost: bool = False  # this start was suspect: later numbers may have been used than is remembered
    counter_due: bool = False
    counter_write: int = 0
    next_request: int = 1
    pending: dict[int, Pending] = field(default_factory=dict)
    pending_bytes: int = 0
    unrouted: list[Pending] = field(default_factory=list)
    route_rotation: int = 0
    disk_low: str = ""  # why no new command is taken; empty: there is room
    clock_breached: bool = False  # our own clock says that it is beyond the bound that the operator states
    awaiting_commit: dict[int, Pending] = field(default_factory=dict)  # requests that want `committed`
    committed: list[tuple[Timestamp, int, Pending]] = field(default_factory=list)  # a heap: their clocks run
    answered_timestamp: Timestamp = 0
    session_reads: list[tuple[Position, int, Any]] = field(default_factory=list)  # a heap, ties by number
    session_reads_total: int = 0
    stopping: bool = False
    drained_until: int = 0  # monotonic: until then an operator wants nothing led here
    holds: dict[GroupId, int] = field(default_factory=dict)  # monotonic: led here until then
    given_away: set[GroupId] = field(default_factory=set)  # led here when we began to stop

    @property
    def removed(self) -> bool:
        """Is this server, or the disk it lives on, no longer wanted, and every group done with it?"""
        done = self.reached_version >= self.members.version
        return self.was_member and done and not self.is_member and not self._votes

    @property
    def _votes(self) -> bool:
        """Does any group count on this disk? Its merge may be far behind that."""
        return any(
            self.me in raft.state.configuration.voters | raft.state.configuration.outgoing
            and raft.state.bound.get(self.me) == self.disk
            for raft in self.replicas
        )

    @property
    def is_member(self) -> bool:
        """Is this server wanted, on this disk?"""
        member = self.members.servers.get(self.me)
        return member is not None and member.disk in ("", self.disk)

    def raft(self, group: GroupId) -> RaftState:
        """The replica of a group."""
        return self.replicas[group].state
