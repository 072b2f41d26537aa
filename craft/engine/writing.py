"""The one write of a turn: all that the groups have to make durable.

Invariants
- At most one write is under way; what comes meanwhile is the next one.
- A group's part of it is taken in this order: its entries, then whether they end a suspicion (PROTOCOL 10),
  then its term and vote. Where its log begins anew, storage carries that out first; term and commit are
  never behind what it begins at.
"""

from __future__ import annotations

from craft.engine.state import EngineState
from craft.types import Write


def take_write(e: EngineState) -> Write | None:
    """What must be written and synced now, if anything, and if nothing is under way."""
    if e.writing is not None or not (e.unwritten or e.counter_due or e.snapshots.starts):
        return None
    appends, hard_states, suspicions, groups = [], [], [], []
    for group in sorted(e.unwritten):
        raft = e.replicas[group]
        r = raft.state
        append = raft.take_append(e.next_write)
        if append is not None:
            appends.append(append)
        suspected = raft.take_suspicion(e.next_write)
        if suspected is not None:
            suspicions.append((group, suspected))
        if r.hard_dirty:
            r.hard_dirty, r.hard_write = False, e.next_write
        elif append is None and suspected is None and group not in e.snapshots.starts:
            continue
        hard_states.append((group, r.hard_state()))  # the commit index rides along (a hint)
        groups.append(group)
    e.unwritten = set()
    starts, e.snapshots.starts = e.snapshots.starts, {}
    if not groups and not e.counter_due and not starts:
        return None
    counter = e.counter if e.counter_due else None
    if e.counter_due:
        e.counter_due, e.counter_write = False, e.next_write
    e.writing, e.writing_groups, e.write_began = e.next_write, tuple(groups), e.now.monotonic_ns
    e.next_write += 1
    began = tuple(starts[group] for group in sorted(starts))
    return Write(e.writing, tuple(appends), tuple(hard_states), counter, began, tuple(suspicions))
