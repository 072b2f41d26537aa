"""Installing a snapshot: all groups, the merge and the sessions go on behind it (PROTOCOL 7).

At a start it is this server's own; later one of a peer, because what we lack is compacted everywhere.

Knows: the snapshot's head and the engine's parts. Must not know: files, what the state machine does with it.

Invariants
- Installed only where it is beyond what is applied here, or equal to it and some log lacks what it covers;
  and only if no cut lies below what is compacted here: else entries between the two would never be applied,
  here if nothing is applied yet (no snapshot was usable), or after the next start (†).
- All groups at once, between two lists of merged entries, in one write; the state machine is restored before
  anything else is merged or read.
- Requests of this server that took effect within the snapshot are settled by the session's window in it.
"""

from __future__ import annotations

from typing import Any

from craft.engine import capturing, closing
from craft.engine.state import Applied, EngineState, SessionState
from craft.errors import DamagedSnapshot, SessionTaken
from craft.marks import mark
from craft.messages import SnapshotInstalled
from craft.raft import snapshots as raft_snapshots
from craft.ready import Ready
from craft.sessions import OPEN, Sessions
from craft.types import Cut, GroupId, Head, SnapshotInfo, SnapshotPart


def helps(e: EngineState, position: int, indexes: tuple[int, ...]) -> bool:
    """Would a snapshot with cuts at these indexes bring us further?"""
    if len(indexes) != len(e.replicas) or position < e.applied_position:
        return False
    starts = [raft.state.log.start.place.index for raft in e.replicas]
    if any(index < start for index, start in zip(indexes, starts, strict=True)):
        return False  # (†)
    return position > e.applied_position or lacks(e, indexes)


def lacks(e: EngineState, indexes: tuple[int, ...]) -> bool:
    """Is there a group of which we do not know everything up to there committed and hold it?"""
    return e.snapshots.unfounded or any(
        raft.state.commit_index < index for raft, index in zip(e.replicas, indexes, strict=False)
    )


def turn(e: EngineState, out: Ready) -> None:
    """Install what has arrived, once nothing is being applied."""
    s = e.snapshots
    if s.received is None or e.applying or s.restoring or s.capturing:
        return
    (info, parts), s.received = s.received, None
    indexes = tuple(cut.place.index for cut in info.head.cuts)
    if not helps(e, info.head.position, indexes) or not lacks(e, indexes):
        mark("snapshot no longer needed")
        return
    mark("snapshot installed")
    s.installed += 1
    anew = info.head.position > e.applied_position or s.unfounded
    out.settled += install(e, info.head, parts if anew else None)
    s.compaction_due = True
    if anew:
        s.restoring, s.ahead, out.restore = True, 0, info
    for peer in e.peers.values():  # whoever waits to send us entries may go on
        peer.out.append(SnapshotInstalled(e.applied_position))


def install(e: EngineState, head: Head, parts: tuple[SnapshotPart, ...] | None) -> list[Any]:
    """Go on behind a snapshot; `parts` None: its position is ours, only logs lack something.

    Returns the tokens of requests whose effect is in it.
    """
    state = None if parts is None else capturing.unpack(parts)
    for group, cut in enumerate(head.cuts):
        _install_group(e, group, cut)
    e.probes.clear()
    e.snapshots.unfounded = False
    if state is None:
        return []
    _check_own(e, state.sessions)
    e.members, e.sessions, e.clients = state
    e.merged_position = e.applied_position = e.snapshots.captured_position = head.position
    e.applied_timestamp, e.digest = head.timestamp, head.digest
    e.answered_timestamp = max(e.answered_timestamp, head.timestamp)
    e.snapshots.captured_at, e.snapshots.logged_bytes = e.now.monotonic_ns, 0
    e.recent.clear()
    return _settle(e)


def _install_group(e: EngineState, group: GroupId, cut: Cut) -> None:
    r, s, index = e.raft(group), e.snapshots, cut.place.index
    start = raft_snapshots.install(r, cut, e.now.monotonic_ns)
    if start is not None:
        s.starts[group] = start
        s.landmarks[group].clear()
    if e.cursor[group] < index:
        e.cursor[group] = index
        s.delivered[group] = Applied(cut.place, cut.timestamp)
        e.merging_load.discard(group)
    if s.applied[group].place < cut.place:
        s.applied[group] = Applied(cut.place, cut.timestamp)
    outstanding = e.outstanding[group]
    while outstanding and outstanding[0] <= index:
        outstanding.popleft()
    e.merger.install(group, index, cut.timestamp)
    e.dirty.add(group)
    closing.note_appended(e, r)


def _check_own(e: EngineState, sessions: Sessions) -> None:
    """Has another process run under our id meanwhile? And is our own session open by now?"""
    session = sessions.current(e.me)
    if session is None or e.session_state in {SessionState.READING, SessionState.NUMBERING}:
        return
    if session.counter > e.counter or (session.counter == e.counter and session.nonce != e.nonce):
        raise SessionTaken(
            f"server {e.me}: a snapshot holds session {session.counter} of another process under this id"
            f" (ours is {e.counter})"
        )
    if session.counter == e.counter:
        e.session_state = SessionState.OPEN


def _settle(e: EngineState) -> list[Any]:
    """Requests of ours that took effect within the snapshot: nobody will ever tell us what they came to."""
    session = e.sessions.current(e.me)
    if session is None or session.counter != e.counter or e.session_state is not SessionState.OPEN:
        return []
    settled = []
    for pending in list(e.pending.values()):
        if pending.request == OPEN or pending.request < session.below or pending.request in session.executed:
            mark("request settled by a snapshot")
            del e.pending[pending.request]
            e.awaiting_commit.pop(pending.request, None)
            e.pending_bytes -= len(pending.body)
            if pending.request != OPEN and not pending.told:
                settled.append(pending.token)
    return settled


def restored(e: EngineState) -> None:
    """The state machine holds the snapshot's state: the merge and the reads go on."""
    e.snapshots.restoring = False
    e.dirty.update(range(len(e.replicas)))


def found(e: EngineState, snapshot: tuple[SnapshotInfo, tuple[SnapshotPart, ...]] | None) -> None:
    """What a start found: its newest usable snapshot, already restored, or none."""
    compacted = any(raft.state.log.start.place.index for raft in e.replicas)
    if snapshot is None:
        e.snapshots.unfounded = compacted
        if compacted:
            mark("no usable snapshot")
        return
    info, parts = snapshot
    indexes = tuple(cut.place.index for cut in info.head.cuts)
    if len(indexes) != len(e.replicas):
        raise DamagedSnapshot(f"snapshot {info.id} is of {len(indexes)} groups, not of {len(e.replicas)}")
    e.snapshots.unfounded = True  # nothing is applied yet
    if not helps(e, info.head.position, indexes):
        mark("snapshot below what is compacted")
        return
    install(e, info.head, parts)
