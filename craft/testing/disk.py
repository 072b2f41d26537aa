"""A simulated disk: a page cache over a platter, a log of numbered batches, and the side files beside it.

Knows: what was written, what was synced, and what a crash, a power cut or decay leaves of it. Judges what a
restart finds by the very verdict that the real storage uses (`craft.recovery.judge`, PROTOCOL 10).

Invariants
- `synced` never holds what was not written, and changes in the order of writing.
- A disk whose synced content was spoilt says so in `spoilt`; a server that then starts on it has been lied
  to. One that has lost a synced tail, of which the verdict knows, starts as a suspect.
- `vouched` is what a group's log held when it was last trusted: what a suspect had answered for.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from enum import Enum

from craft.errors import DamagedEntry, DamagedStorage, StorageFailed
from craft.recovery import (
    RING_SLOTS,
    TAIL_BYTES_MAX,
    Ballot,
    Facts,
    GroupFacts,
    Judgement,
    RecoveredLog,
    judge,
)
from craft.storage.held import HeldLog, carry_out, check_write, suspicions_after
from craft.storage.snapshots import NONCE_BITS, Snapshots
from craft.testing.files import SimulatedFiles
from craft.types import (
    BEGINNING,
    Cut,
    Entry,
    GroupId,
    HardState,
    Index,
    Recovered,
    ServerId,
    Term,
    Write,
    decode_entry,
)

TAIL_BATCHES_MAX = 3
"""So many synced batches may be lost at the end of a log."""

CLUSTER_ID = "simulated"

# What simulated disks complain of is in the trace; a thousand runs would fill a screen with it.
logging.getLogger("craft.storage").addHandler(logging.NullHandler())

BATCH_OF_CREATION = 1
"""A fresh directory holds this batch already: its identity."""


class Crash(Enum):
    """How a server loses its memory."""

    KILL = "killed"  # the kernel lives: all that was written is in its page cache
    POWER = "lost power"  # what was not synced may be gone, from some batch on


class _Content:
    """One copy of what the log database holds."""

    def __init__(self, groups: int) -> None:
        self.logs = [HeldLog() for _ in range(groups)]
        self.hard_states: list[HardState | None] = [None] * groups
        self.ballot_batches = [0] * groups
        self.counter = 0
        self.suspicions: dict[GroupId, str] = {}
        self.batch = BATCH_OF_CREATION

    def copy(self) -> _Content:
        twin = _Content(0)
        twin.logs = [log.copy() for log in self.logs]
        twin.hard_states, twin.ballot_batches = self.hard_states[:], self.ballot_batches[:]
        twin.counter, twin.batch, twin.suspicions = self.counter, self.batch, dict(self.suspicions)
        return twin

    def carry_out(self, write: Write) -> None:
        self.batch += 1
        carry_out(self.logs, write)
        for group, state in write.hard_states:
            before = self.hard_states[group]
            if before is None or (before.term, before.vote) != (state.term, state.vote):
                self.ballot_batches[group] = self.batch
            self.hard_states[group] = state
        if write.counter is not None:
            self.counter = write.counter
        self.suspicions = suspicions_after(self.suspicions, write)


class SimulatedDisk:
    """One server's disk. It outlives the server's incarnations."""

    def __init__(
        self, disk_id: str, groups: int, *, tail_bytes_max: int = TAIL_BYTES_MAX, cluster_id: str = CLUSTER_ID
    ) -> None:
        self.disk_id = disk_id
        self.groups = groups
        self._tail_bytes_max = tail_bytes_max
        self.written = _Content(groups)
        self.synced = _Content(groups)
        self._before = _Content(groups)  # what was synced but for the batches in `_recent`
        self._recent: deque[Write] = deque()
        self._unsynced: list[Write] = []
        self._synced_number: int | None = BATCH_OF_CREATION  # the side file, in the page cache
        self._side_on_platter: int | None = BATCH_OF_CREATION
        self._ballots: list[Ballot] | None = [Ballot(0, None)] * groups
        self._ballots_number: int | None = BATCH_OF_CREATION
        self._missing: set[int] = set()  # batches that decay took
        self._torn = ""  # what an opening with absolute consistency would complain of
        self._same_boot = True
        self.vouched: dict[GroupId, HeldLog] = {}
        self.lost_tail = False  # something that was synced is missing, and its server not cleared yet
        self.was_torn = False  # by a power cut: nobody can tell whether the torn record had been synced
        self.peer_disks: dict[ServerId, str] = {}
        self.machine: tuple[bytes, ...] | None = None  # the data of a state machine that keeps them itself
        self._machine_on_platter: tuple[bytes, ...] | None = None
        self.flipped: dict[tuple[GroupId, Index], Entry] = {}  # what stood where a bit has flipped
        self._cluster_id = cluster_id
        self._rng_snapshots = random.Random(f"{disk_id} snapshots")  # of its own: who uses none draws none
        self.files = SimulatedFiles(self._rng_snapshots)
        self.snapshots = self._new_snapshots()
        self._full = False
        self.nearly_full = False  # below the reserve: no new command is taken
        self.failing = False  # the next sync fails
        self.hung = False  # syncs do not end
        self.spoilt = ""  # what of the synced content is gone or changed: to start on it would be a lie
        self.unread = False  # the last recovery did not read it: a snapshot has it, or it was written anew

    # -- while a server runs ----------------------------------------------------------------------

    @property
    def unsynced(self) -> int:
        """Batches written and not synced."""
        return len(self._unsynced)

    def _new_snapshots(self) -> Snapshots:
        return Snapshots(
            self.files,
            cluster_id=self._cluster_id,
            groups=self.groups,
            nonce=lambda: self._rng_snapshots.getrandbits(NONCE_BITS),
        )

    @property
    def full(self) -> bool:
        """Is there no space left?"""
        return self._full

    @full.setter
    def full(self, value: bool) -> None:
        self._full = self.files.full = value

    def write(self, write: Write) -> None:
        """Write one batch, unsynced. Raises StorageFailed where the disk is full."""
        if self.full:
            raise StorageFailed("no space left on device")
        check_write(self.written.logs, write)
        self.written.carry_out(write)
        self._unsynced.append(write)

    def sync(self) -> None:
        """What was written is on the platter, and the side files say so. Raises StorageFailed."""
        if self.failing:
            self.failing = False
            raise StorageFailed("fdatasync: input/output error")
        self.sync_log()
        self.write_side_files()

    def sync_log(self) -> None:
        """The first half of a sync; a crash may come before the second."""
        unsynced, self._unsynced = self._unsynced, []
        for write in unsynced:
            self._keep(write)

    def _keep(self, write: Write) -> None:
        self.synced.carry_out(write)
        self._recent.append(write)
        if len(self._recent) > TAIL_BATCHES_MAX:
            self._before.carry_out(self._recent.popleft())
        for group, reason in write.suspicions:
            if not reason:
                self.vouched.pop(group, None)
            else:
                self.vouched.setdefault(group, self.synced.logs[group].copy())
        self.lost_tail = self.lost_tail and bool(self.vouched)

    @property
    def suspect(self) -> bool:
        """Would a server on it be suspect, in any group?"""
        return bool(self.vouched or self.was_torn)

    def vouches(self, group: GroupId, index: Index, term: Term) -> bool:
        """Is this entry on the platter, and does its server's word for it count?

        What a suspect had answered for before counts, though it may be lost since.
        """
        return self.vouched.get(group, self.synced.logs[group]).holds(index, term)

    def write_side_files(self) -> None:
        """The second half: the synced number (unsynced) and the second place of terms and votes (synced)."""
        batch = self.synced.batch
        self._side_on_platter, self._synced_number = self._synced_number, batch
        if max(self.synced.ballot_batches, default=0) > (self._ballots_number or 0):
            states = [state or HardState(0, None, 0) for state in self.synced.hard_states]
            self._ballots = [Ballot(state.term, state.vote) for state in states]
            self._ballots_number = batch

    def entries(
        self, group: GroupId, *, first_index: Index, last_index: Index, bytes_max: int
    ) -> tuple[Entry, ...]:
        """Entries read back, checked. Raises DamagedStorage where they decayed."""
        return self.written.logs[group].read(group, first_index, last_index, bytes_max)

    # -- crashes ----------------------------------------------------------------------------------

    def crash(self, how: Crash, rng: random.Random, *, torn: bool = False) -> str:
        """The server is gone; says what became of the unsynced batches."""
        total = len(self._unsynced)
        kept = total if how is Crash.KILL else rng.randint(0, total)
        if torn and total:
            # The batch that was being written: its beginning is there, its end is not.
            kept = total - 1 if how is Crash.KILL else rng.randrange(total)
            self._torn = f"a record is cut short behind batch {self.synced.batch + kept}"
        if how is Crash.POWER:
            for write in self._unsynced[:kept]:
                self._keep(write)
            self.written = self.synced.copy()
        else:
            self.written = self.synced.copy()
            for write in self._unsynced[:kept]:
                self.written.carry_out(write)
        self._unsynced = self._unsynced[:kept] if how is Crash.KILL else []
        self.snapshots = self._new_snapshots()  # what the server remembered of them is gone with it
        if how is Crash.POWER:
            self.machine = self._machine_on_platter
            self.files.cut_power()
            self._same_boot, self.was_torn = False, self.was_torn or bool(self._torn)
            if rng.random() < 0.5:
                self._synced_number = self._side_on_platter  # its last write had not reached the platter
        return f"{kept} of {total} unsynced batches survive{', the next is torn' if self._torn else ''}"

    def keep_machine(self, data: tuple[bytes, ...] | None, *, synced: bool) -> None:
        """A state machine's own data are these now. They are no part of the directory."""
        self.machine = data
        if synced:
            self._machine_on_platter = data

    # -- decay ------------------------------------------------------------------------------------

    def flip(self, rng: random.Random) -> str | None:
        """One bit of one synced record changes; says which, or None where there is none."""
        places = [
            (group, entry)
            for group, log in enumerate(self.synced.logs)
            for entry in log.entries
            if self.written.logs[group].get(entry.index) is not None
        ]
        if not places:
            return None
        group, entry = rng.choice(places)
        index = entry.index
        record = bytearray(entry.record)
        # Mostly in the payload: elsewhere other checks than the checksum would see it.
        first = len(record) - len(entry.payload) if entry.payload and rng.random() < 0.7 else 0
        bit = rng.randrange(first * 8, len(record) * 8)
        record[bit // 8] ^= 1 << bit % 8
        self.flipped.setdefault((group, index), entry)
        damaged = entry._replace(record=bytes(record))
        for content in (self.synced, self.written):
            content.logs[group].replace(damaged, index=index)
        self.spoilt = f"bit {bit} of entry {index} of group {group} is flipped"
        return self.spoilt

    def as_written(self, group: GroupId, index: Index) -> Entry | None:
        """An entry without what decay made of it; None: there is none."""
        if self._decayed(group, index):
            return self.flipped[group, index]
        return self.written.logs[group].get(index)

    def _decayed(self, group: GroupId, index: Index) -> bool:
        """Does the flipped bit stand there still? The entry may have been cut off, and another written."""
        entry = self.written.logs[group].get(index)
        if entry is None or (group, index) not in self.flipped:
            return False
        try:
            decode_entry(group, entry.record)
        except DamagedEntry:
            return True
        return False

    def lose_tail(self, rng: random.Random) -> int:
        """After a power cut: the log ends in a damaged record, and up to so many synced batches are gone.

        Not those that the second place of terms and votes has seen, for that is synced too. The side file is
        not, so it may be as old. Returns how many are lost.
        """
        last = self.synced.batch
        keeps = max(self._ballots_number or 0, self._before.batch)
        lost = rng.randint(0, last - keeps)
        for group, log in enumerate(self.synced.logs):
            self.vouched.setdefault(group, log.copy())
        if lost:
            found = self._before.copy()
            for write in list(self._recent)[: last - lost - self._before.batch]:
                found.carry_out(write)
            self.synced, self.lost_tail = found, True
        self.written = self.synced.copy()
        self._unsynced, self._same_boot, self.was_torn = [], False, True
        self._torn = f"checksum mismatch behind batch {self.synced.batch}"
        self._synced_number = min(self._synced_number or 0, self.synced.batch)
        self._side_on_platter = self._synced_number
        return lost

    def truncate(self, rng: random.Random, *, side_too: bool) -> str | None:
        """Lose the last synced batches while nothing runs, as a disk does that lied about its syncs."""
        last = self.synced.batch
        if last <= BATCH_OF_CREATION + 1:
            return None
        # At least what the side file vouches for: its own last write may have been lost as well.
        least = last - max(self._synced_number or 0, self._ballots_number or 0) + 1
        lost = max(least, rng.randint(1, min(3, last - BATCH_OF_CREATION - 1)))
        self._missing = set(range(last - lost + 1, last + 1))
        if side_too:
            self._synced_number, self._ballots_number, self._ballots = None, None, None
        self.spoilt = f"the last {lost} synced batches are gone{', the side files too' if side_too else ''}"
        return self.spoilt

    def punch(self, rng: random.Random) -> str | None:
        """A synced batch in the middle is gone."""
        last = self.synced.batch
        if last <= BATCH_OF_CREATION + 2:
            return None
        hole = rng.randint(max(BATCH_OF_CREATION + 1, last - RING_SLOTS + 2), last - 1)
        self._missing = {hole}
        self.spoilt = f"synced batch {hole} of {last} is gone"
        return self.spoilt

    # -- recovery ---------------------------------------------------------------------------------

    def recover(self, behind: tuple[Cut, ...] = ()) -> Recovered:
        """Judge what is there as the real storage does, and hand it over.

        Raises DamagedStorage, StorageFailed (full).
        """
        if self.full:
            raise StorageFailed("no space left on device")
        cuts = behind or (BEGINNING,) * self.groups
        logs = [self._read(group, cut) for group, cut in enumerate(cuts)]
        verdict = judge(self._facts(logs))
        if verdict.judgement is Judgement.DAMAGED:
            raise DamagedStorage(verdict.reason)
        if verdict.judgement is Judgement.SUSPECT:
            for group, log in enumerate(self.written.logs):
                self.written.suspicions.setdefault(group, verdict.reason)
                self.vouched.setdefault(group, log.copy())
        self._settle()
        self.unread = all(
            index <= logs[group].checked or not self._decayed(group, index) for group, index in self.flipped
        )
        states = self.written.hard_states
        groups = tuple(
            log.recovered(states[group], self.written.suspicions.get(group, ""))
            for group, log in enumerate(logs)
        )
        return Recovered(groups, self.written.counter)

    def _settle(self) -> None:
        """What was found is on the platter before anything is built on it."""
        self._torn, self._same_boot, self.was_torn = "", True, False
        self.synced, self._unsynced = self.written.copy(), []
        # A suspicion may have ended in a write that a crash had left unsynced.
        self.vouched = {group: log for group, log in self.vouched.items() if group in self.written.suspicions}
        self.lost_tail = self.lost_tail and bool(self.vouched)
        self._before, self._recent = self.written.copy(), deque()
        self._side_on_platter = self._synced_number = self.synced.batch
        states = [state or HardState(0, None, 0) for state in self.synced.hard_states]
        self._ballots = [Ballot(state.term, state.vote) for state in states]
        self._ballots_number = self.synced.batch

    def _read(self, group: GroupId, behind: Cut) -> RecoveredLog:
        commit = (self.written.hard_states[group] or HardState(0, None, 0)).commit
        log = self.written.logs[group]
        return log.recover(group, commit=commit, tail_bytes_max=self._tail_bytes_max, behind=behind)

    def _facts(self, logs: list[RecoveredLog]) -> Facts:
        last = self.written.batch
        ring = frozenset(range(max(1, last - RING_SLOTS + 1), last + 1)) - self._missing
        groups = tuple(
            GroupFacts(
                group,
                log.last,
                self.written.hard_states[group],
                self.written.ballot_batches[group],
                self._ballots[group] if self._ballots is not None else None,
            )
            for group, log in enumerate(logs)
        )
        return Facts(
            opened_clean=not self._torn,
            error=self._torn,
            readable=True,
            ring=ring,
            synced_number=self._synced_number,
            ballots_number=self._ballots_number,
            same_boot=self._same_boot,
            suspect_mark="",  # what is stored with the groups says it all
            groups=groups,
        )
