"""The simulated disk forgets what it may, and nothing else; its restarts are judged as on a real one."""

from __future__ import annotations

import contextlib
import random

import pytest

from craft.errors import DamagedStorage, StorageFailed
from craft.testing.disk import CLUSTER_ID, Crash, SimulatedDisk
from craft.testing.files import PowerLost
from craft.types import (
    BEGINNING,
    Append,
    Entry,
    EntryKind,
    HardState,
    Head,
    SnapshotInfo,
    SnapshotKind,
    SnapshotPart,
    Write,
    make_entry,
)


def entry(index: int) -> Entry:
    """An entry of group 0 and term 1."""
    return make_entry(0, index=index, term=1, timestamp=index, kind=EntryKind.COMMAND, payload=b"%d" % index)


def write(number: int) -> Write:
    """One entry, and the vote in the first."""
    return Write(number, (Append(0, 0, (entry(number),)),), ((0, HardState(1, 2, 0)),), None)


def disk_with(synced: int, unsynced: int = 0) -> SimulatedDisk:
    """A disk with so many batches, one entry each."""
    disk = SimulatedDisk("d1", 1)
    for number in range(1, synced + 1):
        disk.write(write(number))
    disk.sync()
    for number in range(synced + 1, synced + unsynced + 1):
        disk.write(write(number))
    return disk


def found(disk: SimulatedDisk) -> int:
    """How many entries a restart finds."""
    return len(disk.recover().groups[0].tail)


def test_a_killed_process_leaves_all_that_it_wrote() -> None:
    """The page cache outlives the process."""
    disk = disk_with(3, unsynced=2)
    disk.crash(Crash.KILL, random.Random(1))
    assert found(disk) == 5


def test_a_power_cut_leaves_what_was_synced_and_some_of_the_rest() -> None:
    """Of what was not synced a beginning may be there: nothing, or all of it."""
    kept = set()
    for seed in range(40):
        disk = disk_with(3, unsynced=2)
        disk.crash(Crash.POWER, random.Random(seed))
        kept.add(found(disk))
    assert kept == {3, 4, 5}


def test_what_a_restart_found_is_on_the_platter() -> None:
    """Else a second crash could take what the first one left."""
    disk = disk_with(3, unsynced=2)
    disk.crash(Crash.KILL, random.Random(1))
    disk.recover()
    disk.crash(Crash.POWER, random.Random(1))
    assert found(disk) == 5


def test_a_batch_torn_by_a_kill_is_cut_for_it_was_never_synced() -> None:
    """The kernel lives, so its page cache proves it (PROTOCOL 10)."""
    disk = disk_with(3, unsynced=2)
    disk.crash(Crash.KILL, random.Random(1), torn=True)
    assert found(disk) == 4


def test_a_batch_torn_by_a_power_cut_makes_the_server_suspect() -> None:
    """Nobody can tell whether it had been synced; a second start must not forget that (attack 13)."""
    disk = disk_with(3, unsynced=2)
    disk.crash(Crash.POWER, random.Random(1), torn=True)
    for _ in range(3):
        assert all("cut short" in group.suspicion for group in disk.recover().groups)
        assert disk.suspect
        disk.crash(Crash.KILL, random.Random(1))


def test_a_suspicion_ends_with_a_write() -> None:
    """What the log held when it was last trusted is remembered until then, for the checkers."""
    disk = disk_with(3, unsynced=2)
    disk.crash(Crash.POWER, random.Random(1), torn=True)
    last = len(disk.recover().groups[0].tail)
    disk.write(write(last + 1)._replace(suspicions=((0, ""),)))
    assert not disk.vouches(0, last + 1, 1), "what a suspect took since does not count"
    disk.sync()
    assert disk.vouches(0, last + 1, 1)
    assert disk.recover().groups[0].suspicion == ""


def test_a_lost_tail_is_suspect_and_keeps_what_the_votes_prove() -> None:
    """Up to three synced batches are gone, none older than the last change of a term or vote."""
    lost = set()
    for seed in range(40):
        disk = disk_with(2)
        for index in range(3, 7):
            disk.write(write(index))
            disk.sync()
        before = disk.synced.copy()
        disk.crash(Crash.POWER, random.Random(seed))
        count = disk.lose_tail(random.Random(seed))
        lost.add(count)
        recovered = disk.recover()
        assert all(group.suspicion for group in recovered.groups)
        assert len(recovered.groups[0].tail) == before.logs[0].last_index - count
        assert disk.vouches(0, before.logs[0].last_index, 1) and disk.lost_tail == bool(count)
    assert lost == {0, 1, 2, 3}


def test_every_decay_is_refused() -> None:
    """A flipped bit, a lost tail, a hole: the verdict names what is missing."""
    for seed in range(30):
        rng = random.Random(seed)
        disk = disk_with(6)
        decay = rng.choice(
            (
                disk.flip,
                disk.punch,
                lambda r, d=disk: d.truncate(r, side_too=False),
                lambda r, d=disk: d.truncate(r, side_too=True),
            )
        )
        assert decay(rng)
        assert disk.spoilt
        disk.crash(Crash.KILL, rng)
        with pytest.raises(DamagedStorage):
            disk.recover()


def test_an_entry_that_is_written_anew_is_sound_again() -> None:
    """Soak seed 34529: a log was cut in front of a flipped bit, and grew again; nothing is missing there."""
    disk = disk_with(1)
    good = disk.written.logs[0].get(1)
    assert disk.flip(random.Random(1))
    assert disk.written.logs[0].get(1) != good == disk.as_written(0, 1)
    anew = make_entry(0, index=1, term=1, timestamp=5, kind=EntryKind.COMMAND)
    disk.write(Write(2, (Append(0, 1, (anew,)),), (), None))
    disk.sync()
    assert disk.as_written(0, 1) == anew
    assert found(disk) == 1
    assert disk.unread


def test_a_full_disk_takes_nothing_and_loses_nothing() -> None:
    """A server on it ends, and starts again when there is room."""
    disk = disk_with(2)
    disk.full = True
    with pytest.raises(StorageFailed, match="no space"):
        disk.write(write(3))
    with pytest.raises(StorageFailed):
        disk.recover()
    disk.full = False
    assert found(disk) == 2


def snapshot(disk: SimulatedDisk, position: int) -> SnapshotInfo:
    """One that the disk keeps."""
    head = Head(CLUSTER_ID, position, position, b"", (BEGINNING,))
    return disk.snapshots.write(head, (SnapshotPart(SnapshotKind.MACHINE, b"state"),))


def test_snapshots_outlive_every_crash() -> None:
    """They are durable when they are written; what the server knew of them is read anew."""
    for how in Crash:
        disk = disk_with(2)
        kept = snapshot(disk, 5)
        before = disk.snapshots
        disk.crash(how, random.Random(1))
        assert disk.snapshots is not before
        assert disk.snapshots.kept() == (kept,)


def test_a_power_cut_in_the_middle_of_a_snapshot_leaves_the_one_before() -> None:
    """Wherever it comes, and whatever of the file reached the platter."""
    for steps in range(20):
        disk = disk_with(2)
        kept = snapshot(disk, 5)
        disk.files.steps_left = steps
        with contextlib.suppress(PowerLost):
            snapshot(disk, 6)
        disk.crash(Crash.POWER, random.Random(1))
        assert kept in disk.snapshots.kept()
        assert len(disk.snapshots.kept()) <= 2


def test_chance_about_snapshots_is_of_its_own() -> None:
    """Who takes none draws nothing; who takes some, on the same disk, draws the same."""
    assert snapshot(disk_with(1), 5) == snapshot(disk_with(3), 5)
    rngs = [random.Random(7), random.Random(7)]
    for rng, takes in zip(rngs, (False, True), strict=True):
        disk = disk_with(3, unsynced=2)
        if takes:
            snapshot(disk, 5)
        disk.crash(Crash.POWER, rng)
    assert rngs[0].random() == rngs[1].random()
