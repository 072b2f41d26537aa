"""What `craft verify` finds: all that is wrong with a directory, by file and place, and nothing else."""

from __future__ import annotations

import pathlib
import re
import shutil

import pytest

from craft.errors import WrongDirectory
from craft.storage.rocks import RocksStorage, layout
from craft.storage.rocks.verifying import Report, verify
from craft.types import BEGINNING, Configuration, Cut, HardState, Head, Place, SnapshotKind, SnapshotPart
from tests.storage.disks import CLUSTER, GROUPS, appended, begun, command, configuration, cut_at, open_rocks
from tests.storage.test_rocks import log_file, overwrite, raw

PARTS = (SnapshotPart(SnapshotKind.MACHINE, b"state" * 1000),)
CONFIGURED = configuration(2, {1, 2, 3})
LOG = (command(1), CONFIGURED, *(command(index, size=300) for index in range(3, 21)))


def snapshot_at(storage: RocksStorage, cut: Cut, *, position: int = 10) -> str:
    """Write a snapshot with this cut of group 0; its file."""
    head = Head(CLUSTER, position, cut.timestamp, b"", (cut, *(BEGINNING,) * (GROUPS - 1)))
    info = storage.snapshots.write(head, PARTS)
    return f"{info.id.position:020d}-{info.id.nonce:016x}.snapshot"


def right_cut(index: int) -> Cut:
    there = LOG[index - 1]
    configured = Configuration(frozenset({1, 2, 3}))
    return Cut(Place(there.term, index), there.timestamp, configured, Place(1, 2))


def stopped(path: pathlib.Path, *, cut: Cut | None = None) -> pathlib.Path:
    """A server's directory after a graceful stop: a log from 5 on, a snapshot at 8."""
    storage = open_rocks(path)
    storage.recover()
    storage.write(appended(*LOG, hard_state=HardState(1, 2, 12)))
    storage.write(begun(right_cut(4)))
    storage.sync()
    snapshot_at(storage, right_cut(8) if cut is None else cut)
    storage.close()
    return path


def told(report: Report) -> str:
    return "\n".join(" ".join(finding) for finding in report.findings)


def tree(path: pathlib.Path) -> dict[str, bytes]:
    """All files but the lock, whose content is the last process's id."""
    found = (p for p in sorted(path.rglob("*")) if p.is_file() and p.name != "lock")
    return {str(p.relative_to(path)): p.read_bytes() for p in found}


def test_a_sound_directory_is_described_and_not_changed(tmp_path: pathlib.Path) -> None:
    """Whose it is, what its logs and snapshots hold; byte for byte as before."""
    directory = stopped(tmp_path / "d")
    before = tree(directory)
    report = verify(directory)
    assert tree(directory) == before
    assert report.sound
    assert report.findings == ()
    assert report.identity is not None
    assert report.identity.cluster_id == CLUSTER
    assert report.groups[0][:4] == (0, Place(1, 4), Place(1, 20), 16)
    assert [snapshot.position for snapshot in report.snapshots] == [10]


def test_a_killed_servers_directory_is_sound(tmp_path: pathlib.Path) -> None:
    """What is in the log files only is read as well; a torn unsynced tail is a warning on the same boot."""
    storage = open_rocks(tmp_path / "alive")
    storage.recover()
    for entry in LOG:
        storage.write(appended(entry))
        if entry.index == 15:
            storage.sync()
    directory = shutil.copytree(tmp_path / "alive", tmp_path / "killed")
    storage.close()
    assert verify(directory).groups[0].entries == 20
    file = log_file(directory)
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size - 10)
    report = verify(directory)
    assert report.sound
    assert "does not open cleanly" in told(report)
    assert report.groups[0].entries == 19


@pytest.mark.parametrize(
    ("file", "at", "words"),
    [
        ("identity", 10, "error identity .*checksum does not hold"),
        ("synced", 5, "warning synced slot 0 is torn or damaged; the other one counts"),
        ("ballots", 5, "warning ballots slot 0 is torn or damaged"),
    ],
)
def test_small_files_are_named(tmp_path: pathlib.Path, file: str, at: int, words: str) -> None:
    """With the slot that is wrong."""
    directory = stopped(tmp_path / "d")
    overwrite(directory / file, at, b"\xff\xff")
    report = verify(directory)
    assert re.search(words, told(report))
    assert report.sound == words.startswith("warning")


def test_a_suspect_directory_is_a_warning(tmp_path: pathlib.Path) -> None:
    """A server starts from it, and counts for nothing until it is whole."""
    directory = stopped(tmp_path / "d")
    (directory / "suspect").write_text("its power was cut\n")
    report = verify(directory)
    assert report.sound
    assert "warning suspect marked suspect: its power was cut" in told(report)
    storage = open_rocks(directory)
    storage.recover()
    storage.close()
    assert "warning log group 2 is suspect: its power was cut" in told(verify(directory))


def test_what_is_missing_is_named(tmp_path: pathlib.Path) -> None:
    """A side file, and the log database itself."""
    directory = stopped(tmp_path / "d")
    (directory / "synced").unlink()
    assert "error synced it is missing" in told(verify(directory))
    shutil.rmtree(directory / "log")
    assert "error log the log database is missing" in told(verify(directory))


def test_an_interrupted_repair_is_not_spoilt_by_a_look(tmp_path: pathlib.Path) -> None:
    """Its log stands under another name until the next start puts it back: it is read there, and stays."""
    directory = stopped(tmp_path / "d")
    (directory / "log").rename(directory / "kept")
    (directory / "judged").mkdir()
    before = tree(directory)
    report = verify(directory)
    assert report.findings == ()
    assert report.groups[0].entries == 16
    assert tree(directory) == before
    storage = open_rocks(directory)
    assert storage.recover().groups[0].start == right_cut(4)
    storage.close()


def test_all_wrong_records_are_named(tmp_path: pathlib.Path) -> None:
    """Not only the first, which is where a start stops."""
    directory = stopped(tmp_path / "d")
    with raw(directory) as db:
        db[layout.entry_key(0, 7)] = b"nonsense"
        del db[layout.entry_key(0, 12)]
        db[layout.entry_key(0, 15)] = LOG[15].record
        db[layout.entry_key(0, 2)] = LOG[1].record
        db[layout.entry_key(9, 1)] = command(1, group=9).record
    report = verify(directory)
    text = told(report)
    assert not report.sound
    for words in (
        "entry 7 is damaged",
        "entries 12 to 12 are missing",
        "index 15 says it is 16",
        "entry 2 is there, though compacted",
        "a key that is none of ours",
    ):
        assert words in text


def test_a_damaged_snapshot_is_named(tmp_path: pathlib.Path) -> None:
    """With the byte behind which it is wrong; where the log begins behind it, what that means is said."""
    directory = stopped(tmp_path / "d")
    (file,) = (directory / "snapshots").iterdir()
    overwrite(file, 2000, b"\xff\xff")
    text = told(verify(directory))
    assert f"error snapshots/{file.name} {file.name}: behind byte" in text
    assert "warning log group 0 begins behind entry 4, and no usable snapshot reaches that" in text


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        (
            right_cut(8)._replace(place=Place(2, 8)),
            "its cut is entry 8 of term 2 at 1008; the log has term 1",
        ),
        (right_cut(8)._replace(timestamp=7), "its cut is entry 8 of term 1 at 7; the log has term 1 at 1008"),
        (right_cut(4)._replace(timestamp=7), "its cut is entry 4 of term 1 at 7"),
        (cut_at(LOG[7]), "its configuration is Configuration"),
    ],
)
def test_a_snapshot_that_contradicts_the_log_is_named(tmp_path: pathlib.Path, cut: Cut, words: str) -> None:
    """Its cut must be a place that the log has, with that term, timestamp and configuration."""
    report = verify(stopped(tmp_path / "d", cut=cut))
    assert not report.sound
    assert words in told(report)


def test_a_snapshot_ahead_of_the_log_is_no_contradiction(tmp_path: pathlib.Path) -> None:
    """A crash came before the logs were replaced by an installed snapshot: the next start does that."""
    cut = Cut(Place(7, 300), 9_000, Configuration(frozenset({1})), Place(1, 1))
    assert verify(stopped(tmp_path / "d", cut=cut)).findings == ()


def test_a_directory_in_use_or_of_nobody_is_refused(tmp_path: pathlib.Path) -> None:
    """It would be another one a moment later."""
    directory = stopped(tmp_path / "d")
    storage = open_rocks(directory)
    with pytest.raises(WrongDirectory, match="in use"):
        verify(directory)
    storage.close()
    with pytest.raises(WrongDirectory, match="no server's data directory"):
        verify(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
