"""Moving leaders by an operator's wish: put a group somewhere, drain a server, let everything go home.

Knows: what the operator asked of this server. Must not know: who asked, or how.

Invariants
- Only a group's leader hands it over, and only to a server that looks well: a wish stalls no group.
- A wish holds for a bounded time, in memory: a hold ends with the leadership that it began with, a drain with
  its server's process. Then placement decides again.
- A server that is drained still stands where a leader is lost: to have one goes before where it is.

Reference: dissertation 3.10; PROTOCOL 9.
"""

from __future__ import annotations

from craft.engine import placing
from craft.engine.state import MS, EngineState
from craft.errors import NotLeader, TransferFailed
from craft.marks import mark
from craft.messages import TimeoutNow
from craft.raft import Role, election
from craft.types import GroupId, ServerId


def transfer(e: EngineState, group: GroupId, to: ServerId, hold_ms: int) -> None:
    """Begin to hand a group over, or hold it here. Raises NotLeader; TransferFailed, which says why."""
    if not 0 <= group < len(e.replicas):
        raise TransferFailed(f"there is no group {group}; allowed: 0 to {len(e.replicas) - 1}")
    r = e.raft(group)
    voters = sorted(r.configuration.voters)
    if to not in voters:
        shown = ", ".join(map(str, voters))
        raise TransferFailed(f"server {to} is no voter of group {group}; allowed: {shown}")
    if not r.leads:
        raise NotLeader(group, r.leader_id)
    if r.transfer_to not in {None, to}:
        raise TransferFailed(f"group {group} is being handed to server {r.transfer_to}; try again")
    if to == e.me:
        e.holds[group] = e.now.monotonic_ns + hold_ms * MS
        return
    reason = placing.why_not(e, r, to)
    if reason is not None:
        raise TransferFailed(f"server {to} cannot lead group {group}, which stays at server {e.me}: {reason}")
    mark("group put somewhere")
    election.transfer(r, to, e.now.monotonic_ns, hold_ms=hold_ms)
    e.dirty.add(group)


def note_taken_over(e: EngineState, m: TimeoutNow) -> None:
    """We campaign because we were told to: should we win, an operator wants the group here for a while."""
    r = e.raft(m.group)
    if m.hold_ms and r.role is Role.CANDIDATE and r.transfer_term == r.term == m.term + 1:
        hold_ms = min(m.hold_ms, e.limits.leader_hold_ms_max)
        e.holds[m.group] = e.now.monotonic_ns + hold_ms * MS


def drain(e: EngineState, hold_ms: int) -> None:
    """Lead nothing for so long, where others can; to begin at once."""
    e.drained_until = e.now.monotonic_ns + hold_ms * MS
    e.holds.clear()
    e.next_heartbeat = e.wake_at = e.now.monotonic_ns


def bring_home(e: EngineState) -> None:
    """Forget all wishes here: placement decides."""
    e.drained_until = 0
    e.holds.clear()
    e.next_heartbeat = e.wake_at = e.now.monotonic_ns
