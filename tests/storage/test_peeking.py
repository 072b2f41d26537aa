"""A look at a stopped server's directory that was damaged: as far as it is whole, and nothing changes."""

from __future__ import annotations

import pathlib

import pytest

from craft.errors import DamagedStorage
from craft.storage.rocks.peeking import peek
from tests.storage.test_rocks import ENTRIES, headers, killed, log_file, overwrite
from tests.storage.test_verifying import tree


def entries_at(directory: pathlib.Path) -> tuple[str, int]:
    """Why a look ends early, and how many entries it shows, which are those that were written."""
    before = tree(directory)
    with peek(directory) as stopped:
        found = tuple(stopped.entries(0, 1))
        torn = stopped.torn
    assert found == ENTRIES[: len(found)]
    assert tree(directory) == before
    return torn, len(found)


def test_a_zeroed_end_is_said(tmp_path: pathlib.Path) -> None:
    """RocksDB skips it without a word: who makes a new cluster of it would think that this were all."""
    directory = killed(tmp_path)
    written = log_file(directory).read_bytes()
    middle = headers(written)[len(ENTRIES) // 2]
    overwrite(log_file(directory), middle, bytes(len(written) - middle))
    torn, count = entries_at(directory)
    assert f"zeroed from byte {middle}" in torn
    assert 0 < count < len(ENTRIES)


@pytest.mark.parametrize("kind", [5, 8])
def test_a_record_type_of_recycled_files_does_not_hang_the_look(tmp_path: pathlib.Path, kind: int) -> None:
    """One flipped bit away from ours: RocksDB would read it for ever, in a log file and in its manifest."""
    directory = killed(tmp_path)
    middle = headers(log_file(directory).read_bytes())[len(ENTRIES) // 2]
    overwrite(log_file(directory), middle + 6, bytes([kind]))
    torn, count = entries_at(directory)
    assert f"a record of a recycled file at byte {middle}" in torn
    assert 0 < count < len(ENTRIES)
    manifest = next((directory / "log").glob("MANIFEST-*"))
    overwrite(manifest, headers(manifest.read_bytes())[1] + 6, bytes([kind]))
    with pytest.raises(DamagedStorage, match=f"a record of a recycled file at byte .* of {manifest.name}"):
        entries_at(directory)


def test_an_interrupted_repair_is_looked_at_where_its_log_is(tmp_path: pathlib.Path) -> None:
    """Under another name until the next start puts it back."""
    directory = killed(tmp_path)
    (directory / "log").rename(directory / "kept")
    (directory / "judged").mkdir()
    assert entries_at(directory) == ("", len(ENTRIES))
