"""The merge: one order for all groups, whatever order their entries come in."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craft.merge import Merger
from craft.types import Entry, EntryKind, make_entry

KINDS = (EntryKind.COMMAND, EntryKind.EMPTY, EntryKind.SESSION, EntryKind.CONFIGURATION, EntryKind.MEMBERSHIP)
COMMANDS = (EntryKind.COMMAND, EntryKind.SESSION, EntryKind.MEMBERSHIP)

Groups = list[tuple[Entry, ...]]
Line = tuple[int, int, int]  # timestamp, group, index


class Delivery(NamedTuple):
    """The next `count` entries of a group arrive; then, perhaps, the merger is drained."""

    group: int
    entries: int
    drained: bool


def log(group: int, *stamps: int, kinds: tuple[EntryKind, ...] = ()) -> tuple[Entry, ...]:
    """A group's committed entries; commands where no kinds are named."""
    kinds = kinds or (EntryKind.COMMAND,) * len(stamps)
    return tuple(
        make_entry(group, index=index, term=1, timestamp=stamp, kind=kind)
        for index, (stamp, kind) in enumerate(zip(stamps, kinds, strict=True), start=1)
    )


@st.composite
def clusters(draw: st.DrawFn) -> Groups:
    """Up to four groups with few, coarse timestamps: many ties across groups."""
    groups = []
    for group in range(draw(st.integers(1, 4))):
        stamps = sorted(draw(st.sets(st.integers(1, 12), max_size=8)))
        kinds = tuple(draw(st.lists(st.sampled_from(KINDS), min_size=len(stamps), max_size=len(stamps))))
        groups.append(log(group, *stamps, kinds=kinds))
    return groups


deliveries = st.lists(st.builds(Delivery, st.integers(0, 3), st.integers(1, 4), st.booleans()), max_size=30)


def lines(drained: list[tuple[int, int, Entry]]) -> list[Line]:
    assert all(timestamp == entry.timestamp for timestamp, _, entry in drained)
    return [(timestamp, group, entry.index) for timestamp, group, entry in drained]


def run(groups: Groups, order: list[Delivery]) -> tuple[list[Line], Merger]:
    """Deliver in this order; check what must hold at every step; return what was merged."""
    merger, cursors, merged = Merger(len(groups)), [0] * len(groups), list[Line]()
    for number, count, drained in order:
        group = number % len(groups)
        entries = groups[group][cursors[group] : cursors[group] + count]
        cursors[group] += len(entries)
        merger.extend(group, entries)
        check(merger, groups, cursors, merged)
        if drained:
            merged += lines(merger.drain())
            check(merger, groups, cursors, merged)
    merged += lines(merger.drain())
    return merged, merger


def check(merger: Merger, groups: Groups, cursors: list[int], merged: list[Line]) -> None:
    """`closed` is the last delivered stamp and nothing else; what is held is what is not merged."""
    delivered = [group[:cursor] for group, cursor in zip(groups, cursors, strict=True)]
    assert merger.closed == [entries[-1].timestamp if entries else 0 for entries in delivered]
    assert merger.safe == min(merger.closed)
    assert merger.closed[merger.blocking] == merger.safe
    waiting = [
        [e for e in entries if e.kind in COMMANDS and (e.timestamp, g, e.index) not in merged]
        for g, entries in enumerate(delivered)
    ]
    assert [merger.held(g) for g in range(len(groups))] == [len(entries) for entries in waiting]
    assert merger.bytes == sum(e.size for entries in waiting for e in entries)


def sorted_commands(groups: Groups) -> list[Line]:
    """The twin: all command entries of all groups, sorted."""
    return sorted(
        (e.timestamp, g, e.index) for g, entries in enumerate(groups) for e in entries if e.kind in COMMANDS
    )


def safe_part(groups: Groups) -> list[Line]:
    """What may be merged once everything was delivered."""
    safe = min(entries[-1].timestamp if entries else 0 for entries in groups)
    return [line for line in sorted_commands(groups) if line[0] <= safe]


# -- properties --------------------------------------------------------------------------------------


@given(clusters(), deliveries)
def test_any_delivery_gives_a_prefix_of_the_one_order(groups: Groups, order: list[Delivery]) -> None:
    """However the groups' entries interleave, what has been merged is a prefix of all commands by
    (timestamp, group).
    """
    merged, _ = run(groups, order)
    assert merged == sorted_commands(groups)[: len(merged)]


@given(clusters(), deliveries, deliveries)
def test_two_servers_merge_prefixes_of_one_another(
    groups: Groups, here: list[Delivery], there: list[Delivery]
) -> None:
    """PROTOCOL 3: "the merged logs of two servers are prefixes of one another"."""
    (a, _), (b, _) = run(groups, here), run(groups, there)
    shorter = min(len(a), len(b))
    assert a[:shorter] == b[:shorter]


@given(clusters(), deliveries)
def test_all_that_is_safe_is_merged(groups: Groups, order: list[Delivery]) -> None:
    """Nothing is held back without need: once all is delivered, everything at or below the safe timestamp is
    out.
    """
    rest = [Delivery(group, 100, False) for group in range(len(groups))]
    merged, _ = run(groups, [*order, *rest])
    assert merged == safe_part(groups)


@given(clusters(), deliveries)
def test_nothing_is_merged_below_what_was_safe(groups: Groups, order: list[Delivery]) -> None:
    """A safe timestamp is a promise: whatever is drained later is stamped beyond it."""
    merger, cursors, promised = Merger(len(groups)), [0] * len(groups), -1
    for number, count, drained in order:
        group = number % len(groups)
        merger.extend(group, groups[group][cursors[group] : cursors[group] + count])
        cursors[group] += count
        if drained:
            assert all(timestamp > promised for timestamp, _, _ in merger.drain())
            promised = merger.safe


# -- cases -------------------------------------------------------------------------------------------


def test_a_tie_goes_to_the_lower_group() -> None:
    """The order is (timestamp, group)."""
    merger = Merger(3)
    for group in (2, 0, 1):
        merger.extend(group, log(group, 5))
    assert lines(merger.drain()) == [(5, 0, 1), (5, 1, 1), (5, 2, 1)]


def test_a_silent_group_holds_everyone_back_until_it_closes() -> None:
    """An empty entry at the demand is enough, and is not merged itself."""
    merger = Merger(2)
    merger.extend(0, log(0, 5, 9))
    assert (merger.drain(), merger.blocking, merger.safe) == ([], 1, 0)
    merger.extend(1, log(1, 9, kinds=(EntryKind.EMPTY,)))
    assert lines(merger.drain()) == [(5, 0, 1), (9, 0, 2)]
    assert merger.bytes == 0


def test_a_group_that_lies_at_the_safe_timestamp_has_nothing_more_there() -> None:
    """Stamps rise strictly within a group, so an equal closed timestamp is closed."""
    merger = Merger(2)
    merger.extend(1, log(1, 90))
    merger.extend(0, log(0, 90))
    assert lines(merger.drain()) == [(90, 0, 1), (90, 1, 1)]


def test_a_stamp_that_falls_within_its_group_is_a_fault_of_ours() -> None:
    """Logs are checked when they are received; the merge relies on it."""
    merger = Merger(1)
    merger.extend(0, log(0, 9))
    with pytest.raises(AssertionError, match="group 0 closed 9"):
        merger.extend(0, log(0, 9))


def test_a_merger_of_no_groups_is_refused() -> None:
    """There is nothing to wait for."""
    with pytest.raises(AssertionError):
        Merger(0)


@given(batches=st.lists(st.integers(1, 60), min_size=1, max_size=30), bytes_max=st.integers(1, 400))
def test_a_bounded_drain_gives_the_same_log_in_parts(batches: list[int], bytes_max: int) -> None:
    """Bounded drains, one behind the other, are the unbounded one; each keeps its bound or is one entry."""

    def filled() -> Merger:
        merger = Merger(3)
        for group in range(3):
            entries = tuple(
                make_entry(
                    group,
                    index=index,
                    term=1,
                    timestamp=10 * index + group % 2,
                    kind=EntryKind.COMMAND,
                    payload=bytes(size),
                )
                for index, size in enumerate(batches, 1)
            )
            merger.extend(group, entries)
        return merger

    whole, merger, parts = filled().drain(), filled(), []
    while part := merger.drain(bytes_max):
        assert len(part) == 1 or sum(entry.size for _, _, entry in part) <= bytes_max
        parts += part
    assert parts == whole
    assert merger.bytes == filled().bytes - sum(entry.size for _, _, entry in whole)
