"""What a driver tells an engine of snapshots: `Engine.snapshots`.

Each call answers something that a `Ready` asked for, but `take`. Files, threads and the state machine are the
driver's; `craft.restoring` helps with them.
"""

from __future__ import annotations

from craft.engine import capturing, installing, transferring
from craft.engine.state import EngineState
from craft.ready import SnapshotRead
from craft.types import Instant, SnapshotId, SnapshotInfo, SnapshotPart


class SnapshotCalls:
    """One engine's, for whoever carries out its `Ready`."""

    __slots__ = ("_state",)

    def __init__(self, state: EngineState) -> None:
        self._state = state

    @property
    def kept(self) -> tuple[SnapshotInfo, ...]:
        """Those of this server, the oldest first."""
        return self._state.snapshots.kept

    @property
    def restoring(self) -> bool:
        """Is the state machine's state about to be replaced, not there at all, or ahead of what is merged?

        Then nobody may read it.
        """
        return not capturing.readable(self._state)

    def take(self) -> None:
        """One is wanted as soon as possible: `Ready.capture`."""
        self._state.snapshots.asked = True

    def captured(self, info: SnapshotInfo | None, now: Instant) -> None:
        """The last `Ready.capture` is durable; None: it failed."""
        self._state.now = now
        capturing.captured(self._state, info)

    def read(self, piece: SnapshotRead, data: bytes | None, now: Instant) -> None:
        """What was read of a snapshot for a peer; None: it is kept no more."""
        self._state.now = now
        transferring.read(self._state, piece, data)

    def begun(self, snapshot: SnapshotId, have: int, now: Instant) -> None:
        """So many bytes of a peer's snapshot are here already."""
        self._state.now = now
        transferring.begun(self._state, snapshot, have)

    def appended(self, snapshot: SnapshotId, upto: int, now: Instant) -> None:
        """What was received of it before `upto` is written."""
        self._state.now = now
        transferring.appended(self._state, snapshot, upto)

    def received(self, info: SnapshotInfo | None, parts: tuple[SnapshotPart, ...], now: Instant) -> None:
        """It is kept, whole and durable, with the engine's parts in it; None: it was damaged, and is gone."""
        self._state.now = now
        transferring.received(self._state, info, parts)

    def restored(self, now: Instant) -> None:
        """The state machine holds what the last `Ready.restore` named."""
        self._state.now = now
        installing.restored(self._state)
