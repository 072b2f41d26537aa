"""This server's requests, from the caller to their place in the merged log.

And other servers' requests for leaders here.

Invariants
- A request is proposed again, through any group, until it is merged or the server stops: the session drops
  the duplicates, so it takes effect exactly once (PROTOCOL 5). Results never travel back: the origin answers
  from its own applied merged log.
- Until the session is open nothing of this server's users is proposed.
- *Rejected* means that every attempt was refused before it was appended; everything else is *unknown* until
  it is merged.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from craft.engine import timing
from craft.engine.state import MS, EngineState, LeaderQueue, Pending, SessionState, Stage
from craft.errors import CommandTooLarge, NotReady, Overloaded, Rejected, SessionTaken
from craft.marks import mark
from craft.messages import Forward, ForwardRefused
from craft.raft import RaftState
from craft.sessions import OPEN, PROPOSAL_HEADER_BYTES, Opened
from craft.types import GroupId, Proposal, ServerId, Timestamp

REQUESTS_PER_MESSAGE_MAX = 2**14
"""In one Forward or ForwardRefused: what travels in one array is bounded (`wire/framing.py`)."""

RETRY_DOUBLINGS_MAX = 3
"""A request waits twice as long after each attempt, at most 2**3 times: what is stuck fills no logs."""

COUNTERS_LOST_MAX = 1000
"""Session numbers, one a start, that a lost tail may have held: far more than a tail holds."""

REROUTE_MS = 50
"""How soon a request is placed again that a leader refused: not at once, or the two would play ping-pong.

Nor where it passed the request on, and that one refused: then the three would. A new leader ends that wait:
most refusals are of one that hands its group over."""

DETOUR_MS = 300
"""How soon it is placed again that a peer could not pass on to a leader: about an election."""


def propose(e: EngineState, token: Any, body: bytes, floor: Timestamp = 0, *, committed: bool = False) -> int:
    """Take a request from a caller on this server, or raise. Returns its request number."""
    if e.stopping:
        raise NotReady("the server is stopping and takes no commands")
    if e.removed:
        raise NotReady(
            f"server {e.me} is no member of the cluster any more (members: version {e.members.version})"
        )
    if e.disk_low:
        # Before a full disk ends every server. Forwarded ones are taken: they go to all disks anyhow.
        raise Overloaded(e.disk_low)
    if len(body) > e.limits.entry_bytes_max:
        raise CommandTooLarge(
            f"{len(body)} bytes in one call; entry_bytes_max allows {e.limits.entry_bytes_max}"
        )
    if e.pending_bytes + len(body) > e.limits.proposals_bytes_max:
        raise Overloaded(
            f"unanswered proposals would exceed proposals_bytes_max = {e.limits.proposals_bytes_max}"
        )
    if len(e.pending) >= e.limits.proposals_max:
        raise Overloaded(f"unanswered requests would exceed proposals_max = {e.limits.proposals_max}")
    if floor and not takes_floor(e, floor):
        raise Rejected(f"answered at {floor}, which is beyond what this server's clock and logs have reached")
    pending = Pending(token, e.next_request, body, floor=floor)
    e.next_request += 1
    e.pending[pending.request] = pending
    if committed:
        e.awaiting_commit[pending.request] = pending
    e.pending_bytes += len(body)
    e.unrouted.append(pending)
    return pending.request


def takes_floor(e: EngineState, floor: Timestamp) -> bool:
    """Has time reached what a remote client says that it was answered at? So no client can move it (†).

    Asked before its request is taken: one that no time ever reaches must not stay in our session's window.
    """
    return floor <= max(e.answered_timestamp, e.greatest_timestamp, timing.reading(e, e.raft(0))[0])


def cost(proposal: Proposal) -> int:
    """The bytes that a proposal takes in an entry, a frame or a queue; a tiny body is not free."""
    return len(proposal.body) + PROPOSAL_HEADER_BYTES


def turn(e: EngineState) -> None:
    """Route what has no place yet."""
    if not e.unrouted:
        return
    waiting, e.unrouted = e.unrouted, []
    forwards: dict[tuple[ServerId, GroupId], list[Proposal]] = {}
    led = [group for group in sorted(e.led) if e.raft(group).transfer_to is None]
    group: GroupId | None = None  # together, as far as an entry goes: each entry has its price
    for pending in waiting:
        if pending.request not in e.pending:
            continue  # answered meanwhile by an earlier attempt
        not_open = e.session_state is not SessionState.OPEN and pending.request != OPEN
        if not_open or pending.retry_at > e.now.monotonic_ns:
            e.unrouted.append(pending)
        elif led:
            proposal = _proposal(e, pending)
            if group is None or e.queues[group].bytes + cost(proposal) > e.limits.entry_bytes_max:
                group = _least_loaded(e, led)
            enqueue(e, group, proposal)
            pending.stage, pending.group = Stage.QUEUED, group
        else:
            _forward(e, pending, forwards)
    for (peer, forwarded_to), proposals in forwards.items():
        for part in parts(e, proposals):
            e.peers[peer].out.append(Forward(forwarded_to, part))


def parts(e: EngineState, proposals: list[Proposal]) -> Iterator[tuple[Proposal, ...]]:
    """As many as one entry takes in each: a part is taken or refused as a whole, and arrays are bounded."""
    part: list[Proposal] = []
    size = 0
    for proposal in proposals:
        size += cost(proposal)
        if part and (size > e.limits.entry_bytes_max or len(part) == REQUESTS_PER_MESSAGE_MAX):
            yield tuple(part)
            part, size = [], cost(proposal)
        part.append(proposal)
    yield tuple(part)


def _proposal(e: EngineState, pending: Pending) -> Proposal:
    # The line and the floor are read together and travel together (PROTOCOL 5, †).
    below = next(iter(e.pending), e.next_request)
    answered = max(e.answered_timestamp, pending.floor)
    return Proposal(e.me, e.counter, pending.request, below, answered, pending.body)


def _least_loaded(e: EngineState, led: list[GroupId]) -> GroupId:
    """Of the groups led here; ties take turns."""
    e.route_rotation += 1
    first = e.route_rotation % len(led)
    return min(led[first:] + led[:first], key=lambda group: e.queues[group].bytes)


def _forward(
    e: EngineState, pending: Pending, forwards: dict[tuple[ServerId, GroupId], list[Proposal]]
) -> None:
    """To another server's leader; where none can be reached, through a peer; else wait."""
    ways = [
        (leader, group)
        for group, (_, leader) in enumerate(e.leaders)
        if leader is not None and leader != e.me and _reaches(e, leader)
    ] or _detours(e)
    if not ways:
        e.unrouted.append(pending)
        return
    e.route_rotation += 1
    peer, group = ways[e.route_rotation % len(ways)]
    forwards.setdefault((peer, group), []).append(_proposal(e, pending))
    pending.stage, pending.group, pending.term = Stage.APPENDED, group, e.leaders[group][0]
    pending.asked = peer
    _attempted(e, pending)


def _reaches(e: EngineState, peer_id: ServerId) -> bool:
    """Do our frames arrive there, as far as we know?"""
    peer = e.peers[peer_id]
    oldest = e.now.monotonic_ns - e.limits.election_timeout_ms_max * MS
    deaf = peer.heard_at is not None and peer.reached_at < oldest and e.started < oldest
    return peer.linked and peer_id not in e.gone and not deaf


def _detours(e: EngineState) -> list[tuple[ServerId, GroupId]]:
    """Peers that may reach a leader which we do not (PROTOCOL 9: one cut link must not stall anyone).

    Only for a group whose leader has been silent for longer than an election takes, or does not hear us. One
    that is being handed over here has another leader in a moment: what comes meanwhile waits for it.
    """
    oldest = e.now.monotonic_ns - e.limits.election_timeout_ms_max * MS
    hidden = [
        group
        for group, (_, leader) in enumerate(e.leaders)
        if leader != e.me and (leader is not None or e.raft(group).heard_at < oldest)
    ]
    near = [peer for peer in e.peers if _reaches(e, peer)]
    return [(peer, group) for group in hidden for peer in near if peer != e.leaders[group][1]]


def _attempted(e: EngineState, pending: Pending) -> None:
    wait = e.limits.proposal_retry_ms << min(pending.attempts, RETRY_DOUBLINGS_MAX)
    pending.attempts += 1
    pending.sent, pending.upto = True, None
    pending.retry_at = e.now.monotonic_ns + wait * MS


def note_taken(e: EngineState, queue: LeaderQueue, proposal: Proposal) -> None:
    """A proposal left a leader's queue."""
    queue.bytes -= cost(proposal)
    if proposal.server_id != e.me:
        queue.foreign_bytes -= cost(proposal)
        queue.foreign.discard(proposal[:3])


def note_appended(e: EngineState, r: RaftState, proposals: list[Proposal]) -> None:
    """Proposals of this server were appended by a leader here."""
    for proposal in proposals:
        pending = own(e, proposal)
        if pending is not None:
            pending.stage, pending.group, pending.term = Stage.APPENDED, r.group, r.term
            _attempted(e, pending)


def own(e: EngineState, proposal: Proposal) -> Pending | None:
    """The request of this incarnation behind a proposal, if it is one and not answered yet."""
    if proposal.server_id != e.me or proposal.counter != e.counter:
        return None
    if e.session_state in {SessionState.READING, SessionState.NUMBERING}:
        return None  # `counter` is still our predecessor's, whose requests are numbered like ours
    return e.pending.get(proposal.request)


def settle(e: EngineState, proposal: Proposal) -> Any:
    """A request of this server takes effect: returns the caller's token, if it is of this incarnation."""
    pending = own(e, proposal)
    if pending is None:
        return None
    del e.pending[proposal.request]
    e.awaiting_commit.pop(proposal.request, None)
    e.pending_bytes -= len(pending.body)
    return None if pending.told else pending.token


# -- retries --------------------------------------------------------------------------------------


def tick(e: EngineState) -> None:
    """Propose again what took too long, and give up on floors that time did not reach."""
    now = e.now.monotonic_ns
    for pending in e.pending.values():
        if pending.retry_at <= now and pending.stage is Stage.APPENDED:
            if _merge_is_behind(e, pending):
                mark("request waits for the merge")
                pending.retry_at = now + e.limits.proposal_retry_ms * MS
            else:
                mark("request proposed again")
                _unroute(e, pending)
    still: list[tuple[int, GroupId, Proposal]] = []
    for deadline, group, proposal in e.floor_waiting:
        if not e.raft(group).leads or now >= deadline:
            mark("floor not reached")
            refuse(e, group, [proposal])
        # As the leader reads it: else a floor would be taken up and put back for ever, or never taken up.
        elif proposal.answered_timestamp <= max(timing.reading(e, e.raft(group))[0], e.greatest_timestamp):
            enqueue(e, group, proposal)
        else:
            still.append((deadline, group, proposal))
    e.floor_waiting = still


def _merge_is_behind(e: EngineState, pending: Pending) -> bool:
    """May a request be in its group's log, and the merge not have come to it yet?

    Then it is late, not lost. To propose it again would make the merge later still, and, where it is slower
    than our patience, keep it so by our repetitions alone. A log's end that never commits is cut by a later
    leader, and a leader that changes does not wait for this.
    """
    log = e.raft(pending.group).log
    if pending.upto is None:
        pending.upto = log.last_index
    held = e.merger.first_held(pending.group)
    merged = e.cursor[pending.group] if held is None else held - 1
    return merged < min(pending.upto, log.last_index)


def _unroute(e: EngineState, pending: Pending) -> None:
    pending.stage, pending.retry_at = Stage.UNROUTED, 0
    e.unrouted.append(pending)


def leader_changed(e: EngineState, group: GroupId) -> None:
    """A group has a new leader, or this server lost it.

    What was placed there may be orphaned, so place it again.
    """
    r = e.raft(group)
    queue = e.queues[group]
    if not r.leads and queue.proposals:
        mark("leader lost with requests waiting")
        waiting = list(queue.proposals)
        queue.proposals.clear()
        queue.bytes = queue.foreign_bytes = 0
        queue.foreign.clear()
        refuse(e, group, waiting)
    queue.uncommitted.clear()
    if r.leader_id is None:
        return
    for pending in e.pending.values():
        if pending.stage is Stage.UNROUTED:
            pending.retry_at = 0  # whoever refused it: there is somebody else to ask now
        elif pending.stage is Stage.APPENDED and pending.group == group and pending.term < r.term:
            _unroute(e, pending)


def next_retry(e: EngineState) -> int | None:
    """When a request that a leader refused is due again."""
    now = e.now.monotonic_ns
    return min((pending.retry_at for pending in e.unrouted if pending.retry_at > now), default=None)


def link_made(e: EngineState) -> None:
    """Our connection to a peer is made: it may be the way that was missing."""
    for pending in e.unrouted:
        pending.retry_at = 0


def link_lost(e: EngineState, peer: ServerId) -> None:
    """Our connection to a peer broke: what was forwarded to its leaders may be lost, so place it again."""
    theirs = {group for group, (_, leader) in enumerate(e.leaders) if leader == peer}
    for pending in e.pending.values():
        if pending.stage is Stage.APPENDED and pending.group in theirs:
            _unroute(e, pending)


def refuse(e: EngineState, group: GroupId, proposals: list[Proposal]) -> None:
    """These were not appended here: tell their origins (ourselves directly)."""
    refused: dict[tuple[ServerId, int], list[int]] = {}
    for proposal in proposals:
        if proposal.server_id == e.me:
            pending = own(e, proposal)
            if pending is not None and pending.stage is Stage.QUEUED:
                _unroute(e, pending)
        else:
            refused.setdefault((proposal.server_id, proposal.counter), []).append(proposal.request)
    for (server, counter), requests in refused.items():
        if server in e.peers:
            for first in range(0, len(requests), REQUESTS_PER_MESSAGE_MAX):
                part = tuple(requests[first : first + REQUESTS_PER_MESSAGE_MAX])
                e.peers[server].out.append(ForwardRefused(group, counter, part))


# -- other servers' requests ----------------------------------------------------------------------


def handle_forward(e: EngineState, sender: ServerId, m: Forward) -> None:
    """Proposals of a server that leads no group."""
    r = e.raft(m.group)
    leader = r.leader_id
    if leader is not None and leader not in {e.me, sender} and _is_origin(sender, m) and _reaches(e, leader):
        mark("forward relayed")
        e.peers[leader].out.append(m)  # the origin cannot reach it; once only, so it cannot go round
        return
    queue = e.queues[m.group]
    size = sum(map(cost, m.proposals))
    fits = not queue.foreign_bytes or queue.foreign_bytes + size <= e.limits.forwarded_bytes_max
    if not r.leads or r.transfer_to is not None or e.stopping or not fits:
        mark("forward refused")
        refuse(e, m.group, list(m.proposals))
        return
    for proposal in m.proposals:
        enqueue(e, m.group, proposal)
    e.dirty.add(m.group)


def _is_origin(sender: ServerId, m: Forward) -> bool:
    return all(proposal.server_id == sender for proposal in m.proposals)


def enqueue(e: EngineState, group: GroupId, proposal: Proposal) -> None:
    """Let a proposal wait for the turn of the group's leader, which is here.

    One that waits already does not wait twice: else a queue that is slower than the origins' patience is
    filled by their repetitions, and never empty again.
    """
    queue = e.queues[group]
    if proposal.server_id != e.me:
        if proposal[:3] in queue.foreign:
            mark("repeated request waits already")
            return
        queue.foreign.add(proposal[:3])
        queue.foreign_bytes += cost(proposal)
    queue.proposals.append(proposal)
    queue.bytes += cost(proposal)


def handle_forward_refused(e: EngineState, sender: ServerId, m: ForwardRefused) -> None:
    """A leader did not take them: place them again."""
    if m.counter != e.counter:
        return  # of our predecessor, whose requests are numbered like ours
    for request in m.requests:
        pending = e.pending.get(request)
        if pending is not None and pending.stage is Stage.APPENDED and pending.group == m.group:
            # Not settled by it: the network may have repeated the Forward, and its other copy been taken.
            pending.attempts = max(0, pending.attempts - 1)
            pending.stage = Stage.UNROUTED
            wait_ms = _wait_after_refusal(e, sender, pending)
            same = pending.term == e.raft(m.group).term  # else another leads by now
            pending.retry_at = e.now.monotonic_ns + wait_ms * MS if same and wait_ms else 0
            e.wake_at = min(e.wake_at, pending.retry_at or e.wake_at)
            e.unrouted.append(pending)


def _wait_after_refusal(e: EngineState, sender: ServerId, pending: Pending) -> int:
    """How long not to ask again. A peer that leads nothing may refuse while we learn who does: no time.

    Not where the leader that we know was asked already, whoever refuses: it may have passed the request on.
    """
    leader = e.leaders[pending.group][1]
    if leader is not None and leader in {sender, pending.asked}:
        return REROUTE_MS
    return 0 if leader is not None and (leader == e.me or _reaches(e, leader)) else DETOUR_MS


# -- this server's session ------------------------------------------------------------------------


def begin_session(e: EngineState) -> None:
    """Everything that predecessors were answered is merged here.

    Take a number, and make it durable before use.
    """
    assert e.session_state is SessionState.READING
    if e.counter == 0:
        # (†) A disk never used for a session takes a number above the highest that its id ever had.
        e.counter = e.sessions.highest(e.me)
    if e.counter_lost:
        # A tail that is missing may have held numbers that were used; nothing asks for numbers without gaps.
        e.counter = max(e.counter, e.sessions.highest(e.me)) + COUNTERS_LOST_MAX
    e.counter += 1
    e.counter_due = True
    e.session_state = SessionState.NUMBERING


def counter_durable(e: EngineState) -> None:
    """The number is durable: open the session with it."""
    assert e.session_state is SessionState.NUMBERING
    e.session_state = SessionState.OPENING
    propose_open(e)


def propose_open(e: EngineState) -> None:
    """Ask for our session; once more where it is open: that tells the disk we live on (PROTOCOL 8)."""
    if OPEN in e.pending:
        return
    pending = Pending(None, OPEN, e.nonce)
    e.pending = {OPEN: pending, **e.pending}
    e.pending_bytes += len(e.nonce)
    e.unrouted.insert(0, pending)


def note_opened(e: EngineState, proposal: Proposal, opened: Opened) -> None:
    """An `open` was merged: ours, or a sign that another process runs under our id."""
    if proposal.server_id != e.me or e.session_state in (SessionState.READING, SessionState.NUMBERING):
        return
    ours = proposal.counter == e.counter and proposal.body == e.nonce
    if ours and opened is not Opened.REFUSED:
        e.session_state = SessionState.OPEN
        settle(e, proposal)
    elif proposal.counter > e.counter or (ours and opened is Opened.REFUSED):
        raise SessionTaken(
            f"server {e.me}: session {proposal.counter} of another process was opened under this id (ours is"
            f" {e.counter}); two processes run as one server, or the directory was restored from a backup"
        )
