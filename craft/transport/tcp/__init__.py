"""Frames over TCP, with TLS or on loopback: one connection a direction and pair of servers (PROTOCOL 11).

Each server connects to each of its peers and sends on that connection; it receives on those that its peers
made. So a connection carries frames one way, and the other way the answer to the handshake, then its end.

Invariants
- One task writes to a stream. When it is cancelled, the stream is closed: never half a frame and then more.
- `send` only queues. What is queued for a peer goes out with one wake-up, in bursts; urgent frames first.
- Nothing that arrives can do more than end its own connection. Warnings about it are bounded in number.
- The engine hears `link_up` and `link_down` in turn, for the connection that this server made.
"""

from __future__ import annotations

import errno
import ipaddress
import random
import ssl
from collections.abc import Mapping
from functools import partial

import trio

from craft.errors import ConfigError
from craft.limits import TransportLimits
from craft.logs import RateLimited
from craft.messages import Frame
from craft.transport import Inbox
from craft.transport.tcp.common import Address, KnownDisk, Ours, log
from craft.transport.tcp.incoming import Acceptor
from craft.transport.tcp.outgoing import Connection
from craft.transport.tcp.tls import tls_contexts
from craft.types import ServerId
from craft.wire import MAGIC, NONCE_BYTES, PROTOCOL_VERSION, Hello

__all__ = ["Address", "KnownDisk", "TcpTransport", "tls_contexts"]


class TcpTransport:
    """One server's TCP connections. See the port for what it owes."""

    def __init__(
        self,
        *,
        server_id: ServerId,
        cluster_id: str,
        disk_id: str,
        groups: int,
        listen: Address,
        peers: Mapping[ServerId, Address],
        limits: TransportLimits,
        known_disk: KnownDisk,
        rng: random.Random,
        server_tls: ssl.SSLContext | None = None,
        client_tls: ssl.SSLContext | None = None,
        insecure_ok: bool = False,
    ) -> None:
        """`known_disk(server_id, disk_id)` says why that disk is not the one known under that id, or None."""
        if (server_tls is None) != (client_tls is None):
            raise ConfigError("TLS is given for one direction only; allowed is both or neither")
        hello = Hello(
            MAGIC, PROTOCOL_VERSION, "peer", cluster_id, server_id, disk_id, groups, bytes(NONCE_BYTES)
        )
        addresses = {peer: address for peer, address in sorted(peers.items()) if peer != server_id}
        complaints = RateLimited(log, interval_ms=limits.complaint_interval_ms, monotonic_s=trio.current_time)
        self._ours = Ours(hello, addresses, limits, known_disk, rng, complaints, set(addresses))
        self._listen = listen
        self._insecure_ok = insecure_ok
        self._acceptor = Acceptor(self._ours, server_tls, self._peer_connected)
        self._client_tls = client_tls
        self._connections = {peer: Connection(self._ours, peer, client_tls) for peer in addresses}
        self._running: tuple[trio.Nursery, Inbox] | None = None
        self.bound: Address | None = None
        """The address listened on, once `run` has started (port 0 has become a port)."""

    async def run(
        self, inbox: Inbox, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Listen, connect and deliver until cancelled; has started when it listens.

        Raises ConfigError where the address cannot be listened on, before anything else.
        """
        listeners = await self._open_listeners()
        self.bound = listeners[0].socket.getsockname()[:2]
        task_status.started()
        async with trio.open_nursery() as nursery:
            self._running = nursery, inbox
            for connection in self._connections.values():
                nursery.start_soon(connection.run, inbox)
            serve = partial(self._acceptor.serve, inbox)
            await trio.serve_listeners(serve, listeners, handler_nursery=nursery)

    def _peer_connected(self, peer: ServerId) -> None:
        connection = self._connections.get(peer)
        if connection is not None:
            connection.hurry()

    def send(self, peer: ServerId, frame: Frame) -> None:
        """Queue a frame for a peer; dropped where there is no link."""
        connection = self._connections.get(peer)
        if connection is not None:
            connection.send(frame)

    def disconnect(self, peer: ServerId, reason: str) -> None:
        """Drop the connection by which `peer` sends to us."""
        self._acceptor.disconnect(peer, reason)

    @property
    def tells_disks(self) -> bool:
        """Handshakes carry disk ids."""
        return True

    def set_peers(self, peers: Mapping[ServerId, Address | None]) -> None:
        """Connect to these from now on, and be connected to by them, and by nobody else."""
        ours = self._ours
        for gone in [peer for peer in ours.known if peer not in peers]:
            ours.known.discard(gone)
            ours.addresses.pop(gone, None)
            ours.client_addresses.pop(gone, None)
            self._acceptor.disconnect(gone, "it is no member any more")
            if (connection := self._connections.pop(gone, None)) is not None:
                connection.close()
        for peer, address in peers.items():
            ours.known.add(peer)
            if address is not None:
                ours.addresses[peer] = address
            if peer in ours.addresses and peer not in self._connections:
                self._connections[peer] = Connection(ours, peer, self._client_tls)
                if self._running is not None:
                    nursery, inbox = self._running
                    nursery.start_soon(self._connections[peer].run, inbox)

    def set_address(self, peer: ServerId, address: Address) -> None:
        """Ids are not addresses: the next connection to `peer` goes there."""
        if peer not in self._ours.addresses:
            raise ValueError(f"peer is {peer}; allowed are {sorted(self._ours.addresses)}")
        self._ours.addresses[peer] = address

    def advertise(self, client_address: str) -> None:
        """Tell the peers where clients reach this server, on connections made from now on."""
        self._ours.client_addresses[self._ours.hello.server_id] = client_address

    def client_addresses(self) -> dict[ServerId, str]:
        """Where clients reach this server and those peers that have said so, by id in rising order."""
        return dict(sorted(self._ours.client_addresses.items()))

    async def _open_listeners(self) -> list[trio.SocketListener]:
        host, port = self._listen[0] or None, self._listen[1]
        try:
            if self._acceptor.tls is None and not self._insecure_ok:
                await _check_loopback(host, port)
            return await trio.open_tcp_listeners(port, host=host)
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be one
            raise ConfigError(_why_not_listening(host, port, error)) from error


async def _check_loopback(host: str | None, port: int) -> None:
    """PROTOCOL 11: without TLS nothing beyond this machine may connect, unless told so."""
    found = await trio.socket.getaddrinfo(
        host, port, type=trio.socket.SOCK_STREAM, flags=trio.socket.AI_PASSIVE
    )
    for _, _, _, _, address in found:
        if not ipaddress.ip_address(address[0]).is_loopback:
            raise ConfigError(
                f"listen address is {host!r} port {port} ({address[0]}) without TLS; allowed is loopback"
                " (127.0.0.1, ::1, localhost), or TLS, or insecure_ok where the network itself is trusted"
            )


def _why_not_listening(host: str | None, port: int, error: OSError | UnicodeError) -> str:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return (
            f"listen address is {host!r} port {port}, which is in use; allowed is a free port of this machine"
        )
    return f"listen address is {host!r} port {port} ({error}); allowed is an address of this machine"
