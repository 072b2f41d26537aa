"""Whom this server hears, and whether it is a place for a leader (PROTOCOL 9)."""

from __future__ import annotations

from craft.engine.state import MS, EngineState, Peer
from craft.types import ServerId


def heard(e: EngineState) -> tuple[ServerId, ...]:
    """As below, asked once a turn."""
    if e.heard is None:
        e.heard = heard_directly(e)
    return e.heard


def said(e: EngineState) -> tuple[ServerId, ...]:
    """What our frames say of it. Who wants to lead nothing, because it stops, names itself alone."""
    return (e.me,) if declines(e) else heard(e)


def note(peer: Peer, links: tuple[ServerId, ...]) -> None:
    """What a peer's frame says of it."""
    peer.declines = links == (peer.id,)
    peer.links = () if peer.declines else links


def declines(e: EngineState) -> bool:
    """Do we want to lead nothing, by somebody's choice?"""
    return e.stopping or e.now.monotonic_ns < e.drained_until


def heard_directly(e: EngineState) -> tuple[ServerId, ...]:
    """The peers whose frames arrive, and whom ours reach. None while we are no place for a leader."""
    if declines(e) or disk_stalled(e):
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
    """Has a write been under way for too long to lead, while others can (PROTOCOL 9)?"""
    return _writing_longer_than(e, e.limits.disk_stall_ms)


def disk_hangs(e: EngineState) -> bool:
    """Or for too long to lead at all?"""
    return _writing_longer_than(e, e.limits.disk_stall_ms_max)


def _writing_longer_than(e: EngineState, limit_ms: int) -> bool:
    return e.writing is not None and e.now.monotonic_ns - e.write_began > limit_ms * MS
