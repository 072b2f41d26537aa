"""From a backup, or from survivors, to the directory of a server of a new cluster.

The merged log is replayed through the user's state machine, up to that moment, and what comes out becomes the
snapshot that the new server begins with.

Invariants
- The new cluster is another one, by its name: no server, session or request of the old one is taken for its
  own. Sessions are not carried over: a client's request that was under way is unknown to it, as it was.
- Positions, timestamps and the digest go on where the backup's merged log was: every group begins behind a
  cut at that timestamp. So the number of groups and of servers is the new cluster's own.
- The same backup and moment give the same snapshot, byte for byte, on whichever machine.
- The directory appears whole, or not at all.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from craft import restoring
from craft.applying import Applier
from craft.archive.files import sync_names
from craft.archive.reading import Backup
from craft.archive.surviving import Survivors
from craft.config import Config
from craft.engine import capturing
from craft.errors import ConfigError
from craft.folding import DIGEST_BYTES, Fold
from craft.membership import Members
from craft.state_machine import Snapshots, StateMachine
from craft.storage import origin
from craft.storage.rocks import RocksStorage
from craft.types import (
    NOWHERE,
    Configuration,
    Cut,
    HardState,
    Head,
    Place,
    Position,
    SnapshotKind,
    SnapshotPart,
    Start,
    Timestamp,
    Write,
)

FIRST = Place(1, 1)
"""Where each group's log of a restored cluster begins: behind an entry that nobody has. So a server that was
not restored lacks it, wins no vote of one that was, and is given the snapshot."""


class Replayed(NamedTuple):
    """How far a backup was replayed."""

    position: Position
    timestamp: Timestamp
    digest: bytes
    left: int
    """Positions of the backup behind that."""


def replay(backup: Backup, machine: StateMachine, *, until: Timestamp | None = None) -> Replayed:
    """Let a fresh state machine apply everything stamped up to `until` (None: all).

    The backup is read and checked to its end all the same. Raises ConfigError for a moment that it does not
    hold, DamagedBackup, ApplyFailed.
    """
    manifest = backup.manifest
    if until is not None and not manifest.begin_timestamp <= until <= manifest.timestamp:
        raise ConfigError(
            f"until is {until}; this backup allows {manifest.begin_timestamp} to {manifest.timestamp}"
        )
    applier = Applier(machine)
    remerger = backup.remerger()
    if backup.head is not None:
        _check_machine(machine)
        restoring.restore(backup.base_parts(), applier)
    digest = bytes(DIGEST_BYTES) if backup.head is None else backup.head.digest
    reached = Replayed(manifest.begin_position, manifest.begin_timestamp, digest, 0)
    for one in backup.merged(remerger):
        merged = one.merged
        if until is None or merged.timestamp <= until:
            applier.run([merged])
            reached = Replayed(merged.position, merged.timestamp, one.digest, 0)
        else:
            reached = reached._replace(left=reached.left + 1)
    return reached


def restore(
    backup: Backup, machine: StateMachine, config: Config, until: Timestamp | None = None
) -> Replayed:
    """Make the configured server's directory. Raises ConfigError where that is wrong, and as `replay`."""
    check(config, backup.manifest.cluster_id, machine)
    reached = replay(backup, machine, until=until)
    make(config, reached, machine)
    return reached


def recover(survivors: Survivors, machine: StateMachine, config: Config) -> Replayed:
    """Make the configured server's directory out of all that survived. Raises as `restore` does."""
    check(config, survivors.cluster_id, machine)
    applier = Applier(machine)
    reached = Replayed(0, 0, bytes(DIGEST_BYTES), 0)
    if survivors.base is not None:
        restoring.restore(survivors.base.parts(), applier)
        reached = Replayed(*survivors.base.head[1:4], 0)
    for one, _ in survivors.merged():
        applier.run([one.merged])
        reached = Replayed(one.merged.position, one.merged.timestamp, one.digest, 0)
    make(config, reached, machine)
    return reached


def check(config: Config, cluster_id: str, machine: StateMachine) -> None:
    """Raise ConfigError where a server of another cluster cannot be made so."""
    if config.data_dir is None:
        raise ConfigError("data_dir: is missing; allowed: the directory that is to be made")
    if config.cluster == cluster_id:
        raise ConfigError(
            f"cluster: {config.cluster!r} is the old one's; allowed: another name, so that its servers and"
            " clients are never taken for those of the new cluster"
        )
    if config.data_dir.exists() and (not config.data_dir.is_dir() or any(config.data_dir.iterdir())):
        raise ConfigError(f"data_dir: {config.data_dir} is there already; allowed: one that is not, or empty")
    _check_machine(machine)


def _check_machine(machine: StateMachine) -> None:
    if not isinstance(machine, Snapshots):
        raise ConfigError(
            f"{type(machine).__name__} cannot be restored: it has no methods snapshot and restore"
        )


def make(config: Config, reached: Replayed, machine: StateMachine) -> None:
    """Make the directory out of what was replayed: whole, or not at all."""
    directory = config.data_dir
    assert directory is not None and isinstance(machine, Snapshots)
    making = directory.with_name(f"{directory.name}.restoring")
    if making.exists():
        shutil.rmtree(making)  # of a restore that did not end
    _make(making, config, reached, machine)
    if directory.exists():
        directory.rmdir()  # it is empty
    making.rename(directory)
    sync_names(directory.parent)


def _make(directory: Path, config: Config, reached: Replayed, machine: Snapshots) -> None:
    groups = range(config.group_count)
    cut = Cut(FIRST, reached.timestamp, Configuration(frozenset(config.servers)), NOWHERE)
    head = Head(config.cluster, reached.position, reached.timestamp, reached.digest, (cut,) * len(groups))
    storage = RocksStorage.open(
        directory,
        cluster_id=config.cluster,
        server_id=config.server_id,
        groups=len(groups),
        origin=origin(reached.position, reached.digest),
    )
    try:
        storage.recover()
        storage.snapshots.write(head, _parts(config, machine))
        states = tuple((group, HardState(FIRST.term, None, FIRST.index)) for group in groups)
        starts = tuple(Start(group, cut, keep=False) for group in groups)
        storage.write(Write(1, (), states, None, starts))
        storage.sync()
    finally:
        storage.close()


def _parts(config: Config, machine: Snapshots) -> Iterator[SnapshotPart]:
    """The servers of the new cluster, no sessions, and the state."""
    state = Fold()
    state.members = Members(config.servers)
    yield from capturing.pack(state)
    for chunk in machine.snapshot()():
        yield SnapshotPart(SnapshotKind.MACHINE, chunk)
