"""The connections that peers made to us: who they are, then their frames until they end (PROTOCOL 11)."""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
from collections.abc import Callable, Iterator

import trio

from craft.errors import HandshakeRefused, RemoteError
from craft.transport import Inbox
from craft.transport.tcp.common import LOST, Ours, read_handshake, reason, tune
from craft.types import ServerId
from craft.wire import (
    PREFIX_BYTES,
    Decoder,
    Refusal,
    decode_frame,
    decode_hello,
    encode_answer,
)


class Acceptor:
    """The connections that peers made to us: who they are, then frames until they end."""

    def __init__(self, ours: Ours, tls: ssl.SSLContext | None, connected: Callable[[ServerId], None]) -> None:
        """`connected` is told of every peer that has connected to us."""
        self._ours = ours
        self._connected = connected
        self.tls = tls
        self._handshakes = 0
        self._receiving: dict[ServerId, trio.CancelScope] = {}

    async def serve(self, inbox: Inbox, socket: trio.SocketStream) -> None:
        """One incoming connection, from its first byte to its last; whatever arrives, it raises nothing."""
        peer: ServerId | None = None  # until we know better
        try:
            stream, peer = await self._greet(socket)
            if peer not in self._ours.known:  # whoever removed it meanwhile saw no connection to end
                raise HandshakeRefused("it is no member any more")
            self._connected(peer)
            await self._receive(stream, peer, inbox)
        except LOST as error:
            self._complain(peer, reason(error))

    def _complain(self, peer: ServerId | None, why: str) -> None:
        """Strangers share one kind of complaint, however many they are."""
        who = "a stranger" if peer is None else peer
        self._ours.complaints.event(
            ("incoming", peer), logging.WARNING, "incoming connection dropped", peer=who, reason=why
        )

    async def _greet(self, socket: trio.SocketStream) -> tuple[trio.abc.Stream, ServerId]:
        """The handshake, within its time, and only so many at once."""
        limits = self._ours.limits
        if self._handshakes >= limits.handshakes_max:
            raise HandshakeRefused(f"{self._handshakes} handshakes are under way, which is the limit")
        self._handshakes += 1
        try:
            with trio.fail_after(limits.handshake_timeout_ms / 1000):
                tune(socket, limits)
                stream: trio.abc.Stream = socket
                if self.tls is not None:
                    stream = trio.SSLStream(socket, self.tls, server_side=True, https_compatible=True)
                return stream, await self._answer(stream)
        except trio.TooSlowError:
            raise HandshakeRefused(f"no handshake within {limits.handshake_timeout_ms} ms") from None
        finally:
            self._handshakes -= 1

    async def _answer(self, stream: trio.abc.Stream) -> ServerId:
        """Read the Hello and answer it; raise what was wrong with it after having told the other side."""
        try:
            hello = decode_hello(await read_handshake(stream))
            if hello.role != "peer":  # first, for whatever else it says, it came to the wrong address
                raise HandshakeRefused("this address is for servers; clients have one of their own")
            refused = self._ours.check(hello)
            if refused is not None:
                raise HandshakeRefused(refused)
        except RemoteError as error:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await stream.send_all(encode_answer(Refusal(str(error))))
            raise
        self._ours.note_client_address(hello)
        await stream.send_all(encode_answer(self._ours.welcome(hello.nonce)))
        return hello.server_id

    @contextlib.contextmanager
    def _only_one(self, peer: ServerId) -> Iterator[None]:
        """A peer that connects again has lost its old connection, even if ours looks alive."""
        with trio.CancelScope() as scope:
            before = self._receiving.get(peer)
            self._receiving[peer] = scope
            if before is not None:
                before.cancel()
            try:
                yield
            finally:
                if self._receiving.get(peer) is scope:  # gone where our successor has ended before us
                    del self._receiving[peer]

    def disconnect(self, peer: ServerId, why: str) -> None:
        """The engine refused what this peer sent: its connection ends. It may come again."""
        scope = self._receiving.get(peer)
        if scope is not None:
            self._complain(peer, why)
            scope.cancel()

    async def _receive(self, stream: trio.abc.Stream, peer: ServerId, inbox: Inbox) -> None:
        """The hot loop: one read, then every complete frame of it, and no task or channel in between."""
        limits, groups = self._ours.limits, self._ours.hello.groups
        decoder = Decoder(limits.frame_bytes_max)
        with self._only_one(peer):
            while True:
                await inbox.room()
                data = await _receive_some(stream, limits.receive_bytes)
                if not data:
                    return
                decoder.feed(data)
                while (payload := decoder.next_payload()) is not None:
                    inbox.deliver(peer, decode_frame(payload, groups=groups), PREFIX_BYTES + len(payload))


async def _receive_some(stream: trio.abc.Stream, bytes_max: int) -> bytes | bytearray:
    """What has arrived, at least a byte; nothing at the end of the stream.

    A plain socket is waited for and then read. Trio's own way tries first, in vain for a peer that
    speaks when it has something to say, and costs a system call more a frame.
    """
    if not isinstance(stream, trio.SocketStream):
        return await stream.receive_some(bytes_max)
    descriptor = stream.socket.fileno()
    while True:
        await trio.lowlevel.wait_readable(descriptor)
        try:
            return os.read(descriptor, bytes_max)
        except BlockingIOError:  # a false alarm
            continue
