"""What compactions drop goes back to the system, and how far the directory grows in between."""

from __future__ import annotations

import pathlib
import threading

import pytest

from craft.errors import DamagedStorage
from craft.storage.rocks import RocksStorage, reclaiming
from craft.storage.rocks import database as rocks_database
from craft.storage.rocks.reclaiming import database_bytes
from craft.storage.rocks.verifying import verify
from craft.types import Append, Entry, HardState, Start, Write
from tests.storage.disks import CLUSTER, SERVER, command, cut_at

KIB = 1024
KEPT = 64  # entries
MIN = 1024 * KIB


@pytest.fixture
def storage(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> RocksStorage:
    """A small write buffer, so that tables are made in seconds."""
    monkeypatch.setattr(reclaiming, "RECLAIM_BYTES_MIN", MIN)
    return opened(tmp_path / "d")


def opened(directory: pathlib.Path) -> RocksStorage:
    """Of two groups, recovered."""
    storage = RocksStorage.open(
        directory, cluster_id=CLUSTER, server_id=SERVER, groups=2, write_buffer_bytes=256 * KIB
    )
    storage.recover()
    return storage


def appended(group: int, behind: int, count: int, size: int = KIB) -> Append:
    """So many more entries of a group, of 1 KiB if nothing else is said."""
    indexes = range(behind + 1, behind + count + 1)
    return Append(group, 0, tuple(command(index, group=group, size=size) for index in indexes))


def batch(first: int, count: int) -> Write:
    """So many entries of 1 KiB in each of two groups."""
    appends = tuple(appended(group, first - 1, count) for group in range(2))
    states = tuple((group, HardState(1, None, first + count - 1)) for group in range(2))
    return Write(1, appends, states, None)


def compaction(upto: int) -> Write:
    cuts = [cut_at(command(upto, group=group)) for group in range(2)]
    return Write(2, (), (), None, tuple(Start(group, cut, True) for group, cut in enumerate(cuts)))


def test_the_directory_stays_small_over_many_compactions(
    storage: RocksStorage, tmp_path: pathlib.Path
) -> None:
    """Twice what is kept, the least that is worth a merge, and write buffers under way."""
    sizes, written = [], 0
    database = tmp_path / "d" / "log"
    for _ in range(30):
        storage.write(batch(written + 1, 512))
        written += 512
        storage.write(compaction(written - KEPT))
        storage.sync()
        storage.reclaim()
        sizes.append(database_bytes(database))
    total = 2 * written * KIB
    assert total >= 30 * 1024 * KIB
    assert max(sizes) < MIN + 2 * 512 * KIB + 6 * 256 * KIB + MIN
    held = storage.entries(1, first_index=written - KEPT + 1, last_index=written, bytes_max=10**9)
    assert len(held) == KEPT
    storage.close()


def test_a_reclaimed_log_restarts_as_it_was(storage: RocksStorage, tmp_path: pathlib.Path) -> None:
    """Merging takes away what was dropped and nothing else."""
    storage.write(batch(1, 3000))
    storage.write(compaction(2900))
    storage.sync()
    before = database_bytes(tmp_path / "d" / "log")
    storage.reclaim()
    assert database_bytes(tmp_path / "d" / "log") < before / 4
    storage.close()
    again = RocksStorage.open(tmp_path / "d", cluster_id=CLUSTER, server_id=SERVER, groups=2)
    group = again.recover().groups[0]
    assert group.start.place.index == 2900
    tail: tuple[Entry, ...] = group.tail
    assert [entry.index for entry in tail] == list(range(2901, 3001))
    again.close()


def test_what_one_group_keeps_does_not_keep_what_another_has_dropped(
    storage: RocksStorage, tmp_path: pathlib.Path
) -> None:
    """Their values lie in the same files: of each, the second group keeps a little."""
    database, written, small = tmp_path / "d" / "log", 0, 0
    for _ in range(30):
        appends = (appended(0, written, 1024), appended(1, small, 64))
        written, small = written + 1024, small + 64
        storage.write(
            Write(1, appends, ((0, HardState(1, None, written)), (1, HardState(1, None, small))), None)
        )
        storage.write(Write(2, (), (), None, (Start(0, cut_at(command(written - KEPT)), keep=True),)))
        storage.sync()
        storage.reclaim()
    kept = (small + KEPT) * KIB
    assert database_bytes(database) < 2 * kept + 2 * MIN + 6 * 256 * KIB < written * KIB / 3
    held = storage.entries(1, first_index=1, last_index=small, bytes_max=10**9)
    assert len(held) == small
    storage.close()
    again = RocksStorage.open(tmp_path / "d", cluster_id=CLUSTER, server_id=SERVER, groups=2)
    again.recover()
    assert again.entries(1, first_index=1, last_index=small, bytes_max=10**9) == held
    again.close()


def test_small_records_are_given_back_as_well(storage: RocksStorage, tmp_path: pathlib.Path) -> None:
    """They lie in tables, which are written anew without them."""
    written = 0
    sizes = []
    for _ in range(20):
        appends = (appended(0, written, 8192, size=128),)
        written += 8192
        storage.write(Write(1, appends, ((0, HardState(1, None, written)),), None))
        storage.write(Write(2, (), (), None, (Start(0, cut_at(command(written - KEPT)), keep=True),)))
        storage.sync()
        storage.reclaim()
        sizes.append(database_bytes(tmp_path / "d" / "log"))
    assert not list((tmp_path / "d" / "log").glob("*.blob"))
    assert max(sizes) < 5 * MIN + 6 * 256 * KIB < written * 128 / 3
    storage.close()


def test_a_directory_without_values_apart_is_read_and_written_on(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it was made by versions that kept everything in tables; what is merged moves."""
    with monkeypatch.context() as before:
        before.setattr(reclaiming, "RECLAIM_BYTES_MIN", MIN)
        before.setattr(rocks_database, "APART_BYTES_MIN", 2**40)
        old = opened(tmp_path / "d")
        old.write(batch(1, 3000))
        old.close()
    database = tmp_path / "d" / "log"
    assert not list(database.glob("*.blob"))
    monkeypatch.setattr(reclaiming, "RECLAIM_BYTES_MIN", MIN)
    storage = opened(tmp_path / "d")
    assert len(storage.entries(1, first_index=1, last_index=3000, bytes_max=10**9)) == 3000
    storage.write(batch(3001, 1000))
    storage.write(compaction(2900))
    storage.sync()
    storage.reclaim()
    assert list(database.glob("*.blob"))
    assert database_bytes(database) < 2 * 2200 * KIB
    storage.close()
    again = opened(tmp_path / "d")
    assert len(again.entries(1, first_index=2901, last_index=4000, bytes_max=10**9)) == 1100
    again.close()


def test_a_missing_file_of_values_is_damage(storage: RocksStorage, tmp_path: pathlib.Path) -> None:
    """RocksDB looks for it when it is read, not before: so does whoever reads the log behind a snapshot."""
    storage.write(batch(1, 64))
    storage.close()
    opened(tmp_path / "d").close()  # what was in log files is in tables now
    for values in (tmp_path / "d" / "log").glob("*.blob"):
        values.unlink()
    with pytest.raises(DamagedStorage, match=r"\.blob"):
        opened(tmp_path / "d")
    assert not verify(tmp_path / "d").sound


def test_a_close_does_not_wait_for_a_merge(storage: RocksStorage, tmp_path: pathlib.Path) -> None:
    """It ends the merge, or finds that it has ended;

    either way nobody is left behind, and nothing is raised.
    """
    storage.write(batch(1, 8000))
    storage.write(compaction(10))
    storage.sync()
    failures: list[BaseException] = []

    def reclaim() -> None:
        try:
            storage.reclaim()
        except BaseException as error:  # noqa: BLE001  # the test looks at whatever it is
            failures.append(error)

    thread = threading.Thread(target=reclaim)
    thread.start()
    storage.close()
    thread.join()
    assert not [error for error in failures if "closed" not in str(error)]
    again = RocksStorage.open(tmp_path / "d", cluster_id=CLUSTER, server_id=SERVER, groups=2)
    assert len(again.recover().groups[1].configurations) == 0
    assert len(again.entries(1, first_index=11, last_index=8000, bytes_max=10**9)) == 7990
    again.close()
