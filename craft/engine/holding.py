"""What need not be said at once: it rides on the next frame that leaves, a heartbeat at the latest.

Knows: who waits for what, as far as one server can tell. Must not know: what a frame looks like.

Invariants
- Nothing is kept for ever: a heartbeat takes it along, and a disk that is slow brings it out sooner.
- Where we cannot tell whether somebody waits, they do. A wrong guess costs time, never order.

What it is for: among three servers a command needs 6 frames instead of 14 (tests/engine/test_economy.py).
"""

from __future__ import annotations

from craft.engine import hearing
from craft.engine.state import MS, EngineState, Peer
from craft.messages import AppendAccepted, AppendEntries, Message
from craft.raft import RaftState, replication
from craft.types import Entry, Index, ServerId, Timestamp, is_command

HELD_BACK_MS_MAX = 5
"""So long may the one disk that is meant to have an entry take, before all others are asked to have it."""

ACKNOWLEDGED = 0
"""No entry's index: where an acknowledgement is held."""


def post(e: EngineState, r: RaftState, peer: Peer, message: Message) -> None:
    """Queue a message for a peer: for a frame at once, or for the next that leaves."""
    if type(message) is AppendEntries:
        if _closing_can_wait(e, r, peer, message):
            _hold(e, peer, message, message.prev_index + 1)
            return
    elif type(message) is AppendAccepted:
        if _acknowledgement_can_wait(e, r, peer, message):
            peer.later.pop((r.group, ACKNOWLEDGED), None)  # the newer says it all
            _hold(e, peer, message, ACKNOWLEDGED)
            return
        r.probed = False
    peer.out.append(message)


def _hold(e: EngineState, peer: Peer, message: AppendEntries | AppendAccepted, index: Index) -> None:
    peer.later[message.group, index] = message
    peer.watched.append((e.now.monotonic_ns, message))


def take(peer: Peer) -> tuple[AppendEntries | AppendAccepted, ...]:
    """What was held back: it leaves now, or its connection broke."""
    held = tuple(peer.later.values())
    peer.later.clear()
    peer.watched.clear()
    return held


def _closing_can_wait(e: EngineState, r: RaftState, peer: Peer, message: AppendEntries) -> bool:
    """May this ride on the next frame, a heartbeat at the latest, because nobody waits for it there?

    A closing entry matters to those whose commands it lets merge: where followers infer commits, it need not
    reach the others at once, unless the commands are ours. What establishes a new leader never waits, nor do
    commands.
    """
    closed = e.merger.closed[r.group]
    return (
        bool(message.entries)
        and message.prev_term == message.term
        and e.led_command_timestamp <= closed
        and not any(is_command(entry.kind) for entry in message.entries)
        and replication.infers_commits(r, e.me, peer.id)
        and not waits(e, peer, closed)
    )


def _acknowledgement_can_wait(e: EngineState, r: RaftState, peer: Peer, message: AppendAccepted) -> bool:
    """Nor need the leader of a closing entry learn at once that it is committed, unless it may stand still.

    By what the leader said: that we have inferred a commit does not mean that it can count it.
    """
    log, told = r.log, r.leader_commit
    if r.probed or log.last_command.index > told or r.commit_term != message.term:
        return False
    closed = log.entry(told).timestamp if log.offset.index < told <= log.last_index else 0
    return replication.infers_commits(r, e.me, peer.id) and not waits(e, peer, closed)


def too_long(e: EngineState, peer: Peer) -> bool:
    """Does what spares the peer these messages not happen, because a disk is slow? Then it had better help.

    A closing entry is spared once its leader has it on disk, an acknowledgement once the commit is inferred.
    """
    watched = peer.watched
    while watched and not _still_matters(e.raft(watched[0][1].group), watched[0][1]):
        watched.popleft()
    if not watched:
        return False
    until = watched[0][0] + HELD_BACK_MS_MAX * MS
    if e.now.monotonic_ns < until:
        e.wake_at = min(e.wake_at, until)
        return False
    return True


def _still_matters(r: RaftState, message: AppendEntries | AppendAccepted) -> bool:
    if type(message) is AppendEntries:
        return r.log.persisted < message.entries[-1].index
    return type(message) is AppendAccepted and r.commit_index < message.match_index


def note_commands(e: EngineState, sender: ServerId, entries: tuple[Entry, ...]) -> None:
    """A peer's commands arrived: what was held back for it may be what they wait for.

    Where the peer's clock is behind, our group is beyond their stamp already: we close nothing anew for them.
    """
    peer = e.peers[sender]
    if (peer.later or peer.durable_due) and any(is_command(entry.kind) for entry in entries):
        peer.frame_due = True


def waits(e: EngineState, peer: Peer, closed: Timestamp) -> bool:
    """Can somebody at this peer wait for a group to close beyond `closed`, as far as we can tell?

    Who leads appends its clients' commands in its own groups, where we see them; one that we do not see yet
    is answered by an acknowledgement, which carries the commit. Who leads nothing forwards: we cannot tell.
    Nor can we where somebody does not hear everybody, and is served through others (PROTOCOL 9), nor where a
    demand is beyond every command that has come here: its entry is held up on its way.
    """
    if e.demand > e.greatest_command_timestamp:
        return True
    if e.all_heard is None:
        e.all_heard = _all_heard(e)
    if not e.all_heard:
        return True
    recent = e.now.monotonic_ns - e.limits.heartbeat_interval_ms * MS
    if peer.asked_at is not None and peer.asked_at >= recent:
        return True
    if e.led_commands is None:
        e.led_commands = _led_commands(e)
    commands = e.led_commands.get(peer.id)
    return commands is None or commands > closed


def _all_heard(e: EngineState) -> bool:
    """Does everybody hear everybody directly?"""
    others = len(e.peers)
    return len(hearing.heard(e)) >= others and all(len(one.links) >= others for one in e.peers.values())


def _led_commands(e: EngineState) -> dict[ServerId | None, Timestamp]:
    """Of each server that leads, the last command in its groups here."""
    found: dict[ServerId | None, Timestamp] = {}
    for raft, (_, leader) in zip(e.replicas, e.leaders, strict=True):
        timestamp = raft.state.log.last_command_timestamp
        if timestamp >= found.get(leader, 0):
            found[leader] = timestamp
    return found
