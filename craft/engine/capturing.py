"""When a snapshot is due, and what the engine puts into it (PROTOCOL 7).

Knows: how far each group is applied, the sessions, the merged position. Must not know: the user's state
machine, files.

Invariants
- A snapshot is captured between two lists of merged entries: what is merged is applied then, and the
  position, the digest, the sessions and the state machine are of one moment.
- A group's cut is its last applied entry, or, where nothing delivered waits to be applied, the last that was
  delivered: everything at or below it is applied, no command behind it is.
- Cuts never go back: what a log is compacted to, every later snapshot covers.
- One at a time. None is taken of an empty log, and none twice at one position, unless somebody asks who lacks
  entries that changed nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import msgpack

from craft.client_sessions import ClientSessions
from craft.engine.state import MS, Applied, EngineState, Landmark
from craft.errors import DamagedSnapshot
from craft.folding import Folded
from craft.marks import mark
from craft.membership import Members
from craft.raft import membership
from craft.ready import Capture, Ready
from craft.sessions import Sessions
from craft.types import Cut, Entry, GroupId, Head, SnapshotInfo, SnapshotKind, SnapshotPart, size_of

KEPT = 2
"""Snapshots that are kept; one alone allows no compaction."""

SESSIONS_A_PART = 256
"""Sessions of clients in one part: some hundred KiB where their windows are full."""

LANDMARK_BYTES = 256 * 1024
"""How far apart the places are, of a group, up to which its log may be compacted, at most."""

LANDMARKS_IN_WINDOW = 16
"""Or closer, where the trailing window is small: it is kept to within a sixteenth."""

LANDMARKS_MAX = 16384
"""Of a group: 4 GiB of log. Beyond it every other one is forgotten."""


# -- what is applied -------------------------------------------------------------------------------


def note_delivered(e: EngineState, group: GroupId, entries: tuple[Entry, ...]) -> None:
    """Entries were handed to the merge: how far, and how much log that is."""
    s, last = e.snapshots, entries[-1]
    size = size_of(entries)
    s.totals[group] += size
    s.logged_bytes += size
    place = s.delivered[group] = Applied(last.place, last.timestamp)
    marks = s.landmarks[group]
    if not marks or s.totals[group] - marks[-1].bytes >= _landmarks_apart(e):
        marks.append(Landmark(*place, s.totals[group]))
        if len(marks) > LANDMARKS_MAX:
            s.landmarks[group] = type(marks)(islice(marks, 0, None, 2))


def _landmarks_apart(e: EngineState) -> int:
    return min(LANDMARK_BYTES, e.limits.log_trailing_bytes // (LANDMARKS_IN_WINDOW * len(e.replicas)))


def cut(e: EngineState, group: GroupId) -> Cut:
    """Where what is applied leaves a group's log."""
    s = e.snapshots
    if not e.outstanding[group]:
        # (†) Remembered: a later cut must not lie before this one, to which the log may be compacted by then.
        s.applied[group] = s.delivered[group]
    place, timestamp = s.applied[group]
    at, configuration = membership.upto(e.raft(group), place.index)
    return Cut(place, timestamp, configuration, at)


def readable(e: EngineState) -> bool:
    """Is the state machine's state that of the position applied here? Else nobody may read or capture it."""
    s = e.snapshots
    return not s.restoring and not s.unfounded and s.ahead <= e.applied_position


# -- taking one ------------------------------------------------------------------------------------


def turn(e: EngineState, out: Ready) -> None:
    """Take a snapshot if one is due and everything that is merged is applied."""
    if e.applying or not _due(e):
        return
    mark("snapshot captured")
    s = e.snapshots
    s.asked, s.capturing = False, True
    s.captured_at, s.captured_position, s.logged_bytes = e.now.monotonic_ns, e.applied_position, 0
    cuts = tuple(cut(e, group) for group in range(len(e.replicas)))
    head = Head(e.cluster_id, e.applied_position, e.applied_timestamp, e.digest, cuts)
    out.capture = Capture(head, tuple(pack(e)))


def _due(e: EngineState) -> bool:
    s = e.snapshots
    if not s.supported or s.capturing or not readable(e) or not e.applied_position:
        return False
    if s.receiving is not None or s.received is not None:
        return False  # (†) it would be kept behind the peer's, and perhaps cover less of some log
    if s.asked:
        return True
    if e.applied_position == s.captured_position:
        return False
    if s.sending:
        # Two are kept: one that is on its way to somebody must not be pushed out, by age least of all, while
        # the log behind it is held for them anyway.
        return s.logged_bytes >= max(4 * e.limits.snapshot_log_bytes, e.limits.log_held_bytes_max // KEPT)
    waited = e.now.monotonic_ns - s.captured_at
    return s.logged_bytes >= e.limits.snapshot_log_bytes or waited >= e.limits.snapshot_interval_ms * MS


def captured(e: EngineState, info: SnapshotInfo | None) -> None:
    """It is whole and durable; None: it failed, and the next is taken when it is due."""
    s = e.snapshots
    s.capturing = False
    if info is not None:
        s.taken += 1
        s.compaction_due = True
        keep(e, info)


def keep(e: EngineState, info: SnapshotInfo) -> None:
    """One more is kept, and the oldest of three no longer; nor another of that very position.

    Of two at one position either may cover more of some log, by entries that changed nothing.
    """
    others = [one for one in e.snapshots.kept if one.id.position != info.id.position]
    e.snapshots.kept = tuple(sorted([*others, info])[-KEPT:])


# -- the engine's parts ----------------------------------------------------------------------------


def pack(e: Folded) -> Iterator[SnapshotPart]:
    """The wanted set of servers and the sessions, as they stand."""
    yield _part("members", [e.members.pack()])
    yield _part("servers", e.sessions.export())
    clients = e.clients.export()
    while batch := list(islice(clients, SESSIONS_A_PART)):
        yield _part("clients", batch)


def _part(what: str, items: Iterable[Any]) -> SnapshotPart:
    return SnapshotPart(SnapshotKind.ENGINE, msgpack.packb((what, list(items))))


class Unpacked(NamedTuple):
    """What the engine had put into a snapshot."""

    members: Members
    sessions: Sessions
    clients: ClientSessions


def unpack(parts: Sequence[SnapshotPart]) -> Unpacked:
    """What is in a snapshot's parts; raises DamagedSnapshot if it cannot be read."""
    members, sessions, clients = Members(), Sessions(), ClientSessions()
    try:
        for part in parts:
            what, items = msgpack.unpackb(part.data, use_list=False)
            if what == "members":
                members = Members.unpack(items[0])
            else:
                {"servers": sessions.load, "clients": clients.load}[what](items)
    except (ValueError, TypeError, KeyError, IndexError, msgpack.UnpackException) as error:
        raise DamagedSnapshot(f"members and sessions in a snapshot cannot be read: {error!r}") from error
    return Unpacked(members, sessions, clients)
