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

import heapq

from craft.engine import proposing
from craft.engine.state import EngineState
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
                heapq.heappush(e.committed, (entry.timestamp, pending.request, pending))


def turn(e: EngineState, out: Ready) -> None:
    """Tell those whose timestamp every clock has passed, the least first: who waits costs no look."""
    if e.clock_breached:
        e.committed.clear()  # this clock is beyond its bound: the merge answers them, whatever clocks say
    while e.committed:
        timestamp, _, pending = e.committed[0]
        left = _left(e, timestamp)
        if left > 0:
            e.wake_at = min(e.wake_at, e.now.monotonic_ns + left)
            break
        heapq.heappop(e.committed)
        if pending.request in e.pending:  # else the merge was faster: it is answered when applied
            out.committed.append((pending.token, timestamp))
            pending.told = True  # what the merge finds of it answers nobody
            e.answered_timestamp = max(e.answered_timestamp, timestamp)


def _left(e: EngineState, timestamp: Timestamp) -> int:
    """Nanoseconds of this server's clock until the slowest clock of the cluster has passed a timestamp."""
    bound = e.clock_error_ns
    return 0 if bound is None else timestamp + 2 * bound + 1 - e.now.clock_ns
