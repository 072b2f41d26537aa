"""The wire codec: what goes in comes out, and whatever else arrives is refused with a reason."""

from __future__ import annotations

import itertools
import zlib
from typing import Any, get_args

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from craft.errors import DamagedEntry, InvariantViolation, RemoteError, WireError
from craft.messages import (
    AppendAccepted,
    AppendEntries,
    FetchResult,
    Forward,
    Frame,
    Heartbeats,
    Message,
    ReadReport,
    TimeoutNow,
)
from craft.types import Configuration, EntryKind, Proposal, make_entry, pack_configuration
from craft.wire import (
    CODES,
    MAGIC,
    PREFIX_BYTES,
    PROTOCOL_VERSION,
    Decoder,
    Hello,
    Refusal,
    Welcome,
    decode_answer,
    decode_frame,
    decode_hello,
    decode_message,
    encode_answer,
    encode_frame,
    encode_frames,
    encode_hello,
    encode_message,
    is_urgent,
    refusal,
)
from tests import strategies

FRAME_BYTES_MAX = 1 << 20
ENTRY = make_entry(3, index=8, term=4, timestamp=100, kind=EntryKind.COMMAND, payload=b"commands")
NEXT = make_entry(3, index=9, term=5, timestamp=101, kind=EntryKind.EMPTY)
HEARTBEATS = Heartbeats(1, ((0, 7), (1, 9)), 2, ())
SAMPLE = Frame(
    1_700_000_000_000_000_000,
    5,
    4,
    3,
    0,
    (1, 2),
    ((3, 7, 4),),
    (AppendEntries(3, 6, 7, 4, 7, (ENTRY, NEXT)), AppendAccepted(2, 6, 9, 10), HEARTBEATS),
)
HELLO = Hello(MAGIC, PROTOCOL_VERSION, "peer", "shop", 1, "a" * 32, 21, b"n" * 16)
WELCOME = Welcome(MAGIC, PROTOCOL_VERSION, "shop", 2, "b" * 32, 21, b"n" * 16)


def frame_of(*messages: Message) -> Frame:
    return SAMPLE._replace(messages=messages)


def payloads(data: bytes, frame_bytes_max: int = FRAME_BYTES_MAX) -> list[bytes]:
    decoder = Decoder(frame_bytes_max)
    decoder.feed(data)
    return [bytes(payload) for payload in decoder]


def framed(payload: bytes) -> bytes:
    """The framing as the reference states it, written independently of the codec."""
    length = len(payload).to_bytes(4, "big")
    return length + zlib.crc32(length + payload).to_bytes(4, "big") + payload


def packed(frame: Frame) -> list[Any]:
    """A frame's msgpack value as lists, to be spoilt."""
    value: list[Any] = msgpack.unpackb(payloads(encode_frame(frame))[0])
    return value


def wrong(value: object) -> str:
    """The message of the error that decoding this value raises."""
    with pytest.raises(WireError) as caught:
        decode_frame(msgpack.packb(value), groups=21)
    return str(caught.value)


# -- framing --------------------------------------------------------------------------------------


def test_a_frame_is_length_checksum_payload() -> None:
    """The framing is exactly what the reference page says."""
    data = encode_message([1, b"two"])
    assert data == framed(msgpack.packb([1, b"two"]))
    assert len(data) - len(payloads(data)[0]) == PREFIX_BYTES == 8


@given(st.lists(st.binary(max_size=60), max_size=6), st.data())
def test_pieces_of_any_size_give_the_same_payloads(contents: list[bytes], data: st.DataObject) -> None:
    """TCP keeps no boundaries, so the decoder must not depend on any."""
    stream = b"".join(framed(content) for content in contents)
    decoder, found, at = Decoder(100), [], 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        decoder.feed(stream[at : at + size])
        if data.draw(st.booleans()):  # a caller may also feed twice before it takes
            found += [bytes(payload) for payload in decoder]
        at += size
    found += [bytes(payload) for payload in decoder]
    assert found == contents
    assert decoder.pending == 0


def test_byte_by_byte() -> None:
    """The smallest pieces there are give the frame with its last byte and not before."""
    decoder, data = Decoder(FRAME_BYTES_MAX), encode_frame(SAMPLE) * 2
    seen = []
    for at in range(len(data)):
        decoder.feed(data[at : at + 1])
        seen += [(at, decode_frame(payload)) for payload in decoder]
    assert seen == [(len(data) // 2 - 1, SAMPLE), (len(data) - 1, SAMPLE)]


def test_payloads_stay_valid_while_more_is_fed() -> None:
    """A payload is a view; feeding on must neither change it nor fail because it is held."""
    decoder = Decoder(FRAME_BYTES_MAX)
    first, second = framed(b"a" * 1000), framed(b"b" * 1000)
    decoder.feed(first[:500])
    assert decoder.next_payload() is None
    decoder.feed(first[500:] + second[:700])
    (held,) = decoder
    decoder.feed(second[700:])
    assert [bytes(held), *map(bytes, decoder)] == [b"a" * 1000, b"b" * 1000]


def test_an_over_long_claim_is_refused_before_anything_is_buffered() -> None:
    """Four bytes are enough to refuse; a claim of 4 GiB costs nothing."""
    decoder = Decoder(1000)
    decoder.feed((1001).to_bytes(4, "big"))
    with pytest.raises(WireError, match="a frame claims 1001 bytes; allowed are 1000"):
        decoder.next_payload()
    assert decoder.pending == 0


def test_a_frame_of_exactly_the_limit_passes() -> None:
    """The limit itself is allowed."""
    assert payloads(framed(b"x" * 1000), 1000) == [b"x" * 1000]


def test_frames_before_a_bad_one_are_delivered_and_nothing_after() -> None:
    """What was checked is good; behind the damage nothing can be trusted."""
    decoder = Decoder(1000)
    decoder.feed(framed(b"good") + b"\xff" * 8 + framed(b"never"))
    assert bytes(decoder.next_payload() or b"") == b"good"
    for _ in range(2):
        with pytest.raises(WireError):
            decoder.next_payload()


def test_every_single_byte_corruption_is_noticed() -> None:
    """A damaged byte anywhere is an error or a frame that never completes; never another value."""
    data = encode_frame(SAMPLE)
    for at, flip in itertools.product(range(len(data)), (0x01, 0x10, 0x80, 0xFF)):
        damaged = data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
        try:
            assert payloads(damaged) == []  # a longer claim within the limit waits for more
        except WireError:
            continue
        assert at < 4, f"byte {at} was damaged and not noticed"


def test_every_truncation_is_incomplete() -> None:
    """A cut stream gives nothing, and says that something is missing."""
    data = encode_frame(SAMPLE)
    for size in range(1, len(data)):
        decoder = Decoder(FRAME_BYTES_MAX)
        decoder.feed(data[:size])
        assert decoder.next_payload() is None
        assert decoder.pending == size


# -- frames ---------------------------------------------------------------------------------------


def test_the_table_knows_every_message() -> None:
    """A new message cannot be forgotten here, nor in the strategies, and no code has two meanings."""
    assert set(CODES) == set(get_args(Message)) == set(strategies.BY_TYPE)
    assert len(set(CODES.values())) == len(CODES)


@given(strategies.frames)
def test_frames_round_trip(frame: Frame) -> None:
    """Every frame that a server can send arrives as it was sent."""
    (payload,) = payloads(encode_frame(frame))
    assert decode_frame(payload) == frame


@pytest.mark.parametrize("message_type", strategies.BY_TYPE, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_every_message_round_trips(message_type: type[Message], data: st.DataObject) -> None:
    """Each message by itself, so that none is missed by chance; and it comes back as its own class."""
    frame = frame_of(data.draw(strategies.BY_TYPE[message_type]))
    (payload,) = payloads(encode_frame(frame))
    decoded = decode_frame(payload)
    assert decoded == frame
    assert type(decoded.messages[0]) is message_type


@given(st.binary(max_size=200))
def test_arbitrary_payloads_raise_only_remote_errors(payload: bytes) -> None:
    """Whatever the bytes, nothing but the other side's error leaves the codec."""
    for decode in (decode_frame, decode_hello, decode_answer, decode_message):
        try:
            decode(payload)
        except RemoteError:
            continue


@given(strategies.plain_values)
def test_arbitrary_values_raise_only_remote_errors(value: object) -> None:
    """Well-formed msgpack of any shape gets past the unpacker and must fail in the checks."""
    with pytest.raises(RemoteError):
        decode_frame(msgpack.packb(value))


@given(strategies.frames, st.data())
def test_a_spoilt_value_in_any_place_raises_only_remote_errors(frame: Frame, data: st.DataObject) -> None:
    """A frame of a wrong peer: the right shape, one value replaced, at any depth."""
    value = packed(frame)
    place: list[Any] = value
    while True:
        at = data.draw(st.integers(0, len(place) - 1))
        if not (isinstance(place[at], list) and place[at] and data.draw(st.booleans())):
            break
        place = place[at]
    place[at] = data.draw(strategies.plain_values)
    try:
        decoded = decode_frame(msgpack.packb(value))
    except RemoteError:
        return
    # Then it was a value that is allowed there, and nothing else was made of it.
    assert packed(decoded) == msgpack.unpackb(msgpack.packb(value))


@given(strategies.frames, st.data())
def test_every_truncated_payload_is_refused(frame: Frame, data: st.DataObject) -> None:
    """Even with a right checksum, half a value is no value."""
    (payload,) = payloads(encode_frame(frame))
    with pytest.raises(RemoteError):
        decode_frame(payload[: data.draw(st.integers(0, len(payload) - 1))])


@pytest.mark.parametrize("depth", [10, 500, 1023, 5000])
def test_deep_nesting_is_refused(depth: int) -> None:
    """Nesting neither exhausts the stack nor the memory, also while the error is worded."""
    for opening in (b"\x91", b"\x97", b"\xdd\x00\x01\x00\x00"):
        with pytest.raises(WireError):
            decode_frame(opening * depth + b"\x01" * 10)
        with pytest.raises(WireError):
            decode_frame(b"\x98" + b"\x91" * depth + b"\x01" * 7)


def spoilt(message: Message, path: tuple[int, ...], value: object) -> list[Any]:
    """`message` in a frame, with the value at `path` (fields count from 1, as the code is first) replaced."""
    frame = packed(frame_of(message))
    place = frame[7][0]
    for at in path[:-1]:
        place = place[at]
    place[path[-1]] = value
    return frame


ACCEPTED = AppendAccepted(2, 6, 9, 10)
PROPOSAL = Proposal(1, 2, 3, 4, 5, b"body")


@pytest.mark.parametrize(
    ("message", "path", "value", "expected"),
    [
        (ACCEPTED, (1,), 21, "AppendAccepted.group is 21; allowed is a group 0 … 20"),
        (ACCEPTED, (2,), -1, "AppendAccepted.term is -1; allowed is an integer 0 … 2**63-1"),
        (ACCEPTED, (3,), True, "AppendAccepted.match_index is True; allowed is an integer"),
        (ACCEPTED, (4,), 2**63, "AppendAccepted.verified_index is 9223372036854775808; allowed is"),
        (ACCEPTED, (4,), 1.0, "AppendAccepted.verified_index is 1.0; allowed is an integer"),
        (HEARTBEATS, (2, 1), [1], "Heartbeats.leads[1] is (1,); allowed is (group 0 … 20, term 0"),
        (HEARTBEATS, (2, 0, 0), 21, "Heartbeats.leads[0] is (21, 7); allowed is (group 0 … 20"),
        (HEARTBEATS, (4,), None, "Heartbeats.refused is None; allowed is an array"),
        (Forward(1, (PROPOSAL,)), (2, 0, 4), -5, "Forward.proposals[0].answered_timestamp is -5; allowed"),
        (Forward(1, (PROPOSAL,)), (2, 0, 0), 2**32, "Forward.proposals[0].server_id is 4294967296;"),
        (Forward(1, (PROPOSAL,)), (2, 0, 5), 1, "Forward.proposals[0].body is 1; allowed is bytes"),
        (Forward(1, (PROPOSAL,)), (2, 0), [1], "Forward.proposals[0] is (1,); allowed is an array of 6 ("),
        (ReadReport(1, ()), (2,), [[]] * 22, "ReadReport.groups is ((), (), (), (), (), (), ...); allowed"),
        (TimeoutNow(1, 2), (0,), 99, "a message is (99, 1, 2, 0); allowed is an array that begins with"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(
    message: Message, path: tuple[int, ...], value: object, expected: str
) -> None:
    """The error names message, field, value and what is allowed, so that the other side can be mended."""
    assert wrong(spoilt(message, path, value)).startswith(expected)


@pytest.mark.parametrize("code", sorted(CODES.values()))
def test_a_message_without_any_field_is_refused(code: int) -> None:
    """Whatever its fields would be."""
    frame = packed(frame_of())
    frame[7] = [[code]]
    assert "is (); allowed is an array of" in wrong(frame)


def test_a_wrong_header_is_named() -> None:
    """The frame's own fields are checked like a message's."""
    for at, value, expected in [
        (0, 2**63, "Frame.clock is 9223372036854775808; allowed is"),
        (3, -1, "Frame.held is -1; allowed is"),
        (4, False, "Frame.demand is False; allowed is"),
        (5, [-1], "Frame.links[0] is -1; allowed is a server id"),
        (6, [[0, 1]], "Frame.commits[0] is (0, 1); allowed is (group"),
        (6, [[0, 1, 1]] * 22, "Frame.commits is"),
        (7, 7, "Frame.messages is 7; allowed is an array"),
    ]:
        value_with = packed(SAMPLE)
        value_with[at] = value
        assert wrong(value_with).startswith(expected)


def test_a_configuration_is_sorted_sets() -> None:
    """Equal configurations are equal bytes, so doubles, disorder and leftovers are refused."""
    right = pack_configuration(Configuration(frozenset({1, 2}), disks=((1, "ab"), (2, "cd"))))
    swapped = right[:16] + right[20:24] + right[16:20] + right[24:]
    twice = right[:20] + right[16:20] + right[24:]
    for packed_configuration in (swapped, twice, right + b"\0", right[:-1], right[:7], b""):
        frame = packed(frame_of())
        frame[7] = [[CODES[ReadReport], 5, [[[1, 1], [1, 1], [1, 1], packed_configuration, False]]]]
        assert "ReadReport.groups[0].configuration is b" in wrong(frame)
        assert "allowed is a configuration" in wrong(frame)


def test_a_configuration_with_a_disk_that_nobody_could_name_is_refused() -> None:
    """No text that is written longer than it was read: packing it again to compare would be our own fault."""
    right = pack_configuration(Configuration(frozenset({1}), disks=((1, "d" * 255),)))
    frame = packed(frame_of())
    frame[7] = [[CODES[ReadReport], 5, [[[1, 1], [1, 1], [1, 1], right[:-255] + b"\xff" * 255, False]]]]
    assert "allowed is a configuration" in wrong(frame)


# -- entries --------------------------------------------------------------------------------------


def test_a_damaged_record_is_refused() -> None:
    """A record carries its leader's checksum, which damage before the frame was made cannot pass."""
    record = bytearray(ENTRY.record)
    record[-1] ^= 1
    with pytest.raises(DamagedEntry, match="checksum"):
        decode_frame(msgpack.packb(spoilt(SAMPLE.messages[0], (6, 0), bytes(record))))


def test_a_record_of_another_group_is_refused() -> None:
    """Entries cannot stray into another group's log."""
    with pytest.raises(DamagedEntry, match="belongs to group 3, not to group 4"):
        decode_frame(msgpack.packb(spoilt(SAMPLE.messages[0], (1,), 4)))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"prev_index": 6}, "entries[0] has (index, term, timestamp) (8, 4, 100); allowed is index 7"),
        ({"prev_term": 5}, "entries[0] has (index, term, timestamp) (8, 4, 100); allowed is index 8, t"),
        ({"entries": (ENTRY, ENTRY)}, "entries[1] has (index, term, timestamp) (8, 4, 100); allowed"),
        ({"term": 4}, "entries reach term 5; allowed is its own term 4"),
    ],
)  # fmt: skip
def test_entries_are_a_run_of_one_log(changed: dict[str, Any], expected: str) -> None:
    """The core asserts contiguity and rising terms and stamps; a wrong peer must not reach an assert."""
    message = AppendEntries(3, 6, 7, 4, 7, (ENTRY, NEXT))._replace(**changed)
    assert wrong(packed(frame_of(message))).startswith(f"AppendEntries.{expected}")


def test_stamps_in_a_run_must_rise() -> None:
    """Stamps rise strictly along a log (PROTOCOL 2)."""
    same = make_entry(3, index=9, term=5, timestamp=100, kind=EntryKind.EMPTY)
    assert "timestamp above 100" in wrong(packed(frame_of(AppendEntries(3, 6, 7, 4, 7, (ENTRY, same)))))


def test_a_configuration_entry_holds_a_configuration() -> None:
    """A log reads it as soon as it is appended: what its leader has packed wrongly is the leader's fault."""
    entry = make_entry(3, index=8, term=4, timestamp=100, kind=EntryKind.CONFIGURATION, payload=b"none")
    for message in (AppendEntries(3, 6, 7, 4, 7, (entry,)), FetchResult(3, (entry,))):
        assert ".entries[0] holds no configuration" in wrong(packed(frame_of(message)))


# -- sizes and urgency ----------------------------------------------------------------------------


def test_a_turn_beyond_the_limit_becomes_several_frames() -> None:
    """Each frame keeps the limit and repeats the header; the messages keep their order."""
    forward = Forward(1, tuple(PROPOSAL._replace(request=n, body=b"b" * 300) for n in range(8)))
    frame = frame_of(forward, ACCEPTED, HEARTBEATS)
    parts = [decode_frame(payload) for one in encode_frames(frame, 1000) for payload in payloads(one, 1000)]
    assert len(parts) > 3
    assert all(part._replace(messages=()) == frame._replace(messages=()) for part in parts)
    messages = [message for part in parts for message in part.messages]
    assert messages[-2:] == [ACCEPTED, HEARTBEATS]
    proposals = [
        one for message in messages[:-2] if isinstance(message, Forward) for one in message.proposals
    ]
    assert tuple(proposals) == forward.proposals


def test_a_message_that_no_frame_can_hold_is_our_own_fault() -> None:
    """No peer would ever take it; the limits are inconsistent, and to go on would stall in silence."""
    with pytest.raises(
        InvariantViolation, match=r"one AppendEntries makes a frame of \d+ bytes; allowed are 100"
    ):
        encode_frames(frame_of(AppendEntries(3, 6, 7, 4, 7, (ENTRY, NEXT))), 100)


def test_only_heartbeats_and_bare_headers_are_urgent() -> None:
    """Anything else must keep its order."""
    assert is_urgent(frame_of())
    assert is_urgent(frame_of(HEARTBEATS))
    assert not is_urgent(frame_of(HEARTBEATS, ACCEPTED))


# -- handshake ------------------------------------------------------------------------------------


def test_the_handshake_round_trips() -> None:
    """Hello, Welcome and Refusal arrive as they were said."""
    for hello in (HELLO, HELLO._replace(client_address="a.example:8001")):
        assert decode_hello(payloads(encode_hello(hello))[0]) == hello
    for answer in (WELCOME, Refusal("no")):
        assert decode_answer(payloads(encode_answer(answer))[0]) == answer


def test_a_client_needs_no_identity() -> None:
    """A client has no server id, disk or groups; a peer must have them."""
    client = HELLO._replace(role="client", server_id=0, disk_id="", groups=0)
    assert decode_hello(payloads(encode_hello(client))[0]) == client
    with pytest.raises(WireError, match="lacks its disk id"):
        decode_hello(payloads(encode_hello(client._replace(role="peer")))[0])


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"magic": b"raft!"}, "Hello.magic is b'raft!'; allowed is b'craft'"),
        ({"role": "boss"}, "Hello.role is 'boss'; allowed is 'peer' or 'client'"),
        ({"cluster_id": "a\nb"}, "Hello.cluster_id is 'a\\nb'; allowed is 1 to 128 printable characters"),
        ({"cluster_id": "c" * 129}, "Hello.cluster_id is"),
        ({"server_id": -1}, "Hello.server_id is -1; allowed is a server id"),
        (
            {"disk_id": "A" * 32},
            f"Hello.disk_id is '{'A' * 32}'; allowed is 32 lower-case hexadecimal digits",
        ),
        ({"groups": 5000}, "Hello.groups is 5000; allowed is 0 … 4096 groups"),
        ({"nonce": b"n"}, "Hello.nonce is b'n'; allowed is 16 bytes"),
        ({"client_address": "a\n:1"}, "Hello.client_address is 'a\\n:1'; allowed is 1 to 262 printable"),
        ({"client_address": "a" * 263}, "Hello.client_address is"),
        ({"client_address": b"a:1"}, "Hello.client_address is b'a:1'; allowed is"),
    ],
)
def test_a_wrong_hello_is_named(changed: dict[str, Any], expected: str) -> None:
    """Strangers get the same care as peers."""
    with pytest.raises(WireError) as caught:
        decode_hello(payloads(encode_hello(HELLO._replace(**changed)))[0])
    assert str(caught.value).startswith(expected)


def test_a_reason_is_made_fit_to_travel() -> None:
    """A reason quotes what the other side said, and ends up in its log."""
    answer = decode_answer(payloads(encode_answer(Refusal("bad\nid " + "x" * 1000)))[0])
    assert isinstance(answer, Refusal)
    assert answer.reason.startswith("bad?id xxx")
    assert len(answer.reason) == 500


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, None),
        ({"protocol_version": 2}, "another protocol version: theirs is 2, ours is 1"),
        ({"cluster_id": "bank"}, "another cluster: theirs is 'bank', ours is 'shop'"),
        ({"groups": 3}, "another number of groups: theirs is 3, ours is 21"),
        ({"server_id": 2}, "own id: both say that they are server 2"),
        (
            {"server_id": 9},
            "unknown server id: theirs is 9, known are [1, 3]; to let it come: craft members add 9 ADDRESS",
        ),
        ({"disk_id": "d" * 32}, "another disk under server id 1"),
    ],
)
def test_a_refusal_names_what_differs(changed: dict[str, Any], expected: str | None) -> None:
    """One sentence says which of the facts is wrong, and both values."""

    def known_disk(server_id: int, disk_id: str) -> str | None:
        return None if disk_id == "a" * 32 else f"another disk under server id {server_id}"

    ours, theirs = HELLO._replace(server_id=2), HELLO._replace(**changed)
    assert refusal(ours, theirs, peers=[1, 3], known_disk=known_disk) == expected


# -- clients --------------------------------------------------------------------------------------


@given(strategies.plain_values)
def test_plain_values_round_trip(value: object) -> None:
    """Clients and servers exchange plain values in the same framing."""
    (payload,) = payloads(encode_message(value))
    assert decode_message(payload) == value


def test_a_clients_array_is_bounded() -> None:
    """A short message cannot reserve much memory."""
    with pytest.raises(WireError, match="exceeds max_array_len"):
        decode_message(payloads(encode_message([0] * 11))[0], items_max=10)
