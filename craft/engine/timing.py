"""What time a leader here stamps by: one reading, for stamps and for what waits until a stamp may be taken.

Invariants
- A clock behind a majority's is raised to theirs, by what frames tell: a slow leader keeps nobody
  waiting. An estimate will do. Too much of it makes us a leader whose clock is ahead, which costs only us.
- A clock too far ahead of a majority's is clamped (PROTOCOL 2, †).
"""

from __future__ import annotations

from craft import quorum
from craft.clock import stamper
from craft.engine.state import MS, EngineState
from craft.raft import RaftState
from craft.types import Timestamp


def reading(e: EngineState, r: RaftState) -> tuple[Timestamp, bool]:
    """The bounded reading, and whether it was clamped."""
    ahead = e.offsets.ahead(e.now)
    ahead[e.me] = 0
    raised = e.now.clock_ns + max(0, quorum.reached(r.configuration, ahead, unheard=0))
    reached = e.readings.reached(r.configuration, e.now, e.me)
    return stamper.bounded(raised, reached, e.limits.clock_offset_ms_max * MS)
