"""Moving leaders on purpose: home, away from a wild clock, off a server that stops.

Reference: PROTOCOL 2 (clamped leaders hand over if they can), 9 (placement).
"""

from __future__ import annotations

from craft import quorum
from craft.engine import hearing, leading
from craft.engine.state import MS, EngineState
from craft.placement import Placement
from craft.raft import RaftState, election
from craft.types import GroupId, ServerId

CAUGHT_UP_ENTRIES = 16
"""A server this close to the log's end is caught up: a transfer waits for the rest by itself."""


def tick(e: EngineState) -> None:
    """Consider every group that is led here."""
    unfit = _clamped_for_long(e) or hearing.disk_stalled(e)
    for group in sorted(e.led):
        r = e.raft(group)
        if r.transfer_to is not None or not r.leads:
            continue  # under way already, or lost in this very turn
        if e.stopping or unfit:
            target = best_target(e, r, must_be_well=not e.stopping)
        else:
            target = _preferred_target(e, r, group)
            if target is not None:
                e.placement.returning(group, e.now.monotonic_ns)
        if target is not None:
            election.transfer(r, target, e.now.monotonic_ns)
            e.dirty.add(group)


def _clamped_for_long(e: EngineState) -> bool:
    leading.note_clamp(e)  # an idle leader does not stamp, and should know all the same
    since = e.clamped_since
    return since is not None and e.now.monotonic_ns - since >= e.limits.election_timeout_ms_max * MS


def _preferred_target(e: EngineState, r: RaftState, group: GroupId) -> ServerId | None:
    preferred = Placement.preferred(group, r.configuration.voters)
    if preferred == e.me:
        return None
    well = _looks_well(e, r, preferred)
    return preferred if e.placement.may_return(group, well=well, now=e.now.monotonic_ns) else None


def best_target(e: EngineState, r: RaftState, *, must_be_well: bool) -> ServerId | None:
    """The voter that is farthest along: it waits least."""
    voters = [peer for peer in sorted(r.progress) if peer in r.configuration.voters and e.peers[peer].linked]
    well = [peer for peer in voters if _looks_well(e, r, peer)]
    voters = well if well or must_be_well else voters
    return max(voters, key=lambda peer: r.progress[peer].counted, default=None)


def _looks_well(e: EngineState, r: RaftState, server: ServerId) -> bool:
    """Caught up, heard now, in touch with a majority, and with a clock that would not be clamped."""
    peer, progress = e.peers[server], r.progress[server]
    recent = e.now.monotonic_ns - 3 * e.limits.heartbeat_interval_ms * MS
    if not peer.linked or peer.heard_at is None or peer.heard_at < recent or server in e.gone:
        return False
    if progress.suspect:
        return False
    if progress.match + CAUGHT_UP_ENTRIES < r.log.last_index:
        return False
    if not quorum.is_quorum(r.configuration, {server, *peer.links}):
        return False
    return not clock_is_wild(e, r, server)


def clock_is_wild(e: EngineState, r: RaftState, server: ServerId) -> bool:
    """Would this server's clock be clamped? Then it hands over, which counts as a loss (PROTOCOL 9, †)."""
    reached = e.readings.reached(r.configuration, e.now, e.me)
    clock = e.readings.clocks(e.now, e.me).get(server, 0)
    return clock > reached + e.limits.clock_offset_ms_max * MS


def stops(e: EngineState, r: RaftState, server: ServerId) -> bool:
    """Did this server hand over because it stops? Who does for a clamped clock has lost it (PROTOCOL 9).

    It is clamped by the clocks that *it* hears, which may be others than ours: so its word counts, not our
    reading. Who stops names no links any more.
    """
    links = hearing.heard_directly(e) if server == e.me else e.peers[server].links
    return not links and not clock_is_wild(e, r, server)
