"""What compactions drop goes back to the system, and how far the directory grows in between."""

from __future__ import annotations

import pathlib
import threading

import pytest

from craft.storage.rocks import RocksStorage, reclaiming
from craft.storage.rocks.reclaiming import database_bytes
from craft.types import Append, Entry, HardState, Start, Write
from tests.storage.disks import CLUSTER, SERVER, command, cut_at

KIB = 1024
KEPT = 64  # entries
MIN = 1024 * KIB


@pytest.fixture
def storage(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> RocksStorage:
    """A small write buffer, so that tables are made in seconds."""
    monkeypatch.setattr(reclaiming, "RECLAIM_BYTES_MIN", MIN)
    opened = RocksStorage.open(
        tmp_path / "d", cluster_id=CLUSTER, server_id=SERVER, groups=2, write_buffer_bytes=256 * KIB
    )
    opened.recover()
    return opened


def batch(first: int, count: int) -> Write:
    """So many entries of 1 KiB in each of two groups."""
    logs = [
        tuple(command(index, group=group, size=KIB) for index in range(first, first + count))
        for group in range(2)
    ]
    appends = tuple(Append(group, 0, log) for group, log in enumerate(logs))
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
