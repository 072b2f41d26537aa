"""The verdict over a recovered directory, and the check of one group's log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craft.errors import DamagedStorage, InvariantViolation
from craft.recovery import (
    RING_SLOTS,
    Ballot,
    Facts,
    GroupFacts,
    Judgement,
    Verdict,
    end_after,
    judge,
    missing_batches,
    read_log,
)
from craft.types import NOWHERE, Append, Entry, EntryKind, HardState, Place, make_entry

CLEAN, REPAIRED, SUSPECT, DAMAGED = Judgement

WHOLE = Facts(
    opened_clean=True,
    error="",
    readable=True,
    ring=frozenset(range(1, 11)),
    synced_number=10,
    ballots_number=4,
    same_boot=True,
    suspect_mark="",
)
TORN = WHOLE._replace(opened_clean=False, error="truncated header")


GROUP = GroupFacts(0, Place(3, 8), HardState(3, 1, 5), ballot_batch=4, second=Ballot(3, 1))


# -- the directory --------------------------------------------------------------------------------

TABLE = [
    ("nothing is wrong", WHOLE, CLEAN, ""),
    ("a machine that restarted with a whole log", WHOLE._replace(same_boot=False), CLEAN, ""),
    ("unsynced batches survived a kill", WHOLE._replace(synced_number=7), CLEAN, ""),
    ("a kill tore a batch that was never synced", TORN, REPAIRED, "batch 10"),
    ("a torn tail above the synced number", TORN._replace(synced_number=8), REPAIRED, "batch 8"),
    ("a power cut tore a batch", TORN._replace(same_boot=False), SUSPECT, "batch 10"),
    ("the side file is gone", WHOLE._replace(synced_number=None), SUSPECT, "side file"),
    ("side file gone, log torn", TORN._replace(synced_number=None), SUSPECT, "side file"),
    ("a suspect starts again", WHOLE._replace(suspect_mark="torn once"), SUSPECT, "torn once"),
    ("a suspect is killed in the middle of a write", TORN._replace(suspect_mark="once"), SUSPECT, "once"),
    ("no side file at all", WHOLE._replace(synced_number=None, ballots_number=None), DAMAGED, "vote twice"),
    ("torn, no word of votes", TORN._replace(ballots_number=None, same_boot=False), DAMAGED, "vote twice"),
    ("whole, and no word of votes", WHOLE._replace(ballots_number=None), CLEAN, ""),
    ("a log file was deleted", WHOLE._replace(synced_number=12), DAMAGED, "batches 11 to 12"),
    ("one synced batch is damaged", TORN._replace(synced_number=11), DAMAGED, "batches 11 missing"),
    ("damage found after a power cut", TORN._replace(synced_number=13, same_boot=False), DAMAGED, "11 to 13"),
    ("a suspect lost more", WHOLE._replace(synced_number=11, suspect_mark="once"), DAMAGED, "11 missing"),
    ("a middle log file was deleted", WHOLE._replace(ring=frozenset({1, 2, 6, 10})), DAMAGED, "3 to 5, 7"),
    ("the first log file was deleted", WHOLE._replace(ring=frozenset({4, 5})), DAMAGED, "batches 1 to 3"),
    ("the ballots know more", WHOLE._replace(ballots_number=11), DAMAGED, "11 missing"),
    ("only the ballots know", TORN._replace(synced_number=None, ballots_number=12), DAMAGED, "11 to 12"),
    ("the log lost everything", WHOLE._replace(ring=frozenset()), DAMAGED, "no batch"),
    ("the manifest is gone", TORN._replace(readable=False, error="no manifest"), DAMAGED, "no manifest"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "judgement", "words"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE]
)
def test_verdict_over_a_directory(facts: Facts, judgement: Judgement, words: str) -> None:
    """Each case of the decision table gets its judgement, and the reason names what is missing."""
    verdict = judge(facts)
    assert verdict.judgement is judgement
    assert words in verdict.reason


def test_many_holes_are_counted_not_listed() -> None:
    """A reason stays readable however many ranges are missing."""
    verdict = judge(WHOLE._replace(ring=frozenset(range(1, 100, 2)), synced_number=99))
    assert verdict.reason.startswith("batches 2, 4, 6, 8 and 45 more ranges missing below batch 99")


GROUPS = [
    ("agreeing places", GROUP, ""),
    ("a group never used", GROUP._replace(last=NOWHERE, hard_state=None, second=Ballot(0, None)), ""),
    ("no second place to compare with", GROUP._replace(second=None), ""),
    ("a vote written after the last sync", GROUP._replace(ballot_batch=9, second=Ballot(3, None)), ""),
    ("a term written after the last sync", GROUP._replace(ballot_batch=9, second=Ballot(2, 2)), ""),
    ("term and vote gone beside a log", GROUP._replace(hard_state=None), "term and vote missing"),
    ("only one place knows", GROUP._replace(last=NOWHERE, hard_state=None), "term 3 vote 1"),
    ("an older state", GROUP._replace(last=NOWHERE, hard_state=HardState(2, None, 0)), "says term 3"),
    ("a vote forgotten", GROUP._replace(hard_state=HardState(3, None, 5)), "term 3 without a vote"),
    ("a vote changed", GROUP._replace(hard_state=HardState(3, 2, 5), ballot_batch=9), "vote 2"),
    ("a term left out", GROUP._replace(second=Ballot(2, None)), "says term 2"),
    ("a log shorter than its commit", GROUP._replace(hard_state=HardState(3, 1, 9)), "entries 9 to 9"),
    ("a term below the log's", GROUP._replace(hard_state=HardState(2, 1, 5)), "below its log's last term 3"),
]  # fmt: skip


@pytest.mark.parametrize(("group", "words"), [row[1:] for row in GROUPS], ids=[r[0] for r in GROUPS])
def test_verdict_over_a_group(group: GroupFacts, words: str) -> None:
    """Terms and votes are never forgotten, and a crash between their two places is told from a loss."""
    verdict = judge(WHOLE._replace(groups=(group,)))
    assert verdict.judgement is (DAMAGED if words else CLEAN)
    assert words in verdict.reason


numbers = st.integers(1, 40)
facts_of_any_kind = st.builds(
    Facts,
    opened_clean=st.booleans(),
    error=st.just("torn"),
    readable=st.booleans(),
    ring=st.one_of(
        st.frozensets(numbers, max_size=40), numbers.map(lambda last: frozenset(range(1, last + 1)))
    ),
    synced_number=st.none() | numbers,
    ballots_number=st.none() | numbers,
    same_boot=st.booleans(),
    suspect_mark=st.sampled_from(["", "marked"]),
)


@given(facts_of_any_kind)
def test_nothing_usable_lacks_what_was_synced(facts: Facts) -> None:
    """Whatever was found: a usable directory has no hole, no witness against it and no suspicion."""
    verdict = judge(facts)
    if verdict.judgement in {CLEAN, REPAIRED}:
        assert facts.readable and not facts.suspect_mark
        assert facts.synced_number is not None
        assert facts.ring == frozenset(range(1, max(facts.ring) + 1))
        assert max(facts.ring) >= max(facts.synced_number, facts.ballots_number or 0)
        assert facts.opened_clean or facts.same_boot
    else:
        assert verdict.reason
    if verdict.judgement is SUSPECT:
        assert facts.ballots_number is not None, "its votes are proven"


@given(facts_of_any_kind)
def test_knowing_less_never_makes_a_verdict_milder(facts: Facts) -> None:
    """Another boot, a torn log or a mark can only turn a usable directory into one that is not."""
    usable = {CLEAN, REPAIRED}
    for worse in (
        facts._replace(same_boot=False),
        facts._replace(opened_clean=False),
        facts._replace(suspect_mark="marked"),
        facts._replace(synced_number=None),
    ):
        if judge(worse).judgement in usable:
            assert judge(facts).judgement in usable


@given(last=st.integers(1, 3 * RING_SLOTS), data=st.data())
def test_a_lost_batch_shows_while_the_ring_remembers(last: int, data: st.DataObject) -> None:
    """The ring, with slots overwritten in turn, names exactly the lost batches of its span."""
    low = max(1, last - RING_SLOTS + 1)
    lost = data.draw(st.sets(st.integers(low, last), max_size=5)) - {last}
    slots: dict[int, int] = {}
    for number in range(max(1, low - RING_SLOTS), last + 1):
        if number not in lost:
            slots[number % RING_SLOTS] = number
    assert missing_batches(frozenset(slots.values())) == sorted(lost)


def test_verdicts_compare_by_value() -> None:
    """A clean verdict needs no reason."""
    assert judge(WHOLE) == Verdict(CLEAN)


# -- one group's log ------------------------------------------------------------------------------


def entry(
    index: int, *, term: int = 1, timestamp: int | None = None, kind: int = 1, size: int = 100
) -> Entry:
    stamped = index if timestamp is None else timestamp
    payload = bytes(size)
    return make_entry(0, index=index, term=term, timestamp=stamped, kind=EntryKind(kind), payload=payload)


def stored(*entries: Entry) -> list[tuple[int, bytes]]:
    return [(each.index, each.record) for each in entries]


def test_an_empty_log() -> None:
    """A log without entries ends nowhere."""
    log = read_log(0, [], commit=0, tail_bytes_max=0)
    assert (log.offset, log.tail, log.last_command, log.last) == (NOWHERE, (), NOWHERE, NOWHERE)


@given(
    kinds=st.lists(st.sampled_from([0, 1, 2, 3, 4]), max_size=30),
    commit=st.integers(0, 30),
    tail_bytes_max=st.integers(0, 1500),
)
def test_the_tail_holds_what_is_uncommitted_and_a_bounded_rest(
    kinds: list[int], commit: int, tail_bytes_max: int
) -> None:
    """Offset and tail are the whole log; the committed part is as long as its bound allows, no longer."""
    entries = [entry(i, term=1 + i // 7, kind=kind, size=i * 3) for i, kind in enumerate(kinds, 1)]
    log = read_log(0, stored(*entries), commit=commit, tail_bytes_max=tail_bytes_max)
    start = log.offset.index
    assert list(log.tail) == entries[start:]
    early = [each.size for each in log.tail if each.index <= commit]
    assert sum(early) <= tail_bytes_max
    assert start <= commit
    if start:
        before = entries[start - 1]
        assert (log.offset, log.offset_timestamp) == (Place(before.term, before.index), before.timestamp)
        assert sum(early) + before.size > tail_bytes_max
    commands = [Place(each.term, each.index) for each in entries if each.kind in {1, 2, 3}]
    assert log.last_command == (commands[-1] if commands else NOWHERE)


FOREIGN = make_entry(1, index=1, term=1, timestamp=1, kind=EntryKind.EMPTY)

BROKEN = [
    ("a missing first entry", stored(entry(2)), "entries 1 to 1 are missing"),
    ("a gap", stored(entry(1), entry(4)), "entries 2 to 3 are missing"),
    ("a repeated entry", stored(entry(1), entry(1, timestamp=5)), "entry 1 follows entry 1"),
    ("a falling term", stored(entry(1, term=3), entry(2, term=2)), "falls from 3 at entry 1 to 2"),
    ("a timestamp twice", stored(entry(1, timestamp=7), entry(2, timestamp=7)), "stamped 7, not after 7"),
    ("a record under another index", [(1, entry(2).record)], "stored under index 1 says it is 2"),
    ("a flipped bit", [(1, entry(1).record[:-1] + b"\x01")], "entry 1 is damaged: checksum"),
    ("a short record", [(1, b"abc")], "shorter than its header"),
    ("a record of another group", [(1, FOREIGN.record)], "belongs to group 1"),
]  # fmt: skip


@pytest.mark.parametrize(("records", "words"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_a_broken_log_is_refused(records: list[tuple[int, bytes]], words: str) -> None:
    """No record is handed out that is not the one written there."""
    with pytest.raises(DamagedStorage, match=words):
        read_log(0, records, commit=0, tail_bytes_max=1000)


def test_the_first_timestamp_may_be_zero() -> None:
    """Timestamps start at 0; only their rise is demanded."""
    log = read_log(0, stored(entry(1, timestamp=0), entry(2, timestamp=1)), commit=0, tail_bytes_max=0)
    assert log.last == Place(1, 2)


@pytest.mark.parametrize(
    ("append", "end"),
    [
        (Append(0, 0, ()), 5),
        (Append(0, 0, (entry(6), entry(7))), 7),
        (Append(0, 3, ()), 2),
        (Append(0, 3, (entry(3),)), 3),
        (Append(0, 1, ()), 0),
        (Append(0, 6, (entry(6),)), 6),
    ],
)
def test_where_a_log_ends_after_an_append(append: Append, end: int) -> None:
    """A cut and an append move the end of a log of five entries."""
    assert end_after(append, 5) == end


@pytest.mark.parametrize(
    "append",
    [
        Append(0, 7, ()),
        Append(0, 0, (entry(7),)),
        Append(0, 3, (entry(4),)),
        Append(0, 0, (entry(6), entry(8))),
    ],
)
def test_a_write_that_would_leave_a_gap_is_refused(append: Append) -> None:
    """No storage writes a log that it would refuse to read."""
    with pytest.raises(InvariantViolation):
        end_after(append, 5)
