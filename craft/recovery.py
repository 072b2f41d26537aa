"""What a recovered directory is worth: one pure verdict, and the check of one group's log.

Floor 1. Knows plain facts that an adapter has gathered; knows nothing of files, RocksDB, time or
randomness, so that the real disk and a simulated one are judged by the same rules (PROTOCOL 10,
"torn or damaged").

Invariants
- What was synced is never silently missing: a directory found CLEAN or REPAIRED_UNSYNCED_TAIL holds
  every batch that any witness says was synced.
- The only loss that is forgiven is a torn tail of which the kernel's page cache, alive since the last
  run, proves that it was never synced.
- DAMAGED (something is certainly missing) outranks SUSPECT (something may be missing), and that
  outranks everything else.
- Of a SUSPECT only entries may be missing: its terms and votes are proven by their second place.
- A record is handed out only after its checksum, group, index, term and timestamp were checked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from craft.errors import DamagedEntry, DamagedStorage, InvariantViolation
from craft.marks import mark
from craft.types import (
    BEGINNING,
    NOWHERE,
    Append,
    Cut,
    Entry,
    EntryKind,
    GroupId,
    HardState,
    Index,
    Place,
    RecoveredGroup,
    ServerId,
    Start,
    Term,
    Timestamp,
    decode_entry,
    is_command,
)

RING_SLOTS = 4096
"""Recent batch numbers kept in the log database: a lost batch shows until this many came after it."""

TAIL_BYTES_MAX = 1024 * 1024
"""Committed entries handed out at recovery, a group: what a peer that lags a little asks for first."""

NAMED_MAX = 4
"""Ranges of missing batches that an error spells out; the rest is counted."""


class Judgement(Enum):
    """What may be done with a recovered directory."""

    CLEAN = "clean"
    REPAIRED_UNSYNCED_TAIL = "repaired"  # a torn tail was cut, and it was never synced: nothing is lost
    SUSPECT = "suspect"  # a synced tail may be missing: what its server says counts for nothing (10)
    DAMAGED = "damaged"  # something that was synced is missing: refuse


class Verdict(NamedTuple):
    """A judgement and why, in words for the operator."""

    judgement: Judgement
    reason: str = ""


class Ballot(NamedTuple):
    """A term and the vote given in it."""

    term: Term
    vote: ServerId | None


class GroupFacts(NamedTuple):
    """One group as found. `hard_state` is None where the log database has none."""

    group: GroupId
    last: Place  # the end of its log
    hard_state: HardState | None
    ballot_batch: int  # the batch in which its term or vote last changed
    second: Ballot | None  # what the second, synced place says; None where that is unreadable


class Facts(NamedTuple):
    """What was found in a directory, by whatever storage. Numbers are batch numbers, from 1, without gaps.

    `same_boot`: the kernel of the last run is still up, so the page cache holds all that was written.
    Where that is unknown it is False.
    """

    opened_clean: bool  # the log database opened with absolute consistency and has no zeroed stretch
    error: str  # what it said if it did not
    readable: bool  # it opened, if need be up to the first damaged record
    ring: frozenset[int]  # the ring of recent batch numbers
    synced_number: int | None  # by the side file; None: missing or unreadable
    ballots_number: int | None  # the batch that the second place of terms and votes covers; None: unreadable
    same_boot: bool
    suspect_mark: str  # the reason of an earlier suspicion; empty: none
    groups: tuple[GroupFacts, ...] = ()


def judge(facts: Facts) -> Verdict:
    """The verdict over a recovered directory."""
    damage = _damage(facts)
    if damage:
        mark("damaged disk refused")
        return Verdict(Judgement.DAMAGED, damage)
    suspicion = _suspicion(facts)
    if suspicion:
        mark("disk found suspect")
        return Verdict(Judgement.SUSPECT, suspicion)
    if facts.opened_clean:
        return Verdict(Judgement.CLEAN)
    mark("torn tail cut")
    return Verdict(
        Judgement.REPAIRED_UNSYNCED_TAIL,
        f"the log ended in a torn batch ({facts.error}); the kernel has been running since it was written"
        f" and nothing up to the synced batch {facts.synced_number} is missing, so it was never synced",
    )


def _damage(facts: Facts) -> str:
    """Name what is certainly missing, or what must be there to tell; empty if nothing is."""
    if not facts.readable:
        return f"the log database cannot be read at all: {facts.error}"
    if not facts.ring:
        return "the log database holds no batch, not even the one of its creation"
    cause = "" if facts.opened_clean else f" (the log database says: {facts.error})"
    last = max(facts.ring)
    hole = missing_batches(facts.ring)
    if hole:
        return f"{_ranges(hole)} missing below batch {last}{cause}"
    # The second place of terms and votes is written after the log's sync: a witness too, and a synced one.
    witness = max(facts.synced_number or 0, facts.ballots_number or 0)
    if witness > last:
        lost = _ranges(range(last + 1, witness + 1))
        return f"{lost} missing: synced up to {witness}, found up to {last}{cause}"
    if facts.ballots_number is None and _suspicion(facts):
        # A suspect may have lost entries, which its peers bring back. Nobody brings back a vote.
        return (
            "the second place of terms and votes is missing or unreadable, and the end of the log may be"
            f" missing: this server could vote twice in a term{cause}"
        )
    return next(filter(None, (group_damage(group, facts.ballots_number) for group in facts.groups)), "")


def _suspicion(facts: Facts) -> str:
    """Say why a synced tail may be missing; empty if it cannot be."""
    if facts.suspect_mark:
        # Attack 13: a repaired log opens cleanly at the next start; only the mark still knows.
        return facts.suspect_mark
    if facts.synced_number is None:
        return "the side file that says what was synced is missing or unreadable: a lost tail would not show"
    if facts.opened_clean or facts.same_boot:
        return ""
    last = max(facts.ring)
    return (
        f"the log ends after batch {last} in a record that is torn or damaged ({facts.error}), and the"
        " machine was restarted since: whether that record had been synced cannot be told"
    )


def group_damage(found: GroupFacts, ballots_number: int | None) -> str:
    """Name what is certainly missing from one group; empty if nothing is."""
    state, name = found.hard_state, f"group {found.group}"
    if state is None:
        # Starting over at term 0 could vote twice in a term.
        if found.last != NOWHERE:
            return f"{name}: term and vote missing beside a log that ends at index {found.last.index}"
        state = HardState(0, None, 0)
    if state.commit > found.last.index:
        return f"{name}: entries {found.last.index + 1} to {state.commit} missing, which were committed"
    if state.term < found.last.term:
        return f"{name}: term {state.term} is below its log's last term {found.last.term}"
    if found.second is None:
        return ""
    return _ballot_damage(name, state, found.second, covered=found.ballot_batch <= (ballots_number or 0))


def _ballot_damage(name: str, state: HardState, second: Ballot, *, covered: bool) -> str:
    """Compare the two places of term and vote.

    The second place is stored after the log's sync. So a crash can leave the log database ahead, by a
    batch that the second place does not cover yet, and never the second place.
    """
    first = Ballot(state.term, state.vote)
    if first == second:
        return ""
    ahead = first.term > second.term or (first.term == second.term and second.vote is None)
    if ahead and not covered:
        return ""
    return f"{name}: the log database says {_spell(first)}, the second place says {_spell(second)}"


def _spell(ballot: Ballot) -> str:
    return f"term {ballot.term} " + ("without a vote" if ballot.vote is None else f"vote {ballot.vote}")


def missing_batches(ring: frozenset[int]) -> list[int]:
    """The numbers that a ring of recent batch numbers should hold and does not."""
    last = max(ring)
    return [number for number in range(max(1, last - RING_SLOTS + 1), last) if number not in ring]


def _ranges(numbers: Iterable[int]) -> str:
    """Spell numbers as ranges: "batches 3 to 5, 9"."""
    if isinstance(numbers, range):
        found = [(numbers[0], numbers[-1])]
    else:
        found = []
        for number in numbers:
            if found and number == found[-1][1] + 1:
                found[-1] = (found[-1][0], number)
            else:
                found.append((number, number))
    words = [f"{low}" if low == high else f"{low} to {high}" for low, high in found[:NAMED_MAX]]
    rest = f" and {len(found) - NAMED_MAX} more ranges" if len(found) > NAMED_MAX else ""
    return "batches " + ", ".join(words) + rest


# -- one group's log ------------------------------------------------------------------------------


class RecoveredLog(NamedTuple):
    """One group's log after its check; the fields are those of `RecoveredGroup`, and where it ends.

    `checked` is where the check began: the log's start, or a usable snapshot's cut in it.
    """

    offset: Place
    offset_timestamp: Timestamp
    tail: tuple[Entry, ...]
    last_command: Place
    last: Place
    configurations: tuple[Entry, ...] = ()
    start: Cut = BEGINNING
    checked: Index = 0

    def recovered(self, stored: HardState | None, suspicion: str = "") -> RecoveredGroup:
        """What the engine gets. Whatever was compacted, or is in a snapshot, is known committed."""
        state = stored or HardState(0, None, 0)
        return RecoveredGroup(
            state._replace(commit=max(state.commit, self.checked)),
            self.offset,
            self.offset_timestamp,
            self.tail,
            self.last_command,
            self.start,
            self.configurations,
            suspicion,
        )


def check_record(group: GroupId, index: Index, record: bytes) -> Entry:
    """Decode the record stored under `index`; raise DamagedStorage if it is not what belongs there."""
    try:
        entry = decode_entry(group, record)
    except DamagedEntry as error:
        raise DamagedStorage(f"group {group}: entry {index} is damaged: {error}") from error
    if entry.index != index:
        raise DamagedStorage(f"group {group}: the record stored under index {index} says it is {entry.index}")
    return entry


def check_successor(group: GroupId, entry: Entry, *, index: Index, term: Term, timestamp: Timestamp) -> None:
    """Check an entry against the index, term and timestamp of the one before it (all 0: it is the first)."""
    if entry.index != index + 1:
        raise DamagedStorage(
            f"group {group}: entries {index + 1} to {entry.index - 1} are missing"
            if entry.index > index + 1
            else f"group {group}: entry {entry.index} follows entry {index}"
        )
    if entry.term < term:
        raise DamagedStorage(f"group {group}: the term falls from {term} at entry {index} to {entry.term}")
    # PROTOCOL 2: timestamps rise strictly along a log; the first may be stamped 0.
    if index and entry.timestamp <= timestamp:
        raise DamagedStorage(
            f"group {group}: entry {entry.index} is stamped {entry.timestamp}, not after {timestamp}"
        )


def begin_check(group: GroupId, start: Cut, *, behind: Cut, record: bytes | None) -> Cut:
    """Where the check of a log that begins at `start` may begin: at `behind`, if that is a cut in this log.

    `behind` is a usable snapshot's, and `record` what the log has at that index. A log that ends before it,
    or has another entry there, was not yet replaced when the server that had taken the snapshot crashed.
    """
    if behind.place.index <= start.place.index or record is None:
        return start
    entry = check_record(group, behind.place.index, record)
    same = (entry.term, entry.timestamp) == (behind.place.term, behind.timestamp)
    return behind if same else start


def read_log(
    group: GroupId,
    records: Iterable[tuple[Index, bytes]],
    *,
    commit: Index,
    tail_bytes_max: int,
    start: Cut = BEGINNING,
    behind: Cut | None = None,
    earlier: Iterable[Entry] = (),
) -> RecoveredLog:
    """Check a group's log behind `behind` (by default its start), given in key order, and keep its tail.

    The tail is all entries above `commit` and as many before as fit in `tail_bytes_max`. `earlier` are the
    configuration entries between `start` and `behind`. Raises DamagedStorage.
    """
    begin = start if behind is None else behind
    tail: deque[Entry] = deque()
    configurations = list(earlier)
    early_bytes = 0  # of the entries in the tail that are not above the commit
    offset, offset_timestamp, last_command = begin.place, begin.timestamp, begin.place
    (term, index), timestamp = begin.place, begin.timestamp
    for key_index, record in records:
        entry = check_record(group, key_index, record)
        check_successor(group, entry, index=index, term=term, timestamp=timestamp)
        index, term, timestamp = entry.index, entry.term, entry.timestamp
        tail.append(entry)
        if is_command(entry.kind):
            last_command = Place(term, index)
        elif entry.kind is EntryKind.CONFIGURATION:
            configurations.append(entry)
        if index <= commit:
            early_bytes += len(record)
            while early_bytes > tail_bytes_max:
                dropped = tail.popleft()
                early_bytes -= len(dropped.record)
                offset, offset_timestamp = Place(dropped.term, dropped.index), dropped.timestamp
    return RecoveredLog(
        offset,
        offset_timestamp,
        tuple(tail),
        last_command,
        Place(term, index),
        tuple(configurations),
        start,
        begin.place.index,
    )


# -- what a write makes of a log ------------------------------------------------------------------


def end_after(append: Append, last: Index, *, start: Index = 0) -> Index:
    """Where a log that begins behind `start` and ends at `last` ends after `append`.

    Raises InvariantViolation if it would have a gap: no storage writes what it would refuse to read.
    """
    cut = append.truncate_from or last + 1
    if not start + 1 <= cut <= last + 1:
        behind = f" and begins behind {start}" if start else ""
        raise InvariantViolation(f"group {append.group}: cut from {cut} of a log that ends at {last}{behind}")
    for index, entry in enumerate(append.entries, cut):
        if entry.index != index:
            raise InvariantViolation(f"group {append.group}: entry {entry.index} where {index} is next")
    return cut - 1 + len(append.entries)


def end_after_start(start: Start, last: Index, *, before: Index) -> Index:
    """Where a log that begins behind `before` and ends at `last` ends after `start`.

    Raises InvariantViolation where the start would move back, or keep a log that does not reach it.
    """
    index = start.cut.place.index
    if index < before or (start.keep and index > last):
        raise InvariantViolation(
            f"group {start.group}: start behind {index} of a log that begins behind {before} and ends at"
            f" {last}"
        )
    return last if start.keep else index


def check_asked(group: GroupId, first: Index, last: Index, *, start: Index, end: Index) -> None:
    """Are these entries of a log that begins behind `start` and ends at `end`? InvariantViolation if not."""
    if start + 1 <= first <= min(last, end):
        return
    asked = f"entries {first} to {last}"
    if 1 <= first <= start:
        raise InvariantViolation(
            f"group {group}: asked for {asked} of a log that is compacted up to {start}: a snapshot has them"
        )
    raise InvariantViolation(f"group {group}: asked for {asked} of a log that ends at {end}")
