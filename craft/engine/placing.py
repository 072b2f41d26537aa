"""Moving leaders on purpose: home, away from a wild clock, off a server that stops.

Reference: PROTOCOL 2 (clamped leaders hand over if they can), 9 (placement).
"""

from __future__ import annotations

from craft import quorum
from craft.engine import hearing, leading
from craft.engine.state import MS, EngineState
from craft.marks import mark
from craft.placement import Placement
from craft.raft import RaftState, election, membership
from craft.types import GroupId, ServerId

CAUGHT_UP_ENTRIES = 16
"""A server this close to the log's end is caught up: a transfer waits for the rest by itself."""


def tick(e: EngineState) -> None:
    """Consider every group that is led here."""
    unfit = _clamped_for_long(e) or hearing.disk_stalled(e)
    if hearing.disk_hangs(e) and e.peers:
        _step_down(e)
    for group in sorted(e.led):
        r = e.raft(group)
        if r.transfer_to is not None or not r.leads:
            continue  # under way already, or lost in this very turn
        if unfit or hearing.declines(e):
            target = _any_target(e, r, group)
        elif e.now.monotonic_ns >= e.holds.get(group, 0):
            target = _preferred_target(e, r, group)
            if target is not None:
                e.placement.returning(group, e.now.monotonic_ns)
        else:
            target = None
        if target is not None:
            election.transfer(r, target, e.now.monotonic_ns)
            e.dirty.add(group)


def _step_down(e: EngineState) -> None:
    """A disk hangs, and no hand-over has worked: whoever follows elects another, or waits for it as well.

    Heartbeats would keep them from it for ever. Where a majority's disks hang nothing is lost by it.
    """
    for group in sorted(e.led):
        r = e.raft(group)
        if r.leads:
            mark("leader with a hanging disk stepped down")
            election.become_follower(r, r.term, None, e.now.monotonic_ns)
            e.dirty.add(group)


def _clamped_for_long(e: EngineState) -> bool:
    leading.note_clamp(e)  # an idle leader does not stamp, and should know all the same
    since = e.clamped_since
    return since is not None and e.now.monotonic_ns - since >= e.limits.election_timeout_ms_max * MS


def _any_target(e: EngineState, r: RaftState, group: GroupId) -> ServerId | None:
    """Whoever can; a server that stops has no time to wait between attempts."""
    now = e.now.monotonic_ns
    if not (e.stopping or e.placement.may_give_away(group, now)):
        return None
    target = best_target(e, r, must_be_well=not e.stopping)
    if target is not None:
        e.placement.giving_away(group, now)
    return target


def _preferred_target(e: EngineState, r: RaftState, group: GroupId) -> ServerId | None:
    preferred = Placement.preferred(group, r.configuration.voters)
    if preferred == e.me:
        return None
    well = _looks_well(e, r, preferred)
    return preferred if e.placement.may_return(group, well=well, now=e.now.monotonic_ns) else None


def best_target(e: EngineState, r: RaftState, *, must_be_well: bool) -> ServerId | None:
    """The voter that most others hear, of several by turns, so that they share what one gives away.

    A transfer waits for the target to hold the whole log: where nobody looks well, who is farthest along.
    """
    linked = [peer for peer in sorted(r.progress) if e.peers[peer].linked]
    voters = [peer for peer in linked if peer in r.configuration.voters and membership.counts(r, peer)]
    well = [peer for peer in voters if _looks_well(e, r, peer)]
    if not well and not must_be_well:
        return max(voters, key=lambda peer: r.progress[peer].counted, default=None)

    def suits(peer: ServerId) -> tuple[int, int]:
        rank = Placement.rank(r.group, peer, r.configuration.voters, e.me)
        return len(e.peers[peer].links), -rank

    return max(well, key=suits, default=None)


def _looks_well(e: EngineState, r: RaftState, server: ServerId) -> bool:
    return why_not(e, r, server) is None


def why_not(e: EngineState, r: RaftState, server: ServerId) -> str | None:
    """What keeps a server from leading a group that is led here; None: it looks well.

    It must be caught up, heard now, in touch with a majority, live on the disk that is meant (PROTOCOL 8: no
    other stands, nor is its log counted), and have a clock that would not be clamped.
    """
    peer, progress = e.peers[server], r.progress[server]
    recent = e.now.monotonic_ns - 3 * e.limits.heartbeat_interval_ms * MS
    if not peer.linked or server in e.gone:
        return "it cannot be reached"
    if peer.heard_at is None or peer.heard_at < recent:
        return "it is not heard"
    if not membership.counts(r, server):
        return "it lives on another disk than the group's configuration names"
    if progress.suspect:
        return "it may have lost some of its log"
    if progress.match + CAUGHT_UP_ENTRIES < r.log.last_index:
        return f"it is not caught up; it lacks {r.log.last_index - progress.match} entries"
    if peer.declines:
        return "it stops, or is drained"
    if not quorum.is_quorum(r.configuration, {server, *peer.links}):
        return "it does not hear a majority, or its disk stalls"
    return "its clock is far ahead of a majority's" if clock_is_wild(e, r, server) else None


def clock_is_wild(e: EngineState, r: RaftState, server: ServerId) -> bool:
    """Would this server's clock be clamped? Then it hands over, which counts as a loss (PROTOCOL 9, †)."""
    reached = e.readings.reached(r.configuration, e.now, e.me)
    clock = e.readings.clocks(e.now, e.me).get(server, 0)
    return clock > reached + e.limits.clock_offset_ms_max * MS


def declines(e: EngineState, server: ServerId) -> bool:
    """Did this server hand over because somebody wanted that, as for a stop?

    Who does for a clamped clock or a stalled disk has lost it (PROTOCOL 9, †). It is clamped by the clocks
    that *it* hears, which may be others than ours: so its word counts.
    """
    return hearing.declines(e) if server == e.me else e.peers[server].declines
