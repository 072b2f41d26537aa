"""What this server's leaders do in a turn: no-op, commands, closing, replication.

Invariants
- One reading of the clock a turn, raised to a majority's clocks where it is behind them, and clamped where it
  is too far ahead (PROTOCOL 2, †); no suspension point between it and the appends.
- At most one empty entry a group and turn; none while no demand is open: an idle cluster writes nothing
  (PROTOCOL 3).
- Bounds hold back commands only. No-ops, closing entries and incoming appends pass every bound (†), else the
  group for which all wait could never close.
"""

from __future__ import annotations

from craft.clock import stamper
from craft.engine import closing, proposing, rungs, timing
from craft.engine.loading import load_append
from craft.engine.state import MS, EngineState, LeaderQueue
from craft.marks import mark
from craft.membership import TAG as MEMBERS
from craft.raft import RaftState, replication
from craft.sessions import OPEN, encode_payload
from craft.types import EntryKind, GroupId, Proposal, Timestamp


def turn(e: EngineState) -> None:
    """Append what is due in every group led here, then send it."""
    closing.turn(e)
    if not e.led:
        return
    led = sorted(e.led)
    bounded_now: Timestamp | None = None
    appended: set[GroupId] = set()
    for group in led:
        queue = e.queues[group]
        if group not in e.dirty and not queue.proposals:
            continue  # most groups, most turns
        r = e.replicas[group].state
        if queue.uncommitted:
            _forget_committed(queue, r)
        if r.noop_due or r.clearing_due or (queue.proposals and _may_append_commands(e, r, queue)):
            bounded_now = _bounded_now(e, r) if bounded_now is None else bounded_now
            before = r.log.last_index
            _append_due(e, r, queue, bounded_now)
            if r.log.last_index > before:  # else every proposal waits for its floor, or the group rests
                appended.add(group)
                r.clearing_due = False
    if e.demand:
        for group in led:
            r = e.replicas[group].state
            # A group that is being handed over rests for that moment: TimeoutNow waits for the log's end.
            if r.log.last_timestamp < e.demand and group not in appended and r.transfer_to is None:
                bounded_now = _bounded_now(e, r) if bounded_now is None else bounded_now
                _append(e, r, EntryKind.EMPTY, bounded_now=bounded_now, floor=e.demand)
                appended.add(group)
    for group in led:
        if group in appended or group in e.dirty:
            _replicate(e, group)


def _bounded_now(e: EngineState, r: RaftState) -> Timestamp:
    """PROTOCOL 2: the clock, where it does not lead a majority's clocks by too much."""
    clock, clamped = _read_clock(e, r)
    e.clamps += clamped
    return clock


def _read_clock(e: EngineState, r: RaftState) -> tuple[Timestamp, bool]:
    clock, clamped = timing.reading(e, r)
    if not clamped:
        e.clamped_since = None
    elif e.clamped_since is None:
        mark("clock clamped")
        e.clamped_since = e.now.monotonic_ns
    return clock, clamped


def note_clamp(e: EngineState) -> None:
    """Is the clock clamped now? Asked regularly, for a leader that is idle takes no stamps."""
    if e.led:
        _read_clock(e, e.raft(min(e.led)))
    else:
        e.clamped_since = None


def _append(
    e: EngineState,
    r: RaftState,
    kind: EntryKind,
    *,
    bounded_now: Timestamp,
    floor: Timestamp,
    payload: bytes = b"",
) -> None:
    timestamp = stamper.stamp(bounded_now, last=r.log.last_timestamp, floor=floor)
    replication.append(r, kind, timestamp, payload)
    e.dirty.add(r.group)
    closing.note_appended(e, r)


def append_now(e: EngineState, r: RaftState, kind: EntryKind, payload: bytes) -> None:
    """Append an entry that no request asks for, stamped now."""
    _append(e, r, kind, bounded_now=_bounded_now(e, r), floor=e.demand, payload=payload)


def _forget_committed(queue: LeaderQueue, r: RaftState) -> None:
    while queue.uncommitted and queue.uncommitted[0] <= r.commit_index:
        queue.uncommitted.popleft()


def _may_append_commands(e: EngineState, r: RaftState, queue: LeaderQueue) -> bool:
    return (
        r.transfer_to is None
        and len(queue.uncommitted) < e.limits.uncommitted_entries_max
        and e.merger.bytes < e.limits.unmerged_bytes_max
        and r.log.unsynced_bytes() < e.limits.inflight_bytes_max  # else a stalled disk fills the memory
    )


def _append_due(e: EngineState, r: RaftState, queue: LeaderQueue, bounded_now: Timestamp) -> None:
    before = r.log.last_index
    if r.noop_due:
        # Raft 8: commits what earlier terms left, and passes what they orphaned.
        r.noop_due = False
        _append(e, r, EntryKind.EMPTY, bounded_now=bounded_now, floor=e.demand)
    while queue.proposals and _may_append_commands(e, r, queue):
        taken, floor = _take(e, r, queue, bounded_now)
        if taken:
            kind = kind_of(taken[0])
            _append(
                e,
                r,
                kind,
                bounded_now=bounded_now,
                floor=max(e.demand, floor),
                payload=encode_payload(taken),
            )
            if _wait_for_merge(e, taken):
                closing.hurry(e)
            queue.uncommitted.append(r.log.last_index)
            for peer in e.peers.values():
                peer.frame_due = True  # the demand is for those too whom the entry itself cannot reach yet
            proposing.note_appended(e, r, taken)
            if r.group not in e.probes:
                rungs.begin(e, r, taken)
    if r.clearing_due and r.log.last_index == before and r.transfer_to is None:
        # PROTOCOL 10: a suspect waits for an entry that is appended after it was heard.
        _append(e, r, EntryKind.EMPTY, bounded_now=bounded_now, floor=e.demand)


def _wait_for_merge(e: EngineState, proposals: list[Proposal]) -> bool:
    """Does somebody wait for these to be merged, and not for their commit alone, as far as we can tell?

    Where a bound on the clocks' error is stated, the merge may be faster than what a commit has to wait for.
    """
    return e.clock_error_ns is not None or not all(
        proposal.request in e.awaiting_commit and proposing.own(e, proposal) is not None
        for proposal in proposals
    )


def kind_of(proposal: Proposal) -> EntryKind:
    """The kind of entry that a request stands in: an entry's requests are of one kind."""
    if proposal.request == OPEN:
        return EntryKind.SESSION
    return EntryKind.MEMBERSHIP if proposal.body.startswith(MEMBERS) else EntryKind.COMMAND


def _take(
    e: EngineState, r: RaftState, queue: LeaderQueue, bounded_now: Timestamp
) -> tuple[list[Proposal], Timestamp]:
    """The proposals of the next entry, and the floor that their sessions set (PROTOCOL 2)."""
    taken: list[Proposal] = []
    floor: Timestamp = 0
    budget = e.limits.entry_bytes_max
    while queue.proposals:
        proposal = queue.proposals[0]
        size = proposing.cost(proposal)
        if taken and (size > budget or kind_of(proposal) is not kind_of(taken[0])):
            break
        queue.proposals.popleft()
        proposing.note_taken(e, queue, proposal)
        if proposal.answered_timestamp > max(bounded_now, e.greatest_timestamp):
            mark("proposal waits for its floor")
            # (†) Only this proposal waits; nobody can move the cluster's time.
            deadline = e.now.monotonic_ns + e.limits.floor_wait_ms_max * MS
            e.floor_waiting.append((deadline, r.group, proposal))
            continue
        taken.append(proposal)
        budget -= size
        floor = max(floor, proposal.answered_timestamp + 1)  # (†) + 1: a tie sorts by group
    return taken, floor


def _replicate(e: EngineState, group: GroupId) -> None:
    for peer, first_index in replication.replicate(e.replicas[group].state, e.now.monotonic_ns):
        load_append(e, group, peer, first_index)
