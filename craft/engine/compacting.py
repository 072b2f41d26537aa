"""How much of each group's log may be forgotten (PROTOCOL 7).

Knows: the kept snapshots' cuts, how much log lies where, who catches up. Must not know: files.

Invariants
- A log is compacted at most to the least cut of the kept snapshots: a damaged newest one costs time, not the
  server. So nothing unmerged or unapplied is ever dropped. (†) The least is not always the oldest one's: a
  cut passes entries that change nothing only where nothing behind them waits to be applied, so a newer
  snapshot, or a peer's, may end before them; and whose cut lies below a log's start begins nothing.
- A window of bytes stays below that cut, and what followers still need who are catching up, and what comes
  behind a snapshot that is on its way to somebody: within `log_held_bytes_max`.
- Nothing is compacted while a snapshot is on its way here, which a transfer without progress ends.
- What is being read back is not compacted under the reader.
- The compaction point is an entry whose term, timestamp and configuration we know.
"""

from __future__ import annotations

from collections.abc import Iterator

from craft.engine.capturing import KEPT
from craft.engine.state import EngineState, Landmark
from craft.marks import mark
from craft.raft import RaftState, membership
from craft.raft.progress import ProgressState
from craft.types import Cut, GroupId, Index, Start


def tick(e: EngineState) -> None:
    """Compact every log as far as it may be: when a snapshot was taken, and again where something held it."""
    s = e.snapshots
    if not s.compaction_due or len(s.kept) < KEPT or s.restoring or s.unfounded:
        return
    if s.receiving is not None or s.received is not None or s.partial is not None:
        return  # what is on its way here must cover what is compacted here, too
    s.compaction_due = False
    for group, cuts in enumerate(zip(*(one.head.cuts for one in s.kept), strict=True)):
        r, least = e.raft(group), min(cut.place.index for cut in cuts)
        if least > r.log.start.place.index and group not in s.starts:
            _compact(e, r, least)


def _compact(e: EngineState, r: RaftState, upto: Index) -> None:
    group = r.group
    landmark, held = _landmark(e, group, upto)
    e.snapshots.compaction_due |= held
    if landmark is None:
        return
    index = landmark.place.index
    if index > min(r.log.persisted, e.cursor[group]) or index >= min(
        _being_read(e, group), default=index + 1
    ):
        e.snapshots.compaction_due = True
        return
    at, configuration = membership.upto(r, index)
    cut = Cut(landmark.place, landmark.timestamp, configuration, at)
    mark("log compacted")
    r.log.compact(cut)
    e.snapshots.starts[group] = Start(group, cut, keep=True)
    _forget_landmarks(e, group, index)


def _landmark(e: EngineState, group: GroupId, upto: Index) -> tuple[Landmark | None, bool]:
    """The last landmark at or below `upto` that leaves the trailing window, and what is held, alone.

    And whether anything more was held for somebody, who will not need it for ever.
    """
    start = e.raft(group).log.start.place.index
    marks = [one for one in e.snapshots.landmarks[group] if start < one.place.index <= upto]
    if not marks:
        return None, False
    groups = len(e.replicas)
    end = marks[-1].bytes
    trailing = end - e.limits.log_trailing_bytes // groups
    held = end - (e.limits.log_trailing_bytes + e.limits.log_held_bytes_max) // groups
    needed = min(_needed(e, group), default=upto)
    free = [one for one in marks if one.bytes <= trailing]
    allowed = [one for one in free if one.place.index <= needed or one.bytes <= held]
    return allowed[-1] if allowed else None, len(allowed) < len(free)


def _needed(e: EngineState, group: GroupId) -> Iterator[Index]:
    """Up to where others have it, or will have it from a snapshot: what comes next they want from us."""
    r, s = e.raft(group), e.snapshots
    for peer_id, progress in r.progress.items():
        peer = e.peers.get(peer_id)
        if peer is not None and peer.linked and progress.state is not ProgressState.SNAPSHOT:
            yield progress.match
    cuts = {one.id: one.head.cuts for one in s.kept}
    for sending in s.sending.values():
        if sending.snapshot in cuts:
            yield cuts[sending.snapshot][group].place.index


def _being_read(e: EngineState, group: GroupId) -> Iterator[Index]:
    for loading in e.loads.values():
        if loading.group == group:
            yield loading.next_index - 1  # the entry before may be read too, for its term


def _forget_landmarks(e: EngineState, group: GroupId, index: Index) -> None:
    marks = e.snapshots.landmarks[group]
    while marks and marks[0].place.index <= index:
        marks.popleft()


def log_bytes(e: EngineState, group: GroupId) -> int:
    """About how much log of a group is kept, as far as it was read since the start."""
    marks = e.snapshots.landmarks[group]
    return e.snapshots.totals[group] - marks[0].bytes if marks else 0
