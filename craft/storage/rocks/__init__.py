"""One server's disk: one RocksDB for all groups, one write batch and one sync a turn (PROTOCOL 10).

Invariants
- `write` leaves the batch with the kernel, whole and numbered. `sync` makes it durable and only then says
  so: first the log, then the second place of terms and votes where one changed, then the side file. So
  neither file is ever ahead of the log.
- `sync` lets other threads run: rocksdict's `flush_wal` releases the interpreter's lock, its synced `write`
  would not.
- A failure is final: every later call raises StorageFailed as well.

The parts: `layout` keys and values · `files` small crash-safe files · `wal` what RocksDB overlooks ·
`database` opening and reading · `batches` a write as RocksDB takes it · `reclaiming` space · `directory`
identity, lock and marks · `opening` the verdict, carried out.
"""

from __future__ import annotations

import pathlib
import threading
from typing import NamedTuple

from rocksdict import Rdict, WriteBatch

from craft.errors import ConfigError, DamagedStorage, InvariantViolation, StorageFailed
from craft.recovery import TAIL_BYTES_MAX, check_asked, check_record
from craft.storage import Identity
from craft.storage.rocks import layout
from craft.storage.rocks.batches import BLANK, Bounds, add_logs, add_suspicions
from craft.storage.rocks.database import WRITE_BUFFER_BYTES, Contents, reading, records
from craft.storage.rocks.directory import BOOT_ID_FILE, Directory, read_boot_id
from craft.storage.rocks.opening import Settings, SideFiles, open_and_judge
from craft.storage.rocks.reclaiming import Reclaimer
from craft.storage.snapshots import DirectoryFiles, Snapshots
from craft.types import (
    GROUPS_MAX,
    SERVER_ID_MAX,
    Cut,
    Entry,
    GroupId,
    HardState,
    Index,
    Recovered,
    ServerId,
    Write,
)

__all__ = ["RocksStorage"]


class _Written(NamedTuple):
    """What `write` has done so far; replaced whole, so that another thread sees both halves of one moment."""

    number: int
    ballots: layout.Ballots


class RocksStorage:
    """A server's data directory. `write` and `sync` may be called from different threads."""

    def __init__(
        self, directory: Directory, side: SideFiles, settings: Settings, snapshots: Snapshots
    ) -> None:
        self._directory = directory
        self._side = side
        self._settings = settings
        self._db: Rdict | None = None
        self._failure = "the storage is not recovered yet"
        self._sync_lock = threading.Lock()
        groups = settings.identity.groups
        self._bounds: list[Bounds] = [BLANK] * groups
        self._reclaimer = Reclaimer(directory.log, groups)
        self._reclaim_lock = threading.Lock()
        self._snapshots = snapshots
        self._closing = False
        self._states: dict[GroupId, layout.StoredState] = {}  # since when term and vote are what they are
        self._written = _Written(0, ((0, None),) * groups)
        self._synced = _Written(0, ())  # what the two side files say
        self._peer_disks: dict[ServerId, str] = {}

    @classmethod
    def open(
        cls,
        directory: pathlib.Path,
        *,
        cluster_id: str,
        server_id: ServerId,
        groups: int,
        origin: str = "",
        tail_bytes_max: int = TAIL_BYTES_MAX,
        write_buffer_bytes: int = WRITE_BUFFER_BYTES,
        boot_id_file: pathlib.Path = BOOT_ID_FILE,
    ) -> RocksStorage:
        """Take a directory, making it if it is empty; then call `recover`.

        One that is made from a backup gets a disk id of that `origin`.
        Raises WrongDirectory if it belongs to another server or is in use, DamagedStorage if its identity
        cannot be read, StorageFailed if the system refuses.
        """
        _check_arguments(cluster_id, server_id, groups)
        try:
            taken = Directory(directory)
            try:
                identity = taken.identify(
                    cluster_id=cluster_id, server_id=server_id, groups=groups, origin=origin
                )
                files = DirectoryFiles(taken.snapshots)
                side = SideFiles(taken, groups)
            except BaseException:
                taken.close()
                raise
        except OSError as error:
            raise StorageFailed(f"{directory} cannot be used: {error}") from error
        boot_id = read_boot_id(boot_id_file)
        settings = Settings(identity, boot_id, tail_bytes_max, write_buffer_bytes)
        return cls(taken, side, settings, Snapshots(files, cluster_id=cluster_id, groups=groups))

    @property
    def identity(self) -> Identity:
        """Whose directory this is."""
        return self._settings.identity

    @property
    def snapshots(self) -> Snapshots:
        """This server's snapshots, in a directory of their own."""
        return self._snapshots

    # -- recovery ---------------------------------------------------------------------------------------

    def recover(self, behind: tuple[Cut, ...] = ()) -> Recovered:
        """Read back and check everything behind a usable snapshot's cuts; what is returned is durable.

        Raises DamagedStorage, WrongDirectory or StorageFailed, and then closes.
        """
        try:
            settings = self._settings._replace(behind=behind)
            self._db, contents = open_and_judge(self._directory, self._side, settings)
            self._directory.remember_boot(self._settings.boot_id)
            self._adopt(contents)
            contents = self._note_suspicion(contents)
            self.sync()
            self._directory.unmark_suspect()
        except OSError as error:
            self.close()
            raise StorageFailed(f"{self._directory.path} cannot be recovered: {error}") from error
        except BaseException:
            self.close()
            raise
        return Recovered(contents.recovered(), contents.counter)

    def _note_suspicion(self, contents: Contents) -> Contents:
        """Store with each group what the mark says of the directory; a group may clear itself, one by one.

        The mark goes once that is durable. A crash in between does it again: nothing has been written yet
        that could have ended a suspicion.
        """
        reason = self._directory.suspect_mark()
        if not reason:
            return contents
        fresh = {group: reason for group in range(len(contents.logs)) if group not in contents.suspicions}
        self.write(Write(0, (), (), None, suspicions=tuple(fresh.items())))
        return contents._replace(suspicions={**fresh, **contents.suspicions})

    def _adopt(self, contents: Contents) -> None:
        self._failure = ""
        self._bounds = [
            Bounds(log.start.place.index, log.last.index, marked)
            for log, marked in zip(contents.logs, contents.configurations, strict=True)
        ]
        self._states = contents.states
        self._peer_disks = contents.peer_disks
        blank = layout.StoredState(HardState(0, None, 0), 0)
        ballots = tuple(
            contents.states.get(group, blank).hard_state[:2] for group in range(len(contents.logs))
        )
        self._written = _Written(max(contents.ring), ballots)
        self._synced = _Written(self._side.synced_number or 0, self._side.found_ballots or ())

    # -- writing ----------------------------------------------------------------------------------------

    def write(self, write: Write) -> None:
        """Write one batch, unsynced: one put an entry."""
        self._check_usable()
        number = self._written.number + 1
        batch = WriteBatch(raw_mode=True)
        bounds = add_logs(batch, write, self._bounds)
        add_suspicions(batch, write)
        states = self._add_hard_states(batch, write, number)
        if write.counter is not None:
            key = layout.COUNTER_KEY
            batch.put(key, layout.number_value(key, write.counter))
        self._write_batch(batch, number, _with_ballots(self._written.ballots, states))
        for group, after in bounds.items():
            self._bounds[group] = after
        self._states.update(states)

    def _add_hard_states(
        self, batch: WriteBatch, write: Write, number: int
    ) -> dict[GroupId, layout.StoredState]:
        """Put them; returns those whose term or vote is another than before."""
        changed: dict[GroupId, layout.StoredState] = {}
        for group, hard_state in write.hard_states:
            stored = self._states.get(group)
            if stored is None or stored.hard_state[:2] != hard_state[:2]:
                stored = changed[group] = layout.StoredState(hard_state, number)
            key = layout.hard_state_key(group)
            batch.put(key, layout.hard_state_value(key, hard_state, stored.ballot_batch))
        return changed

    def _write_batch(self, batch: WriteBatch, number: int, ballots: layout.Ballots) -> None:
        """Number the batch and hand it to the kernel."""
        key = layout.ring_key(number)
        batch.put(key, layout.number_value(key, number))
        try:
            self._database().write(batch)
        except Exception as error:  # rocksdict raises bare Exceptions
            raise self._fail(f"batch {number} could not be written", error) from error
        self._written = _Written(number, ballots)

    def sync(self) -> None:
        """Make every batch written before this call durable. Blocks; other threads run meanwhile."""
        with self._sync_lock:
            self._check_usable()
            written = self._written
            try:
                self._database().flush_wal(True)
                self._note_synced(written)
            except Exception as error:  # rocksdict raises bare Exceptions
                raise self._fail(f"batches up to {written.number} could not be synced", error) from error

    def _note_synced(self, written: _Written) -> None:
        """Write down what the log's sync has just covered, in this order: see the module's invariants."""
        if written.ballots != self._synced.ballots:
            self._side.ballots.store(written.number, layout.pack_ballots(written.ballots), sync=True)
        if written.number != self._synced.number:
            self._side.synced.store(written.number, sync=False)
        self._synced = written

    # -- giving space back ------------------------------------------------------------------------------

    def reclaim(self) -> None:
        """Give the system back what starts have dropped, if it is worth the work. Blocks."""
        with self._reclaim_lock:
            self._check_usable()
            try:
                self._reclaimer.reclaim(self._database())
            except Exception as error:  # rocksdict raises bare Exceptions
                if self._closing:
                    return
                raise self._fail("dropped entries could not be taken away", error) from error

    # -- reading ----------------------------------------------------------------------------------------

    def entries(
        self, group: GroupId, *, first_index: Index, last_index: Index, bytes_max: int
    ) -> tuple[Entry, ...]:
        """Entries from `first_index` on, contiguous, up to `last_index` or about `bytes_max`; at least one.

        Raises DamagedStorage if one is damaged or missing, InvariantViolation if the log ends before them.
        """
        self._check_usable()
        start, end, _ = self._bounds[group]
        check_asked(group, first_index, last_index, start=start, end=end)
        with reading(f"{self._directory.log}: reading entries of group {group} from {first_index}"):
            return self._read_entries(group, first_index, min(last_index, end), bytes_max)

    def _read_entries(self, group: GroupId, first: Index, last: Index, bytes_max: int) -> tuple[Entry, ...]:
        found: list[Entry] = []
        size = 0
        for index, record in records(self._database(), group, first, last):
            if index != first + len(found):
                break
            size += len(record)
            if found and size > bytes_max:
                return tuple(found)
            found.append(check_record(group, index, record))
        if len(found) != last - first + 1:
            raise DamagedStorage(f"group {group}: entry {first + len(found)} is missing")
        return tuple(found)

    # -- peers' disks -----------------------------------------------------------------------------------

    def peer_disks(self) -> dict[ServerId, str]:
        """The disk id first met under each server id (PROTOCOL 8)."""
        return dict(self._peer_disks)

    def remember_peer_disk(self, server_id: ServerId, disk_id: str) -> None:
        """Remember it durably before returning; InvariantViolation where another disk was met before."""
        self._check_usable()
        known = self._peer_disks.get(server_id, disk_id)
        if known != disk_id:
            raise InvariantViolation(f"server {server_id} is bound to disk {known}, not to {disk_id}")
        if server_id in self._peer_disks:
            return
        batch = WriteBatch(raw_mode=True)
        key = layout.peer_key(server_id)
        batch.put(key, layout.seal(key, disk_id.encode()))
        self._write_batch(batch, self._written.number + 1, self._written.ballots)
        self.sync()
        self._peer_disks[server_id] = disk_id

    # -- the end ----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Release the directory, after a sync under way; unsynced batches may be lost. Harmless twice."""
        self._closing = True
        cut_short = self._db is not None and self._reclaim_lock.locked()
        if self._db is not None and cut_short:
            self._db.cancel_all_background(False)  # a merge of gigabytes may be begun again another time
        with self._reclaim_lock, self._sync_lock:
            self._failure = self._failure or "the storage is closed"
            db, self._db = self._db, None
            try:
                if db is not None:
                    db.close()
            except Exception as error:  # rocksdict raises bare Exceptions
                if cut_short:
                    return  # no last flush to a table, then: the log files hold it all
                raise StorageFailed(f"{self._directory.path} could not be closed: {error}") from error
            finally:
                self._side.close()
                self._directory.close()

    def _fail(self, what: str, error: Exception) -> StorageFailed:
        """Latch a failure: RocksDB may or may not hold what it covered, so nothing may follow it."""
        failure = f"{self._directory.path}: {what}: {error}; whether they are stored is unknown"
        self._failure = self._failure or failure
        return StorageFailed(failure)

    def _check_usable(self) -> None:
        if self._failure:
            raise StorageFailed(self._failure)

    def _database(self) -> Rdict:
        assert self._db is not None  # _check_usable has passed, so it is open
        return self._db


def _with_ballots(ballots: layout.Ballots, states: dict[GroupId, layout.StoredState]) -> layout.Ballots:
    """The ballots after these states, which are others; the same object where there are none."""
    if not states:
        return ballots
    changed = {group: state.hard_state[:2] for group, state in states.items()}
    return tuple(changed.get(group, ballot) for group, ballot in enumerate(ballots))


def _check_arguments(cluster_id: str, server_id: ServerId, groups: int) -> None:
    if not cluster_id:
        raise ConfigError("cluster_id is empty; it must be a name")
    if not 0 <= server_id <= SERVER_ID_MAX:
        raise ConfigError(f"server_id is {server_id}; it must be 0 to {SERVER_ID_MAX}")
    if not 1 <= groups <= GROUPS_MAX:
        raise ConfigError(f"groups is {groups}; it must be 1 to {GROUPS_MAX}")
