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
from collections.abc import Iterable
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
    return 1 <= kind <= 3  # asked of every entry, and looking up an enum's member is slow


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
    def place(self) -> Place:
        """Where it stands."""
        return Place(self.term, self.index)

    @property
    def payload(self) -> bytes:
        """The bytes behind the record's header."""
        return self.record[RECORD_HEADER_BYTES:]

    @property
    def size(self) -> int:
        """Bytes that this entry costs on the wire, on disk and in memory."""
        return len(self.record)


def size_of(entries: Iterable[Entry]) -> int:
    """Bytes of these entries. A plain loop: mostly there is one."""
    size = 0
    for entry in entries:
        size += len(entry.record)
    return size


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
    """Who counts in a group. While joint, `outgoing` is the old set of voters, else it is empty.

    `version` is that of the wanted set it works towards; `disks` are `(server id, disk id)`, by id, as far as
    the ids are bound (PROTOCOL 8).
    """

    voters: frozenset[ServerId]
    outgoing: frozenset[ServerId] = frozenset()
    learners: frozenset[ServerId] = frozenset()
    version: int = 0
    disks: tuple[tuple[ServerId, str], ...] = ()

    @property
    def members(self) -> frozenset[ServerId]:
        """Everyone who is sent entries."""
        return self.voters | self.outgoing | self.learners

    @property
    def joint(self) -> bool:
        """Are two majorities needed?"""
        return bool(self.outgoing)


_COUNTS = struct.Struct(">QHHHH")  # version · voters · outgoing · learners · disks
SERVERS_MAX = 1024
"""In one part of a configuration."""

DISK_ID_CHARS_MAX = 64


def pack_configuration(configuration: Configuration) -> bytes:
    """A configuration as it stands in entries, reports, snapshots and at compaction points.

    Counts, then server ids in rising order, then for each bound disk its server's id and its own, prefixed
    by its length: equal configurations are equal bytes.
    """
    voters, outgoing, learners, version, disks = configuration
    parts = [sorted(voters), sorted(outgoing), sorted(learners)]
    ids = [server for part in parts for server in part]
    packed = [_COUNTS.pack(version, *map(len, parts), len(disks)), struct.pack(f">{len(ids)}I", *ids)]
    for server, disk in sorted(disks):
        encoded = disk.encode()
        packed.append(struct.pack(">IB", server, len(encoded)) + encoded)
    return b"".join(packed)


def unpack_configuration(packed: bytes) -> Configuration:
    """The configuration in such bytes; raises ValueError for any others."""
    if len(packed) < _COUNTS.size:
        raise ValueError(f"a configuration of {len(packed)} bytes; it has at least {_COUNTS.size}")
    version, *counts, disk_count = _COUNTS.unpack_from(packed)
    if max(*counts, disk_count) > SERVERS_MAX:
        raise ValueError(f"a configuration of {max(*counts, disk_count)} servers; allowed are {SERVERS_MAX}")
    at = _COUNTS.size + 4 * sum(counts)
    ids = iter(struct.unpack(f">{sum(counts)}I", packed[_COUNTS.size : at]) if len(packed) >= at else ())
    parts = [frozenset(server for _, server in zip(range(count), ids, strict=False)) for count in counts]
    disks: list[tuple[ServerId, str]] = []
    for _ in range(disk_count):
        if len(packed) < at + 5:
            break
        server, length = struct.unpack_from(">IB", packed, at)
        disks.append((server, packed[at + 5 : at + 5 + length].decode("ascii")))
        at += 5 + length
    configuration = Configuration(parts[0], parts[1], parts[2], version, tuple(disks))
    if pack_configuration(configuration) != packed:
        raise ValueError(f"{packed[:64].hex()} is no configuration: cut, repeated or out of order")
    return configuration


NOBODY = Configuration(frozenset())
"""No configuration is known: that of the cluster's creation counts."""


class Member(NamedTuple):
    """One wanted server. No address: as its peers were configured. No disk: the first to open a session."""

    address: str = ""
    disk: str = ""


class Cut(NamedTuple):
    """A place in a group's log up to which everything is merged, and what one must know to go on behind it.

    `configuration` is the latest at or before `place`, whose own place is `configuration_at`.
    """

    place: Place
    timestamp: Timestamp
    configuration: Configuration
    configuration_at: Place


BEGINNING = Cut(NOWHERE, 0, NOBODY, NOWHERE)
"""Before the first entry."""


class SnapshotId(NamedTuple):
    """One snapshot file. Two servers' at one position differ, so each has a random number as well."""

    position: Position
    nonce: int


class Head(NamedTuple):
    """What a snapshot is of: the merged log up to `position`, and where that leaves each group's log."""

    cluster_id: str
    position: Position
    timestamp: Timestamp  # of the entry at `position`
    digest: bytes  # of the merged log up to there
    cuts: tuple[Cut, ...]  # by group


class SnapshotInfo(NamedTuple):
    """A snapshot that is whole, checked and durable."""

    id: SnapshotId
    size: int  # bytes of its file
    head: Head


class SnapshotKind(IntEnum):
    """Whose piece it is."""

    ENGINE = 1  # sessions, clients' sessions, membership
    RESULTS = 2  # what clients' requests were answered
    MACHINE = 3  # the user's state machine


class SnapshotPart(NamedTuple):
    """A piece of what a snapshot holds, in order."""

    kind: SnapshotKind
    data: bytes


class StoredSnapshots(NamedTuple):
    """What a start finds of snapshots.

    `newest` is the last of `kept`, with the engine's parts in it: the state machine has been restored to it,
    or has data of its own that go further, to position `ahead`.
    `partial` is one that an earlier run had begun to take from a peer, and its size in bytes.
    """

    kept: tuple[SnapshotInfo, ...] = ()  # the oldest first
    newest: tuple[SnapshotInfo, tuple[SnapshotPart, ...]] | None = None
    partial: tuple[SnapshotId, int] | None = None
    ahead: Position = 0


NO_SNAPSHOTS = StoredSnapshots()


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


class Start(NamedTuple):
    """A group's log begins behind `cut` from now on.

    What is at or below the cut is dropped; what is behind it as well, unless `keep`. Without `keep` the log
    is empty then and ends at the cut: a snapshot was installed.
    """

    group: GroupId
    cut: Cut
    keep: bool


class Write(NamedTuple):
    """All that one server must make durable in one turn, for all groups, atomically.

    `starts` are carried out before `appends`. `suspicions` are `(group, reason)`: this server may have lost
    a synced tail of that group's log; without a reason: the suspicion ends with this batch (PROTOCOL 10).
    """

    number: int
    appends: tuple[Append, ...]
    hard_states: tuple[tuple[GroupId, HardState], ...]
    counter: int | None  # a new session counter, or None where it does not change
    starts: tuple[Start, ...] = ()
    suspicions: tuple[tuple[GroupId, str], ...] = ()


class RecoveredGroup(NamedTuple):
    """One group's log as storage found it. `tail` is contiguous and ends the log.

    `offset` is the place, `offset_timestamp` the timestamp of the entry just before the tail (0 if none).
    Every entry above `hard_state.commit` is in the tail. `last_command` is the place of the last command
    entry of the *whole* log (where it is compacted: the compaction point). The log begins behind `start`;
    `configurations` are its entries of that kind, in order, in the tail or before it. `suspicion` is why a
    synced tail of this log may be missing; empty: nothing is.
    """

    hard_state: HardState
    offset: Place
    offset_timestamp: Timestamp
    tail: tuple[Entry, ...]
    last_command: Place
    start: Cut = BEGINNING
    configurations: tuple[Entry, ...] = ()
    suspicion: str = ""


class Recovered(NamedTuple):
    """What a storage hands to the engine at start. `counter` is the last session counter used."""

    groups: tuple[RecoveredGroup, ...]
    counter: int


def empty_recovered(groups: int) -> Recovered:
    """A server that has never written anything."""
    blank = RecoveredGroup(HardState(0, None, 0), NOWHERE, 0, (), NOWHERE)
    return Recovered((blank,) * groups, 0)
