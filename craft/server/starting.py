"""What a start makes of a directory: the newest usable snapshot, restored, and the logs behind it.

Invariants
- Runs in a thread, before anything else does.
- A snapshot that turns out damaged is skipped and named; the state machine may be used only if the last
  restore that was begun came to its end.
- Logs are read from the snapshot's cuts on: a start takes as long as what is not in the snapshot.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import NamedTuple

from craft import logs
from craft.applying import Applier
from craft.engine.capturing import unpack
from craft.errors import ConfigError, DamagedSnapshot, RestoreFailed
from craft.restoring import begin, engines
from craft.server.snapshots import lacking
from craft.state_machine import Durable, LastApplied, Snapshots, StateMachine
from craft.storage import Storage
from craft.types import NO_SNAPSHOTS, Recovered, SnapshotInfo, SnapshotPart, StoredSnapshots

log = logging.getLogger("craft.server")

Found = tuple[SnapshotInfo, tuple[SnapshotPart, ...]]


class Started(NamedTuple):
    """What an engine begins with."""

    applier: Applier
    recovered: Recovered
    stored: StoredSnapshots


def start(storage: Storage, machine: StateMachine) -> Started:
    """Restore the state machine, and read the logs.

    Raises ConfigError where the logs are compacted and the state machine cannot be restored; RestoreFailed,
    StorageFailed, DamagedStorage, WrongDirectory.
    """
    applier = Applier(machine)
    if isinstance(machine, Durable):
        applier.ahead = LastApplied(*machine.last_applied())
    if not isinstance(machine, Snapshots):
        recovered = storage.recover()
        if any(group.start.place.index for group in recovered.groups):
            raise ConfigError(
                "state_machine: the logs are compacted, so the state must come from a snapshot; but"
                f" {lacking(machine)}; allowed: the state machine that the directory was used with"
            )
        return Started(applier, recovered, NO_SNAPSHOTS._replace(ahead=applier.ahead.position))
    kept = storage.snapshots.kept()
    newest = _restore_newest(storage, kept, applier)
    recovered = storage.recover(() if newest is None else newest[0].head.cuts)
    usable = kept if newest is None else kept[: kept.index(newest[0]) + 1]
    stored = StoredSnapshots(usable, newest, storage.snapshots.partial(), applier.ahead.position)
    return Started(applier, recovered, stored)


def _restore_newest(storage: Storage, kept: tuple[SnapshotInfo, ...], applier: Applier) -> Found | None:
    half: DamagedSnapshot | None = None
    for info in reversed(kept):
        try:
            found = info, engines(storage.snapshots.parts(info.id))
            unpack(found[1])
            begin(info, partial(storage.snapshots.parts, info.id), applier)
        except DamagedSnapshot as error:
            half = error
            logs.event(log, logging.WARNING, "snapshot skipped", error=str(error))
            continue
        if applier.ahead.position:
            what, position = "state machine's own data used", applier.ahead.position
        else:
            what, position = "snapshot restored", info.head.position
        logs.event(log, logging.INFO, what, position=position, bytes=info.size, of="our own")
        return found
    if half is not None:
        # Each was read to its end a moment ago: the disk changes while we look. A start that finds it so
        # puts it aside before anything is restored.
        raise RestoreFailed(
            f"no snapshot could be read to its end, and the state machine may hold a part of one: {half};"
            " start the server again"
        ) from half
    return None
