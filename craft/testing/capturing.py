"""Snapshots of one simulated server: written and received in virtual time, cut short by crashes.

Knows: the state machine, the disk's snapshot store, what a `Ready` asks for. Must not know: what the engine
makes of it.

Invariants
- It does what the real shell does: forks at once, writes later, restores before anything else is applied.
- Nothing draws from the world's random sources but in runs that take snapshots.
"""

from __future__ import annotations

import random
import typing
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from craft import restoring
from craft.errors import DamagedSnapshot, RestoreFailed, StorageFailed
from craft.marks import mark
from craft.ready import Capture, Ready, Receive, ReceiveAppend, ReceiveBegin, SnapshotRead
from craft.state_machine import Snapshots
from craft.testing.checkers.base import machine_raised
from craft.testing.disk import Crash, SimulatedDisk
from craft.testing.files import PowerLost
from craft.testing.keeping import Keeping
from craft.testing.plan import MS, Plan
from craft.testing.watched import Watched, watched
from craft.types import Cut, SnapshotInfo, SnapshotPart, StoredSnapshots

if typing.TYPE_CHECKING:
    from craft.testing.server import SimServer

STEPS_MAX = 8
"""Changes of the directory after which the power may go while a snapshot is written."""

PIECE_NS = 300_000
"""Reading or writing one piece of a snapshot."""


def captures(plan: Plan, machine: Any) -> bool:
    """Are snapshots taken in this run?"""
    return plan.snapshots is not None and isinstance(machine, Snapshots)


def find(
    plan: Plan, disk: SimulatedDisk, machine: Callable[[], Any]
) -> tuple[Watched, StoredSnapshots, tuple[Cut, ...]]:
    """A state machine restored to the newest snapshot that can be read, or an empty one."""
    fresh = watched(plan, machine())
    if not captures(plan, fresh.machine):
        return fresh, StoredSnapshots(), ()
    kept = disk.snapshots.kept()
    for info in reversed(kept):
        fresh = _with_own_data(plan, disk, machine)
        try:
            restoring.begin(info, partial(disk.snapshots.parts, info.id), fresh)
            newest = (info, restoring.engines(disk.snapshots.parts(info.id)))
        except DamagedSnapshot:
            mark("snapshot skipped")
            continue
        except RestoreFailed as error:
            raise machine_raised(error) from error
        behind = info.head.cuts
        ahead = fresh.ahead.position
        if ahead:
            mark("state machine ahead of its snapshot")
        return fresh, StoredSnapshots(kept, newest, disk.snapshots.partial(), ahead), behind
    fresh = _with_own_data(plan, disk, machine)
    return fresh, StoredSnapshots(kept, None, disk.snapshots.partial(), fresh.ahead.position), ()


def _with_own_data(plan: Plan, disk: SimulatedDisk, machine: Callable[[], Any]) -> Watched:
    """A state machine as its process finds it: empty, or with the data that it keeps itself."""
    assert plan.snapshots is not None
    if plan.snapshots.kept is None:
        return watched(plan, machine())
    keeping = Keeping(machine(), disk, synced=plan.snapshots.kept)
    applier = watched(plan, keeping)
    applier.ahead = keeping.last_applied()
    return applier


class Capturing:
    """Carries out what one incarnation's engine asks for."""

    def __init__(self, server: SimServer) -> None:
        self._server = server
        plan = server.world.plan.snapshots
        assert plan is not None
        self._plan = plan
        self._rng = random.Random(f"{server.world.plan.seed} {server.incarnation} snapshots")
        self._store = server.disk.snapshots

    def carry_out(self, ready: Ready) -> None:
        """Everything about snapshots in a `Ready`."""
        if ready.capture is not None:
            self._capture(ready.capture)
        for piece in ready.snapshot_reads:
            self._later(PIECE_NS, self._read, piece)
        for step in ready.receive:
            self._later(PIECE_NS, self._receive, step)
        for token in ready.settled:
            self._server.settled(token)
        if ready.restore is not None:
            self._later(self._rng.randint(*self._plan.restore), self._restore, ready.restore)

    def _later(self, delay: int, event: Callable[[Any], None], argument: Any) -> None:
        def unless_power_is_lost() -> None:
            if self._server.disk.files.steps_left != 0:
                event(argument)

        self._server.world.later(self._server, delay, unless_power_is_lost)

    def _capture(self, capture: Capture) -> None:
        server = self._server
        forked = restoring.fork(capture, server.applier)
        server.world.note(server.id, "capture", f"position {forked.head.position}")
        server.world.moments.reached(server.world, "capture", server.id)
        self._later(self._rng.randint(*self._plan.write), self._write, forked)

    def _write(self, forked: restoring.Forked) -> None:
        """The steps of writing follow one another in no time; the power may go between any two."""
        server = self._server
        if self._rng.random() < self._plan.cut_short and not server.world.calm:
            server.disk.files.steps_left = self._rng.randrange(STEPS_MAX)
        try:
            info = self._store.write(forked.head, forked.parts)
        except PowerLost:
            mark("power lost while a snapshot is written")
            server.disk.files.steps_left = 0  # nothing more is written; the turn under way ends first
            server.world.at(server.world.time, self._lose_power)
            return
        except StorageFailed:
            server.disk.files.steps_left = None  # the disk was full first; the power stays
            raise
        server.disk.files.steps_left = None
        server.engine.snapshots.captured(info, server.now())

    def _lose_power(self) -> None:
        server = self._server
        server.disk.files.steps_left = None  # also where another fault has ended the server at this instant
        if server.alive:
            server.world.crash(server.id, Crash.POWER)
            server.world.start_later(server.id, 100 * MS)

    def _read(self, piece: SnapshotRead) -> None:
        data = self._store.read(piece.snapshot, offset=piece.offset, bytes_max=piece.bytes_max)
        self._server.engine.snapshots.read(piece, data, self._server.now())

    def _receive(self, step: Receive) -> None:
        server, engine = self._server, self._server.engine
        if isinstance(step, ReceiveBegin):
            have = self._store.begin(step.snapshot, step.size)
            engine.snapshots.begun(step.snapshot, have, server.now())
        elif isinstance(step, ReceiveAppend):
            self._store.append(step.snapshot, offset=step.offset, data=step.data)
            engine.snapshots.appended(step.snapshot, step.offset + len(step.data), server.now())
            server.world.moments.reached(server.world, "piece", server.id)
        else:
            info, parts = self._finish(step.snapshot)
            engine.snapshots.received(info, parts, server.now())
            server.world.moments.reached(server.world, "received", server.id)

    def _finish(self, snapshot: Any) -> tuple[SnapshotInfo | None, tuple[SnapshotPart, ...]]:
        try:
            info = self._store.finish(snapshot)
            return info, restoring.engines(self._store.parts(info.id))
        except DamagedSnapshot:
            return None, ()

    def _restore(self, info: SnapshotInfo) -> None:
        server = self._server
        parts: Iterable[SnapshotPart] = self._store.parts(info.id)
        try:
            restoring.restore(parts, server.applier)
        except DamagedSnapshot as error:  # it decayed since: the real server ends, and finds another
            raise StorageFailed(f"a snapshot decayed before it was restored: {error}") from error
        server.applied_position = info.head.position
        server.world.note(server.id, "restore", f"position {info.head.position}")
        server.engine.snapshots.restored(server.now())
        for hook in server.world.hooks.restored:
            hook(server)
