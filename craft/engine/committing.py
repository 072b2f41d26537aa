"""Answers at the level `committed`: before the merge has reached a request, and with no result (PROTOCOL 4).

Knows: which requests of this server's callers want that, and when their entries were committed and stamped.
Must not know: how a caller is told.

Invariants
- A request is told once: committed here, or applied by the merge, whichever is first.
- Where a cluster-wide bound on the clocks' error is stated, a request is told once every clock of the
  cluster has passed its timestamp: what starts after the answer is stamped later (†: each of two clocks may
  err by the bound, one ahead and one behind). With no bound stated, one session's order holds, and any later
  read sees it.
- Where this server's clock says itself that it is beyond the bound, nobody is told before the merge does it.
- Once told, its timestamp is a floor of this server's session (PROTOCOL 2), as an applied one's is.
"""

from __future__ import annotations

from craft.engine import proposing
from craft.engine.state import EngineState, Pending
from craft.ready import Ready
from craft.sessions import decode_payload
from craft.types import Entry, EntryKind, GroupId, Timestamp


def note_delivered(e: EngineState, group: GroupId, entries: tuple[Entry, ...]) -> None:
    """Entries of a group are committed. Are requests among them whose callers wait for no more than that?

    A copy of a request that was placed in another group meanwhile is not looked for: the merge finds it.
    """
    if not any(pending.group == group for pending in e.awaiting_commit.values()):
        return
    for entry in entries:
        if entry.kind is not EntryKind.COMMAND:
            continue
        for proposal in decode_payload(entry.payload):
            pending = proposing.own(e, proposal)
            if pending is not None and e.awaiting_commit.pop(pending.request, None) is not None:
                e.committed.append((entry.timestamp, pending))


def turn(e: EngineState, out: Ready) -> None:
    """Tell those whose timestamp every clock has passed."""
    if not e.committed or e.clock_breached:
        return
    waiting: list[tuple[Timestamp, Pending]] = []
    for timestamp, pending in e.committed:
        if pending.request not in e.pending:
            continue  # the merge was faster: it is answered when applied
        left = _left(e, timestamp)
        if left > 0:
            waiting.append((timestamp, pending))
            e.wake_at = min(e.wake_at, e.now.monotonic_ns + left)
        else:
            out.committed.append((pending.token, timestamp))
            pending.told = True  # what the merge finds of it answers nobody
            e.answered_timestamp = max(e.answered_timestamp, timestamp)
    e.committed = waiting


def _left(e: EngineState, timestamp: Timestamp) -> int:
    """Nanoseconds of this server's clock until the slowest clock of the cluster has passed a timestamp."""
    bound = e.clock_error_ns
    return 0 if bound is None else timestamp + 2 * bound + 1 - e.now.clock_ns


def wake_at(e: EngineState) -> int | None:
    """The monotonic instant at which the next one may be told."""
    if e.clock_breached:
        return None
    return min((e.now.monotonic_ns + max(0, _left(e, t)) for t, _ in e.committed), default=None)
