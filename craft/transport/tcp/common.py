"""What both directions share: who we are, bounded warnings, the socket's options, reading a handshake."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import trio

from craft.errors import RemoteError, WireError
from craft.limits import KIB, TransportLimits
from craft.logs import RateLimited
from craft.types import ServerId
from craft.wire import HANDSHAKE_BYTES_MAX, NONCE_BYTES, Decoder, Hello, Welcome, refusal

Address: TypeAlias = tuple[str, int]
KnownDisk: TypeAlias = Callable[[ServerId, str], str | None]

# What a connection may die of without being our fault. UnicodeError: a name that cannot be one.
LOST = (
    OSError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.TooSlowError,
    UnicodeError,
    RemoteError,
)

# In the kernel and not yet on the wire: a millisecond at 1 Gbit/s.
UNSENT_BYTES = 128 * KIB

# The kernel takes no longer one, in seconds, before it asks whether the other end is there.
KEEPIDLE_S_MAX = 32767

log = logging.getLogger("craft.transport.tcp")


@dataclass(frozen=True)
class Ours:
    """What every connection of this server needs to know."""

    hello: Hello
    addresses: dict[ServerId, Address]
    limits: TransportLimits
    known_disk: KnownDisk
    rng: random.Random
    complaints: RateLimited  # one warning a peer and interval, and one for all strangers
    known: set[ServerId] = field(default_factory=set)  # who belongs to the cluster, reached or not
    client_addresses: dict[ServerId, str] = field(default_factory=dict)  # ours, and those that peers told

    def check(self, theirs: Hello | Welcome) -> str | None:
        """Why the other end does not belong to us, or None."""
        return refusal(self.hello, theirs, peers=self.known, known_disk=self.known_disk)

    def fresh_hello(self) -> Hello:
        """Our Hello with a nonce of its own, which ties the Welcome to this connection."""
        client_address = self.client_addresses.get(self.hello.server_id, "")
        return self.hello._replace(nonce=self.rng.randbytes(NONCE_BYTES), client_address=client_address)

    def note_client_address(self, theirs: Hello) -> None:
        """What a peer's newest connection says is right, also that clients do not reach it any more."""
        if theirs.client_address:
            self.client_addresses[theirs.server_id] = theirs.client_address
        else:
            self.client_addresses.pop(theirs.server_id, None)

    def welcome(self, nonce: bytes) -> Welcome:
        """Our answer to the Hello with this nonce."""
        ours = self.hello
        return Welcome(
            ours.magic,
            ours.protocol_version,
            ours.cluster_id,
            ours.server_id,
            ours.disk_id,
            ours.groups,
            nonce,
        )


def tune(stream: trio.SocketStream, limits: TransportLimits) -> None:
    """Let the kernel notice a silent end.

    Trio has set TCP_NODELAY, and TCP_NOTSENT_LOWAT to 16 KiB. A low one keeps bulk data out of the kernel's
    queue, where no urgent frame can overtake it; this one costs an eighth of the wake-ups.
    """
    tcp = trio.socket.IPPROTO_TCP
    seconds = min(max(1, limits.silence_timeout_ms // 1000), KEEPIDLE_S_MAX)
    stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", seconds),
        ("TCP_KEEPINTVL", 1),
        ("TCP_KEEPCNT", 2),
        ("TCP_NOTSENT_LOWAT", UNSENT_BYTES),
        ("TCP_USER_TIMEOUT", limits.silence_timeout_ms),
    ):
        if hasattr(trio.socket, name):  # not every system has all of them
            stream.setsockopt(tcp, getattr(trio.socket, name), value)


async def read_handshake(stream: trio.abc.Stream) -> memoryview:
    """The one frame that the other end may send before it is answered."""
    decoder = Decoder(HANDSHAKE_BYTES_MAX)
    while (payload := decoder.next_payload()) is None:
        data = await stream.receive_some(HANDSHAKE_BYTES_MAX)
        if not data:
            raise trio.BrokenResourceError("the connection was closed during the handshake")
        decoder.feed(data)
    if decoder.pending:
        raise WireError(
            f"{decoder.pending} bytes follow the handshake before it is answered; allowed are none"
        )
    return payload


def reason(error: BaseException) -> str:
    """Trio wraps what the socket or TLS said; that is what helps."""
    if isinstance(error, trio.TooSlowError):
        return "no answer in time"
    inner: BaseException = error
    if isinstance(error, OSError | trio.BrokenResourceError) and error.__cause__ is not None:
        inner = error.__cause__
    if isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    return str(inner) or type(inner).__name__
