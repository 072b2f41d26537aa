"""`Ready`: the one value in which the engine says what must happen, for all groups of a server.

Floor 0. The driver (the Trio shell, the simulator, a test) carries it out in any order; messages that must
wait for a write are held back by the engine itself until `Engine.persisted`, so no driver can get that wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

from craft.messages import Frame
from craft.types import (
    EntryKind,
    GroupId,
    Head,
    Index,
    Member,
    Position,
    ServerId,
    SnapshotId,
    SnapshotInfo,
    SnapshotPart,
    Term,
    Timestamp,
    Write,
)


class Request(NamedTuple):
    """One request of a merged entry that takes effect.

    `token` is the caller's, where this server is the origin.
    """

    token: Any  # whatever was given to Engine.propose; None for requests of other servers
    body: bytes  # a msgpack array of commands


class Verdict(Enum):
    """What a remote client's request came to at its place in the merged log."""

    OPENED = "the session is open"
    EXECUTED = "it takes effect here"
    REPEATED = "it took effect before"
    TOUCHED = "the session goes on"
    CLOSED = "the session ends here, as the client asked"
    EXPIRED = "the session ends here, for it was idle for too long"
    ENDED = "the session is not open"
    ANSWERED = "the client said that it was answered"
    BEYOND = "it is too far ahead of what was answered"
    FULL = "there is no room for another session"


class Judged(NamedTuple):
    """A client's request as it was judged; `token` is the caller's, where this server is the origin."""

    verdict: Verdict
    token: Any
    session: bytes
    opened: Position  # of the `open` that it belongs to
    request: int = 0
    answered_below: int = 0
    part: int = 0  # EXECUTED: which of `Merged.requests` carries its commands


class MembersTold(NamedTuple):
    """What became of a request to change the wanted set; `token` is the caller's, if this is the origin."""

    token: Any
    version: int  # of the set that holds the change
    error: str  # why it was refused; empty: it was taken


class Merged(NamedTuple):
    """One command entry in merged order. Duplicates and requests of closed sessions are left out already."""

    position: Position
    timestamp: Timestamp
    group: GroupId
    index: Index  # type: ignore[assignment]  # as in Entry
    kind: EntryKind
    requests: tuple[Request, ...]
    clients: tuple[Judged, ...] = ()
    """Remote clients' requests, in order; commands of those that take effect are among `requests`."""
    members: tuple[MembersTold, ...] = ()
    """Changes of the wanted set of servers."""
    term: Term = 0


class Load(NamedTuple):
    """Read entries `first_index..last_index` of a group from disk, up to about `bytes_max` (at least one)."""

    number: int
    group: GroupId
    first_index: Index
    last_index: Index
    bytes_max: int


class Capture(NamedTuple):
    """Take a snapshot: fork the state machine at once, before anything else is applied, then write it all.

    `parts` are the engine's; what clients' requests were answered and the machine's come behind them. Then
    call `Engine.snapshots.captured`.
    """

    head: Head
    parts: tuple[SnapshotPart, ...]


class SnapshotRead(NamedTuple):
    """Read bytes of a kept snapshot's file for a peer, then call `Engine.snapshots.read` with this."""

    peer: ServerId
    snapshot: SnapshotId
    offset: int
    bytes_max: int


class ReceiveBegin(NamedTuple):
    """Begin to take a peer's snapshot, or go on with it; then call `Engine.snapshots.begun`."""

    snapshot: SnapshotId
    size: int


class ReceiveAppend(NamedTuple):
    """Its next bytes; when they are written, call `Engine.snapshots.appended`."""

    snapshot: SnapshotId
    offset: int
    data: bytes


class ReceiveFinish(NamedTuple):
    """All of it is written: check it, make it durable and keep it; then call `Engine.snapshots.received`."""

    snapshot: SnapshotId


Receive: TypeAlias = ReceiveBegin | ReceiveAppend | ReceiveFinish


@dataclass(slots=True)
class Ready:
    """What must happen now. Every list may be empty, `write` None."""

    frames: dict[ServerId, Frame] = field(default_factory=dict)
    """One frame a peer; may leave at once."""

    write: Write | None = None
    """To be written and synced; then call `Engine.persisted(write.number)`. One at a time."""

    apply: list[Merged] = field(default_factory=list)
    """To be applied in order; then call `Engine.applied(position of the last)`. One list at a time."""

    committed: list[tuple[Any, Timestamp]] = field(default_factory=list)
    """Tokens of requests that wanted no more, and the timestamps that they are merged at or before."""

    reads: list[Any] = field(default_factory=list)
    """Tokens of reads that may now be served from the state machine as it stands."""

    peers: dict[ServerId, Member] | None = None
    """Whom to connect to and to listen to from now on; None: as before. No address: as it was configured."""

    loads: list[Load] = field(default_factory=list)
    """Entries to be read back; then call `Engine.loaded(number, entries)`."""

    capture: Capture | None = None
    """A snapshot to be taken; `apply` is empty then. One at a time."""

    snapshot_reads: list[SnapshotRead] = field(default_factory=list)
    """Of snapshots that are on their way to others."""

    receive: list[Receive] = field(default_factory=list)
    """Of the one snapshot that is on its way here, to be done in order."""

    restore: SnapshotInfo | None = None
    """Replace the state machine's state by this kept snapshot's; then call `Engine.snapshots.restored`."""

    settled: list[Any] = field(default_factory=list)
    """Tokens of requests that took effect within a restored snapshot: nobody here knows their results."""
