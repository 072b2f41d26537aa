"""Frames between servers: the table of messages, their fields, and both directions.

Invariants
- Whatever the bytes, `decode_frame` returns a frame whose every field is of its type and range, or raises
  `WireError` (`DamagedEntry` for a log record). Nothing else, so a wrong peer cannot reach an assert.
- An entry travels as the very record that its leader encoded, with its own checksum (PROTOCOL 10).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgpack

from craft.errors import InvariantViolation, WireError
from craft.messages import (
    AppendAccepted,
    AppendEntries,
    AppendRejected,
    CaughtUp,
    Cleared,
    Doubted,
    Fetch,
    FetchResult,
    Forward,
    ForwardRefused,
    Frame,
    GroupReport,
    Heartbeats,
    LeaderPersisted,
    Message,
    ReadQuery,
    ReadReport,
    RequestVote,
    RequestVoteResult,
    SnapshotChunk,
    SnapshotFetch,
    SnapshotInstalled,
    SnapshotOffer,
    SnapshotWanted,
    SuspectAccepted,
    Suspected,
    TimeoutNow,
)
from craft.types import (
    GROUPS_MAX,
    SERVERS_MAX,
    Configuration,
    Entry,
    EntryKind,
    Place,
    Proposal,
    SnapshotId,
    decode_entry,
    pack_configuration,
    unpack_configuration,
)
from craft.wire.fields import (
    Check,
    Wrong,
    a_flag,
    a_group,
    a_number,
    a_server,
    an_array,
    are_numbers,
    array_of,
    checked,
    commits,
    group_terms,
    group_terms_or_none,
    record_of,
    shown,
    some_bytes,
)
from craft.wire.framing import ITEMS_MAX, PREFIX_BYTES, Payload, framed, unpack

# The one table of codes. A code is never reused for another meaning.
CODES: dict[type[Any], int] = {
    RequestVote: 1,
    RequestVoteResult: 2,
    AppendEntries: 3,
    AppendAccepted: 4,
    AppendRejected: 5,
    TimeoutNow: 6,
    Heartbeats: 7,
    Fetch: 8,
    FetchResult: 9,
    Forward: 10,
    ForwardRefused: 11,
    ReadQuery: 12,
    ReadReport: 13,
    LeaderPersisted: 14,
    SnapshotWanted: 15,
    SnapshotOffer: 16,
    SnapshotFetch: 17,
    SnapshotChunk: 18,
    SnapshotInstalled: 19,
    SuspectAccepted: 21,
    Suspected: 22,
    Cleared: 23,
    Doubted: 24,
    CaughtUp: 20,
}

_place = record_of(Place, a_number, a_number)


def _configuration(value: Any, groups: int) -> Configuration:
    packed = some_bytes(value, groups)
    try:
        return unpack_configuration(packed)
    except ValueError as error:
        raise Wrong(packed, f"a configuration: {error}") from error


_report = record_of(GroupReport, _place, _place, _place, _configuration, a_flag)
_proposal = record_of(Proposal, a_server, a_number, a_number, a_number, a_number, some_bytes)
_snapshot = record_of(SnapshotId, a_number, a_number)
_records = array_of(some_bytes, ITEMS_MAX)


def _reports(value: Any, groups: int) -> tuple[GroupReport, ...]:
    reports: tuple[GroupReport, ...] = array_of(_report, groups)(value, groups)
    return reports


def _groups_servers(value: Any, groups: int) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Pairs (group, servers)."""
    pairs = []
    for at, pair in enumerate(an_array(value, groups)):
        if type(pair) is not tuple or len(pair) != 2:
            raise Wrong(pair, "(group, servers)", f"[{at}]")
        pairs.append((a_group(pair[0], groups), _some_servers(pair[1], groups)))
    return tuple(pairs)


_some_servers = array_of(a_server, SERVERS_MAX)


def _indexes(value: Any, groups: int) -> tuple[int, ...]:
    indexes: tuple[int, ...] = array_of(a_number, groups)(value, groups)
    return indexes


# What each field must be, in the order of the message's own fields.
_CHECKS: dict[type[Any], tuple[Check, ...]] = {
    RequestVote: (a_group, a_number, a_number, a_number, a_flag, a_flag),
    RequestVoteResult: (a_group, a_number, a_flag, a_flag, a_flag),
    AppendEntries: (a_group, a_number, a_number, a_number, a_number, _records),
    AppendAccepted: (a_group, a_number, a_number, a_number),
    AppendRejected: (a_group, a_number, a_number, a_number, a_number),
    TimeoutNow: (a_group, a_number, a_number),
    Heartbeats: (a_number, group_terms_or_none, a_number, group_terms),
    Fetch: (a_group, a_number),
    FetchResult: (a_group, _records),
    Forward: (a_group, array_of(_proposal, ITEMS_MAX)),
    ForwardRefused: (a_group, a_number, array_of(a_number, ITEMS_MAX)),
    ReadQuery: (a_number,),
    ReadReport: (a_number, _reports),
    LeaderPersisted: (a_group, a_number, a_number),
    SnapshotWanted: (a_number, a_number),
    SnapshotOffer: (_snapshot, a_number, _indexes),
    SnapshotFetch: (_snapshot, a_number, a_number),
    SnapshotChunk: (_snapshot, a_number, a_number, some_bytes),
    SnapshotInstalled: (a_number,),
    SuspectAccepted: (a_group, a_number, a_number, a_number, a_number),
    Suspected: (a_group, a_number, a_number),
    Cleared: (a_group, a_number, a_number, a_number),
    Doubted: (a_group, a_number, a_number, a_number),
    CaughtUp: (_groups_servers,),
}

# -- decoding -------------------------------------------------------------------------------------


def _decode_entries(
    name: str, group: int, records: Sequence[bytes], before: Place | None
) -> tuple[Entry, ...]:
    """Every record by its own checksum, and all of them as a run of one log.

    Raft 5.3 appends them behind `before` without a gap, and stamps rise (PROTOCOL 2). The core asserts both,
    and a wrong peer must not reach an assert.
    """
    entries = tuple([decode_entry(group, record) for record in records])
    if not entries:
        return entries
    last_term, last_index = (0, entries[0].index - 1) if before is None else before
    last_timestamp = -1
    for at, (index, term, timestamp, kind, _) in enumerate(entries):
        if not (index == last_index + 1 and term >= last_term and timestamp > last_timestamp):
            raise WireError(
                f"{name}.entries[{at}] has (index, term, timestamp) {(index, term, timestamp)}; allowed is"
                f" index {last_index + 1}, term {last_term} or more, timestamp above {last_timestamp}"
            )
        if kind is EntryKind.CONFIGURATION:  # the log will read it, as soon as it is appended
            _check_configuration(f"{name}.entries[{at}]", entries[at])
        last_term, last_index, last_timestamp = term, index, timestamp
    return entries


def _check_configuration(where: str, entry: Entry) -> None:
    try:
        unpack_configuration(entry.payload)
    except ValueError as error:
        raise WireError(f"{where} holds no configuration: {error}") from error


def _finish_append_entries(fields: Sequence[Any]) -> AppendEntries:
    group, term, prev_index, prev_term, commit_index, records = fields
    entries = _decode_entries("AppendEntries", group, records, Place(prev_term, prev_index))
    if entries and entries[-1].term > term:
        raise WireError(
            f"AppendEntries.entries reach term {entries[-1].term}; allowed is its own term {term}"
        )
    return AppendEntries(group, term, prev_index, prev_term, commit_index, entries)


def _finish_fetch_result(fields: Sequence[Any]) -> FetchResult:
    group, records = fields
    return FetchResult(group, _decode_entries("FetchResult", group, records, None))


_FINISH: dict[type[Any], Callable[[Sequence[Any]], Message]] = {
    AppendEntries: _finish_append_entries,
    FetchResult: _finish_fetch_result,
}


class _Kind(NamedTuple):
    """All that decoding needs to know of one message type."""

    name: str
    names: tuple[str, ...]
    checks: tuple[Check, ...]
    finish: Callable[[Sequence[Any]], Message]
    numbers: int  # a message of a group and so many numbers less one; -1: of anything else


def _kind(message_type: Any) -> _Kind:
    checks, names = _CHECKS[message_type], message_type._fields
    assert len(checks) == len(names), message_type
    numbers = len(checks) if checks == (a_group, *[a_number] * (len(checks) - 1)) else -1
    return _Kind(message_type.__name__, names, checks, _FINISH.get(message_type, message_type._make), numbers)


_KINDS = {code: _kind(message_type) for message_type, code in CODES.items()}


def _decode_message(value: Any, groups: int) -> Message:
    code = value[0] if type(value) is tuple and value else None
    kind = _KINDS.get(code) if type(code) is int else None
    if kind is None:
        allowed = f"an array that begins with a code 1 … {max(_KINDS)}"
        raise WireError(f"a message is {shown(value)}; allowed is {allowed}")
    fields = value[1:]
    if len(fields) == kind.numbers and are_numbers(fields) and fields[0] < groups:
        return kind.finish(fields)
    try:
        fields = checked(kind.names, kind.checks, fields, groups)
    except Wrong as wrong:
        raise wrong.named(kind.name) from None
    return kind.finish(fields)


def _decode_messages(value: Any, groups: int) -> tuple[Message, ...]:
    return tuple([_decode_message(item, groups) for item in an_array(value, ITEMS_MAX)])


_links = array_of(a_server, SERVERS_MAX)
_FRAME_NUMBERS = 5
_FRAME_CHECKS: tuple[Check, ...] = (*[a_number] * _FRAME_NUMBERS, _links, commits, _decode_messages)


def _decode_fields(value: Any, groups: int) -> Frame:
    if type(value) is tuple and len(value) == len(_FRAME_CHECKS) and are_numbers(value[:_FRAME_NUMBERS]):
        clock, sent, echo, held, demand, links, known, messages = value
        try:
            links, known = _links(links, groups), commits(known, groups)
            return Frame(clock, sent, echo, held, demand, links, known, _decode_messages(messages, groups))
        except Wrong:
            pass  # the long way names the field
    return Frame._make(checked(Frame._fields, _FRAME_CHECKS, value, groups))


def decode_frame(payload: Payload, *, groups: int = GROUPS_MAX) -> Frame:
    """A peer's frame from its payload, every field checked; `groups` is how many groups the cluster has.

    Raises WireError, which names message, field, value and what is allowed, or DamagedEntry.
    """
    items_max = min(ITEMS_MAX, len(payload))
    value = unpack("a frame", payload, max_array_len=items_max, max_map_len=0, max_str_len=0)
    try:
        return _decode_fields(value, groups)
    except Wrong as wrong:
        raise wrong.named("Frame") from None


# -- encoding -------------------------------------------------------------------------------------


def _pack_plain(message: Any) -> tuple[Any, ...]:
    return (CODES[type(message)], *message)


def _pack_records(message: Any) -> tuple[Any, ...]:
    return (CODES[type(message)], *message[:-1], [entry.record for entry in message.entries])


def _pack_report(message: ReadReport) -> tuple[Any, ...]:
    reports = [
        report._replace(configuration=pack_configuration(report.configuration))  # type: ignore[arg-type]
        for report in message.groups
    ]
    return (CODES[ReadReport], message.round, reports)


_PACK: dict[type[Any], Callable[[Any], tuple[Any, ...]]] = {
    AppendEntries: _pack_records,
    FetchResult: _pack_records,
    ReadReport: _pack_report,
}


def encode_frame(frame: Frame) -> bytes:
    """A frame as it goes onto the wire, prefix included. Entries go as the records they already are."""
    messages = [_PACK.get(type(message), _pack_plain)(message) for message in frame.messages]
    return framed(msgpack.packb((*frame[:-1], messages)))


def encode_frames(frame: Frame, frame_bytes_max: int) -> list[bytes]:
    """As `encode_frame`, in as many frames as it takes for each payload to keep the limit.

    Each repeats the header, and their messages keep their order.

    Raises InvariantViolation where one message alone exceeds it: no peer would ever take that one.
    """
    encoded = encode_frame(frame)
    size = len(encoded) - PREFIX_BYTES
    if size <= frame_bytes_max:
        return [encoded]
    parts = _parts(frame.messages)
    if len(parts) < 2:
        name = type(frame.messages[0]).__name__ if frame.messages else "header"
        raise InvariantViolation(f"one {name} makes a frame of {size} bytes; allowed are {frame_bytes_max}")
    frames = (frame._replace(messages=part) for part in parts)
    return [one for part in frames for one in encode_frames(part, frame_bytes_max)]


def _parts(messages: tuple[Message, ...]) -> list[tuple[Message, ...]]:
    """The two halves, which mean the same in this order; fewer where nothing can be divided."""
    if len(messages) > 1:
        middle = len(messages) // 2
        return [messages[:middle], messages[middle:]]
    return [
        (Forward(message.group, half),)
        for message in messages
        if isinstance(message, Forward)
        for half in _proposal_halves(message.proposals)
    ]


def _proposal_halves(proposals: tuple[Proposal, ...]) -> list[tuple[Proposal, ...]]:
    middle = len(proposals) // 2
    return [half for half in (proposals[:middle], proposals[middle:]) if half]


def is_urgent(frame: Frame) -> bool:
    """May this frame overtake others? Only heartbeats may, and a bare header (PROTOCOL 11)."""
    return all(type(message) is Heartbeats for message in frame.messages)
