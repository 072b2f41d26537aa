"""Servers of one process: a hub that carries frames as objects, and can be cut.

For tests, examples and single-process clusters. Keeps the port's obligations: sends never block, queues are
bounded and drop the link when full, heartbeats overtake, readers respect the inbox. Adds what a cable can do:
a cut link loses frames in silence, in one direction or both, neither side hears of it before it is mended.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

import trio

from craft.limits import TransportLimits
from craft.logs import event
from craft.messages import AppendEntries, FetchResult, Forward, Frame
from craft.transport import Inbox
from craft.types import ServerId
from craft.wire import PREFIX_BYTES, Decoder, decode_frame, encode_frames, is_urgent

_log = logging.getLogger(__name__)


class _Parcel(NamedTuple):
    """A frame on its way."""

    frame: Frame
    size: int


class _Lane:
    """What one server has sent to another and the other has not taken yet."""

    def __init__(self) -> None:
        self.urgent: deque[_Parcel] = deque()
        self.bulk: deque[_Parcel] = deque()
        self.queued_bytes = 0

    def put(self, parcel: _Parcel) -> None:
        (self.urgent if is_urgent(parcel.frame) else self.bulk).append(parcel)
        self.queued_bytes += parcel.size

    def take(self) -> _Parcel | None:
        queue = self.urgent or self.bulk
        if not queue:
            return None
        parcel = queue.popleft()
        self.queued_bytes -= parcel.size
        return parcel


class MemoryTransport:
    """One server's place in a `MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork, server_id: ServerId) -> None:
        self._network = network
        self._server_id = server_id
        self._wake = trio.Event()

    async def run(
        self, inbox: Inbox, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Take part in the network until cancelled."""
        self._network._start(self._server_id, self, inbox)
        task_status.started()
        try:
            while True:
                await inbox.room()
                parcel = self._network._take(self._server_id)
                if parcel is None:
                    self._wake = trio.Event()
                    await self._wake.wait()
                else:
                    sender, (frame, size) = parcel
                    inbox.deliver(sender, frame, size)
        finally:
            self._network._stop(self._server_id)

    def send(self, peer: ServerId, frame: Frame) -> None:
        """Queue a frame for a peer; dropped where there is no link."""
        self._network._send(self._server_id, peer, frame)

    @property
    def tells_disks(self) -> bool:
        """Nobody has a disk's id here."""
        return False

    def set_peers(self, peers: Mapping[ServerId, tuple[str, int] | None]) -> None:
        """Everybody who runs is linked to everybody here, and the engine knows whom to listen to."""

    def disconnect(self, peer: ServerId, reason: str) -> None:
        """Drop the link by which `peer` sends to us."""
        event(_log, logging.WARNING, "incoming link dropped", peer=peer, reason=reason)
        self._network._disconnect((peer, self._server_id))

    def advertise(self, client_address: str) -> None:
        """Tell the peers where clients reach this server."""
        self._network._client_addresses[self._server_id] = client_address

    def client_addresses(self) -> dict[ServerId, str]:
        """Where clients reach the servers of this network that have said so."""
        return dict(sorted(self._network._client_addresses.items()))

    def _notify(self) -> None:
        self._wake.set()


class _Running(NamedTuple):
    """A server that takes part now. Its run number tells a restarted server from the one before."""

    transport: MemoryTransport
    inbox: Inbox
    run: int


class MemoryNetwork:
    """The hub. With `encode=True` every frame passes through the wire codec, as between processes."""

    def __init__(self, *, limits: TransportLimits | None = None, encode: bool = False) -> None:
        self._limits = limits or TransportLimits()
        self._encode = encode
        self._running: dict[ServerId, _Running] = {}
        self._runs = 0
        self._cuts: set[tuple[ServerId, ServerId]] = set()  # (from, to): frames this way are lost
        self._links: dict[tuple[ServerId, ServerId], int] = {}  # (from, to) -> the run it is connected to
        self._lanes: dict[tuple[ServerId, ServerId], _Lane] = {}
        self._client_addresses: dict[ServerId, str] = {}

    def transport(self, server_id: ServerId) -> MemoryTransport:
        """A fresh transport for one run of a server."""
        return MemoryTransport(self, server_id)

    def cut(self, one: ServerId, other: ServerId) -> None:
        """Lose all frames between two servers, in silence, like a pulled cable."""
        self.cut_one_way(one, other)
        self.cut_one_way(other, one)

    def cut_one_way(self, sender: ServerId, receiver: ServerId) -> None:
        """Lose all frames from `sender` to `receiver`, also those on their way."""
        self._cuts.add((sender, receiver))
        self._lanes.pop((sender, receiver), None)

    def heal(self) -> None:
        """Mend every cut. Servers that stopped or restarted behind one are noticed now."""
        self._cuts.clear()
        self._settle()

    # -- for MemoryTransport --

    def _start(self, server_id: ServerId, transport: MemoryTransport, inbox: Inbox) -> None:
        if server_id in self._running:
            raise ValueError(f"server {server_id} runs already in this network; allowed is one run at a time")
        self._runs += 1
        self._running[server_id] = _Running(transport, inbox, self._runs)
        self._settle()

    def _stop(self, server_id: ServerId) -> None:
        del self._running[server_id]
        for ends in [ends for ends in self._lanes if server_id in ends]:
            del self._lanes[ends]
        for ends in [ends for ends in self._links if ends[0] == server_id]:
            del self._links[ends]
        self._settle()

    def _send(self, sender: ServerId, receiver: ServerId, frame: Frame) -> None:
        ends, there = (sender, receiver), self._running.get(receiver)
        if there is None or there.run != self._links.get(ends) or ends in self._cuts:
            return  # behind a cut a link may outlive the run that it is connected to
        lane = self._lanes.setdefault(ends, _Lane())
        for parcel in self._parcels(frame):
            if lane.queued_bytes + parcel.size > self._limits.send_queue_bytes_max:
                self._drop(ends)
                return
            lane.put(parcel)
        there.transport._notify()

    def _take(self, receiver: ServerId) -> tuple[ServerId, _Parcel] | None:
        for (sender, to), lane in self._lanes.items():
            parcel = lane.take() if to == receiver else None
            if parcel is not None:
                # The lane goes to the end, so that no sender starves another.
                self._lanes[sender, to] = self._lanes.pop((sender, to))
                return sender, parcel
        return None

    def _parcels(self, frame: Frame) -> list[_Parcel]:
        if not self._encode:
            return [_Parcel(frame, _size(frame))]
        decoder = Decoder(self._limits.frame_bytes_max)
        decoder.feed(b"".join(encode_frames(frame, self._limits.frame_bytes_max)))
        return [_Parcel(decode_frame(payload), PREFIX_BYTES + len(payload)) for payload in decoder]

    def _disconnect(self, ends: tuple[ServerId, ServerId]) -> None:
        if ends in self._links and ends[0] in self._running:
            self._drop(ends)

    def _drop(self, ends: tuple[ServerId, ServerId]) -> None:
        """Break a link that is up, with all that was queued, and connect again."""
        self._lanes.pop(ends, None)
        del self._links[ends]
        self._running[ends[0]].inbox.link_down(ends[1], refused=False)
        self._settle()

    # -- links --

    def _settle(self) -> None:
        """Bring every link to what it should be; behind a cut (TCP needs both ways) nothing changes."""
        for one in sorted(self._running):
            for other in sorted(self._running.keys() | {to for _, to in self._links}):
                apart = (one, other) in self._cuts or (other, one) in self._cuts
                if one != other and not apart:
                    self._settle_link(one, other)

    def _settle_link(self, one: ServerId, other: ServerId) -> None:
        ends, inbox, there = (one, other), self._running[one].inbox, self._running.get(other)
        run = None if there is None else there.run
        if self._links.get(ends) == run:
            return
        if ends in self._links:
            del self._links[ends]
            self._lanes.pop(ends, None)
            inbox.link_down(other, refused=run is None)
        if run is not None:
            self._links[ends] = run
            inbox.link_up(other)


def _size(frame: Frame) -> int:
    """About what the frame would take on the wire."""
    size = 64 + 12 * len(frame.commits)
    for message in frame.messages:
        size += 32
        if isinstance(message, AppendEntries | FetchResult):
            size += sum(entry.size for entry in message.entries)
        elif isinstance(message, Forward):
            size += sum(len(proposal.body) + 32 for proposal in message.proposals)
    return size
