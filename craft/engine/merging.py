"""From committed to merged: deliver each group's entries, drain what is safe, number it.

Invariants
- A position counts command entries in merged order; equal positions mean equal histories on all servers,
  which `digest` shows.
- Sessions change here and nowhere else, in merged order: every server drops the same duplicates (PROTOCOL 5).
- While a list of merged entries is being applied nothing more is drained: the merge holds it back, where it
  counts towards the bound. One list is bounded too, so that applying a backlog does not hold up a turn.
"""

from __future__ import annotations

from typing import Any

from craft.engine import membership, proposing, rungs
from craft.engine.loading import begin_load, deliver_entries
from craft.engine.state import Applied, EngineState, LoadPurpose
from craft.folding import fold
from craft.marks import mark
from craft.ready import Merged, Ready
from craft.sessions import Opened
from craft.types import Entry, GroupId, Place, Position, Proposal, Timestamp

EVICTED_AT_ONCE = 8
"""An eighth of what a log may hold in memory leaves it together: one by one would cost as much each time."""


def turn(e: EngineState, out: Ready) -> None:
    """Deliver what has become committed and durable, and merge what has become safe."""
    if e.snapshots.unfounded:
        return  # there is nothing that entries could be applied to
    for group in sorted(e.dirty):
        _deliver(e, group)
    if e.applying or e.snapshots.restoring or out.capture is not None:
        return
    for timestamp, group, entry in e.merger.drain(e.limits.apply_bytes_max):
        e.applying.append(_merge(e, timestamp, group, entry))
    if e.demand and e.demand <= e.merger.safe:
        e.demand = 0  # PROTOCOL 3: forgotten once the merge has reached it
    if e.applying:
        out.apply = list(e.applying)


def _deliver(e: EngineState, group: GroupId) -> None:
    r = e.replicas[group].state
    log = r.log
    # (†) durable *here*, or a tie comes out in another order elsewhere
    upto = min(r.commit_index, log.persisted)
    if e.starved:
        e.starved.discard(group)
    while e.cursor[group] < upto:
        if not _has_room(e, group):
            mark("merge has no room")
            e.starved.add(group)
            break
        if e.cursor[group] < log.offset.index:
            _load(e, group)
            break
        first = e.cursor[group] + 1
        deliver_entries(e, group, log.slice(first, last_index=upto, bytes_max=e.limits.load_bytes_max))
    share = e.limits.log_memory_bytes_max // len(e.replicas)
    if log.bytes > share:
        # What does not fit into the merge need not stay in memory either: it is read back when there is room.
        evictable = upto if group in e.starved else min(upto, e.cursor[group])
        log.evict(evictable, bytes_max=share - share // EVICTED_AT_ONCE)


def _has_room(e: EngineState, group: GroupId) -> bool:
    """May more of a group be held back? The group for which all wait has nothing held, and always may."""
    return e.merger.bytes < e.limits.unmerged_bytes_max or e.merger.held(group) == 0


def _load(e: EngineState, group: GroupId) -> None:
    """Read the next entries back."""
    if group not in e.merging_load:
        e.merging_load.add(group)
        first = e.cursor[group] + 1
        begin_load(e, LoadPurpose.MERGE, group, peer=e.me, next_index=first, first_index=first)


def _merge(e: EngineState, timestamp: Timestamp, group: GroupId, entry: Entry) -> Merged:
    """Give an entry its position, and its requests their effect or none."""

    def settle(proposal: Proposal) -> Any:
        return proposing.settle(e, proposal) if proposal.server_id == e.me else None

    def note_opened(proposal: Proposal, opened: Opened) -> None:
        proposing.note_opened(e, proposal, opened)

    servers = e.members.servers
    merged = fold(e, group, entry, settle, note_opened)
    if e.members.servers is not servers:  # changed, or bound to a disk by a session
        membership.note_own(e)
    e.recent.append((merged.position, timestamp, group, entry.index, entry.size, e.digest))
    return merged


def applied(e: EngineState, position: Position) -> None:
    """The state machine has applied everything up to `position`."""
    assert e.applying and position == e.applying[-1].position, "apply lists are applied whole, in order"
    for merged in e.applying:
        index = e.outstanding[merged.group].popleft()
        assert index == merged.index
        e.snapshots.applied[merged.group] = Applied(Place(merged.term, merged.index), merged.timestamp)
    last = e.applying[-1]
    e.applied_position, e.applied_timestamp = last.position, last.timestamp
    e.answered_timestamp = max(e.answered_timestamp, last.timestamp)
    e.applying = []
    if e.probes:
        rungs.turn(e)
    # What waited for room may be read back now.
    e.dirty |= e.starved
    e.starved = set()
