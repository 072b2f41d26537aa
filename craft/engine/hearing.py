"""Whom this server hears, and whether it is a place for a leader (PROTOCOL 9)."""

from __future__ import annotations

from craft.engine.state import MS, EngineState
from craft.types import ServerId


def heard(e: EngineState) -> tuple[ServerId, ...]:
    """As below, asked once a turn."""
    if e.heard is None:
        e.heard = heard_directly(e)
    return e.heard


def heard_directly(e: EngineState) -> tuple[ServerId, ...]:
    """The peers whose frames arrive, and whom ours reach. None while we are no place for a leader."""
    if e.stopping or disk_stalled(e):
        return ()
    oldest = e.now.monotonic_ns - e.limits.election_timeout_ms_max * MS
    return tuple(
        [
            peer.id
            for peer in e.peers.values()
            if peer.linked
            and peer.heard_at is not None
            and peer.heard_at >= oldest
            and peer.reached_at >= oldest
        ]
    )


def disk_stalled(e: EngineState) -> bool:
    """Has a write been under way for longer than any election takes (PROTOCOL 9)?"""
    return (
        e.writing is not None and e.now.monotonic_ns - e.write_began > e.limits.election_timeout_ms_max * MS
    )
