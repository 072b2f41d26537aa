"""`Ready`: the one value in which the engine says what must happen, for all groups of a server.

Floor 0. The driver (the Trio shell, the simulator, a test) carries it out in any order; messages that must
wait for a write are held back by the engine itself until `Engine.persisted`, so no driver can get that wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from craft.messages import Frame
from craft.types import EntryKind, GroupId, Index, Position, ServerId, Timestamp, Write


class Request(NamedTuple):
    """One request of a merged entry that takes effect.

    `token` is the caller's, where this server is the origin.
    """

    token: Any  # whatever was given to Engine.propose; None for requests of other servers
    body: bytes  # a msgpack array of commands


class Merged(NamedTuple):
    """One command entry in merged order. Duplicates and requests of closed sessions are left out already."""

    position: Position
    timestamp: Timestamp
    group: GroupId
    index: Index  # type: ignore[assignment]  # as in Entry
    kind: EntryKind
    requests: tuple[Request, ...]


class Load(NamedTuple):
    """Read entries `first_index..last_index` of a group from disk, up to about `bytes_max` (at least one)."""

    number: int
    group: GroupId
    first_index: Index
    last_index: Index
    bytes_max: int


@dataclass(slots=True)
class Ready:
    """What must happen now. Every list may be empty, `write` None."""

    frames: dict[ServerId, Frame] = field(default_factory=dict)
    """One frame a peer; may leave at once."""

    write: Write | None = None
    """To be written and synced; then call `Engine.persisted(write.number)`. One at a time."""

    apply: list[Merged] = field(default_factory=list)
    """To be applied in order; then call `Engine.applied(position of the last)`. One list at a time."""

    reads: list[Any] = field(default_factory=list)
    """Tokens of reads that may now be served from the state machine as it stands."""

    loads: list[Load] = field(default_factory=list)
    """Entries to be read back; then call `Engine.loaded(number, entries)`."""
