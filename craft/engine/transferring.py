"""Snapshots on their way between servers (PROTOCOL 7): the receiver asks for one piece after the other.

Knows: who lacks what is compacted, which snapshot is on its way to whom, how far it is. Must not know: files,
what a snapshot holds.

Invariants
- A snapshot is offered by whoever cannot send entries because they are compacted: a leader to its follower,
  and a peer to who fetches. At most one is being received, in pieces, each checked; what has arrived
  survives a restart.
- Pieces wait for their turn in a budget of bytes a second, and in frames behind what is urgent: heartbeats do
  not wait for them (PROTOCOL 11).
- (†) None is received while one of our own is written, and none captured meanwhile: of two at one position
  the later must be the one behind which the logs go on.
- A transfer without progress for `snapshot_stall_ms` is given up on both sides, and frees what it held.
"""

from __future__ import annotations

import zlib

from craft.engine import capturing, installing
from craft.engine.state import MS, EngineState, Receiving, Sending
from craft.errors import WireError
from craft.marks import mark
from craft.messages import SnapshotChunk, SnapshotFetch, SnapshotInstalled, SnapshotOffer, SnapshotWanted
from craft.raft import replication
from craft.raft.progress import ProgressState
from craft.ready import Ready, ReceiveAppend, ReceiveBegin, ReceiveFinish, SnapshotRead
from craft.types import ServerId, SnapshotId, SnapshotInfo, SnapshotPart

PIECES_AHEAD = 2
"""Pieces asked for and not written: the next travels while the last is written."""

LOOK_FOR_BEATS = 4
"""Heartbeats for which whoever offers a snapshot is asked for the one that we had begun to receive."""

NOTHING = SnapshotWanted(0, 0)
"""Any will do."""

SIZE_MAX = 2**53
"""Of a snapshot's file: a peer that offers more is broken."""


# -- who offers -------------------------------------------------------------------------------------


def tick(e: EngineState) -> None:
    """With every heartbeat: offer, ask again, give up."""
    now = e.now.monotonic_ns
    stall = e.limits.snapshot_stall_ms * MS
    s = e.snapshots
    for peer_id in [peer for peer, one in s.sending.items() if now - one.moved_at >= stall]:
        mark("snapshot transfer given up")
        del s.sending[peer_id]
    _offer(e)
    if s.partial is not None and s.receiving is None and now - e.started >= stall:
        s.partial = None  # nobody has anything to offer that we lack
    if s.receiving is not None:
        _look_after(e, s.receiving)
    elif s.unfounded and s.received is None:
        for peer in e.peers.values():
            peer.out.append(SnapshotWanted(0, s.damaged))


def _offer(e: EngineState) -> None:
    s = e.snapshots
    waiting = {
        peer_id
        for group in e.led
        for peer_id, progress in e.raft(group).progress.items()
        if progress.state is ProgressState.SNAPSHOT
    }
    for peer_id in sorted((waiting | s.wanted.keys()) & e.peers.keys()):
        wanted = s.wanted.get(peer_id, NOTHING)
        if peer_id in s.sending:
            continue
        if s.kept and s.kept[-1].head.position >= wanted.position and s.kept[-1].id.nonce != wanted.damaged:
            newest = s.kept[-1]
            indexes = tuple(cut.place.index for cut in newest.head.cuts)
            e.peers[peer_id].out.append(SnapshotOffer(newest.id, newest.size, indexes))
        elif e.applied_position >= wanted.position:
            mark("snapshot taken for a peer")
            s.asked = True
    s.wanted = {peer_id: wanted for peer_id, wanted in s.wanted.items() if s.asked or s.capturing}


def link_restored(e: EngineState, peer_id: ServerId) -> None:
    """Whoever is there now may have been restarted, and forgotten what it asked for: it is offered again."""
    e.snapshots.sending.pop(peer_id, None)
    receiving = e.snapshots.receiving
    if receiving is not None and receiving.peer == peer_id and receiving.begun:
        _go_on(e, receiving)  # what was asked for is lost; what has arrived is on its way to our disk


def want(e: EngineState, peer_id: ServerId) -> None:
    """A peer needs what is compacted here."""
    e.snapshots.wanted.setdefault(peer_id, NOTHING)


def handle_wanted(e: EngineState, sender: ServerId, m: SnapshotWanted) -> None:
    """Answered with the next heartbeat, or when one was taken."""
    e.snapshots.wanted[sender] = m


def handle_installed(e: EngineState, sender: ServerId, _: SnapshotInstalled) -> None:
    """The peer has what it lacked: its leaders here ask how far it is."""
    e.snapshots.sending.pop(sender, None)
    for group in sorted(e.led):
        if replication.snapshot_installed(e.raft(group), sender):
            e.dirty.add(group)


# -- who sends --------------------------------------------------------------------------------------


def handle_fetch(e: EngineState, sender: ServerId, m: SnapshotFetch) -> None:
    """The next piece: read when the budget allows it."""
    size = min(m.bytes_max, e.limits.snapshot_chunk_bytes)
    if size <= 0:
        raise WireError(f"server {sender} asks for {m.bytes_max} bytes of a snapshot")
    read = SnapshotRead(sender, m.snapshot, m.offset, size)
    e.snapshots.sending[sender] = Sending(m.snapshot, read, e.now.monotonic_ns)


def _read_pieces(e: EngineState, out: Ready) -> None:
    s, now = e.snapshots, e.now.monotonic_ns
    for _, sending in sorted(s.sending.items()):
        if sending.asked is None:
            continue
        if now < s.allowed_at:
            e.wake_at = min(e.wake_at, s.allowed_at)
            return
        out.snapshot_reads.append(sending.asked)
        spent = sending.asked.bytes_max * 1000 * MS // e.limits.snapshot_bytes_per_second_max
        s.allowed_at = max(s.allowed_at, now) + spent
        sending.asked = None


def read(e: EngineState, piece: SnapshotRead, data: bytes | None) -> None:
    """The piece was read; None: that snapshot is kept no more."""
    peer = e.peers.get(piece.peer)
    if peer is None:
        return
    data = data or b""
    if not data:
        e.snapshots.sending.pop(piece.peer, None)
        want(e, piece.peer)
    peer.out.append(SnapshotChunk(piece.snapshot, piece.offset, zlib.crc32(data), data))


# -- who receives -----------------------------------------------------------------------------------


def handle_offer(e: EngineState, sender: ServerId, m: SnapshotOffer) -> None:
    """Take it, if it helps; or say that it does not."""
    s = e.snapshots
    if len(m.indexes) != len(e.replicas) or not 0 < m.size <= SIZE_MAX:
        raise WireError(f"server {sender} offers a snapshot of {len(m.indexes)} groups and {m.size} bytes")
    if not installing.lacks(e, m.indexes):
        e.peers[sender].out.append(SnapshotInstalled(m.snapshot.position))
    elif s.receiving is not None or s.received is not None or s.restoring or s.capturing:
        return  # one at a time: it is offered again
    elif m.snapshot.nonce == s.damaged:
        e.peers[sender].out.append(SnapshotWanted(m.snapshot.position, s.damaged))
    elif s.partial is not None:
        _look_for_partial(e, sender, *s.partial)
    elif installing.helps(e, m.snapshot.position, m.indexes):
        mark("snapshot being received")
        _begin(e, sender, m.snapshot, m.size)
    else:
        mark("newer snapshot asked for")
        position = max(e.applied_position, m.snapshot.position)
        e.peers[sender].out.append(SnapshotWanted(position, m.snapshot.nonce))


def _begin(e: EngineState, sender: ServerId, snapshot: SnapshotId, size: int) -> None:
    e.snapshots.receiving = Receiving(sender, snapshot, size, moved_at=e.now.monotonic_ns)
    e.snapshots.receive.append(ReceiveBegin(snapshot, size))


def _look_for_partial(e: EngineState, sender: ServerId, snapshot: SnapshotId, size: int) -> None:
    """Before the restart we had begun with another: whoever offers one is asked for that first."""
    s, now = e.snapshots, e.now.monotonic_ns
    if not s.partial_asked:
        s.partial_until = now + LOOK_FOR_BEATS * e.limits.heartbeat_interval_ms * MS
    elif now >= s.partial_until:
        s.partial = None
    if s.partial is not None and sender not in s.partial_asked:
        s.partial_asked.add(sender)
        _begin(e, sender, snapshot, size)


def begun(e: EngineState, snapshot: SnapshotId, have: int) -> None:
    """So much of it is here already."""
    receiving = e.snapshots.receiving
    if receiving is None or receiving.snapshot != snapshot or receiving.begun:
        return
    if have:
        mark("snapshot transfer gone on with")
    receiving.begun, receiving.arrived, receiving.written = True, have, have
    _go_on(e, receiving)


def _go_on(e: EngineState, receiving: Receiving) -> None:
    """Ask for the next piece, or finish."""
    if receiving.written >= receiving.size:
        if not receiving.finishing:
            receiving.finishing = True
            e.snapshots.receive.append(ReceiveFinish(receiving.snapshot))
        return
    chunk = e.limits.snapshot_chunk_bytes
    ahead = receiving.arrived - receiving.written
    if receiving.arrived < receiving.size and ahead < PIECES_AHEAD * chunk and receiving.peer in e.peers:
        receiving.asked_at = e.now.monotonic_ns
        ask = SnapshotFetch(receiving.snapshot, receiving.arrived, chunk)
        e.peers[receiving.peer].out.append(ask)


def handle_chunk(e: EngineState, sender: ServerId, m: SnapshotChunk) -> None:
    """A piece has arrived: the one that was asked for, or an old one that the network repeats."""
    s, receiving = e.snapshots, e.snapshots.receiving
    if receiving is None or receiving.peer != sender or receiving.snapshot != m.snapshot:
        return
    if not m.data:
        mark("snapshot gone while being received")
        s.receiving = None
        return
    if zlib.crc32(m.data) != m.checksum:
        raise WireError(f"server {sender} sent a piece of a snapshot whose checksum does not hold")
    if not receiving.begun or m.offset != receiving.arrived:
        return
    if m.offset + len(m.data) > receiving.size:
        raise WireError(
            f"server {sender} sent more than the {receiving.size} bytes of a snapshot that it offered"
        )
    s.partial = None
    receiving.arrived += len(m.data)
    receiving.moved_at = e.now.monotonic_ns
    s.receive.append(ReceiveAppend(m.snapshot, m.offset, m.data))
    _go_on(e, receiving)


def appended(e: EngineState, snapshot: SnapshotId, upto: int) -> None:
    """Everything before `upto` is written."""
    receiving = e.snapshots.receiving
    if receiving is not None and receiving.snapshot == snapshot:
        behind = receiving.arrived - receiving.written >= PIECES_AHEAD * e.limits.snapshot_chunk_bytes
        receiving.written = upto
        if behind or upto >= receiving.size:
            _go_on(e, receiving)


def _look_after(e: EngineState, receiving: Receiving) -> None:
    """A piece, or the question for it, may be lost; the peer may be gone for good."""
    now = e.now.monotonic_ns
    if now - receiving.moved_at >= e.limits.snapshot_stall_ms * MS and not receiving.finishing:
        mark("snapshot transfer stalled")
        e.snapshots.receiving = None
    elif receiving.begun and now - receiving.asked_at >= e.limits.election_timeout_ms_min * MS:
        _go_on(e, receiving)


def received(e: EngineState, info: SnapshotInfo | None, parts: tuple[SnapshotPart, ...]) -> None:
    """It is whole and durable here; None: it was damaged, and is gone."""
    s = e.snapshots
    receiving, s.receiving = s.receiving, None
    if info is None:
        mark("received snapshot was damaged")
        # It is so at its owner too, perhaps, who is asked for another.
        s.damaged = receiving.snapshot.nonce if receiving is not None else 0
        return
    capturing.keep(e, info)
    s.received = (info, parts)


def turn(e: EngineState, out: Ready) -> None:
    """Hand out what must be read, written and finished; tell who offered that it is done."""
    s = e.snapshots
    if s.sending:
        _read_pieces(e, out)
    if s.receive:
        out.receive, s.receive = s.receive, []
