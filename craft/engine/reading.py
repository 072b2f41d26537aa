"""Reads: begin rounds, answer other servers' rounds, serve what has been reached (PROTOCOL 6).

Invariants
- A report names what is *appended* here, committed or not: a committed entry is appended on a majority.
- A suspect's report says so, and then counts for nothing but the target and the configuration (PROTOCOL 10).
- A read waits for command entries only: empty ones need not be merged, or an idle cluster would hang after an
  overwritten orphan.
"""

from __future__ import annotations

import heapq
from typing import Any

from craft.engine import capturing, proposing
from craft.engine.state import MS, EngineState, Peer
from craft.messages import GroupReport, ReadQuery, ReadReport
from craft.raft import replication
from craft.reads import Waiting
from craft.ready import Ready
from craft.types import GroupId, Position, ServerId


class SessionRead:
    """The token of the read that a starting server makes before it opens its session (PROTOCOL 5, †)."""


def turn(e: EngineState) -> None:
    """Begin a round for all waiting reads, unless one is under way."""
    if e.reads.begin(e.now.monotonic_ns, e.limits.read_retry_ms * MS):
        query = ReadQuery(e.reads.round)
        for peer in e.peers.values():
            peer.out.append(query)
        e.reads.report(e.me, _report(e, e.reads.round), len(e.replicas), e.disk)


def ask_again(e: EngineState, peer: Peer) -> None:
    """A peer can be reached, or can reach us, only now: a question or its answer has been lost.

    A starting server asks before it has any link. It would be ready only after another `read_retry_ms`.
    """
    if e.reads.started_at is not None:
        peer.out.append(ReadQuery(e.reads.round))


def _report(e: EngineState, round_: int) -> ReadReport:
    return ReadReport(round_, tuple(_group_report(e, group) for group in range(len(e.replicas))))


def _group_report(e: EngineState, group: GroupId) -> GroupReport:
    r = e.raft(group)
    return GroupReport(r.log.last_command, r.commit_place, r.configuration_at, r.configuration, r.suspect)


def handle_query(e: EngineState, sender: ServerId, m: ReadQuery) -> None:
    """Another server's round."""
    e.peers[sender].asked_at = e.now.monotonic_ns
    e.peers[sender].out.append(_report(e, m.round))


def handle_report(e: EngineState, sender: ServerId, m: ReadReport) -> None:
    """An answer to our round. What it knows committed helps us too."""
    e.reads.report(sender, m, len(e.replicas), e.disks.get(sender, ""))
    for group, report in zip(range(len(e.replicas)), m.groups, strict=False):
        r = e.raft(group)
        if report.commit.index > r.commit_index:
            replication.learn_commit(r, sender, report.commit.index, report.commit.term, e.now.monotonic_ns)
            e.dirty.add(group)


def at_least(e: EngineState, token: Any, position: Position) -> None:
    """A read that needs no round: it wants what it knows of, and no more (PROTOCOL 6)."""
    e.session_reads_total += 1
    heapq.heappush(e.session_reads, (position, e.session_reads_total, token))


def discard(e: EngineState, token: Any) -> None:
    """The reader went away."""
    e.reads.discard(token)
    if any(one[2] is token for one in e.session_reads):
        e.session_reads = [one for one in e.session_reads if one[2] is not token]
        heapq.heapify(e.session_reads)


def serve(e: EngineState, out: Ready) -> None:
    """Hand out the reads whose targets have been reached and applied."""
    if e.snapshots.restoring or e.snapshots.unfounded:
        return
    readable = capturing.readable(e)
    while readable and e.session_reads and e.session_reads[0][0] <= e.applied_position:
        out.reads.append(heapq.heappop(e.session_reads)[2])
    if not e.reads.completed:
        return
    still = []
    for waiting in e.reads.completed:
        if not _reached(e, waiting):
            still.append(waiting)
            continue
        if any(isinstance(token, SessionRead) for token in waiting.tokens):
            proposing.begin_session(e)  # it asks what is merged, whatever the state machine is at
            waiting.tokens = [token for token in waiting.tokens if not isinstance(token, SessionRead)]
        if readable:
            out.reads += waiting.tokens
        else:
            still.append(waiting)
    e.reads.completed = still


def _reached(e: EngineState, waiting: Waiting) -> bool:
    """Is everything reached? Asked every turn, of every waiting round: so it looks at the first gap only."""
    while waiting.targets:
        group, target = next(iter(waiting.targets.items()))
        place = e.raft(group).commit_place
        if place < target:
            return False
        # Term first. The first committed entry at or beyond the target is at or before this one.
        waiting.needs[group] = place.index
        del waiting.targets[group]
    while waiting.needs:
        group, index = next(iter(waiting.needs.items()))
        outstanding = e.outstanding[group]
        if e.cursor[group] < index or (outstanding and outstanding[0] <= index):
            return False
        del waiting.needs[group]
    return True
