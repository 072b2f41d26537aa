"""The log in memory and its bookkeeping of the disk, against a naive twin of both."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from craft.raft.log import ENTRY_OVERHEAD_BYTES, Log, memory_of
from craft.types import (
    NOWHERE,
    Append,
    Entry,
    EntryKind,
    HardState,
    Place,
    RecoveredGroup,
    empty_recovered,
    is_command,
    make_entry,
)
from tests.raft.harness import GROUP, entries, entry, show_entries

EMPTY = empty_recovered(1).groups[0]


def log_of(text: str) -> Log:
    """A log as recovered: all of it durable."""
    return Log(EMPTY._replace(tail=entries(text)))


def held(log: Log) -> str:
    return show_entries(log.entries)


class Write:
    """A write under way, as `Raft` keeps it: where the log ended, and what the disk was told."""

    def __init__(self, append: Append, last_index: int) -> None:
        self.append, self.last_index = append, last_index


class LogBesideADisk(RuleBasedStateMachine):
    """Appends, cuts, writes in flight (several), syncs in order, commits and evictions in any order.

    The twin is a list of all entries, and a disk that applies each write when it becomes durable.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log = Log(EMPTY)
        self.all: list[Entry] = []
        self.disk: list[Entry] = []
        self.term, self.committed = 1, 0
        self.writes: list[Write] = []

    @rule(commands=st.lists(st.booleans(), min_size=1, max_size=3), new_term=st.booleans())
    def append(self, commands: list[bool], new_term: bool) -> None:
        self.term += new_term
        last = len(self.all)
        new = tuple(
            entry(f"{self.term}@{last + i}{':x' if command else ''}") for i, command in enumerate(commands, 1)
        )
        self.log.append(new)
        self.all += new

    @precondition(lambda self: len(self.all) > self.committed)
    @rule(data=st.data())
    def cut_and_replace(self, data: st.DataObject) -> None:
        """A new leader overwrites what is not committed."""
        index = data.draw(st.integers(self.committed + 1, len(self.all)))
        self.log.truncate_from(index)
        del self.all[index - 1 :]
        self.term += 1
        if data.draw(st.booleans()):
            self.append([True], False)

    @rule()
    def write(self) -> None:
        append = self.log.take_append(GROUP)
        if append is not None:
            self.writes.append(Write(append, self.log.last_index))

    @precondition(lambda self: self.writes)
    @rule()
    def sync(self) -> None:
        """The oldest write is durable. As in `Raft.persisted`, only the newest vouches for its entries."""
        done = self.writes.pop(0)
        if done.append.truncate_from:
            del self.disk[done.append.truncate_from - 1 :]
        assert done.append.entries == () or done.append.entries[0].index == len(self.disk) + 1
        self.disk += done.append.entries
        if not self.writes:
            self.log.mark_persisted(done.last_index)

    @precondition(lambda self: self.log.persisted > self.committed)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        self.committed = data.draw(st.integers(self.committed + 1, self.log.persisted))

    @rule(bytes_max=st.sampled_from([0, ENTRY_OVERHEAD_BYTES + 50, 4 * ENTRY_OVERHEAD_BYTES]))
    def evict(self, bytes_max: int) -> None:
        self.log.evict(min(self.committed, self.log.persisted), bytes_max=bytes_max)
        left = self.log.entries[0].index if self.log.entries else None
        assert self.log.bytes <= bytes_max or left is None or left == self.committed + 1

    @invariant()
    def what_counts_as_persisted_is_on_disk(self) -> None:
        """The one thing that must never go wrong (etcd-io/etcd 1690)."""
        assert self.disk[: self.log.persisted] == self.all[: self.log.persisted]

    @invariant()
    def everything_handed_over_is_persisted_in_the_end(self) -> None:
        """Without writes under way nor to come, all of the log counts."""
        if not self.writes and self.log.handed == self.log.last_index and not self.log.cut:
            assert self.log.persisted == len(self.all)
            assert self.disk == self.all

    @invariant()
    def the_log_is_the_list(self) -> None:
        offset = self.log.offset.index
        assert offset <= self.committed
        assert self.log.entries == self.all[offset:]
        assert self.log.bytes == memory_of(self.all[offset:])
        assert self.log.last_index == len(self.all)
        assert self.log.last_term == (self.all[-1].term if self.all else 0)
        assert self.log.last_timestamp == (self.all[-1].timestamp if self.all else 0)

    @invariant()
    def terms_are_known_from_the_offset_on(self) -> None:
        """The term at the offset too: an append after it needs it (etcd-io/raft 76f1249)."""
        offset = self.log.offset.index
        found = [self.log.term_at(index) for index in range(len(self.all) + 2)]
        terms = [0, *(e.term for e in self.all), None]
        assert found == [None] * offset + terms[offset:]

    @invariant()
    def the_last_command_is_never_understated(self) -> None:
        """Exact while it is in memory; else at most the offset: a read waits for more, never for less."""
        places = [Place(e.term, e.index) for e in self.all if is_command(e.kind)]
        exact = places[-1] if places else NOWHERE
        if exact.index > self.log.offset.index:
            assert self.log.last_command == exact
        else:
            assert exact <= self.log.last_command <= max(exact, self.log.offset)


LogBesideADisk.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestLogBesideADisk = LogBesideADisk.TestCase


# -- cases ------------------------------------------------------------------------------------------------


def test_a_recovered_log_is_durable_and_joins_its_offset() -> None:
    """What storage found needs no write, and knows what came before it."""
    recovered = RecoveredGroup(HardState(2, None, 3), Place(1, 3), 1003, entries("1@4 2@5:x"), Place(2, 5))
    log = Log(recovered)
    assert (log.persisted, log.last_index, log.take_append(GROUP)) == (5, 5, None)
    assert [log.term_at(index) for index in (2, 3, 4, 5, 6)] == [None, 1, 1, 2, None]
    assert log.last_command == Place(2, 5)


@pytest.mark.parametrize(
    ("before", "after"),
    [("1@1", "1@3"), ("1@1", "1@1"), ("2@1", "1@2")],
    ids=["a hole", "an index twice", "a falling term"],
)
def test_what_does_not_follow_is_not_appended(before: str, after: str) -> None:
    """Asserted on append: a fault of ours, for what a peer sends is judged before."""
    log = log_of(before)
    with pytest.raises(AssertionError, match="does not follow"):
        log.append(entries(after))


def test_stamps_rise_strictly() -> None:
    """PROTOCOL 2: across terms too, and on recovery."""
    late = entry("2@2")._replace(timestamp=1001)
    with pytest.raises(AssertionError, match="does not follow"):
        log_of("1@1").append((late,))
    with pytest.raises(AssertionError, match="does not follow"):
        Log(EMPTY._replace(tail=(*entries("1@1"), late)))


def test_a_cut_of_what_the_disk_never_saw_is_not_told() -> None:
    """Appended and overwritten between two writes: the disk hears of the survivor only."""
    log = log_of("1@1")
    log.append(entries("1@2 1@3"))
    log.truncate_from(2)
    log.append(entries("2@2"))
    assert log.take_append(GROUP) == Append(GROUP, 0, entries("2@2"))


def test_two_cuts_before_a_write_are_told_as_the_deeper_one() -> None:
    """However the log went back and forth since, the disk cuts once, deep enough."""
    log = log_of("1@1 1@2 1@3")
    log.truncate_from(2)
    log.append(entries("2@2 2@3"))
    log.truncate_from(3)
    assert log.take_append(GROUP) == Append(GROUP, 2, entries("2@2"))
    log.append(entries("3@3"))
    assert log.take_append(GROUP) == Append(GROUP, 0, entries("3@3"))


def test_a_cut_alone_is_a_write() -> None:
    """A log that became shorter must become shorter on disk."""
    log = log_of("1@1 1@2")
    log.truncate_from(2)
    assert log.take_append(GROUP) == Append(GROUP, 2, ())
    assert log.take_append(GROUP) is None


def test_a_slice_is_bounded_and_holds_at_least_one_entry() -> None:
    """By bytes, by the last index, and never nothing."""
    log = log_of("1@1 1@2 1@3 1@4")
    size = log.entry(1).size
    assert show_entries(log.slice(2, last_index=4, bytes_max=2 * size)) == "1@2 1@3"
    assert show_entries(log.slice(2, last_index=3, bytes_max=100 * size)) == "1@2 1@3"
    assert show_entries(log.slice(4, last_index=4, bytes_max=0)) == "1@4"


def test_only_what_is_durable_leaves_memory() -> None:
    """What is not on disk cannot be read back from there."""
    log = log_of("1@1")
    log.append(entries("1@2"))
    with pytest.raises(AssertionError):
        log.evict(2, bytes_max=0)
    log.evict(1, bytes_max=0)
    assert (held(log), log.offset, log.offset_timestamp) == ("1@2", Place(1, 1), 1001)


def test_small_entries_count_for_what_they_take() -> None:
    """A closing entry has 31 bytes and takes some 230: a limit of 32 MiB was a quarter of a GiB."""
    log = Log(EMPTY)
    tracemalloc.start()
    try:
        for index in range(1, 1001):
            empty = make_entry(GROUP, index=index, term=1, timestamp=10**18 + index, kind=EntryKind.EMPTY)
            log.append((empty,))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken * 0.75 < log.bytes < taken * 1.25


def test_what_left_memory_is_not_cut() -> None:
    """It was committed."""
    log = log_of("1@1 1@2")
    log.evict(1, bytes_max=0)
    with pytest.raises(AssertionError):
        log.truncate_from(1)


@pytest.mark.parametrize(
    ("text", "fits"),
    [("2@3", True), ("3@4", True), ("1@3", False), ("9@1", True)],
    ids=["the same term", "at the end", "a falling term", "the first of all"],
)
def test_an_entry_may_follow_what_stands_before_its_place(text: str, fits: bool) -> None:
    """Judged before anything is cut for it."""
    assert log_of("1@1 2@2 2@3").may_follow(entry(text)) is fits


def test_an_entry_may_not_follow_a_later_stamp() -> None:
    """Behind an entry in memory, and behind the offset."""
    log = log_of("1@1 1@2")
    late = entry("2@3")._replace(timestamp=1002)
    assert not log.may_follow(late)
    log.evict(2, bytes_max=0)
    assert not log.may_follow(late)
    assert log.may_follow(entry("2@3"))
