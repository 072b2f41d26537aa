"""Everything one wants to see of a server, as plain values.

The five rungs per group, who blocks the merge, clocks, sessions.
"""

from __future__ import annotations

from typing import Any

from craft.clock.offsets import Estimate
from craft.clock.verdict import judge
from craft.engine import rungs
from craft.engine.state import MS, EngineState, Peer
from craft.placement import Placement
from craft.types import Configuration, GroupId, Instant


def status(e: EngineState, now: Instant) -> dict[str, Any]:
    """A dict of plain values (ints, strings, lists, dicts). Times are ns unless the key says otherwise."""
    seen = e.offsets.estimates(now)
    servers = sorted([e.me, *e.peers])
    bound = e.limits.clock_offset_ms_max
    return {
        "server_id": e.me,
        "disk_id": e.disk,
        "servers": servers,
        "session": e.session_state.value,
        "session_counter": e.counter,
        "stopping": e.stopping,
        "drained_ms": max(0, e.drained_until - now.monotonic_ns) // MS,
        "clock_ns": now.clock_ns,
        "clock_clamped": e.clamped_since is not None,
        "clock_clamps": e.clamps,
        "clock_offset_ms_max": bound,
        "clock_verdict": str(judge({e.me: seen}, servers, offset_ns_max=bound * MS)),
        "closed_timestamps": list(e.merger.closed),
        "safe_timestamp": e.merger.safe,
        "demand": e.demand,
        "blocking_group": e.merger.blocking if e.merger.bytes else None,
        "unmerged_bytes": e.merger.bytes,
        "merged_position": e.merged_position,
        "applied_position": e.applied_position,
        "applied_timestamp": e.applied_timestamp,
        "merged_digest": e.digest.hex(),
        "members": _members(e),
        "pending_requests": len(e.pending),
        "pending_bytes": e.pending_bytes,
        "pending_reads": e.reads.pending,
        "write_under_way": e.writing is not None,
        "groups": [_group(e, group) for group in range(len(e.replicas))],
        "peers": [_peer(e, peer, now, seen.get(peer.id)) for peer in e.peers.values()],
    }


def _peer(e: EngineState, peer: Peer, now: Instant, clock: Estimate | None) -> dict[str, Any]:
    return {
        "server_id": peer.id,
        "linked": peer.linked,
        "refused": peer.id in e.gone,
        "heard_ms_ago": None if peer.heard_at is None else (now.monotonic_ns - peer.heard_at) // MS,
        "clock_offset_ns": None if clock is None else clock.offset_ns,
        "clock_offset_error_ns": None if clock is None else clock.error_ns,
        "one_way_delay_ns": None if clock is None else clock.delay_ns,
        "hears": list(peer.links),
        "declines": peer.declines,
    }


def _members(e: EngineState) -> dict[str, Any]:
    """The wanted set, and how far the groups are on their way to it (PROTOCOL 8)."""
    return {
        "version": e.members.version,
        "reached_version": e.reached_version,
        "removed": e.removed,
        "servers": [
            {"server_id": server, "address": member.address, "disk_id": member.disk}
            for server, member in e.members.servers.items()
        ],
    }


def _configuration(c: Configuration) -> dict[str, Any]:
    return {
        "version": c.version,
        "voters": sorted(c.voters),
        "outgoing": sorted(c.outgoing),
        "learners": sorted(c.learners),
    }


def _group(e: EngineState, group: GroupId) -> dict[str, Any]:
    r = e.raft(group)
    return {
        "group": group,
        "role": r.role.value,
        "term": r.term,
        "leader": r.leader_id,
        "preferred": Placement.preferred(group, r.configuration.voters),
        "configuration": _configuration(r.configuration),
        **rungs.indexes(e, group),
        "closed_timestamp": e.merger.closed[group],
        "last_timestamp": r.log.last_timestamp,
        "queued_bytes": e.queues[group].bytes,
        "memory_bytes": r.log.bytes,
        "transfer_to": r.transfer_to,
        "suspicion": r.suspicion or None,
        "clears_at": None if r.clears_at is None else r.clears_at._asdict(),
        "suspects": [peer for peer, progress in r.progress.items() if progress.suspect],
        "held_ms": max(0, e.holds.get(group, 0) - e.now.monotonic_ns) // MS,
    }


def recent_merged(e: EngineState, after: int) -> list[dict[str, Any]]:
    """The last merged entries after a position, oldest first, each with the digest of the log so far."""
    return [
        {
            "position": position,
            "timestamp": timestamp,
            "group": group,
            "index": index,
            "bytes": size,
            "digest": digest.hex(),
        }
        for position, timestamp, group, index, size, digest in e.recent
        if position > after
    ]
