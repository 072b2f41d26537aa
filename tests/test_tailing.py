"""The tail in memory, and merging once more: nothing is left out, nothing comes twice, memory is bounded."""

from __future__ import annotations

import hypothesis.strategies as st
import msgpack
import pytest
from hypothesis import given

from craft.errors import WireError
from craft.folding import Fold, fold
from craft.merge import Merger
from craft.ready import Merged, Request
from craft.remerging import Remerger
from craft.sessions import OPEN, encode_payload
from craft.tailing import ENTRY_OVERHEAD_BYTES, Recent, TailEntry, pack_rows, tail_entry, unpack_rows
from craft.types import BEGINNING, Cut, Entry, EntryKind, Place, Proposal, make_entry


def applied(position: int, commands: list[bytes] | None = None) -> Merged:
    """An entry as the engine handed it to the state machine."""
    body = msgpack.packb([b"%d" % position] if commands is None else commands)
    return Merged(position, position * 10, 0, position, EntryKind.COMMAND, (Request("token", body),))


def positions(entries: tuple[TailEntry, ...] | None) -> list[int] | None:
    return None if entries is None else [entry.position for entry in entries]


# -- memory --------------------------------------------------------------------------------------------


def test_what_was_applied_can_be_had_from_any_position_on() -> None:
    """After the last one there is nothing yet; before the first one there is nothing any more."""
    recent = Recent(7, bytes_max=10_000)
    recent.note([applied(8), applied(9), applied(10)])
    assert positions(recent.after(7, bytes_max=10_000)) == [8, 9, 10]
    assert positions(recent.after(9, bytes_max=10_000)) == [10]
    assert positions(recent.after(10, bytes_max=10_000)) == []
    assert positions(recent.after(15, bytes_max=10_000)) == []
    assert recent.after(6, bytes_max=10_000) is None
    [entry] = recent.after(9, bytes_max=1) or ()
    assert entry == TailEntry(10, 100, 0, 10, EntryKind.COMMAND, (b"10",))


def test_a_batch_is_bounded_and_never_empty_without_need() -> None:
    """At least one entry, however large."""
    recent = Recent(0, bytes_max=10_000)
    recent.note([applied(1, [bytes(900)]), applied(2), applied(3)])
    assert positions(recent.after(0, bytes_max=1)) == [1]
    assert positions(recent.after(1, bytes_max=ENTRY_OVERHEAD_BYTES + 50)) == [2, 3]


def test_a_jump_leaves_nothing_before_it() -> None:
    """An installed snapshot: what it jumped over was never seen here."""
    recent = Recent(0, bytes_max=10_000)
    recent.note([applied(1), applied(9)])
    assert recent.after(1, bytes_max=1) is None
    assert positions(recent.after(8, bytes_max=1)) == [9]


def test_nobodys_token_is_kept() -> None:
    """A call that was answered is free, with the results that it holds."""
    recent = Recent(0, bytes_max=10_000)
    recent.note([applied(1)])
    assert recent._kept[0].merged.requests[0].token is None


@given(sizes=st.lists(st.integers(0, 2000), max_size=60), bytes_max=st.integers(1, 5000))
def test_memory_is_bounded_and_what_is_there_has_no_gap(sizes: list[int], bytes_max: int) -> None:
    """One entry more than allowed at most, and always the newest ones."""
    recent = Recent(0, bytes_max=bytes_max)
    for number, size in enumerate(sizes, start=1):
        recent.note([applied(number, [bytes(size)])])
        assert recent.end == number
        assert recent.bytes <= bytes_max or recent.end - recent.start == 1
        found = positions(recent.after(recent.start, bytes_max=10**9))
        assert found == list(range(recent.start + 1, number + 1))
        assert recent.bytes == sum(kept.size for kept in recent._kept[recent._gone :])


def test_entries_travel_as_plain_values() -> None:
    """There and back; anything else is named."""
    entries = (tail_entry(applied(1)), tail_entry(applied(2, [])))
    assert unpack_rows(pack_rows(entries)) == entries
    for wrong in ([[1, 2]], 7, [[1, 2, 3, 4, 99, []]], [[1, 2, 3, "4", 1, []]], [[1, 2, 3, 4, 1, ["text"]]]):
        with pytest.raises(WireError, match="a batch of the tail is"):
            unpack_rows(wrong)


# -- merging once more -----------------------------------------------------------------------------------


@st.composite
def logs(draw: st.DrawFn) -> list[list[Entry]]:
    """Committed logs of some groups, with empty entries, repeated requests and two servers' sessions."""
    groups = draw(st.integers(1, 3))
    found = []
    for group in range(groups):
        stamps = sorted(draw(st.sets(st.integers(1, 60), max_size=25)))
        entries = []
        for index, stamp in enumerate(stamps, start=1):
            proposals = draw(st.lists(st.tuples(st.integers(1, 2), st.integers(0, 6)), max_size=3))
            payload = encode_payload(
                [Proposal(s, 1, n, 1, 0, bytes(16) if n == OPEN else b"\x91\xc4\x01x") for s, n in proposals]
            )
            kind = EntryKind.COMMAND if proposals else EntryKind.EMPTY
            entries.append(
                make_entry(group, index=index, term=1, timestamp=stamp, kind=kind, payload=payload)
            )
        found.append(entries)
    return found


def merged_at_once(found: list[list[Entry]]) -> tuple[list[Merged], Fold]:
    merger, state = Merger(len(found)), Fold()
    for group, entries in enumerate(found):
        merger.extend(group, tuple(entries))
    return [fold(state, group, entry) for _, group, entry in merger.drain()], state


def merged_again(remerger: Remerger, found: list[list[Entry]], pieces: st.DataObject) -> list[Merged]:
    """In pieces of any size, as far as the logs reach."""
    out: list[Merged] = []
    while True:
        group, first = remerger.wanted
        if first > len(found[group]):
            return out
        size = pieces.draw(st.integers(1, 5))
        out += [one.merged for one in remerger.take(group, tuple(found[group][first - 1 : first - 1 + size]))]


@given(found=logs(), pieces=st.data())
def test_merging_once_more_gives_the_very_same(found: list[list[Entry]], pieces: st.DataObject) -> None:
    """Whatever the pieces: the same entries, positions and digest, and all of what was merged."""
    expected, state = merged_at_once(found)
    remerger = Remerger.from_the_beginning(len(found))
    assert merged_again(remerger, found, pieces) == expected
    assert remerger.state.digest == state.digest


@given(found=logs(), at=st.integers(0, 80), pieces=st.data())
def test_it_may_begin_at_any_place(found: list[list[Entry]], at: int, pieces: st.DataObject) -> None:
    """With the fold and the cuts of that place it goes on as if it had begun at the beginning."""
    expected, _ = merged_at_once(found)
    at = min(at, len(expected))
    timestamp, group = (expected[at - 1].timestamp, expected[at - 1].group) if at else (0, 0)
    state, cuts = Fold(), []
    for one in expected[:at]:
        fold(state, one.group, found[one.group][one.index - 1])
    for number, entries in enumerate(found):
        before = [e for e in entries if (e.timestamp, number) <= (timestamp, group)]
        cut = BEGINNING
        if before:
            last = before[-1]
            cut = BEGINNING._replace(place=Place(last.term, last.index), timestamp=last.timestamp)
        cuts.append(cut)
    assert all(isinstance(cut, Cut) for cut in cuts)
    assert merged_again(Remerger(state, cuts), found, pieces) == expected[at:]
