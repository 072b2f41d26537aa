"""The file format of snapshots: what goes in comes out, and nothing that is damaged does."""

from __future__ import annotations

import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from craft import snapshots
from craft.errors import DamagedSnapshot
from craft.snapshots import BLOCK_BYTES_MAX, MAGIC, Decoder, encode, pack_head, unpack_head
from craft.types import (
    BEGINNING,
    Configuration,
    Cut,
    Head,
    Place,
    SnapshotKind,
    SnapshotPart,
)

ENGINE, RESULTS, MACHINE = SnapshotKind
CUT = Cut(Place(3, 17), 1_700, Configuration(frozenset({1, 2, 3}), disks=((2, "d" * 32),)), Place(2, 4))
HEAD = Head("orders", 41, 1_700, b"d" * 16, (CUT, BEGINNING))
PARTS = (
    SnapshotPart(ENGINE, b"sessions"),
    SnapshotPart(MACHINE, b""),
    SnapshotPart(MACHINE, bytes(range(256)) * 3),
    SnapshotPart(RESULTS, b"answers"),
)


def file_of(*parts: SnapshotPart, head: Head = HEAD) -> bytes:
    return b"".join(encode(head, parts))


def read(data: bytes, *, step: int = 10**9) -> tuple[Head, tuple[SnapshotPart, ...]]:
    decoder = Decoder()
    parts: list[SnapshotPart] = []
    for at in range(0, len(data), step):
        parts += decoder.feed(data[at : at + step])
    return decoder.finish(), tuple(parts)


@pytest.mark.parametrize("step", [1, 7, 100, 10**9])
def test_what_goes_in_comes_out(step: int) -> None:
    """In order, in the same pieces, however the bytes arrive."""
    assert read(file_of(*PARTS), step=step) == (HEAD, PARTS)


@pytest.mark.parametrize("extra", [-1, 0, 1, BLOCK_BYTES_MAX, 2 * BLOCK_BYTES_MAX + 5])
def test_a_large_part_is_split_and_joined_again(extra: int) -> None:
    """Blocks are bounded, parts are what the writer made them."""
    data = random.Random(extra).randbytes(BLOCK_BYTES_MAX + extra)
    parts = (SnapshotPart(MACHINE, data), SnapshotPart(MACHINE, b"next"))
    encoded = list(encode(HEAD, parts))
    assert max(map(len, encoded)) <= BLOCK_BYTES_MAX + snapshots.BLOCK_HEADER_BYTES
    assert read(b"".join(encoded), step=100_000) == (HEAD, parts)


def test_too_large_a_part_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the writer, who is told; and by a reader, whatever the file claims."""
    data = file_of(SnapshotPart(MACHINE, bytes(2 * BLOCK_BYTES_MAX)))
    monkeypatch.setattr(snapshots, "PART_BYTES_MAX", BLOCK_BYTES_MAX)
    with pytest.raises(ValueError, match="of kind MACHINE has 262145 bytes; allowed are 262144"):
        file_of(SnapshotPart(MACHINE, bytes(BLOCK_BYTES_MAX + 1)))
    with pytest.raises(DamagedSnapshot, match="a part has more than"):
        read(data)


def test_every_truncation_is_noticed() -> None:
    """Only the end block says that a file is whole."""
    data = file_of(*PARTS)
    for size in range(len(data)):
        with pytest.raises(DamagedSnapshot):
            read(data[:size])


def test_every_flipped_bit_is_noticed() -> None:
    """In magic, lengths, kinds, checksums and payloads alike."""
    data = file_of(*PARTS)
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedSnapshot):
            read(bytes(flipped))


def test_nothing_may_follow_the_end() -> None:
    """Two snapshots in one file are none."""
    with pytest.raises(DamagedSnapshot, match="bytes follow the end block"):
        read(file_of(*PARTS) + b"\0")


def test_blocks_that_change_places_are_noticed() -> None:
    """Each checksum goes on from the one before: a block is only right where it was written."""
    blocks = list(encode(HEAD, (SnapshotPart(MACHINE, b"one"), SnapshotPart(MACHINE, b"two"))))
    blocks[2], blocks[3] = blocks[3], blocks[2]
    with pytest.raises(DamagedSnapshot, match="checksum"):
        read(b"".join(blocks))


def test_blocks_of_two_files_do_not_mix() -> None:
    """The end of one snapshot does not fit behind the beginning of another, though both have the same
    lengths.
    """
    one = list(encode(HEAD, (SnapshotPart(MACHINE, b"one"),)))
    two = list(encode(HEAD._replace(position=42), (SnapshotPart(MACHINE, b"one"),)))
    with pytest.raises(DamagedSnapshot, match="checksum"):
        read(b"".join([*one[:2], *two[2:]]))


def test_the_clean_prefix_ends_with_a_block() -> None:
    """What a download can go on from after a crash."""
    blocks = list(encode(HEAD, PARTS))
    ends = {0}
    for block in blocks:
        ends.add(max(ends) + len(block))
    data = b"".join(blocks)
    for size in range(0, len(data), 3):
        decoder = Decoder()
        list(decoder.feed(data[:size]))
        assert decoder.clean == max(end for end in ends if end <= size)


servers = st.frozensets(st.integers(0, 2**32 - 1), max_size=4)
numbers = st.integers(0, 2**63 - 1)
places = st.builds(Place, numbers, numbers)
configurations = st.builds(Configuration, servers, servers, servers, numbers, st.just(((7, "d" * 32),)))
cuts = st.builds(Cut, places, numbers, configurations, places)
heads = st.builds(
    Head,
    st.text("abcé-", max_size=20),
    numbers,
    numbers,
    st.binary(max_size=32),
    st.lists(cuts, max_size=4).map(tuple),
)


@settings(max_examples=60)
@given(heads)
def test_heads_go_there_and_back(head: Head) -> None:
    """Whatever they hold."""
    assert unpack_head(pack_head(head)) == head


@settings(max_examples=60)
@given(heads, st.data())
def test_a_changed_head_is_refused_or_another(head: Head, data: st.DataObject) -> None:
    """Never is it read with something left over, and no bytes raise anything but DamagedSnapshot."""
    packed = bytearray(pack_head(head))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(DamagedSnapshot):
        assert pack_head(unpack_head(bytes(packed))) == bytes(packed)


def test_a_file_of_something_else_is_named() -> None:
    """The error shows what is there instead."""
    with pytest.raises(DamagedSnapshot, match="begins with b'PNG"):
        read(b"PNG\r\n\x1a\nxxxxxxxx")
    assert file_of(*PARTS).startswith(MAGIC)
