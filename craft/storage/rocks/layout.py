"""The keys and values of the log database, byte by byte (docs/reference/disk-format.md). Pure.

Invariants
- Keys are big-endian, so RocksDB's byte order is the order of groups and indexes.
- An entry's value is `Entry.record` itself, which carries its own checksum; every other value starts with a
  CRC-32 over its key and its body, so neither a changed nor a misplaced value is taken for good.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from craft.errors import DamagedStorage
from craft.recovery import RING_SLOTS
from craft.types import (
    TIMESTAMP_MAX,
    Cut,
    GroupId,
    HardState,
    Index,
    Place,
    ServerId,
    Term,
    pack_configuration,
    unpack_configuration,
)

_ENTRY = struct.Struct(">BHQ")
_HARD_STATE = struct.Struct(">BH")
_RING = struct.Struct(">BH")
_PEER = struct.Struct(">BI")
_START = struct.Struct(">BH")
_CUT = struct.Struct(">QQQQQ")  # term · index · timestamp · the configuration's term · its index
_NUMBER = struct.Struct(">Q")
_STATE = struct.Struct(">QQQQ")  # term · vote + 1, 0 for none · commit · batch of the ballot
_BALLOT = struct.Struct(">QQ")  # term · vote + 1, 0 for none

ENTRY, HARD_STATE, RING, COUNTER, PEER, IDENTITY, START, CONFIGURATION, SUSPICION = range(1, 10)

COUNTER_KEY = bytes([COUNTER])
IDENTITY_KEY = bytes([IDENTITY])
KIND_END = {kind: bytes([kind + 1]) for kind in range(ENTRY, SUSPICION + 1)}


class StoredState(NamedTuple):
    """A hard state as stored: with the batch in which its term or vote last changed."""

    hard_state: HardState
    ballot_batch: int


def entry_key(group: GroupId, index: Index) -> bytes:
    """The key of an entry."""
    return _ENTRY.pack(ENTRY, group, index)


def entry_index(key: bytes) -> Index:
    """The index in an entry's key."""
    index: int = _ENTRY.unpack(key)[2]
    return index


def entries_end(group: GroupId) -> bytes:
    """What follows every key of the group's entries."""
    return bytes([ENTRY]) + (group + 1).to_bytes(2, "big")


def configuration_key(group: GroupId, index: Index) -> bytes:
    """The key that marks an entry as a configuration, which is found then without reading the log."""
    return _ENTRY.pack(CONFIGURATION, group, index)


def start_key(group: GroupId) -> bytes:
    """The key of where a group's log begins."""
    return _START.pack(START, group)


def suspicion_key(group: GroupId) -> bytes:
    """The key of why a group's log may lack a synced tail."""
    return _HARD_STATE.pack(SUSPICION, group)


def hard_state_key(group: GroupId) -> bytes:
    """The key of a group's hard state."""
    return _HARD_STATE.pack(HARD_STATE, group)


def ring_key(number: int) -> bytes:
    """The key of a batch number's slot in the ring."""
    return _RING.pack(RING, number % RING_SLOTS)


def peer_key(server_id: ServerId) -> bytes:
    """The key of the disk id met under a server id."""
    return _PEER.pack(PEER, server_id)


def peer_of(key: bytes) -> ServerId:
    """The server id in a peer's key."""
    server_id: int = _PEER.unpack(key)[1]
    return server_id


def seal(key: bytes, body: bytes) -> bytes:
    """A value: the checksum of its key and body, then the body."""
    return zlib.crc32(body, zlib.crc32(key)).to_bytes(4, "big") + body


def unseal(key: bytes, value: bytes) -> bytes:
    """The body of a value; raises DamagedStorage if its checksum does not hold under this key."""
    if len(value) < 4 or seal(key, value[4:]) != value:
        raise DamagedStorage(f"the log database's value under key {key.hex()} is damaged")
    return value[4:]


def number_value(key: bytes, number: int) -> bytes:
    """The value of a batch number or of the counter."""
    return seal(key, _NUMBER.pack(number))


def number_of(key: bytes, value: bytes) -> int:
    """The number in such a value."""
    return int.from_bytes(unseal(key, value), "big")


def hard_state_value(key: bytes, hard_state: HardState, ballot_batch: int) -> bytes:
    """The value of a group's hard state, and of the batch in which its term or vote last changed."""
    term, vote, commit = hard_state
    return seal(key, _STATE.pack(term, 0 if vote is None else vote + 1, commit, ballot_batch))


def hard_state_of(key: bytes, value: bytes) -> StoredState:
    """The hard state in such a value."""
    term, vote, commit, batch = _STATE.unpack(unseal(key, value))
    return StoredState(HardState(term, vote - 1 if vote else None, commit), batch)


def start_value(key: bytes, cut: Cut) -> bytes:
    """The value of where a group's log begins."""
    fields = _CUT.pack(*cut.place, cut.timestamp, *cut.configuration_at)
    return seal(key, fields + pack_configuration(cut.configuration))


def start_of(key: bytes, value: bytes) -> Cut:
    """The cut in such a value."""
    body = unseal(key, value)
    try:
        term, index, timestamp, *configuration_at = _CUT.unpack_from(body)
        configuration = unpack_configuration(body[_CUT.size :])
    except (ValueError, struct.error) as error:
        raise DamagedStorage(
            f"the log database's value under key {key.hex()} is no start: {error}"
        ) from error
    if timestamp > TIMESTAMP_MAX:
        raise DamagedStorage(f"the log database's value under key {key.hex()} has timestamp {timestamp}")
    return Cut(Place(term, index), timestamp, configuration, Place(*configuration_at))


Ballots = tuple[tuple[Term, ServerId | None], ...]
"""Term and vote of each group, by group id."""


def ballots_size(groups: int) -> int:
    """Bytes that the second place of terms and votes needs."""
    return _BALLOT.size * groups


def pack_ballots(ballots: Ballots) -> bytes:
    """The second place's payload: 16 bytes a group."""
    return b"".join(_BALLOT.pack(term, 0 if vote is None else vote + 1) for term, vote in ballots)


def unpack_ballots(payload: bytes) -> Ballots:
    """The ballots in such a payload."""
    return tuple((term, vote - 1 if vote else None) for term, vote in _BALLOT.iter_unpack(payload))
