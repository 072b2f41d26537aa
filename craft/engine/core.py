"""`Engine`: every group of one server behind one facade, with one `Ready` a turn.

Knows: time as an argument, randomness as a `random.Random`. Must not know: Trio, sockets, disks, threads.

The order of a turn: take what has arrived (`receive`, `persisted`, `applied`, `loaded`, `propose`, `read`),
let time pass (`tick`), then `ready` once and carry it out.

Reference: PROTOCOL, all of it; the modules beside this one by section.
"""

from __future__ import annotations

import typing
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any

from craft.clock.interval import Readings
from craft.clock.offsets import Offsets
from craft.engine import (
    capturing,
    closing,
    committing,
    compacting,
    connecting,
    hearing,
    installing,
    leading,
    linking,
    loading,
    membership,
    merging,
    moving,
    placing,
    proposing,
    reading,
    rungs,
    status,
    transferring,
    writing,
)
from craft.engine.dispatch import HANDLERS
from craft.engine.snapshots import SnapshotCalls
from craft.engine.state import MS, EngineState, LeaderQueue, SessionState, Snapshots
from craft.errors import NotReady, Overloaded, WireError
from craft.limits import EngineLimits
from craft.membership import Change, Members, encode_changes
from craft.merge import Merger
from craft.messages import Frame
from craft.placement import Placement
from craft.raft import Raft, Role, replication, suspicion
from craft.raft import membership as raft_membership
from craft.reads import QuorumReads
from craft.ready import Ready
from craft.sessions import NONCE_BYTES, OPEN, Sessions
from craft.types import (
    DEMAND_MAX,
    NO_SNAPSHOTS,
    Entry,
    GroupId,
    Instant,
    Place,
    Position,
    Recovered,
    ServerId,
    StoredSnapshots,
    Timestamp,
)

if typing.TYPE_CHECKING:
    from random import Random

INCARNATION_BYTES = 7
"""Of the nonce, which name this start to peers: a number that fits any integer of the wire."""

UNSEEN = Place(-1, -1)
"""Where no configuration stands: each of them is news at the start."""


class Engine:
    """One server's groups, merge, sessions and reads."""

    __slots__ = ("snapshots", "state")

    def __init__(
        self,
        server_id: ServerId,
        servers: Iterable[ServerId],
        recovered: Recovered,
        *,
        limits: EngineLimits,
        rng: Random,
        now: Instant,
        clock_error_ns: int | None = None,
        disk: str = "",
        joined: bool = False,
        roll: Members | None = None,
        cluster_id: str = "",
        captures: bool = False,
        stored: StoredSnapshots = NO_SNAPSHOTS,
    ) -> None:
        """`servers` are the cluster's first ones; `joined`: this one came later. `disk` is its disk's id.

        `roll` is the wanted set as this server last knew it: whom to talk to until the merged log tells.
        `captures`: the state machine can be captured.
        """
        founders = frozenset(servers)
        assert (server_id in founders or joined) and recovered.groups
        configuration = membership.created(server_id, founders, joined=joined)
        disks = {server_id: disk} if disk else {}
        gone: set[ServerId] = set()
        groups = len(recovered.groups)
        monotonic = now.monotonic_ns
        replica = partial(Raft, limits=limits, rng=rng, gone=gone, disks=disks, now=monotonic)
        replicas = [
            replica(group, server_id, configuration, found) for group, found in enumerate(recovered.groups)
        ]
        self.state = e = EngineState(
            me=server_id,
            limits=limits,
            clock_error_ns=clock_error_ns,
            rng=rng,
            now=now,
            nonce=rng.randbytes(NONCE_BYTES) + disk.encode(),
            started=monotonic,
            replicas=replicas,
            peers={},
            gone=gone,
            readings=Readings(monotonic),
            offsets=Offsets(),
            merger=Merger(groups),
            sessions=Sessions(),
            members=Members(founders),
            roll=roll or Members(founders),
            disk=disk,
            disks=disks,
            reads=QuorumReads(rng.getrandbits(48)),
            placement=Placement(
                leader_return_ns=limits.leader_return_ms * MS,
                leader_return_ns_max=limits.leader_return_ms_max * MS,
            ),
            snapshots=Snapshots(captures, stored.kept, groups, captured_at=monotonic, partial=stored.partial),
            cluster_id=cluster_id,
        )
        self.snapshots = SnapshotCalls(e)
        # Another list than any that a peer still remembers from an earlier incarnation.
        e.leads_version = 1 + rng.getrandbits(32)
        e.was_member = not joined
        self._begin(recovered, stored)

    def _begin(self, recovered: Recovered, stored: StoredSnapshots) -> None:
        """Go on where the logs and the snapshot end."""
        e = self.state
        _make_room(e, len(e.replicas))
        e.counter = recovered.counter
        e.counter_lost = any(found.suspicion for found in recovered.groups)
        e.dirty = set(range(len(e.replicas)))
        incarnation = int.from_bytes(e.nonce[:INCARNATION_BYTES], "big")
        for raft in e.replicas:
            raft.state.incarnation = incarnation
            closing.note_appended(e, raft.state)
        closing.hurry(e)
        e.snapshots.ahead = stored.ahead
        installing.found(e, stored.newest)
        membership.refresh(e)
        e.reads.add(reading.SessionRead())
        if not e.peers:
            self._stand_where_preferred()

    # -- input ------------------------------------------------------------------------------------

    @property
    def wake_at(self) -> int:
        """The monotonic instant, in ns, at which `tick` wants to be called next."""
        return self.state.wake_at

    def receive(self, sender: ServerId, frame: Frame, now: Instant) -> None:
        """Take a peer's frame. Raises RemoteError if the peer breaks the protocol.

        Nothing else is disturbed.
        """
        e = self.state
        e.now = now
        peer = e.peers.get(sender)
        if peer is None:
            raise WireError(
                f"a frame from server {sender}, which is not a member; members are {sorted(e.peers)}"
            )
        if frame.demand > DEMAND_MAX:
            raise WireError(f"server {sender} demands timestamp {frame.demand}; allowed: 0 to {DEMAND_MAX}")
        first = peer.heard_at is None
        peer.heard_at, peer.echo = now.monotonic_ns, frame.sent
        hearing.note(peer, frame.links)
        if e.started <= frame.echo <= now.monotonic_ns:
            peer.reached_at = max(peer.reached_at, frame.echo)
            e.offsets.observe(sender, frame, now.monotonic_ns)
        e.readings.observe(sender, frame.clock, frame.echo, now)
        for message in frame.messages:
            HANDLERS[type(message)](e, sender, message)
        for group, index, term in frame.commits:
            linking.check_group(e, sender, group)
            r = e.replicas[group].state
            if index > r.commit_index:
                replication.learn_commit(r, sender, index, term, now.monotonic_ns)
                e.dirty.add(group)
        closing.demand(e, frame.demand)
        if first:
            reading.ask_again(e, peer)
            connecting.elections_go_on(e, sender)
            self._stand_where_preferred()

    def link_up(self, peer_id: ServerId, now: Instant) -> None:
        """Our connection to a peer is made."""
        self.state.now = now
        connecting.up(self.state, peer_id)

    def link_down(self, peer_id: ServerId, now: Instant, *, refused: bool) -> None:
        """Our connection to a peer broke; `refused`: and nothing listens there any more (PROTOCOL 9)."""
        self.state.now = now
        connecting.down(self.state, peer_id, refused=refused)

    def met(self, peer_id: ServerId, disk: str, now: Instant) -> None:
        """A peer's frames come from this disk from now on (PROTOCOL 8); drop those of another."""
        self.state.now = now
        membership.met(self.state, peer_id, disk)

    def _stand_where_preferred(self) -> None:
        """At a fresh start the preferred servers stand first, as soon as a majority is in touch."""
        e = self.state
        heard = {peer.id for peer in e.peers.values() if peer.heard_at is not None} | {e.me}
        for raft in e.replicas:
            r = raft.state
            if r.leader_id is None and Placement.preferred(r.group, r.configuration.voters) == e.me:
                raft.stand_soon(heard, e.now.monotonic_ns)
                e.wake_at = min(e.wake_at, r.election_deadline)

    def tick(self, now: Instant) -> None:
        """Let time pass; does nothing before `wake_at`."""
        e = self.state
        monotonic = now.monotonic_ns
        if monotonic < e.wake_at:
            return
        e.now = now
        membership.refresh(e)
        stands = not (e.stopping or hearing.disk_stalled(e))  # whose vote no disk takes cannot win
        for raft in e.replicas:
            r = raft.state
            due = r.leads or (monotonic >= r.election_deadline and stands)
            if due and raft.tick(monotonic):
                e.dirty.add(r.group)
        if monotonic >= e.next_heartbeat:
            e.next_heartbeat = monotonic + e.limits.heartbeat_interval_ms * MS
            linking.heartbeat(e)
            linking.fetch_lacking(e)
            placing.tick(e)
            proposing.tick(e)
            membership.tick(e)
            transferring.tick(e)
            compacting.tick(e)
        deadlines = [e.next_heartbeat]
        if stands:
            deadlines += [
                raft.state.election_deadline
                for raft in e.replicas
                if not raft.state.leads and raft_membership.stands(raft.state)
            ]
        if e.unrouted and (retry_at := proposing.next_retry(e)) is not None:
            deadlines.append(retry_at)
        e.wake_at = min(deadlines)  # and the turn that follows asks no later for what it waits for

    def propose(self, token: Any, body: bytes, floor: Timestamp = 0, *, committed: bool = False) -> int:
        """Take a request: `body` is a msgpack array of commands, or a remote client's (`client_sessions`).

        It is stamped beyond `floor`, the greatest timestamp that the client was answered at, which this
        server's time must have reached (`takes_floor`). Raises a `Rejected`; answers come as `Merged` with
        the token. `committed` wants no result: the token comes in `Ready.committed`, unless the merge is
        faster.
        """
        return proposing.propose(self.state, token, body, floor, committed=committed)

    def change_members(self, token: Any, changes: Iterable[Change]) -> int:
        """Ask for changes of the wanted set of servers, all of them or none (PROTOCOL 8).

        The answer comes as `Merged.members` with the token. Raises as `propose` does.
        """
        return proposing.propose(self.state, token, encode_changes(changes))

    @property
    def removed(self) -> bool:
        """Is this server no member any more, in any group?"""
        return self.state.removed

    def takes_floor(self, floor: Timestamp) -> bool:
        """Would `propose` take this floor?"""
        return proposing.takes_floor(self.state, floor)

    def read(self, token: Any, at_least: Position | None = None) -> None:
        """Ask for a linearizable read, or for one at a position or later; or raise Overloaded.

        The token comes back in `Ready.reads` when the state machine may be read.
        """
        e = self.state
        if e.removed:
            raise NotReady(f"server {e.me} is no member of the cluster any more")
        if e.reads.waiting + len(e.session_reads) >= e.limits.reads_max:
            raise Overloaded(f"reads that wait would exceed reads_max = {e.limits.reads_max}")
        if at_least is None:
            e.reads.add(token)
        else:
            reading.at_least(e, token, at_least)

    @property
    def complete_to(self) -> Timestamp:
        """Everything that is merged at this timestamp or before is applied here."""
        e = self.state
        if e.applying or e.merger.drainable or e.snapshots.restoring or e.snapshots.unfounded:
            return max(0, e.applied_timestamp - 1)  # others of that very timestamp may be next
        return e.merger.safe

    def discard_read(self, token: Any) -> None:
        """The reader went away."""
        reading.discard(self.state, token)

    def persisted(self, number: int, now: Instant) -> None:
        """Write `number` is durable: its entries and votes count, and what waited for it may leave."""
        e = self.state
        assert number == e.writing, f"write {number} is not the one under way ({e.writing})"
        e.now = now
        e.writing, e.durable_write = None, number
        for group in e.writing_groups:
            e.replicas[group].persisted(number, now.monotonic_ns)
            e.dirty.add(group)
        linking.release_held(e)
        if e.counter_write == number:
            proposing.counter_durable(e)

    def applied(self, position: Position, now: Instant) -> None:
        """The last `Ready.apply` has been applied, up to `position`."""
        self.state.now = now
        merging.applied(self.state, position)

    @property
    def has_more(self) -> bool:
        """After `applied`: is there something to do at once, so that another turn is due?"""
        e = self.state
        return bool(e.dirty or e.unrouted or e.reads.completed) or e.merger.drainable

    @property
    def suspicions(self) -> dict[GroupId, str]:
        """Why this server is suspect, in the groups in which it is."""
        replicas = (raft.state for raft in self.state.replicas)
        return {r.group: r.suspicion for r in replicas if r.suspect}

    def trust(self, now: Instant) -> None:
        """End every suspicion here, by the operator's word: nothing that was synced is missing.

        If that is wrong, answered writes can be lost (PROTOCOL 10).
        """
        e = self.state
        e.now = now
        for raft in e.replicas:
            if raft.state.suspect:
                suspicion.trust(raft.state)
                e.dirty.add(raft.state.group)

    def loaded(self, number: int, entries: tuple[Entry, ...], now: Instant) -> None:
        """The entries of a `Load`."""
        self.state.now = now
        loading.loaded(self.state, number, entries)

    def hand_over(self, now: Instant) -> None:
        """Begin to stop: take no more proposals, give every group away, stand for none."""
        e = self.state
        e.now, e.stopping = now, True
        e.given_away = set(e.led)
        e.next_heartbeat = e.wake_at = now.monotonic_ns

    def transfer(self, group: GroupId, to: ServerId, hold_ms: int, now: Instant) -> None:
        """Begin to hand a group over, to stay there for so long; or let it stay here, where `to` is us.

        Raises NotLeader, and TransferFailed which says why not. What comes of it is seen in `leaders`.
        """
        self.state.now = now
        moving.transfer(self.state, group, to, hold_ms)

    def drain(self, hold_ms: int, now: Instant) -> None:
        """Lead nothing for so long, where another server can."""
        self.state.now = now
        moving.drain(self.state, hold_ms)

    def bring_home(self, now: Instant) -> None:
        """End holds and drain here: groups return where they are preferred."""
        self.state.now = now
        moving.bring_home(self.state)

    @property
    def leads_any(self) -> bool:
        """Is any group still led here, or given away to somebody who does not lead it yet?

        Who left before would take a vote along that its successor may need.
        """
        e = self.state
        return bool(e.led) or any(e.leaders[group][1] in {None, e.me} for group in e.given_away)

    def abandon(self) -> tuple[list[Any], list[Any]]:
        """The server ends: tokens of requests without effect, and of those whose fate is unknown."""
        e = self.state
        rejected: list[Any] = []
        unknown: list[Any] = []
        for pending in e.pending.values():
            if pending.request == OPEN or pending.told:
                continue  # our own, or answered: nobody waits for it
            (unknown if pending.sent else rejected).append(pending.token)
        e.pending, e.unrouted = {}, []
        return rejected, unknown

    # -- output -----------------------------------------------------------------------------------

    def ready(self, now: Instant) -> Ready:
        """What must happen now, for all groups."""
        e = self.state
        e.now = now
        out = Ready()
        installing.turn(e, out)  # first: who leads what may change by it
        membership.refresh(e)
        self._note_leaders()
        reading.turn(e)
        proposing.turn(e)
        leading.turn(e)
        capturing.turn(e, out)
        merging.turn(e, out)
        if e.probes:
            rungs.turn(e)
        committing.turn(e, out)
        reading.serve(e, out)
        e.unwritten |= e.dirty
        out.write = writing.take_write(e)
        transferring.turn(e, out)
        membership.tell(e, out)
        linking.turn(e, out)
        out.loads, e.load_requests = e.load_requests, []
        e.dirty = set()
        return out

    def _note_leaders(self) -> None:
        """React to every change of leader or term since the last turn."""
        e = self.state
        changed = False
        for group in sorted(e.dirty):
            r = e.replicas[group].state
            known = (r.term, r.leader_id)
            if known == e.leaders[group]:
                continue
            e.leaders[group] = known
            was_led = group in e.led
            if r.leads:
                e.led.add(group)
                e.announced_durable[group] = 0
            else:
                e.led.discard(group)
            changed |= was_led or r.leads
            proposing.leader_changed(e, group)
            if r.leader_id is not None:
                preferred = Placement.preferred(group, r.configuration.voters)
                if r.leader_id != e.me:
                    e.holds.pop(group, None)
                wanted = group in e.holds or placing.declines(e, preferred)
                voluntary = r.transfer_term == r.term and wanted
                e.placement.leader_seen(group, r.leader_id, preferred=preferred, voluntary=voluntary)
        if changed:
            linking.leads_changed(e)

    def status(self, now: Instant) -> dict[str, Any]:
        """Everything one wants to see of a server, as plain values."""
        return status.status(self.state, now)

    @property
    def session_open(self) -> bool:
        """Does this server take effect-bearing proposals already?"""
        return self.state.session_state is SessionState.OPEN

    def role(self, group: GroupId) -> Role:
        """What this server is in a group."""
        return self.state.raft(group).role


def _make_room(e: EngineState, groups: int) -> None:
    """What is kept for each group, before anything has happened."""
    e.queues = [LeaderQueue() for _ in range(groups)]
    e.leaders = [(0, None)] * groups
    e.announced, e.announced_closed, e.announced_durable = [0] * groups, [0] * groups, [0] * groups
    e.cursor = [0] * groups
    e.outstanding = [deque() for _ in range(groups)]
    e.configurations_seen = [UNSEEN] * groups
