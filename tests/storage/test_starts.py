"""Logs that begin behind a cut: compacted, replaced by a snapshot, restarted behind one. On all disks."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from craft.errors import DamagedStorage, InvariantViolation
from craft.types import BEGINNING, Append, Entry, HardState, Place, Start, Write
from tests.storage.disks import (
    GROUPS,
    Disk,
    MemoryDisk,
    RocksDisk,
    SimulatedHandle,
    appended,
    begun,
    command,
    configuration,
    cut_at,
    empty,
)

TAIL_BYTES_MAX = 500
OTHERS = (BEGINNING,) * (GROUPS - 1)


def make_disk(kind: str, path: pathlib.Path) -> Disk:
    if kind == "rocks":
        return RocksDisk(path, TAIL_BYTES_MAX)
    return MemoryDisk(TAIL_BYTES_MAX) if kind == "memory" else SimulatedHandle(TAIL_BYTES_MAX)


@pytest.fixture(params=["memory", "rocks", "simulated"])
def disk(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Disk]:
    made = make_disk(request.param, tmp_path)
    yield made
    made.close()


def filled(disk: Disk, count: int = 8, *, commit: int = 6) -> None:
    """A log of so many commands, synced."""
    written = (command(index) for index in range(1, count + 1))
    disk.storage.write(appended(*written, hard_state=HardState(1, 2, commit)))
    disk.sync()


# -- compaction -----------------------------------------------------------------------------------


def test_a_compacted_log_begins_behind_its_cut(disk: Disk) -> None:
    """What is below is gone, what is behind stays, and a restart is told the cut with its configuration."""
    filled(disk)
    cut = cut_at(command(4))
    disk.storage.write(begun(cut))
    disk.sync()
    group = disk.power_cut().groups[0]
    assert group.start == cut
    assert group.offset == Place(1, 4)
    assert group.offset_timestamp == cut.timestamp
    assert [entry.index for entry in group.tail] == [5, 6, 7, 8]
    held = disk.storage.entries(0, first_index=5, last_index=8, bytes_max=10**6)
    assert held == tuple(command(index) for index in range(5, 9))


def test_what_is_compacted_is_refused_by_name(disk: Disk) -> None:
    """Who asks for it needs a snapshot."""
    filled(disk)
    disk.storage.write(begun(cut_at(command(4))))
    with pytest.raises(InvariantViolation, match="entries 4 to 6 of a log that is compacted up to 4"):
        disk.storage.entries(0, first_index=4, last_index=6, bytes_max=100)


def test_an_unsynced_compaction_leaves_the_whole_log(disk: Disk) -> None:
    """It is as atomic as an append."""
    filled(disk)
    disk.storage.write(begun(cut_at(command(4))))
    group = disk.power_cut().groups[0]
    assert (group.start, group.offset.index + len(group.tail)) == (BEGINNING, 8)
    assert disk.storage.entries(0, first_index=1, last_index=1, bytes_max=1) == (command(1),)


def test_a_log_may_be_compacted_to_its_end(disk: Disk) -> None:
    """Then it is empty, and goes on behind the cut."""
    filled(disk, commit=8)
    cut = cut_at(command(8))
    disk.storage.write(begun(cut, command(9)))
    group = disk.kill().groups[0]
    assert (group.start, group.offset, group.tail) == (cut, Place(1, 8), (command(9),))
    assert group.last_command == Place(1, 9)


def test_a_log_is_compacted_again_and_again(disk: Disk) -> None:
    """Each cut replaces the one before, within one run and over restarts."""
    for index in range(1, 30):
        disk.storage.write(appended(command(index), hard_state=HardState(1, None, index)))
        if index % 4 == 0:
            disk.storage.write(begun(cut_at(command(index - 2))))
        if index % 10 == 0:
            assert disk.kill().groups[0].start.place.index == (index // 4) * 4 - 2
    assert disk.storage.entries(0, first_index=27, last_index=29, bytes_max=10**6)[0] == command(27)


def test_the_commit_of_a_compacted_log_is_at_least_its_cut(disk: Disk) -> None:
    """The commit is a hint that may lag; what was compacted was committed."""
    filled(disk, commit=2)
    disk.storage.write(begun(cut_at(command(5))))
    assert disk.kill().groups[0].hard_state == HardState(1, 2, 5)


def test_a_compacted_log_is_still_cut_and_overwritten(disk: Disk) -> None:
    """Behind its start it is a log like any other."""
    filled(disk, commit=4)
    disk.storage.write(begun(cut_at(command(4))))
    newer = (command(6, term=2), command(7, term=2))
    disk.storage.write(appended(*newer, truncate_from=6, hard_state=HardState(2, None, 4)))
    assert disk.kill().groups[0].tail == (command(5), *newer)
    disk.storage.write(appended(command(5, term=3), truncate_from=5, hard_state=HardState(3, None, 5)))
    assert disk.kill().groups[0].tail == (command(5, term=3),)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (begun(cut_at(command(9))), "start behind 9 of a log that begins behind 4 and ends at 8"),
        (begun(cut_at(command(3))), "start behind 3 of a log that begins behind 4"),
        (begun(cut_at(command(3)), keep=False), "start behind 3 of a log that begins behind 4"),
        (appended(command(4, term=2), truncate_from=4), "cut from 4 of a log that ends at 8 and begins"),
        (begun(cut_at(command(6)), command(8)), "entry 8 where 9 is next"),
    ],
)
def test_a_start_that_leaves_a_gap_changes_nothing(disk: Disk, write: Write, words: str) -> None:
    """No storage writes what it would refuse to read."""
    filled(disk)
    disk.storage.write(begun(cut_at(command(4))))
    before = disk.kill()
    with pytest.raises(InvariantViolation, match=words):
        disk.storage.write(write)
    assert disk.kill() == before


# -- an installed snapshot ------------------------------------------------------------------------


@pytest.mark.parametrize("index", [5, 8, 100])
def test_a_log_that_is_replaced_ends_at_the_cut(disk: Disk, index: int) -> None:
    """Longer or shorter than what the snapshot covers: all of it goes, in one batch with the hard state."""
    filled(disk)
    cut = cut_at(command(index, term=3))
    disk.storage.write(begun(cut, keep=False, state=HardState(3, None, index)))
    disk.sync()
    group = disk.power_cut().groups[0]
    assert (group.start, group.offset, group.tail) == (cut, Place(3, index), ())
    assert group.last_command == Place(3, index)
    disk.storage.write(appended(command(index + 1, term=3)))
    assert disk.kill().groups[0].tail == (command(index + 1, term=3),)


def test_all_groups_are_replaced_in_one_batch(disk: Disk) -> None:
    """An installed snapshot is there for all groups or for none."""
    filled(disk)
    cuts = [cut_at(command(20 + group, group=group, term=2)) for group in range(GROUPS)]
    starts = tuple(Start(group, cut, False) for group, cut in enumerate(cuts))
    states = tuple((group, HardState(2, None, 20 + group)) for group in range(GROUPS))
    write = Write(2, (Append(1, 0, (command(22, group=1, term=2),)),), states, None, starts)
    disk.storage.write(write)
    assert [group.start for group in disk.power_cut().groups] == [BEGINNING] * GROUPS
    disk.storage.write(write)
    disk.sync()
    assert [group.start for group in disk.power_cut().groups] == cuts


# -- configurations -------------------------------------------------------------------------------


def test_configurations_are_found_wherever_they_stand(disk: Disk) -> None:
    """Before the tail, in it, and not those that were cut or compacted away."""
    log = (configuration(1, {1}), command(2, size=900), configuration(3, {1, 2}), command(4, size=900))
    disk.storage.write(appended(*log, configuration(5, {3}), hard_state=HardState(1, None, 4)))
    newer = (command(5, term=2), configuration(6, {1, 2, 3}, term=2))
    disk.storage.write(appended(*newer, truncate_from=5, hard_state=HardState(2, None, 4)))
    assert disk.kill().groups[0].configurations == (log[0], log[2], newer[1])
    disk.storage.write(begun(cut_at(log[1])))
    assert disk.kill().groups[0].configurations == (log[2], newer[1])
    disk.storage.write(begun(cut_at(command(9, term=2)), keep=False, state=HardState(2, None, 9)))
    assert disk.kill().groups[0].configurations == ()


# -- restarts behind a snapshot -------------------------------------------------------------------


def test_a_restart_reads_only_what_is_behind_the_snapshot(disk: Disk) -> None:
    """The log begins where it did, and nothing at or below the snapshot's cut is handed out."""
    log = (command(1), configuration(2, {1, 2}), *(command(index) for index in range(3, 10)))
    disk.storage.write(appended(*log, hard_state=HardState(1, None, 3)))
    disk.storage.write(begun(cut_at(command(1))))
    group = disk.kill((cut_at(command(6)), *OTHERS)).groups[0]
    assert group.start == cut_at(command(1))
    assert group.offset == Place(1, 6)
    assert [entry.index for entry in group.tail] == [7, 8, 9]
    assert group.hard_state.commit == 6
    assert group.configurations == (log[1],)
    assert disk.storage.entries(0, first_index=3, last_index=3, bytes_max=1) == (command(3),)


@pytest.mark.parametrize("behind", [command(6, term=2), command(12, term=2)], ids=["another entry", "beyond"])
def test_a_log_that_the_snapshot_is_to_replace_is_handed_out_as_it_is(disk: Disk, behind: Entry) -> None:
    """A crash came between keeping an installed snapshot and writing the logs: the engine replaces it."""
    filled(disk, 8, commit=2)
    cut = cut_at(behind)
    group = disk.kill((cut, *OTHERS)).groups[0]
    assert group.start == BEGINNING
    assert group.offset.index + len(group.tail) == 8
    assert group.hard_state.commit == 2


def test_a_snapshot_below_the_start_changes_nothing(disk: Disk) -> None:
    """The log is read from its start then."""
    filled(disk)
    disk.storage.write(begun(cut_at(command(5)), empty(9)))
    assert disk.kill((cut_at(command(3)), *OTHERS)) == disk.kill()


def test_damage_below_the_snapshot_shows_when_it_is_read() -> None:
    """A restart does not look there; whoever reads the entry later is told."""
    simulated = SimulatedHandle(TAIL_BYTES_MAX)
    filled(simulated)
    content = simulated.disk.written.logs[0]
    content.replace(command(3)._replace(record=command(4).record), index=3)
    simulated.disk.synced = simulated.disk.written.copy()
    with pytest.raises(DamagedStorage):
        simulated.kill()
    assert simulated.kill((cut_at(command(5)), *OTHERS)).groups[0].offset == Place(1, 5)
    with pytest.raises(DamagedStorage, match="stored under index 3 says it is 4"):
        simulated.storage.entries(0, first_index=3, last_index=3, bytes_max=1)


def test_a_start_at_an_entry_that_the_log_does_not_have_is_refused() -> None:
    """Where the log is at hand, which on a real disk it is not."""
    simulated = SimulatedHandle(TAIL_BYTES_MAX)
    filled(simulated)
    with pytest.raises(InvariantViolation, match="start at"):
        simulated.storage.write(begun(cut_at(command(5, term=2))))
