"""A disk in memory that knows what is written and what is synced, for tests and for servers that may forget.

It keeps two copies of the state, one with and one without the unsynced batches, so a crash is exact:
`crash()` hands over a storage as a restart would find it. It owes what the port says
(`craft/storage/__init__.py`), and the same contract suite runs over it and over RocksDB.
"""

from __future__ import annotations

import threading

from craft.errors import DamagedStorage, InvariantViolation, StorageFailed
from craft.recovery import TAIL_BYTES_MAX, GroupFacts, group_damage
from craft.storage import Identity
from craft.storage.held import HeldLog, carry_out, check_write, suspicions_after
from craft.storage.snapshots import MemoryFiles, Snapshots
from craft.types import (
    BEGINNING,
    Cut,
    Entry,
    GroupId,
    HardState,
    Index,
    Recovered,
    RecoveredGroup,
    ServerId,
    Write,
)


class _State:
    """What one copy of the disk holds."""

    def __init__(self, groups: int) -> None:
        self.logs = [HeldLog() for _ in range(groups)]
        self.hard_states: list[HardState | None] = [None] * groups
        self.counter = 0
        self.suspicions: dict[GroupId, str] = {}

    def copy(self) -> _State:
        twin = _State(0)
        twin.logs = [log.copy() for log in self.logs]
        twin.hard_states = self.hard_states[:]
        twin.counter = self.counter
        twin.suspicions = dict(self.suspicions)
        return twin

    def carry_out(self, write: Write) -> None:
        carry_out(self.logs, write)
        for group, hard_state in write.hard_states:
            self.hard_states[group] = hard_state
        if write.counter is not None:
            self.counter = write.counter
        self.suspicions = suspicions_after(self.suspicions, write)


class MemoryStorage:
    """One server's disk, in memory. `write` and `sync` may be called from different threads."""

    def __init__(self, identity: Identity, *, tail_bytes_max: int = TAIL_BYTES_MAX) -> None:
        self._identity = identity
        self._tail_bytes_max = tail_bytes_max
        self._written = _State(identity.groups)
        self._synced = _State(identity.groups)
        self._unsynced: list[Write] = []
        self._peer_disks: dict[ServerId, str] = {}
        self._files = MemoryFiles()
        self._snapshots = self._open_snapshots()
        self._closed = False
        self._lock = threading.Lock()

    @property
    def identity(self) -> Identity:
        """Whose disk this is."""
        return self._identity

    @property
    def snapshots(self) -> Snapshots:
        """This server's snapshots; each is durable when it is written."""
        return self._snapshots

    def _open_snapshots(self) -> Snapshots:
        return Snapshots(self._files, cluster_id=self._identity.cluster_id, groups=self._identity.groups)

    @property
    def unsynced(self) -> int:
        """Batches written and not synced."""
        return len(self._unsynced)

    def recover(self, behind: tuple[Cut, ...] = ()) -> Recovered:
        """Read back what is there, through the same checks as a real disk."""
        self._check_open()
        cuts = behind or (BEGINNING,) * self._identity.groups
        groups = tuple(self._recover_group(group, cut) for group, cut in enumerate(cuts))
        return Recovered(groups, self._written.counter)

    def _recover_group(self, group: GroupId, behind: Cut) -> RecoveredGroup:
        log, stored = self._written.logs[group], self._written.hard_states[group]
        commit = stored.commit if stored is not None else 0
        found = log.recover(group, commit=commit, tail_bytes_max=self._tail_bytes_max, behind=behind)
        damage = group_damage(GroupFacts(group, found.last, stored, 0, None), None)
        if damage:
            raise DamagedStorage(damage)
        return found.recovered(stored, self._written.suspicions.get(group, ""))

    def write(self, write: Write) -> None:
        """Write one batch, unsynced."""
        self._check_open()
        with self._lock:
            check_write(self._written.logs, write)
            self._written.carry_out(write)
            self._unsynced.append(write)

    def sync(self) -> None:
        """Make every batch written so far durable."""
        self._check_open()
        with self._lock:
            unsynced, self._unsynced = self._unsynced, []
            for write in unsynced:
                self._synced.carry_out(write)

    def entries(
        self, group: GroupId, *, first_index: Index, last_index: Index, bytes_max: int
    ) -> tuple[Entry, ...]:
        """Entries from `first_index` on, up to `last_index` or about `bytes_max`; at least one."""
        self._check_open()
        return self._written.logs[group].read(group, first_index, last_index, bytes_max)

    def reclaim(self) -> None:
        """Memory is given back at once."""
        self._check_open()

    def peer_disks(self) -> dict[ServerId, str]:
        """The disk id first met under each server id."""
        return dict(self._peer_disks)

    def remember_peer_disk(self, server_id: ServerId, disk_id: str) -> None:
        """Remember it, durably at once."""
        self._check_open()
        known = self._peer_disks.setdefault(server_id, disk_id)
        if known != disk_id:
            raise InvariantViolation(f"server {server_id} is bound to disk {known}, not to {disk_id}")

    def close(self) -> None:
        """Release the disk; what was written stays, and `reopen` finds it."""
        self._closed = True

    def crash(self, *, keep: int = 0) -> MemoryStorage:
        """Lose power: the disk as a restart finds it.

        It holds the synced batches and the first `keep` unsynced ones. This storage is closed: whatever the
        crashed server still does with it raises.
        """
        self.close()
        twin = MemoryStorage(self._identity, tail_bytes_max=self._tail_bytes_max)
        twin._synced = self._synced.copy()
        for write in self._unsynced[:keep]:
            twin._synced.carry_out(write)
        twin._written = twin._synced.copy()
        twin._peer_disks = dict(self._peer_disks)
        twin._files = self._files
        twin._snapshots = twin._open_snapshots()
        return twin

    def reopen(self) -> MemoryStorage:
        """Be killed and start again on the same kernel: all that was written is there."""
        return self.crash(keep=len(self._unsynced))

    def _check_open(self) -> None:
        if self._closed:
            raise StorageFailed("the storage is closed")
