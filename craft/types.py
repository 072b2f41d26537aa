"""The words of the protocol: ids, entries, hard state and what storage hands over.

Floor 0. Knows nothing of time, sockets, disks or randomness; imports the standard library only.

Invariants
- An entry is immutable and encoded exactly once: `Entry.record` is the very bytes that go to
  every peer and to the disk, and it carries its own checksum (PROTOCOL 10, end to end).
- Timestamps are integer nanoseconds since the Unix epoch, `0 <= t < 2**63`.
- Indexes start at 1; index 0 with term 0 means "before the first entry".
"""

from __future__ import annotations

import struct
import zlib
from enum import IntEnum
from typing import NamedTuple, TypeAlias

from craft.errors import DamagedEntry

ServerId: TypeAlias = int
GroupId: TypeAlias = int
Term: TypeAlias = int
Index: TypeAlias = int
Timestamp: TypeAlias = int
Position: TypeAlias = int

TIMESTAMP_MAX = 2**63 - 1
DEMAND_MAX = 2**62  # in the year 2116: a peer that demands more is broken, and would leave stamps no room
GROUPS_MAX = 4096
SERVER_ID_MAX = 2**32 - 1


class EntryKind(IntEnum):
    """What an entry is for. Only *command entries* create demand and are waited for by reads."""

    EMPTY = 0  # the no-op of a new leader, or a closing entry: changes nothing
    COMMAND = 1  # a batch of users' commands
    SESSION = 2  # opens a server's session
    MEMBERSHIP = 3  # changes the wanted set of servers
    CONFIGURATION = 4  # a group's own joint step


def is_command(kind: int) -> bool:
    """Is this a command entry in the sense of PROTOCOL 0 (creates demand, reads wait for it)?"""
    return EntryKind.COMMAND <= kind <= EntryKind.MEMBERSHIP


# crc32 of all that follows · group · index · term · timestamp · kind · (payload)
_RECORD = struct.Struct(">IHQQQB")
_BODY = struct.Struct(">HQQQB")
RECORD_HEADER_BYTES = _RECORD.size
_KINDS = tuple(EntryKind)


class Entry(NamedTuple):
    """One slot of a group's log. A command entry holds a batch of commands and is stamped once."""

    index: Index  # type: ignore[assignment]  # the field's own word; tuple.index is never wanted here
    term: Term
    timestamp: Timestamp
    kind: EntryKind
    record: bytes

    @property
    def payload(self) -> bytes:
        """The bytes behind the record's header."""
        return self.record[RECORD_HEADER_BYTES:]

    @property
    def size(self) -> int:
        """Bytes that this entry costs on the wire, on disk and in memory."""
        return len(self.record)


def make_entry(
    group: GroupId,
    *,
    index: Index,
    term: Term,
    timestamp: Timestamp,
    kind: EntryKind,
    payload: bytes = b"",
) -> Entry:
    """Encode an entry, once, with its checksum."""
    assert 0 < index and 0 < term and 0 <= timestamp <= TIMESTAMP_MAX
    body = _BODY.pack(group, index, term, timestamp, kind) + payload
    return Entry(index, term, timestamp, kind, zlib.crc32(body).to_bytes(4, "big") + body)


def decode_entry(group: GroupId, record: bytes) -> Entry:
    """Check a record's checksum and that it belongs to `group`; raise DamagedEntry if not."""
    if len(record) < RECORD_HEADER_BYTES:
        raise DamagedEntry(f"record of {len(record)} bytes is shorter than its header")
    checksum, owner, index, term, timestamp, kind = _RECORD.unpack_from(record)
    if zlib.crc32(memoryview(record)[4:]) != checksum:
        raise DamagedEntry(f"checksum mismatch in a record of group {group}")
    if owner != group:
        raise DamagedEntry(f"record belongs to group {owner}, not to group {group}")
    if kind >= len(_KINDS) or index == 0 or term == 0 or timestamp > TIMESTAMP_MAX:
        raise DamagedEntry(f"record of group {group} has impossible fields")
    return Entry(index, term, timestamp, _KINDS[kind], record)


class Place(NamedTuple):
    """A place in a group's log, ordered term first (PROTOCOL 6)."""

    term: Term
    index: Index  # type: ignore[assignment]  # as in Entry


NOWHERE = Place(0, 0)


class HardState(NamedTuple):
    """What a replica must not forget. `commit` is a hint that is written along, never synced for."""

    term: Term
    vote: ServerId | None
    commit: Index


class Configuration(NamedTuple):
    """Who counts in a group. While joint, `outgoing` is the old set of voters, else it is empty."""

    voters: frozenset[ServerId]
    outgoing: frozenset[ServerId] = frozenset()
    learners: frozenset[ServerId] = frozenset()

    @property
    def members(self) -> frozenset[ServerId]:
        """Everyone who is sent entries."""
        return self.voters | self.outgoing | self.learners

    @property
    def joint(self) -> bool:
        """Are two majorities needed?"""
        return bool(self.outgoing)


class Instant(NamedTuple):
    """Now, as a server sees it. `monotonic_ns` measures waiting; `clock_ns` is the clock's reading."""

    monotonic_ns: int
    clock_ns: Timestamp


class Proposal(NamedTuple):
    """One request of a session: one `propose` or `propose_many`, at one place of the merged log.

    `body` is a msgpack array of commands (bytes), packed by the origin and never unpacked before
    apply. `answered_below` prunes the session's window; `answered_timestamp` is the greatest
    timestamp that the session was answered at. The two are read together and travel together
    (PROTOCOL 5).
    """

    server_id: ServerId
    counter: int
    request: int
    answered_below: int
    answered_timestamp: Timestamp
    body: bytes


class Append(NamedTuple):
    """What changes in one group's log: cut from `truncate_from` (0: nothing is cut), then append."""

    group: GroupId
    truncate_from: Index
    entries: tuple[Entry, ...]


class Write(NamedTuple):
    """All that one server must make durable in one turn, for all groups, atomically."""

    number: int
    appends: tuple[Append, ...]
    hard_states: tuple[tuple[GroupId, HardState], ...]
    counter: int | None  # a new session counter, or None where it does not change


class RecoveredGroup(NamedTuple):
    """One group's log as storage found it. `tail` is contiguous and ends the log.

    `offset` is the place, `offset_timestamp` the timestamp of the entry just before the tail (0 if none).
    Every entry above `hard_state.commit` is in the tail. `last_command` is the place of the last command
    entry of the *whole* log.
    """

    hard_state: HardState
    offset: Place
    offset_timestamp: Timestamp
    tail: tuple[Entry, ...]
    last_command: Place


class Recovered(NamedTuple):
    """What a storage hands to the engine at start. `counter` is the last session counter used."""

    groups: tuple[RecoveredGroup, ...]
    counter: int


def empty_recovered(groups: int) -> Recovered:
    """A server that has never written anything."""
    blank = RecoveredGroup(HardState(0, None, 0), NOWHERE, 0, (), NOWHERE)
    return Recovered((blank,) * groups, 0)
