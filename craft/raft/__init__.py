"""The core of craft: one Raft group's replica, pure.

It has no clock, socket, disk, thread or randomness of its own.

The contract for whoever drives it (the engine does; `examples/04_sans_io.py` does it by hand):

1. Build a `Raft` from a `RecoveredGroup` (or `empty_recovered`), a `Configuration`, an `EngineLimits` and a
   `random.Random`.
2. Feed it: `step(sender, message, now)` for each message, `tick(now)` when time has passed (`now` is
   monotonic, in ns). `replication.append` appends as the leader; `replication.replicate` sends.
   Where `state.noop_due` is set, append an empty entry first and clear it; where `state.clearing_due` is set,
   append something and clear it. While `state.suspect`, call `suspicion.ask` now and then. Heartbeats and
   announcing commits are the driver's, who has them done for all groups at once (`election.heard_leader`,
   `Progress.active_at`, `replication.learn_commit`).
3. Make durable, in one atomic batch: what `take_append(write_number)` returns (cut first, then append), what
   `take_suspicion(write_number)` then returns (the reason of a suspicion; "": it has ended) and,
   where `state.hard_dirty`, `state.hard_state()`; note the number of that write in `state.hard_write` and
   clear `hard_dirty`. *Then* call `persisted(write_number, now)`: only this lets entries and votes count.
4. Drain `state.outbox` by swap. While `hard_dirty`, or while the write `hard_write` is not durable, hold the
   messages back: no promise may leave before it is kept on disk. A leader's AppendEntries need not wait for
   its own entries' write: the leader's copy counts towards the quorum only after `persisted`.
5. Committed entries are `state.log` up to `state.commit_index`.

Messages may be lost, duplicated, delayed and reordered. A peer's fault raises `RemoteError`; a failed assert
is ours.
"""

from craft.raft.core import Raft
from craft.raft.state import RaftState, Role

__all__ = ["Raft", "RaftState", "Role"]
