"""The log database: one RocksDB for all groups, how it is opened and how it is read.

Invariants
- It is read through iterators whose status is asked at the end: rocksdict's `items()` ends without an
  error at a damaged block.
- No iterator outlives its function: rocksdict's iterators keep a closed database open, and its lock held.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from rocksdict import DBCompressionType, DBRecoveryMode, Options, Rdict, ReadOptions

from craft.errors import CraftError, DamagedStorage, StorageFailed
from craft.recovery import (
    Ballot,
    GroupFacts,
    RecoveredLog,
    begin_check,
    check_record,
    read_log,
)
from craft.storage.rocks import layout
from craft.storage.rocks.wal import strange_manifest
from craft.types import BEGINNING, Cut, Entry, GroupId, Index, RecoveredGroup, ServerId

KIB = 1024
MIB = 1024 * KIB

COLUMN_FAMILY = "default"
"""The only one."""

WRITE_BUFFER_BYTES = 16 * MIB
"""One memtable, and so one write-ahead log file and one file of values: flushed in one piece, large enough to
be rare, and small enough that what a directory holds twice, or no longer needs in part, is little."""

WRITE_BUFFERS_MAX = 24
"""Memtables that may wait for their flush before a write waits, with the interpreter's lock held."""

APART_BYTES_MIN = 1 * KIB
"""Records from here on lie in files of values, which a merge of tables does not touch; smaller ones in the
tables: each would cost 60 bytes more apart, and one alone would keep its whole file."""


class RefusedError(Exception):
    """RocksDB found its files cut or changed."""


def options(*, strict: bool, create: bool = False, write_buffer_bytes: int = WRITE_BUFFER_BYTES) -> Options:
    """All that differs from RocksDB's defaults, spelled out at every opening.

    rocksdict's own configuration file is never synced, so nothing may depend on it: raw mode with explicit
    options does not. Nor is RocksDB's, from which rocksdict takes what holds for a column family (buffers,
    compactions, values apart) unless it is given that by the family's name: so give it, `COLUMN_FAMILY`.
    """
    chosen = Options(raw_mode=True)  # bytes in, bytes out, RocksDB's own comparator
    chosen.create_if_missing(create)  # else a lost database would come back as an empty one
    mode = DBRecoveryMode.absolute_consistency() if strict else DBRecoveryMode.point_in_time()
    chosen.set_wal_recovery_mode(mode)
    chosen.set_paranoid_checks(True)
    # Commands are opaque and often compressed; a write must cost the loop a copy and no more.
    chosen.set_compression_type(DBCompressionType.none())
    # A log's bulk is written once more, by the flush, and never again: its files go as a whole, as they came.
    chosen.set_enable_blob_files(True)
    chosen.set_min_blob_size(APART_BYTES_MIN)
    # A write that stalls stops the interpreter: leave room, and let no backlog of compactions slow it down.
    chosen.set_write_buffer_size(write_buffer_bytes)
    chosen.set_max_write_buffer_number(WRITE_BUFFERS_MAX)
    chosen.set_level_zero_file_num_compaction_trigger(8)
    chosen.set_level_zero_slowdown_writes_trigger(1 << 20)
    chosen.set_level_zero_stop_writes_trigger(1 << 20)
    chosen.set_soft_pending_compaction_bytes_limit(0)
    chosen.set_hard_pending_compaction_bytes_limit(0)
    chosen.set_target_file_size_base(64 * MIB)
    chosen.set_max_bytes_for_level_base(512 * MIB)  # eight tables, as many as start a compaction
    chosen.set_max_background_jobs(2)  # a flush and a compaction; the cores belong to the server
    # A recycled log file ends in old records, which absolute consistency could not tell from damage.
    chosen.set_recycle_log_file_num(0)
    # What RocksDB says about itself stays small.
    chosen.set_keep_log_file_num(4)
    chosen.set_max_log_file_size(1 * MIB)
    chosen.set_max_manifest_file_size(4 * MIB)
    chosen.set_stats_dump_period_sec(0)
    return chosen


def open_database(
    path: pathlib.Path, *, strict: bool, write_buffer_bytes: int = WRITE_BUFFER_BYTES, create: bool = False
) -> Rdict:
    """Open; raises RefusedError where files are cut or changed, StorageFailed where the system refuses."""
    chosen = options(strict=strict, create=create, write_buffer_bytes=write_buffer_bytes)
    strange = strange_manifest(path)
    if strange:
        raise RefusedError(strange)
    try:
        return Rdict(str(path), chosen, column_families={COLUMN_FAMILY: chosen})
    except Exception as error:  # rocksdict raises bare Exceptions
        if _is_damage(error):
            raise RefusedError(str(error)) from error
        raise StorageFailed(f"the log database {path} does not open: {error}") from error


def _is_damage(error: Exception) -> bool:
    text = str(error)
    return not text.startswith("IO error") or "No such file" in text


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Say whose fault a failed read is: damaged blocks raise DamagedStorage, all else StorageFailed."""
    try:
        yield
    except CraftError:
        raise
    except Exception as error:  # rocksdict raises bare Exceptions
        kind = DamagedStorage if _is_damage(error) else StorageFailed
        raise kind(f"{what}: {error}") from error


def scan(db: Rdict, first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
    """All keys and values from `first` up to and without `end`."""
    bounds = ReadOptions()
    bounds.set_iterate_upper_bound(end)
    cursor = db.iter(bounds)
    try:
        cursor.seek(first)
        while cursor.valid():
            yield cursor.key(), cursor.value()
            cursor.next()
        cursor.status()
    finally:
        del cursor


def scan_kind(db: Rdict, kind: int) -> Iterator[tuple[bytes, bytes]]:
    """All keys and values of one kind."""
    return scan(db, bytes([kind]), layout.KIND_END[kind])


def records(db: Rdict, group: GroupId, first: Index, last: Index) -> Iterator[tuple[Index, bytes]]:
    """A group's records with the indexes of their keys, `first` to `last`."""
    for key, record in scan(db, layout.entry_key(group, first), layout.entry_key(group, last) + b"\0"):
        yield layout.entry_index(key), record


class Contents(NamedTuple):
    """All that a log database holds, checked, but for the logs' older entries."""

    identity: bytes
    ring: frozenset[int]
    counter: int
    peer_disks: dict[ServerId, str]
    states: dict[GroupId, layout.StoredState]
    logs: tuple[RecoveredLog, ...]
    configurations: tuple[tuple[Index, ...], ...]  # where each group's stand
    suspicions: dict[GroupId, str]  # why a synced tail of these groups' logs may be missing

    def facts(self, ballots: layout.Ballots | None) -> tuple[GroupFacts, ...]:
        """What the verdict wants to know of each group."""
        return tuple(self._group_facts(group, ballots) for group in range(len(self.logs)))

    def _group_facts(self, group: GroupId, ballots: layout.Ballots | None) -> GroupFacts:
        stored = self.states.get(group)
        second = None if ballots is None else Ballot(*ballots[group])
        if stored is None:
            return GroupFacts(group, self.logs[group].last, None, 0, second)
        return GroupFacts(group, self.logs[group].last, stored.hard_state, stored.ballot_batch, second)

    def recovered(self) -> tuple[RecoveredGroup, ...]:
        """What the engine gets."""
        return tuple(
            log.recovered(
                self.states[group].hard_state if group in self.states else None,
                self.suspicions.get(group, ""),
            )
            for group, log in enumerate(self.logs)
        )


_INDEX_MAX = 2**64 - 1


def read_contents(db: Rdict, groups: int, *, tail_bytes_max: int, behind: tuple[Cut, ...] = ()) -> Contents:
    """Read and check everything, once; of each log what is behind a usable snapshot's cut."""
    with reading("reading the log database"):
        states = {
            _group_of(key): layout.hard_state_of(key, value)
            for key, value in scan_kind(db, layout.HARD_STATE)
        }
        starts = {_group_of(key): layout.start_of(key, value) for key, value in scan_kind(db, layout.START)}
        marked: list[list[Index]] = [[] for _ in range(groups)]
        for key, value in scan_kind(db, layout.CONFIGURATION):
            layout.unseal(key, value)
            marked[_group_of(key)].append(layout.entry_index(key))
        cuts = behind or (BEGINNING,) * groups
        logs = []
        for group in range(groups):
            commit = states[group].hard_state.commit if group in states else 0
            known = _Known(starts.get(group, BEGINNING), cuts[group], marked[group], commit)
            logs.append(_read_log(db, group, known, tail_bytes_max))
        return Contents(
            identity=_value(db, layout.IDENTITY_KEY),
            ring=frozenset(layout.number_of(key, value) for key, value in scan_kind(db, layout.RING)),
            counter=int.from_bytes(_value(db, layout.COUNTER_KEY), "big"),
            peer_disks={
                layout.peer_of(key): layout.unseal(key, value).decode()
                for key, value in scan_kind(db, layout.PEER)
            },
            states=states,
            logs=tuple(logs),
            configurations=tuple(map(tuple, marked)),
            suspicions={
                _group_of(key): layout.unseal(key, value).decode(errors="replace")
                for key, value in scan_kind(db, layout.SUSPICION)
            },
        )


def _group_of(key: bytes) -> GroupId:
    """The group in the key of a hard state, a start, a configuration or a suspicion."""
    return int.from_bytes(key[1:3], "big")


class _Known(NamedTuple):
    """What is known of a group's log before it is read."""

    start: Cut
    behind: Cut
    marked: list[Index]
    commit: Index


def _read_log(db: Rdict, group: GroupId, known: _Known, tail_bytes_max: int) -> RecoveredLog:
    """Check one group's log; of what is not read, only the configurations are looked at."""
    start, behind, marked, commit = known
    there = db.get(layout.entry_key(group, behind.place.index))
    begin = begin_check(group, start, behind=behind, record=there)
    found = read_log(
        group,
        records(db, group, begin.place.index + 1, _INDEX_MAX),
        commit=commit,
        tail_bytes_max=tail_bytes_max,
        start=start,
        behind=begin,
        earlier=[_configuration(db, group, index) for index in marked if index <= begin.place.index],
    )
    if [entry.index for entry in found.configurations] != marked:
        at = [entry.index for entry in found.configurations]
        raise DamagedStorage(f"group {group}: configurations are at {at}, and marked at {marked}")
    return found


def _configuration(db: Rdict, group: GroupId, index: Index) -> Entry:
    record = db.get(layout.entry_key(group, index))
    if record is None:
        raise DamagedStorage(f"group {group}: entry {index}, a configuration, is missing")
    return check_record(group, index, record)


def _value(db: Rdict, key: bytes) -> bytes:
    value = db.get(key)
    return b"" if value is None else layout.unseal(key, value)
