"""The data directory: whose it is, and that damage is refused, never read as data."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest
from rocksdict import Options, Rdict

from craft.errors import (
    ConfigError,
    DamagedStorage,
    FatalError,
    StorageFailed,
    WrongDirectory,
)
from craft.storage.rocks import RocksStorage, layout
from craft.storage.rocks.directory import Directory, pack_identity, read_boot_id
from craft.storage.rocks.wal import strange_stretch
from craft.types import Append, Entry, HardState, Recovered, Write
from tests.storage.disks import CLUSTER, GROUPS, SERVER, appended, ballot, command, open_rocks

ROOT = pathlib.Path(__file__).resolve().parents[2]
SYNCED, UNSYNCED = 6, 3
ENTRIES = tuple(command(index, size=300) for index in range(1, SYNCED + UNSYNCED + 1))


def killed(path: pathlib.Path, *, unsynced: int = UNSYNCED) -> pathlib.Path:
    """A directory as SIGKILL leaves it: entries written one a batch, the last ones not synced."""
    storage = open_rocks(path / "alive")
    storage.recover()
    for entry in ENTRIES[: SYNCED + unsynced]:
        storage.write(appended(entry, hard_state=HardState(1, 2, 0), counter=entry.index))
        if entry.index <= SYNCED:
            storage.sync()
    shutil.copytree(path / "alive", path / "killed")
    storage.close()
    return path / "killed"


def restart(directory: pathlib.Path) -> Recovered:
    storage = open_rocks(directory)
    try:
        return storage.recover()
    finally:
        storage.close()


def tail(recovered: Recovered) -> tuple[Entry, ...]:
    return recovered.groups[0].tail


def another_boot(directory: pathlib.Path) -> None:
    (directory / "boot").write_text("another boot\n")


def log_file(directory: pathlib.Path) -> pathlib.Path:
    (found,) = (path for path in (directory / "log").glob("*.log") if path.stat().st_size)
    return found


def truncate(path: pathlib.Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


def overwrite(path: pathlib.Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@contextlib.contextmanager
def raw(directory: pathlib.Path) -> Iterator[Rdict]:
    """The log database, opened behind the storage's back."""
    options = Options(raw_mode=True)
    db = Rdict(str(directory / "log"), options)
    yield db
    db.close()


# -- whose directory it is ------------------------------------------------------------------------


def test_a_new_directory_gets_a_random_disk_id(tmp_path: pathlib.Path) -> None:
    """Two disks are never taken for one another, and a disk keeps its id."""
    ids = []
    for name in ("deep/inside/a", "b", "b"):
        storage = open_rocks(tmp_path / name)
        ids.append(storage.identity.disk_id)
        storage.close()
    assert ids[0] != ids[1] == ids[2]
    assert all(len(disk_id) == 32 and int(disk_id, 16) for disk_id in ids)


@pytest.mark.parametrize(
    ("cluster", "server", "groups", "words"),
    [
        ("other", SERVER, 3, "its cluster_id is 'orders', not 'other'"),
        (CLUSTER, 8, 3, "its server_id is 7, not 8"),
        (CLUSTER, SERVER, 5, "its groups is 3, not 5"),
    ],
)
def test_anothers_directory_is_refused(
    tmp_path: pathlib.Path, cluster: str, server: int, groups: int, words: str
) -> None:
    """The error names what differs."""
    open_rocks(tmp_path).close()
    with pytest.raises(WrongDirectory, match=words):
        RocksStorage.open(tmp_path, cluster_id=cluster, server_id=server, groups=groups)
    assert restart(tmp_path).counter == 0


@pytest.mark.parametrize(
    ("cluster", "server", "groups"), [("", 1, 1), ("c", -1, 1), ("c", 1, 0), ("c", 1, 4097)]
)
def test_impossible_arguments(tmp_path: pathlib.Path, cluster: str, server: int, groups: int) -> None:
    """An argument out of range is named before anything is created."""
    with pytest.raises(ConfigError, match="must be"):
        RocksStorage.open(tmp_path / "new", cluster_id=cluster, server_id=server, groups=groups)
    assert not (tmp_path / "new").exists()


def test_a_future_format_is_refused(tmp_path: pathlib.Path) -> None:
    """A directory of a later version is left alone."""
    storage = open_rocks(tmp_path)
    storage.close()
    (tmp_path / "identity").write_bytes(pack_identity(storage.identity._replace(format_version=2)))
    with pytest.raises(WrongDirectory, match="format version 2; only 1"):
        open_rocks(tmp_path)


def test_a_damaged_identity_is_refused(tmp_path: pathlib.Path) -> None:
    """A flipped bit does not make it another server's directory, or ours."""
    open_rocks(tmp_path).close()
    whole = (tmp_path / "identity").read_bytes()
    assert json.loads(whole.splitlines()[0])["cluster_id"] == CLUSTER
    for damaged in (whole.replace(b"orders", b"orderz"), whole[:-3], b"", b"\0" * len(whole)):
        (tmp_path / "identity").write_bytes(damaged)
        with pytest.raises(DamagedStorage, match="identity is damaged"):
            open_rocks(tmp_path)


def test_a_directory_with_other_things_is_refused(tmp_path: pathlib.Path) -> None:
    """Nothing is created among somebody's files, nor over a directory that lost its identity."""
    (tmp_path / "photos").mkdir()
    with pytest.raises(WrongDirectory, match="contains 'photos'"):
        open_rocks(tmp_path)
    (tmp_path / "photos").rmdir()
    (tmp_path / "lost+found").mkdir()
    open_rocks(tmp_path).close()
    (tmp_path / "identity").unlink()
    with pytest.raises(WrongDirectory, match="no file 'identity'"):
        open_rocks(tmp_path)


def test_an_interrupted_creation_begins_afresh(tmp_path: pathlib.Path) -> None:
    """A crash while the directory is made costs nothing: it held nothing."""
    open_rocks(tmp_path).close()
    (tmp_path / "identity").unlink()
    (tmp_path / "creating").touch()
    (tmp_path / "synced").write_bytes(b"half")
    assert restart(tmp_path).counter == 0
    assert not (tmp_path / "creating").exists()


def test_a_creation_may_end_before_it_has_begun(tmp_path: pathlib.Path) -> None:
    """Between the making of its marker and the marker's name: a new directory is still a new one."""
    (tmp_path / "creating.new").touch()
    assert restart(tmp_path).counter == 0
    assert not (tmp_path / "creating.new").exists()


def test_a_crash_right_after_the_creation(tmp_path: pathlib.Path) -> None:
    """Where the identity is there the directory was complete, whatever the marker says."""
    directory = killed(tmp_path)
    (directory / "creating").touch()
    assert tail(restart(directory)) == ENTRIES


def test_two_processes_do_not_share_a_directory(tmp_path: pathlib.Path) -> None:
    """The second is refused while the first has it, and may have it at once after."""
    storage = open_rocks(tmp_path)
    script = (
        "import pathlib; from tests.storage.disks import open_rocks;"
        f" open_rocks(pathlib.Path({str(tmp_path)!r}))"
    )
    with pytest.raises(WrongDirectory, match="in use by another process"):
        open_rocks(tmp_path)
    refused = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "WrongDirectory" in refused.stderr and "in use" in refused.stderr
    storage.close()
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_a_directory_that_could_not_be_taken_is_not_kept_locked(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk has no room for our process's id; the next try, in the same process, finds nobody there."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(StorageFailed, match="No space left on device"):
            open_rocks(tmp_path)
    assert restart(tmp_path).counter == 0


def test_a_log_database_of_another_directory_is_refused(tmp_path: pathlib.Path) -> None:
    """A log that was moved in from elsewhere is not taken for this server's."""
    for name in ("a", "b"):
        open_rocks(tmp_path / name).close()
    shutil.rmtree(tmp_path / "a" / "log")
    shutil.copytree(tmp_path / "b" / "log", tmp_path / "a" / "log")
    with pytest.raises(WrongDirectory, match="was made for"):
        restart(tmp_path / "a")


def test_nothing_works_before_recover(tmp_path: pathlib.Path) -> None:
    """A storage that has not looked at its log does not write to it."""
    storage = open_rocks(tmp_path)
    with pytest.raises(StorageFailed, match="not recovered yet"):
        storage.write(appended(command(1)))
    storage.close()


# -- torn tails -----------------------------------------------------------------------------------


def test_a_kill_may_tear_the_unsynced_tail_at_any_byte(tmp_path: pathlib.Path) -> None:
    """On the same boot a cut above the synced batches recovers all whole batches; the next start is clean."""
    image = killed(tmp_path)
    whole = log_file(image).stat().st_size
    with_synced = whole * (SYNCED + 1) // len(ENTRIES)  # a little above: the first batch is smaller
    for cut in range(with_synced, whole + 1, 37):
        directory = shutil.copytree(image, tmp_path / "cut")
        truncate(log_file(directory), cut)
        found = tail(restart(directory))
        assert SYNCED <= len(found) and found == ENTRIES[: len(found)]
        assert tail(restart(directory)) == found
        shutil.rmtree(directory)


def test_a_repair_keeps_the_torn_log(tmp_path: pathlib.Path) -> None:
    """What was cut off can still be looked at; only the last repair's is kept."""
    directory = killed(tmp_path)
    torn = log_file(directory)
    truncate(torn, torn.stat().st_size - 10)
    evidence = torn.read_bytes()
    restart(directory)
    assert (directory / "kept" / torn.name).read_bytes() == evidence
    assert not (directory / "judged").exists() and not (directory / "suspect").exists()


def torn_after_another_boot(tmp_path: pathlib.Path) -> pathlib.Path:
    directory = killed(tmp_path)
    another_boot(directory)
    truncate(log_file(directory), log_file(directory).stat().st_size - 10)
    return directory


def test_a_torn_tail_after_another_boot_is_suspect_and_stays_so(tmp_path: pathlib.Path) -> None:
    """Attack 13: the repaired log opens cleanly at the second start, and is as suspect as at the first."""
    directory = torn_after_another_boot(tmp_path)
    for _ in range(3):
        recovered = restart(directory)
        assert tail(recovered) == ENTRIES[:-1]
        assert all("batch 9 in a record that is torn" in found.suspicion for found in recovered.groups)
        assert not (directory / "suspect").exists(), "the log says it itself now, of each group"


def test_a_suspicion_is_marked_before_the_repaired_log_is_used(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash right behind the repair forgets nothing, nor does one before the mark is taken away."""
    directory = torn_after_another_boot(tmp_path)
    for owner, name in ((RocksStorage, "write"), (Directory, "unmark_suspect")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, crash)
            with pytest.raises(ZeroDivisionError):
                restart(directory)
        assert "batch 9 in a record" in (directory / "suspect").read_text()
    recovered = restart(directory)
    assert all("batch 9 in a record that is torn" in found.suspicion for found in recovered.groups)


def crash(*_args: object) -> None:
    raise ZeroDivisionError("the power goes")


def test_a_suspicion_ends_in_a_batch_of_its_own_group(tmp_path: pathlib.Path) -> None:
    """Each group by itself, and only with the write that says so."""
    directory = torn_after_another_boot(tmp_path)
    storage = open_rocks(directory)
    last = storage.recover().groups[0].tail[-1]
    entry = command(last.index + 1, size=300)
    storage.write(Write(1, (Append(0, 0, (entry,)),), (), None, suspicions=((0, ""),)))
    storage.close()
    first, *others = (found.suspicion for found in restart(directory).groups)
    assert first == "" and others and all(others)


def test_an_unknown_boot_is_never_the_same(tmp_path: pathlib.Path) -> None:
    """Where the kernel has no boot id, a torn tail is suspect even if the last run had none either."""
    nowhere = tmp_path / "no such file"
    storage = open_rocks(tmp_path / "disk", boot_id_file=nowhere)
    storage.recover()
    storage.write(appended(*ENTRIES))
    directory = shutil.copytree(tmp_path / "disk", tmp_path / "killed")
    storage.close()
    truncate(log_file(directory), log_file(directory).stat().st_size - 10)
    again = open_rocks(directory, boot_id_file=nowhere)
    with contextlib.closing(again):
        assert again.recover().groups[0].suspicion
    assert read_boot_id(nowhere) is None


def test_a_whole_log_after_another_boot_is_clean(tmp_path: pathlib.Path) -> None:
    """A machine that restarted in good order needs nobody's help."""
    directory = killed(tmp_path)
    another_boot(directory)
    assert tail(restart(directory)) == ENTRIES


@pytest.mark.parametrize("same_boot", [True, False])
def test_a_cut_below_the_synced_number_is_damage(tmp_path: pathlib.Path, same_boot: bool) -> None:
    """The error names the batches, nothing is repaired, and the next start says the same."""
    directory = killed(tmp_path)
    if not same_boot:
        another_boot(directory)
    truncate(log_file(directory), log_file(directory).stat().st_size // 2)
    before = log_file(directory).read_bytes()
    for _ in range(2):
        with pytest.raises(DamagedStorage, match=r"batches \d to 7 missing: synced up to 7"):
            restart(directory)
    assert log_file(directory).read_bytes() == before
    assert not (directory / "judged").exists()


def test_a_deleted_log_file_is_damage(tmp_path: pathlib.Path) -> None:
    """RocksDB opens without it and says nothing; the side file knows."""
    directory = killed(tmp_path)
    log_file(directory).unlink()
    with pytest.raises(DamagedStorage, match="batches 2 to 7 missing"):
        restart(directory)


@pytest.mark.parametrize("lost", ["CURRENT", "MANIFEST", "log"])
def test_a_lost_database_does_not_come_back_empty(tmp_path: pathlib.Path, lost: str) -> None:
    """Whatever RocksDB needs and does not find is damage, not a new beginning."""
    directory = killed(tmp_path)
    if lost == "log":
        shutil.rmtree(directory / "log")
    for path in directory.glob(f"log/{lost}*"):
        path.unlink()
    with pytest.raises(DamagedStorage):
        restart(directory)


def test_unsynced_files_of_rocksdict_do_not_matter(tmp_path: pathlib.Path) -> None:
    """A power cut may leave its configuration and option files empty."""
    directory = killed(tmp_path)
    for name in ("rocksdict-config.json", "IDENTITY", *(p.name for p in directory.glob("log/OPTIONS*"))):
        truncate(directory / "log" / name, 0)
    assert tail(restart(directory)) == ENTRIES


def test_a_hole_is_damage(tmp_path: pathlib.Path) -> None:
    """A batch that is missing in the middle shows in the ring."""
    directory = killed(tmp_path)
    with raw(directory) as db:
        db.delete(layout.ring_key(4))
        db.delete(layout.ring_key(5))
    with pytest.raises(DamagedStorage, match="batches 4 to 5 missing below batch 10"):
        restart(directory)


def test_an_interrupted_repair_is_begun_again(tmp_path: pathlib.Path) -> None:
    """A crash between the two renames leaves both logs under other names."""
    directory = killed(tmp_path)
    (directory / "log").rename(directory / "kept")
    (directory / "judged").mkdir()
    assert tail(restart(directory)) == ENTRIES
    assert not (directory / "judged").exists()


# -- damaged bytes --------------------------------------------------------------------------------


def refused_or_right(directory: pathlib.Path, *, least: int) -> str:
    """Restart: an error, or a beginning of what was written with no synced entry missing."""
    try:
        found = tail(restart(directory))
    except FatalError as error:
        return type(error).__name__
    assert least <= len(found) and found == ENTRIES[: len(found)]
    return "right"


def places(size: int, count: int) -> list[int]:
    """Sampled offsets: the beginning, the end and evenly between."""
    return sorted({0, size - 1, *range(size // (2 * count), size, max(1, size // count))}) if size else []


@pytest.mark.parametrize("same_boot", [True, False])
@pytest.mark.parametrize("in_tables", [False, True])
def test_flipped_bytes_never_become_data(tmp_path: pathlib.Path, same_boot: bool, in_tables: bool) -> None:
    """Sampled over every file: each restart refuses, or returns the entries that were written."""
    image = killed(tmp_path)
    if in_tables:
        restart(image)  # recovery moves the log into a table
    if not same_boot:
        another_boot(image)
    outcomes = set()
    for path in sorted(path for path in image.rglob("*") if path.is_file()):
        if path.name.startswith(("LOG", "OPTIONS")) or path.name in {"LOCK", "lock"}:
            continue
        count = 25 if path.suffix in {".log", ".sst", ".blob"} else 4
        for offset in places(path.stat().st_size, count):
            directory = shutil.copytree(image, tmp_path / "flipped")
            target = directory / path.relative_to(image)
            overwrite(target, offset, bytes([target.read_bytes()[offset] ^ 0x40]))
            outcomes.add(refused_or_right(directory, least=SYNCED))
            shutil.rmtree(directory)
    assert {"DamagedStorage", "right"} <= outcomes


def test_zeroed_sectors_never_become_data(tmp_path: pathlib.Path) -> None:
    """RocksDB skips a zeroed header without a word, wherever it is; we do not."""
    image = killed(tmp_path)
    size = log_file(image).stat().st_size
    for offset in range(0, size, 128):
        directory = shutil.copytree(image, tmp_path / "zeroed")
        overwrite(log_file(directory), offset, bytes(min(512, size - offset)))
        refused_or_right(directory, least=SYNCED)
        shutil.rmtree(directory)


def headers(data: bytes) -> list[int]:
    """Where the records of a small log file or manifest begin."""
    found, offset = [], 0
    while offset + 7 <= len(data):
        found.append(offset)
        offset += 7 + int.from_bytes(data[offset + 4 : offset + 6], "little")
    return found


@pytest.mark.parametrize("kind", [5, 6, 7, 8])
@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_record_type_of_recycled_files_does_not_hang_the_start(
    tmp_path: pathlib.Path, kind: int, which: int
) -> None:
    """One flipped bit away from ours: RocksDB would read it for ever, or hide what follows, in a log file
    and in its manifest.
    """
    image = killed(tmp_path)
    directory = shutil.copytree(image, tmp_path / "log-file")
    offset = headers(log_file(directory).read_bytes())[which]
    overwrite(log_file(directory), offset + 6, bytes([kind]))
    assert f"a record of a recycled file at byte {offset}" in strange_stretch(directory / "log")
    refused_or_right(directory, least=SYNCED)
    manifest = next((image / "log").glob("MANIFEST-*"))
    overwrite(manifest, headers(manifest.read_bytes())[which] + 6, bytes([kind]))
    with pytest.raises(DamagedStorage, match=f"a record of a recycled file at byte .* of {manifest.name}"):
        restart(image)


def test_a_zeroed_end_after_another_boot_is_suspect(tmp_path: pathlib.Path) -> None:
    """With the side file as old as a power cut may leave it, only the zeros tell of the lost batches."""
    directory = killed(tmp_path, unsynced=0)
    another_boot(directory)
    fresh = tmp_path / "fresh"
    open_rocks(fresh).close()
    shutil.copy(fresh / "synced", directory / "synced")
    shutil.copy(fresh / "ballots", directory / "ballots")
    size = log_file(directory).stat().st_size
    boundary = next(cut for cut in range(size // 2, size) if _is_boundary(directory, cut))
    overwrite(log_file(directory), boundary, bytes(size - boundary))
    assert f"zeroed from byte {boundary}" in strange_stretch(directory / "log")
    assert "zeroed from byte" in restart(directory).groups[0].suspicion


def _is_boundary(directory: pathlib.Path, cut: int) -> bool:
    data = log_file(directory).read_bytes()
    offset = 0
    while offset < cut:
        offset += 7 + int.from_bytes(data[offset + 4 : offset + 6], "little")
    return offset == cut


def test_options_hold_at_every_opening(tmp_path: pathlib.Path) -> None:
    """Those of the opening: not those of RocksDB's own file, which is not synced, and may be of another
    version.
    """
    open_rocks(tmp_path).close()
    storage = RocksStorage.open(
        tmp_path, cluster_id=CLUSTER, server_id=SERVER, groups=GROUPS, write_buffer_bytes=1 << 20
    )
    storage.recover()
    said = (tmp_path / "log" / "LOG").read_text(errors="replace")
    assert re.findall(r"Options\.write_buffer_size: (\d+)", said) == [str(1 << 20)]
    storage.close()


def test_a_damaged_value_is_noticed_when_it_is_read_later(tmp_path: pathlib.Path) -> None:
    """Entries read back long after the start are checked as well."""
    large = tuple(command(index, size=100_000) for index in range(1, 401))
    storage = open_rocks(tmp_path)
    storage.recover()
    storage.write(appended(*large))
    storage.close()
    storage = open_rocks(tmp_path)
    storage.recover()
    (values,) = (path for path in tmp_path.glob("log/*.blob") if path.stat().st_size > 10**6)
    overwrite(values, values.read_bytes().index(large[4].record) + 50, b"\xff")
    with contextlib.closing(storage), pytest.raises(DamagedStorage, match="group 0 from 1: .*CRC"):
        storage.entries(0, first_index=1, last_index=9, bytes_max=10**8)


def test_one_damaged_slot_of_the_side_file_is_survived(tmp_path: pathlib.Path) -> None:
    """A torn write of the side file leaves the slot before it."""
    for slot in (0, 1):
        directory = shutil.copytree(killed(tmp_path / str(slot)), tmp_path / f"slot{slot}")
        overwrite(directory / "synced", slot * 4096 + 5, b"\xff\xff")
        assert tail(restart(directory)) == ENTRIES


@pytest.mark.parametrize("gone", [True, False])
def test_without_its_side_file_a_directory_is_suspect(tmp_path: pathlib.Path, gone: bool) -> None:
    """Nobody can tell whether a synced tail is missing; that stays so when the file is made anew."""
    directory = killed(tmp_path)
    if gone:
        (directory / "synced").unlink()
    else:
        (directory / "synced").write_bytes(b"\xff" * 8192)
    for _ in range(2):
        recovered = restart(directory)
        assert "side file" in recovered.groups[0].suspicion
        assert tail(recovered) == ENTRIES


def test_without_any_side_file_a_directory_is_refused(tmp_path: pathlib.Path) -> None:
    """Entries come back from peers; a vote that is forgotten comes back from nobody."""
    directory = killed(tmp_path)
    for name in ("synced", "ballots"):
        (directory / name).unlink()
    for _ in range(2):
        with pytest.raises(DamagedStorage, match="second place of terms and votes is missing.*vote twice"):
            restart(directory)


# -- terms and votes ------------------------------------------------------------------------------


def test_a_lost_hard_state_is_damage(tmp_path: pathlib.Path) -> None:
    """Bug A3: a server that forgot its vote would start at term 0 and vote twice."""
    directory = killed(tmp_path)
    with raw(directory) as db:
        db.delete(layout.hard_state_key(0))
    with pytest.raises(DamagedStorage, match="group 0: term and vote missing beside a log"):
        restart(directory)


def test_a_vote_that_went_back_is_damage(tmp_path: pathlib.Path) -> None:
    """An older log database beside the newer second place has forgotten a vote."""
    storage = open_rocks(tmp_path / "disk")
    storage.recover()
    storage.write(ballot(5, 2))
    storage.sync()
    storage.close()
    with raw(tmp_path / "disk") as db:
        key = layout.hard_state_key(0)
        db.put(key, layout.hard_state_value(key, HardState(4, None, 0), 2))
    with pytest.raises(
        DamagedStorage, match="says term 4 without a vote, the second place says term 5 vote 2"
    ):
        restart(tmp_path / "disk")


def test_the_second_place_is_made_anew(tmp_path: pathlib.Path) -> None:
    """It is a second place: without it the first still holds, and it is complete again after the start."""
    directory = killed(tmp_path)
    (directory / "ballots").unlink()
    assert restart(directory).groups[0].hard_state == HardState(1, 2, 0)
    with raw(directory) as db:
        db.delete(layout.hard_state_key(0))
        for index in range(1, 10):
            db.delete(layout.entry_key(0, index))
    with pytest.raises(DamagedStorage, match="second place says term 1 vote 2"):
        restart(directory)


# -- failing disks --------------------------------------------------------------------------------

CHILD = """
import os, pathlib, resource, sys
from craft.errors import StorageFailed
from tests.storage.disks import appended, command, open_rocks

storage = open_rocks(pathlib.Path(sys.argv[1]))
start = len(storage.recover().groups[0].tail) + 1

def log_descriptor():
    for fd in os.listdir("/proc/self/fd"):
        path = os.path.realpath(f"/proc/self/fd/{fd}")
        if path.endswith(".log"):
            return int(fd)
    raise AssertionError("no log file is open")

def run(batches):
    for index in range(start, start + batches):
        storage.write(appended(command(index, size=50_000)))
        storage.sync()
        print(index, flush=True)
"""

LATCHED = """
for call in (lambda: storage.write(appended(command(999))), storage.sync):
    try:
        call()
    except StorageFailed as error:
        print("latched", error, flush=True)
os._exit(3)
"""


def child(directory: pathlib.Path, body: str) -> subprocess.CompletedProcess[str]:
    """Run a server's writing in a process of its own, which may fail as it likes."""
    return subprocess.run(
        [sys.executable, "-c", CHILD + textwrap.dedent(body) + LATCHED, str(directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def check_failed_run(directory: pathlib.Path, done: subprocess.CompletedProcess[str], words: str) -> None:
    """It failed by name, refused all further calls, and what it acknowledged is there."""
    assert done.returncode == 3, done.stderr
    lines = done.stdout.splitlines()
    acknowledged = [int(line) for line in lines if line.isdigit()]
    failed = [line for line in lines if line.startswith("failed ")]
    assert len(failed) == 1 and words in failed[0] and "whether they are stored is unknown" in failed[0]
    assert len([line for line in lines if line.startswith("latched ")]) == 2
    found = tail(restart(directory))
    assert found[: len(acknowledged)] == tuple(command(index, size=50_000) for index in acknowledged)


def test_a_file_size_limit_ends_the_writing(tmp_path: pathlib.Path) -> None:
    """A refused write(2) is StorageFailed, latched, and nothing acknowledged is lost."""
    done = child(
        tmp_path / "disk",
        """
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
        try:
            run(100)
        except StorageFailed as error:
            print("failed", error, flush=True)
        """,
    )
    check_failed_run(tmp_path / "disk", done, "File too large")


def test_a_failed_sync_is_final(tmp_path: pathlib.Path) -> None:
    """A sync that the kernel refuses (here: of a device that cannot sync) leaves its batches unknown."""
    done = child(
        tmp_path / "disk",
        """
        run(5)
        storage.write(appended(command(start + 5, size=50_000)))
        os.dup2(os.open("/dev/full", os.O_RDWR), log_descriptor())
        try:
            storage.sync()
        except StorageFailed as error:
            print("failed", error, flush=True)
        """,
    )
    check_failed_run(tmp_path / "disk", done, "could not be synced")


def test_a_full_device_fails_the_write(tmp_path: pathlib.Path) -> None:
    """ENOSPC of write(2) itself."""
    done = child(
        tmp_path / "disk",
        """
        run(5)
        os.dup2(os.open("/dev/full", os.O_RDWR), log_descriptor())
        try:
            storage.write(appended(command(start + 5)))
        except StorageFailed as error:
            print("failed", error, flush=True)
        """,
    )
    check_failed_run(tmp_path / "disk", done, "No space left on device")


def test_a_full_file_system(tmp_path: pathlib.Path) -> None:
    """Bug F3: with the disk full the server stops; with room again it starts, and has all it acknowledged."""
    mount = tmp_path / "mount"
    mount.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(mount)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        done = child(
            mount / "disk",
            """
            try:
                run(100)
            except StorageFailed as error:
                print("failed", error, flush=True)
            """,
        )
        with contextlib.suppress(StorageFailed):
            restart(mount / "disk")  # may need room for a table; must not call it damage
        subprocess.run(["mount", "-o", "remount,size=30m", str(mount)], check=True)
        check_failed_run(mount / "disk", done, "No space left on device")
    finally:
        subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.system
def test_a_server_killed_while_writing_keeps_what_it_acknowledged(tmp_path: pathlib.Path) -> None:
    """SIGKILL at some byte of some batch, over several runs on one directory."""
    writing = CHILD + "run(100_000)\n"
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", writing, str(tmp_path / "disk")],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            for _ in range(15):
                acknowledged = int(process.stdout.readline())
            process.kill()
            rest = process.stdout.read().split("\n")[:-1]
        acknowledged = int(rest[-1]) if rest else acknowledged
        found = tail(restart(tmp_path / "disk"))
        assert len(found) >= acknowledged
        assert found == tuple(command(index, size=50_000) for index in range(1, len(found) + 1))
