"""What the port promises, kept by the disk in memory and by RocksDB alike."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from craft.errors import InvariantViolation, StorageFailed
from craft.types import (
    BEGINNING,
    NOWHERE,
    Append,
    Cut,
    Entry,
    HardState,
    Place,
    Recovered,
    RecoveredGroup,
    Write,
    empty_recovered,
)
from tests.storage.disks import (
    CLUSTER,
    FAST_FOLDER,
    GROUPS,
    SERVER,
    Disk,
    MemoryDisk,
    RocksDisk,
    SimulatedHandle,
    appended,
    ballot,
    begun,
    command,
    configuration,
    cut_at,
    empty,
)

TAIL_BYTES_MAX = 500


def make_disk(kind: str, path: pathlib.Path) -> Disk:
    return MemoryDisk(TAIL_BYTES_MAX) if kind == "memory" else RocksDisk(path, TAIL_BYTES_MAX)


@pytest.fixture(params=["memory", "rocks"])
def disk(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Disk]:
    made = make_disk(request.param, tmp_path)
    yield made
    made.close()


def indexes(disk: Disk, first: int, last: int, *, group: int = 0, bytes_max: int = 10**6) -> list[int]:
    found = disk.storage.entries(group, first_index=first, last_index=last, bytes_max=bytes_max)
    return [entry.index for entry in found]


def test_a_new_disk_is_empty(disk: Disk) -> None:
    """A server that never wrote recovers nothing, and knows whose disk it is."""
    assert disk.recovered == empty_recovered(GROUPS)
    assert disk.storage.identity[:2] == (CLUSTER, SERVER)
    assert disk.storage.identity.groups == GROUPS
    assert disk.storage.peer_disks() == {}


def test_a_write_is_visible_before_its_sync(disk: Disk) -> None:
    """What was written is read back at once, byte for byte."""
    written = (command(1), empty(2), command(3))
    disk.storage.write(appended(*written))
    assert disk.storage.entries(0, first_index=1, last_index=3, bytes_max=10**6) == written


def test_a_synced_write_survives_a_power_cut(disk: Disk) -> None:
    """What a sync covered is there after the power comes back."""
    written = (command(1), command(2))
    disk.storage.write(appended(*written, hard_state=HardState(1, 2, 0), counter=4))
    disk.sync()
    recovered = disk.power_cut()
    assert recovered.counter == 4
    assert recovered.groups[0] == RecoveredGroup(HardState(1, 2, 0), NOWHERE, 0, written, Place(1, 2))
    assert recovered.groups[1] == empty_recovered(1).groups[0]


def test_an_unsynced_write_is_lost_whole(disk: Disk) -> None:
    """A batch is there or not: entries, hard states and counter together."""
    disk.storage.write(appended(command(1), hard_state=HardState(1, None, 0), counter=1))
    disk.sync()
    disk.storage.write(
        Write(
            2,
            (Append(0, 0, (command(2, term=2),)), Append(1, 0, (command(1, group=1, term=2),))),
            ((0, HardState(2, 5, 0)), (1, HardState(2, 5, 0))),
            counter=2,
        )
    )
    recovered = disk.power_cut()
    assert recovered.counter == 1
    assert recovered.groups[0].tail == (command(1),)
    assert recovered.groups[0].hard_state == HardState(1, None, 0)
    assert recovered.groups[1].hard_state == HardState(0, None, 0)


def test_a_killed_server_finds_all_that_it_wrote(disk: Disk) -> None:
    """The kernel holds unsynced batches; once recovered they are durable, for the engine builds on them."""
    disk.storage.write(appended(command(1), hard_state=HardState(1, 3, 0)))
    disk.storage.write(appended(command(2), hard_state=HardState(1, 3, 1)))
    assert disk.kill().groups[0].tail == (command(1), command(2))
    recovered = disk.power_cut()
    assert recovered.groups[0].tail == (command(1), command(2))
    assert recovered.groups[0].hard_state == HardState(1, 3, 1)


def test_writing_goes_on_after_a_restart(disk: Disk) -> None:
    """Batches written by several runs form one log."""
    for index in range(1, 6):
        disk.storage.write(appended(command(index)))
        disk.sync()
        recovered = disk.power_cut() if index % 2 else disk.kill()
        assert [entry.index for entry in recovered.groups[0].tail] == list(range(1, index + 1))


def test_a_conflicting_tail_is_cut_and_overwritten_in_one_batch(disk: Disk) -> None:
    """Entries above the cut are gone although nothing overwrites their keys."""
    disk.storage.write(appended(*(command(index) for index in range(1, 8))))
    disk.sync()
    newer = (command(3, term=2), command(4, term=2))
    disk.storage.write(appended(*newer, truncate_from=3))
    assert indexes(disk, 1, 99) == [1, 2, 3, 4]
    disk.sync()
    recovered = disk.power_cut()
    assert recovered.groups[0].tail == (command(1), command(2), *newer)
    assert recovered.groups[0].last_command == Place(2, 4)


def test_an_unsynced_cut_leaves_the_old_tail(disk: Disk) -> None:
    """A cut is as atomic as an append."""
    old = tuple(command(index) for index in range(1, 6))
    disk.storage.write(appended(*old))
    disk.sync()
    disk.storage.write(appended(command(2, term=2), truncate_from=2))
    assert disk.power_cut().groups[0].tail == old


def test_a_cut_without_an_append(disk: Disk) -> None:
    """A log may be cut to nothing and begun again, within one write."""
    disk.storage.write(appended(command(1), command(2)))
    disk.storage.write(appended(truncate_from=2))
    assert indexes(disk, 1, 2) == [1]
    again = (command(1, term=2), command(2, term=2))
    write = Write(1, (Append(0, 1, ()), Append(0, 0, again)), ((0, HardState(2, None, 0)),), None)
    disk.storage.write(write)
    assert disk.kill().groups[0].tail == again


def test_the_last_command_is_found_behind_a_cut(disk: Disk) -> None:
    """Where the newest command was cut off, the one before it counts, even outside the tail."""
    disk.storage.write(appended(command(1), command(2, size=600), empty(3), empty(4), command(5)))
    disk.storage.write(appended(empty(5, term=2), truncate_from=5, hard_state=HardState(2, None, 5)))
    group = disk.kill().groups[0]
    assert group.last_command == Place(1, 2)
    assert (group.offset, group.offset_timestamp) == (Place(1, 2), command(2).timestamp)
    assert [entry.index for entry in group.tail] == [3, 4, 5]


def test_the_tail_holds_everything_above_the_commit(disk: Disk) -> None:
    """The bound of the tail never cuts off what is not known committed."""
    written = tuple(command(index, size=400) for index in range(1, 11))
    disk.storage.write(appended(*written, hard_state=HardState(1, None, 6)))
    group = disk.kill().groups[0]
    assert [entry.index for entry in group.tail] == [6, 7, 8, 9, 10]
    assert group.offset == Place(1, 5)


def test_entries_are_bounded_by_bytes(disk: Disk) -> None:
    """As many entries as fit, at least one, never beyond the last asked for."""
    disk.storage.write(appended(*(command(index, size=1000) for index in range(1, 11))))
    size = command(1, size=1000).size
    assert indexes(disk, 3, 10, bytes_max=3 * size) == [3, 4, 5]
    assert indexes(disk, 3, 10, bytes_max=3 * size - 1) == [3, 4]
    assert indexes(disk, 3, 10, bytes_max=0) == [3]
    assert indexes(disk, 9, 9) == [9]
    assert indexes(disk, 9, 50) == [9, 10]


@pytest.mark.parametrize(("first", "last"), [(0, 1), (3, 4), (2, 1)])
def test_entries_that_are_not_there(disk: Disk, first: int, last: int) -> None:
    """Asking for what the log does not hold is a mistake of the asker, and named."""
    disk.storage.write(appended(command(1), command(2)))
    with pytest.raises(InvariantViolation, match=f"entries {first} to {last} of a log that ends at 2"):
        disk.storage.entries(0, first_index=first, last_index=last, bytes_max=100)


def test_groups_do_not_mix(disk: Disk) -> None:
    """Each group has its own log, cut and hard state."""
    disk.storage.write(appended(command(1, group=0), command(2, group=0), group=0))
    disk.storage.write(appended(command(1, group=2), group=2, hard_state=HardState(4, 9, 1)))
    disk.storage.write(appended(group=0, truncate_from=2))
    recovered = disk.kill()
    assert [len(group.tail) for group in recovered.groups] == [1, 0, 1]
    assert recovered.groups[2].hard_state == HardState(4, 9, 1)


def test_a_write_that_leaves_a_gap_changes_nothing(disk: Disk) -> None:
    """A log with a gap would be refused at the next start, so it is refused when it is written."""
    disk.storage.write(appended(command(1)))
    with pytest.raises(InvariantViolation, match="entry 3 where 2 is next"):
        disk.storage.write(appended(command(3)))
    disk.storage.write(appended(command(2)))
    assert indexes(disk, 1, 2) == [1, 2]


def test_hard_state_without_entries(disk: Disk) -> None:
    """A vote is durable on its own, vote 0 is a vote, and a new term forgets it."""
    for state in (HardState(3, 0, 0), HardState(3, 0, 0), HardState(4, None, 0), HardState(4, 2**32 - 1, 0)):
        disk.storage.write(ballot(state.term, state.vote, group=1))
        disk.sync()
        assert disk.power_cut().groups[1].hard_state == state


def test_an_unsynced_vote_is_there_after_a_kill(disk: Disk) -> None:
    """The two places of a vote may differ by the batches since the last sync."""
    disk.storage.write(ballot(3, 1))
    disk.sync()
    disk.storage.write(ballot(4, None))
    disk.storage.write(ballot(4, 2))
    assert disk.kill().groups[0].hard_state == HardState(4, 2, 0)


def test_the_counter_changes_only_where_it_is_given(disk: Disk) -> None:
    """Writes without a counter keep the last one."""
    disk.storage.write(appended(command(1), counter=5))
    disk.storage.write(appended(command(2)))
    assert disk.kill().counter == 5


def test_a_suspicion_stays_until_a_write_ends_it(disk: Disk) -> None:
    """Each group by itself, over restarts; the end is as durable as the batch that it is in (PROTOCOL 10)."""
    disk.storage.write(Write(1, (), (), None, suspicions=((0, "torn"), (2, "doubted"))))
    disk.sync()
    ending = appended(command(1))._replace(suspicions=((0, ""),))
    for _ in range(2):
        assert [found.suspicion for found in disk.power_cut().groups] == ["torn", "", "doubted"]
        disk.storage.write(ending)
    disk.sync()
    recovered = disk.power_cut()
    assert [found.suspicion for found in recovered.groups] == ["", "", "doubted"]
    assert recovered.groups[0].tail == (command(1),)


def test_a_peers_disk_is_remembered_at_once(disk: Disk) -> None:
    """The first disk met under an id is durable without a sync of the caller's, and no other replaces it."""
    disk.storage.remember_peer_disk(2, "a" * 32)
    disk.storage.remember_peer_disk(2, "a" * 32)
    with pytest.raises(InvariantViolation, match="server 2 is bound to disk aaaa"):
        disk.storage.remember_peer_disk(2, "b" * 32)
    disk.kill()
    assert disk.storage.peer_disks() == {2: "a" * 32}


def test_remembering_a_disk_syncs_what_was_written_before(disk: Disk) -> None:
    """Batches become durable in their order."""
    disk.storage.write(appended(command(1)))
    disk.storage.remember_peer_disk(2, "a" * 32)
    assert disk.kill().groups[0].tail == (command(1),)


def test_a_closed_storage_refuses(disk: Disk) -> None:
    """Nothing is taken that could not be kept."""
    disk.storage.close()
    disk.storage.close()
    with pytest.raises(StorageFailed, match="closed"):
        disk.storage.write(appended(command(1)))
    with pytest.raises(StorageFailed, match="closed"):
        disk.storage.sync()
    with pytest.raises(StorageFailed, match="closed"):
        disk.storage.entries(0, first_index=1, last_index=1, bytes_max=1)


def test_memory_may_keep_some_unsynced_batches() -> None:
    """A simulated crash chooses how much of the unsynced tail reached the disk."""
    for keep in range(4):
        disk = MemoryDisk(TAIL_BYTES_MAX)
        for index in range(1, 4):
            disk.storage.write(appended(command(index)))
        crashed = disk.storage
        assert crashed.unsynced == 3
        assert len(crashed.crash(keep=keep).recover().groups[0].tail) == keep
        with pytest.raises(StorageFailed):
            crashed.sync()


class DisksAgree(RuleBasedStateMachine):
    """Whatever is done to all three disks, they recover the same."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(dir=FAST_FOLDER)
        self.memory = MemoryDisk(TAIL_BYTES_MAX)
        self.rocks = RocksDisk(pathlib.Path(self._folder.name), TAIL_BYTES_MAX)
        self.disks: tuple[Disk, ...] = (self.memory, self.rocks, SimulatedHandle(TAIL_BYTES_MAX))
        self.term = 1
        self.starts = [BEGINNING] * GROUPS
        self.ends = [0] * GROUPS
        self.commits = [0] * GROUPS

    def teardown(self) -> None:
        self.rocks.close()
        self._folder.cleanup()

    def _write(self, write: Write) -> None:
        for disk in self.disks:
            disk.storage.write(write)

    @rule(group=st.integers(0, GROUPS - 1), count=st.integers(0, 4), cut=st.integers(0, 5), data=st.data())
    def write(self, group: int, count: int, cut: int, data: st.DataObject) -> None:
        first = max(self.ends[group] + 1 - cut, self.commits[group] + 1)
        if first <= self.ends[group]:
            self.term += 1  # only a new leader overwrites
        kinds = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
        entries = [
            configuration(index, {1, index + 1}, group=group, term=self.term)
            if configures
            else command(index, group=group, term=self.term)
            for index, configures in enumerate(kinds, first)
        ]
        self.ends[group] = first + count - 1
        self.commits[group] = data.draw(st.integers(self.commits[group], self.ends[group]))
        vote = data.draw(st.none() | st.integers(0, 3))
        self.term += 1
        state = HardState(self.term, vote, self.commits[group])
        append = Append(group, first if first <= self.ends[group] + 1 and cut else 0, tuple(entries))
        self._write(Write(1, (append,), ((group, state),), self.term))

    @rule(group=st.integers(0, GROUPS - 1), data=st.data())
    def compact(self, group: int, data: st.DataObject) -> None:
        low = self.starts[group].place.index
        index = data.draw(st.integers(low, self.commits[group]))
        if index > low:
            self.starts[group] = self._cut(group, index)
            self._write(begun(self.starts[group], group=group))

    def _cut(self, group: int, index: int) -> Cut:
        (entry,) = self.memory.storage.entries(group, first_index=index, last_index=index, bytes_max=1)
        return cut_at(entry)

    @rule(group=st.integers(0, GROUPS - 1), ahead=st.integers(0, 3))
    def replace(self, group: int, ahead: int) -> None:
        self.term += 1
        index = max(1, self.commits[group] + ahead)
        self.starts[group] = cut_at(command(index, group=group, term=self.term))
        self.ends[group] = self.commits[group] = index
        state = HardState(self.term, None, index)
        self._write(begun(self.starts[group], group=group, keep=False, state=state))

    @rule()
    def sync(self) -> None:
        for disk in self.disks:
            disk.sync()

    @rule(snapshot=st.booleans())
    def kill(self, snapshot: bool) -> None:
        behind = self._behind() if snapshot else ()
        self._agree([disk.kill(behind) for disk in self.disks])

    def _behind(self) -> tuple[Cut, ...]:
        return tuple(
            self._cut(group, self.commits[group])
            if self.commits[group] > self.starts[group].place.index
            else self.starts[group]
            for group in range(GROUPS)
        )

    @rule()
    def power_cut(self) -> None:
        self._agree([disk.power_cut() for disk in self.disks])

    def _agree(self, found: list[Recovered]) -> None:
        assert found[0] == found[1] == found[2]
        for group, log in enumerate(found[0].groups):
            self.starts[group] = log.start
            self.ends[group] = log.offset.index + len(log.tail)
            self.commits[group] = log.hard_state.commit

    @precondition(lambda self: any(self.ends))
    @invariant()
    def they_hold_the_same_entries(self) -> None:
        for group in range(GROUPS):
            if self.ends[group] > self.starts[group].place.index:
                held = [self._held(disk, group) for disk in self.disks]
                assert held[0] == held[1] == held[2]

    def _held(self, disk: Disk, group: int) -> tuple[Entry, ...]:
        first = self.starts[group].place.index + 1
        return disk.storage.entries(group, first_index=first, last_index=self.ends[group], bytes_max=10**6)


DisksAgree.TestCase.settings = settings(max_examples=15, stateful_step_count=14, deadline=None)
TestDisksAgree = DisksAgree.TestCase
