"""Two or three servers over either transport, which tests start, stop and let talk."""

from __future__ import annotations

import random
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import trio

from craft.limits import TransportLimits
from craft.messages import Frame
from craft.transport import Transport
from craft.transport.memory import MemoryNetwork
from craft.transport.tcp import Address, TcpTransport
from craft.types import ServerId
from tests.transport.inboxes import RecordingInbox

DISKS = {server_id: f"{server_id:032x}" for server_id in range(10)}


def any_disk(_server_id: ServerId, _disk_id: str) -> str | None:
    return None


@dataclass
class Facts:
    """What a TcpTransport of these tests is made of; a test changes what it is about."""

    server_id: ServerId
    peers: dict[ServerId, Address]
    listen: Address = ("127.0.0.1", 0)
    cluster_id: str = "shop"
    disk_id: str = ""
    groups: int = 21
    limits: TransportLimits = field(default_factory=TransportLimits)
    known_disk: Callable[[ServerId, str], str | None] = any_disk
    server_tls: ssl.SSLContext | None = None
    client_tls: ssl.SSLContext | None = None
    insecure_ok: bool = False

    def transport(self) -> TcpTransport:
        return TcpTransport(
            server_id=self.server_id,
            cluster_id=self.cluster_id,
            disk_id=self.disk_id or DISKS[self.server_id],
            groups=self.groups,
            listen=self.listen,
            peers=self.peers,
            limits=self.limits,
            known_disk=self.known_disk,
            rng=random.Random(self.server_id),
            server_tls=self.server_tls,
            client_tls=self.client_tls,
            insecure_ok=self.insecure_ok,
        )


def free_addresses(count: int) -> list[Address]:
    """Ports of loopback that were free a moment ago, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [one.getsockname()[:2] for one in sockets]
    for one in sockets:
        one.close()
    return addresses


@dataclass
class Running:
    """One run of one server."""

    transport: Transport
    inbox: RecordingInbox
    _scope: trio.CancelScope
    _ended: trio.Event

    async def stop(self) -> None:
        """End the run and wait until nothing is left of it."""
        self._scope.cancel()
        await self._ended.wait()

    def send(self, peer: ServerId, frame: Frame) -> None:
        self.transport.send(peer, frame)


class Cluster:
    """Servers that can be started and stopped, one transport object a run."""

    def __init__(self, nursery: trio.Nursery, make: Callable[[ServerId], Transport]) -> None:
        self._nursery = nursery
        self._make = make

    async def start(self, server_id: ServerId, *, inbox: RecordingInbox | None = None) -> Running:
        """Start a server; peers can connect when this returns."""
        scope, ended = trio.CancelScope(), trio.Event()
        running = Running(self._make(server_id), inbox or RecordingInbox(), scope, ended)

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            with scope:
                await running.transport.run(running.inbox, task_status=task_status)
            ended.set()

        await self._nursery.start(run)
        return running

    async def pair(self) -> tuple[Running, Running]:
        """Servers 1 and 2, linked in both directions."""
        one, two = await self.start(1), await self.start(2)
        await one.inbox.until_links("up 2")
        await two.inbox.until_links("up 1")
        return one, two


def memory_cluster(nursery: trio.Nursery, limits: TransportLimits, *, encode: bool) -> Cluster:
    network = MemoryNetwork(limits=limits, encode=encode)
    return Cluster(nursery, network.transport)


def tcp_cluster(nursery: trio.Nursery, limits: TransportLimits, **facts: ssl.SSLContext) -> Cluster:
    addresses = dict(enumerate(free_addresses(3), start=1))

    def make(server_id: ServerId) -> Transport:
        peers = {peer: address for peer, address in addresses.items() if peer != server_id}
        made_of = Facts(server_id, peers, addresses[server_id], limits=limits)
        return replace(made_of, **facts).transport()  # type: ignore[arg-type]  # contexts by name

    return Cluster(nursery, make)
