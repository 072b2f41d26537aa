"""Directories and frames of earlier versions are read by this one, as they were written then."""

from __future__ import annotations

import json
import pathlib
import shutil

import pytest

from craft.snapshots import encode
from craft.storage import Identity
from craft.storage.rocks.directory import pack_identity
from craft.storage.rocks.verifying import verify
from craft.types import HardState, Head
from craft.wire import (
    PREFIX_BYTES,
    Hello,
    decode_answer,
    decode_frame,
    decode_hello,
    encode_answer,
    encode_frame,
    encode_hello,
)
from tests.golden.examples import FRAMES, HANDSHAKES
from tests.storage.disks import CLUSTER, SERVER, open_rocks
from tests.storage.flips import ENTRIES, GROUPS, LOGS, STATE, cut_of, look

HERE = pathlib.Path(__file__).parent
WIRE1 = json.loads((HERE / "wire1.json").read_text(encoding="utf-8"))


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the directory that version 1 wrote."""
    return shutil.copytree(HERE / "format1", tmp_path / "d")


def test_a_directory_of_format_1_is_sound(directory: pathlib.Path) -> None:
    """By the eyes of `craft verify`."""
    report = verify(directory)
    assert report.findings == ()
    assert [group.last.index for group in report.groups] == [ENTRIES] * GROUPS


def test_a_directory_of_format_1_is_read(directory: pathlib.Path) -> None:
    """Logs behind their starts, terms and votes, counter, configurations, peers' disks, snapshots."""
    truth = look(open_rocks(directory, groups=GROUPS))
    assert [head.position for head in truth.snapshots] == [60, 90]
    assert truth.recovered.counter == ENTRIES - 5
    for group, found in enumerate(truth.recovered.groups):
        assert found.start == cut_of(group, 10)
        assert found.hard_state == HardState(1, 2, ENTRIES - 5)
        assert found.configurations == ()
        assert found.offset.index + len(found.tail) == ENTRIES
        assert found.tail == LOGS[group][found.offset.index :]


def test_a_directory_of_format_1_is_written_on(directory: pathlib.Path) -> None:
    """And read again."""
    storage = open_rocks(directory, groups=GROUPS)
    before = storage.recover()
    storage.close()
    again = open_rocks(directory, groups=GROUPS)
    assert again.recover() == before
    again.close()


def test_snapshots_of_version_1_have_these_bytes() -> None:
    """What this version writes under that number is what that version wrote."""
    found = sorted((HERE / "format1" / "snapshots").iterdir())
    for first, file in zip((30, 45), found, strict=True):
        cuts = tuple(cut_of(group, first - 10) for group in range(GROUPS))
        head = Head(CLUSTER, first * 2, cuts[0].timestamp, b"d" * 16, cuts)
        assert b"".join(encode(head, STATE)) == file.read_bytes()


def test_the_identity_of_version_1_has_these_bytes() -> None:
    """One line of JSON, and its checksum."""
    stored = (HERE / "format1" / "identity").read_bytes()
    fields = json.loads(stored.splitlines()[0])
    assert pack_identity(Identity(CLUSTER, SERVER, fields["disk_id"], GROUPS, 1)) == stored


@pytest.mark.parametrize("name", FRAMES)
def test_frames_of_protocol_1_have_these_bytes(name: str) -> None:
    """In both directions."""
    stored = bytes.fromhex(WIRE1[name])
    assert decode_frame(stored[PREFIX_BYTES:], groups=4) == FRAMES[name]
    assert encode_frame(FRAMES[name]) == stored


@pytest.mark.parametrize("name", HANDSHAKES)
def test_handshakes_of_protocol_1_have_these_bytes(name: str) -> None:
    """In both directions."""
    stored, said = bytes.fromhex(WIRE1[name]), HANDSHAKES[name]
    if isinstance(said, Hello):
        assert (decode_hello(stored[PREFIX_BYTES:]), encode_hello(said)) == (said, stored)
    else:
        assert (decode_answer(stored[PREFIX_BYTES:]), encode_answer(said)) == (said, stored)


def test_every_stored_frame_is_looked_at() -> None:
    """An example that is taken away takes its promise away."""
    assert set(WIRE1) == {*FRAMES, *HANDSHAKES}
