"""Connections that are made and break: what was on its way is said again, and who died is replaced.

Knows: whom this server can reach. Must not know: sockets.

Invariants
- What a lost connection may have swallowed is sent again, or placed again, by whoever waits for it.
- A peer whose host refuses connections counts as gone: its groups' survivors stand in turn (PROTOCOL 9, †).

Reference: PROTOCOL 9.
"""

from __future__ import annotations

from craft.engine import proposing, reading, transferring
from craft.engine.state import EngineState
from craft.placement import Placement
from craft.raft import election, replication
from craft.types import ServerId


def up(e: EngineState, peer_id: ServerId) -> None:
    """Our connection to a peer is made."""
    peer = e.peers.get(peer_id)
    if peer is None:
        return  # it was forgotten meanwhile
    peer.linked = True
    e.gone.discard(peer_id)
    peer.acked_version = 0
    peer.commits_due.update(range(len(e.replicas)))
    peer.durable_due |= e.led
    peer.frame_due = True
    for raft in e.replicas:
        replication.link_restored(raft.state, peer_id)
    transferring.link_restored(e, peer_id)
    e.dirty |= e.led
    elections_go_on(e, peer_id)
    reading.ask_again(e, peer)
    proposing.link_made(e)
    e.next_heartbeat = e.wake_at = e.now.monotonic_ns  # say at once who leads what


def elections_go_on(e: EngineState, peer_id: ServerId) -> None:
    """A peer can be reached, or reaches us, again: what an election asked or answered may have been lost."""
    for raft in e.replicas:
        election.link_restored(raft.state, peer_id)
        if raft.state.outbox:
            e.dirty.add(raft.state.group)


def down(e: EngineState, peer_id: ServerId, *, refused: bool) -> None:
    """Our connection to a peer broke; `refused`: and nothing listens there any more."""
    if peer_id not in e.peers:
        return
    e.peers[peer_id].linked = False
    proposing.link_lost(e, peer_id)
    if not refused or peer_id in e.gone:
        return
    e.gone.add(peer_id)
    for raft in e.replicas:
        r = raft.state
        if r.leader_id == peer_id:
            rank = Placement.rank(r.group, e.me, r.configuration.voters, peer_id)
            raft.leader_refused(rank, e.now.monotonic_ns)
            e.wake_at = min(e.wake_at, r.election_deadline)
