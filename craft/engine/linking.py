"""Frames: what each peer is told in a turn, and what their frames tell us.

Invariants
- Nothing that a group says leaves while its (term, vote) are not durable (PROTOCOL 1): it is held until that
  write is.
- Every frame carries the clock, the echo, the demand and the commits that its receiver has not been told
  (PROTOCOL 2, 3, 9).
- Heartbeats of all groups are one message; a list that the peer already has is not repeated.
"""

from __future__ import annotations

from craft.engine import hearing, holding, transferring
from craft.engine.loading import begin_load
from craft.engine.state import MS, EngineState, LoadPurpose, Peer
from craft.errors import WireError
from craft.marks import mark
from craft.messages import (
    Fetch,
    FetchResult,
    Frame,
    Heartbeats,
    LeaderPersisted,
)
from craft.raft import RaftState, election, membership, replication, suspicion
from craft.ready import Ready
from craft.types import GroupId, Index, ServerId

COMMITS_PER_HEARTBEAT = 4
"""Each heartbeat repeats this many groups' commits in rotation, for whoever missed a frame."""


def turn(e: EngineState, out: Ready) -> None:
    """Collect what every group has to say, and make one frame a peer of it."""
    e.heard = e.led_commands = e.all_heard = None
    for group in sorted(e.dirty):
        r = e.replicas[group].state
        if r.outbox:
            _drain_outbox(e, r)
        if group in e.led:
            _announce_durable(e, r)
        if r.commit_index != e.announced[group]:
            _announce_commit(e, r)
    if e.fetches:
        _answer_fetches(e)
    for peer_id, peer in e.peers.items():  # in rising order
        if not peer.linked:
            peer.out.clear()
            holding.take(peer)
        elif peer.out or peer.frame_due or (peer.watched and holding.too_long(e, peer)):
            out.frames[peer_id] = _frame(e, peer)
        peer.frame_due = False


def _drain_outbox(e: EngineState, r: RaftState) -> None:
    outbox, r.outbox = r.outbox, []
    # A write that carries (term, vote) may be built, under way or done.
    write = e.next_write if r.hard_dirty else r.hard_write
    for peer, message in outbox:
        if write > e.durable_write:
            e.held.append((write, peer, message))
        elif peer in e.peers:
            holding.post(e, r, e.peers[peer], message)


def release_held(e: EngineState) -> None:
    """A write is durable: what waited for it may leave."""
    while e.held and e.held[0][0] <= e.durable_write:
        _, peer, message = e.held.popleft()
        if peer in e.peers:
            e.peers[peer].out.append(message)


def _announce_durable(e: EngineState, r: RaftState) -> None:
    """Let followers infer commits (PROTOCOL 1): who waits is saved an acknowledgement and an announcement.

    It rides on frames that leave anyway, mostly with acknowledgements of the same sync.
    """
    group, persisted = r.group, r.log.persisted
    if persisted <= r.commit_index or persisted <= e.announced_durable[group] or not r.leads or r.suspicion:
        return
    e.announced_durable[group] = persisted
    for peer in e.peers.values():
        if replication.infers_commits(r, e.me, peer.id):
            peer.durable_due.add(group)
            if not peer.frame_due:
                peer.frame_due = holding.waits(e, peer, e.merger.closed[group])


def _announce_commit(e: EngineState, r: RaftState) -> None:
    """Commits ride on every frame; a leader's own are announced at once to whoever waits (PROTOCOL 3).

    The others hear of it with the next frame that goes there, a heartbeat at the latest: their state machines
    lag by that much, and nobody asks them.
    """
    group, leads = r.group, r.leads
    e.announced[group] = r.commit_index
    before, e.announced_closed[group] = e.announced_closed[group], e.merger.closed[group]
    for peer in e.peers.values():
        peer.commits_due.add(group)
        if leads and not peer.frame_due and not _has_inferred(e, r, peer):
            peer.frame_due = holding.waits(e, peer, before)


def _has_inferred(e: EngineState, r: RaftState, peer: Peer) -> bool:
    """Does this follower know the commit without our word? It told us what it holds, and we it what we do."""
    progress = r.progress.get(peer.id)
    return (
        progress is not None
        and min(progress.counted, e.announced_durable[r.group]) >= r.commit_index
        and r.group not in peer.durable_due
        and replication.infers_commits(r, e.me, peer.id)
    )


def _frame(e: EngineState, peer: Peer) -> Frame:
    if peer.durable_due:
        led = [e.raft(group) for group in sorted(peer.durable_due)]
        # A suspect vouches for nothing, whoever connects (PROTOCOL 10).
        peer.out += [_durable(r) for r in led if r.leads and not r.suspect]
        peer.durable_due.clear()
    messages, peer.out = (*holding.take(peer), *peer.out), []
    commits = tuple([_commit(e.replicas[group].state) for group in sorted(peer.commits_due)])
    peer.commits_due.clear()
    monotonic, clock = e.now
    held = 0 if peer.heard_at is None else monotonic - peer.heard_at
    return Frame(max(0, clock), monotonic, peer.echo, held, e.demand, hearing.said(e), commits, messages)


def _durable(r: RaftState) -> LeaderPersisted:
    index = r.log.persisted
    r.told_durable = max(r.told_durable, index)
    return LeaderPersisted(r.group, r.term, index)


def _commit(r: RaftState) -> tuple[GroupId, int, int]:
    return r.group, r.commit_index, r.commit_term


# -- heartbeats -----------------------------------------------------------------------------------


def heartbeat(e: EngineState) -> None:
    """Tell every peer which groups are led here, and which of its claims were refused; ask as a suspect."""
    groups = len(e.replicas)
    rotation = [(e.commit_rotation + step) % groups for step in range(min(groups, COMMITS_PER_HEARTBEAT))]
    e.commit_rotation = (rotation[-1] + 1) % groups
    for peer in e.peers.values():
        known = peer.acked_version == e.leads_version
        leads = None if known else e.leads
        peer.out.append(Heartbeats(e.leads_version, leads, peer.leads_version, peer.refused))
        peer.commits_due.update(rotation)
    for raft in e.replicas:
        if raft.state.suspect:
            suspicion.ask(raft.state)
            e.dirty.add(raft.state.group)


def leads_changed(e: EngineState) -> None:
    """This server gained or lost a group, or a term changed."""
    e.leads = tuple((group, e.raft(group).term) for group in sorted(e.led))
    e.leads_version += 1


def handle_heartbeats(e: EngineState, sender: ServerId, m: Heartbeats) -> None:
    """A peer's leaders are alive; and it has heard ours."""
    peer = e.peers[sender]
    if m.leads is not None:
        peer.leads_version, peer.leads = m.version, m.leads
    elif m.version != peer.leads_version:
        peer.leads_version, peer.leads = 0, ()  # we missed a list: not acknowledging makes the peer repeat it
    _join_beat(e)
    _hear_leaders(e, peer)
    peer.acked_version = m.ack_version
    if m.ack_version == e.leads_version:
        _count_acknowledgement(e, sender, dict(m.refused))


def _join_beat(e: EngineState) -> None:
    """A heartbeat that is due soon goes out with this one: servers beat together and sleep together.

    An idle server pays for waking up more than for what it then does.
    """
    now = e.now.monotonic_ns
    if now >= e.next_heartbeat - e.limits.heartbeat_interval_ms * MS // 2:
        e.next_heartbeat = e.wake_at = now


def _hear_leaders(e: EngineState, peer: Peer) -> None:
    now = e.now.monotonic_ns
    refused = []
    for group, term in peer.leads:
        r = e.raft(group)
        if term < r.term:
            refused.append((group, r.term))
        elif term == r.term and r.leader_id == peer.id:
            election.heard_leader(r, now)
        else:
            replication.follow(r, peer.id, term, now)
            e.dirty.add(group)
    peer.refused = tuple(refused)


def _count_acknowledgement(e: EngineState, sender: ServerId, refused: dict[GroupId, int]) -> None:
    now = e.now.monotonic_ns
    if now - e.peers[sender].reached_at > e.limits.election_timeout_ms_max * MS:
        return  # it repeats what it heard long ago: our frames no longer arrive there (CheckQuorum)
    for group in e.led:
        r = e.raft(group)
        if not r.leads:
            continue  # lost earlier in this very turn
        term = refused.get(group)
        if term is None:
            if sender in r.progress and membership.counts(r, sender):
                r.progress[sender].active_at = now
        elif term > r.term:
            election.become_follower(r, term, None, now)
            e.dirty.add(group)


# -- fetching committed entries from any peer (PROTOCOL 9) ----------------------------------------


def fetch_lacking(e: EngineState) -> None:
    """Where a peer knows a commit that does not arrive from the leader, ask that peer."""
    now = e.now.monotonic_ns
    patience = e.limits.fetch_after_ms * MS
    for raft in e.replicas:
        r = raft.state
        if r.lacking_since is not None and now - r.lacking_since >= patience:
            r.lacking_since = now
            index, _, peer = r.known_commit
            if index > r.commit_index and peer in e.peers and _disk_keeps_up(e, r):
                _fetch(e, peer, r)


def _disk_keeps_up(e: EngineState, r: RaftState) -> bool:
    """Is there room for more that is not durable yet? What the leader's window holds back is not fetched."""
    return r.log.unsynced_bytes() < e.limits.inflight_bytes_max


def after_fetch_result(e: EngineState, sender: ServerId, group: GroupId, before: Index) -> None:
    """Go on fetching while it helps (the commit was at `before`), or while the leader is not heard directly.

    The peer answers at the next commit. That the leader is heard does not mean that its entries arrive: who
    does not hear our acknowledgements only probes. Nothing is asked for twice at once: an answer that is of
    no help would come again as fast as the network is, and each one that the network repeats would ask for
    answers of its own. Where a question or its answer is lost, `fetch_lacking` asks in a while.
    """
    r = e.raft(group)
    silent = e.now.monotonic_ns - r.heard_at > 2 * e.limits.heartbeat_interval_ms * MS
    helps = r.commit_index > before or r.known_commit[0] > r.commit_index
    asked = r.commit_index < e.fetch_asked.get(group, 0)
    if not r.leads and not asked and (helps or silent) and _disk_keeps_up(e, r):
        _fetch(e, sender, r)


def _fetch(e: EngineState, peer: ServerId, r: RaftState) -> None:
    e.fetch_asked[r.group] = r.commit_index + 1
    e.peers[peer].out.append(Fetch(r.group, r.commit_index + 1))


def handle_fetch(e: EngineState, sender: ServerId, m: Fetch) -> None:
    """A peer wants committed entries, now or as soon as there are any."""
    if m.next_index < 1:
        raise WireError(f"server {sender} fetches index {m.next_index} of group {m.group}; logs begin at 1")
    e.fetches[(sender, m.group)] = m.next_index


def _answer_fetches(e: EngineState) -> None:
    for (peer_id, group), next_index in sorted(e.fetches.items()):
        r = e.raft(group)
        if next_index > r.commit_index:
            continue
        del e.fetches[(peer_id, group)]
        if next_index <= r.log.start.place.index:
            mark("fetch of what is compacted")
            transferring.want(e, peer_id)
        elif next_index <= r.log.offset.index:
            begin_load(
                e, LoadPurpose.FETCH, group, peer=peer_id, next_index=next_index, first_index=next_index
            )
        else:
            last_index = min(r.commit_index, next_index + replication.ENTRIES_MAX - 1)
            entries = r.log.slice(next_index, last_index=last_index, bytes_max=e.limits.append_bytes_max)
            e.peers[peer_id].out.append(FetchResult(group, entries))


def check_group(e: EngineState, sender: ServerId, group: GroupId) -> None:
    """A peer may only speak of groups that exist."""
    if not 0 <= group < len(e.replicas):
        raise WireError(f"server {sender} names group {group}; there are groups 0 to {len(e.replicas) - 1}")
