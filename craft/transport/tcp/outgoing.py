"""Our connection to one peer: makes it, keeps it, and writes to it (PROTOCOL 9, 11)."""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
from collections import deque

import trio

from craft.errors import HandshakeRefused, RemoteError
from craft.messages import Frame
from craft.transport import Inbox
from craft.transport.tcp.common import LOST, UNSENT_BYTES, Ours, read_handshake, reason, tune
from craft.types import ServerId
from craft.wire import Refusal, decode_answer, encode_frames, encode_hello, is_urgent

# A peer that stops may close its connections an instant before its listener: ask again before believing.
_RECONNECTS_AT_ONCE = 3
# Short-lived connections in a row until the immediate reconnect is left out, so that two rivals cannot spin.
_FLAPS_MAX = 3


def _refused(error: BaseException) -> bool:
    """Is this "nobody listens there", at every address that the name has?"""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        return all(isinstance(one, ConnectionRefusedError) for one in cause.exceptions)
    return isinstance(error, ConnectionRefusedError)


class _SendQueue:
    """Encoded frames for one peer. `bytes` counts until they are handed to the socket for good."""

    def __init__(self) -> None:
        self._urgent: deque[bytes] = deque()
        self._bulk: deque[bytes] = deque()
        self._filled = trio.Event()
        self._rest = b""  # of a frame whose beginning is in the kernel: nothing may come before it
        self.bytes = 0

    def put_rest(self, rest: bytes) -> None:
        """What the kernel did not take of a frame that was written at once."""
        assert not self.bytes
        self._rest, self.bytes = rest, len(rest)
        self._filled.set()

    def put(self, encoded: bytes, *, urgent: bool) -> None:
        (self._urgent if urgent else self._bulk).append(encoded)
        self.bytes += len(encoded)
        self._filled.set()

    async def burst(self, bytes_max: int) -> bytes:
        """What goes out next: all that is urgent, then bulk up to the bound; at least one frame."""
        while not self.bytes:
            self._filled = trio.Event()
            await self._filled.wait()
        parts = [self._rest, *self._urgent] if self._rest else list(self._urgent)
        self._rest = b""
        self._urgent.clear()
        size = sum(map(len, parts))
        while self._bulk and (not parts or size + len(self._bulk[0]) <= bytes_max):
            size += len(self._bulk[0])
            parts.append(self._bulk.popleft())
        return parts[0] if len(parts) == 1 else b"".join(parts)


class Connection:
    """Our connection to one peer: makes it, keeps it, and owns the only task that writes to it."""

    def __init__(self, ours: Ours, peer: ServerId, tls: ssl.SSLContext | None) -> None:
        self._ours = ours
        self._peer = peer
        self._tls = tls
        self._queue: _SendQueue | None = None  # while there is a link
        self._descriptor: int | None = None  # of its socket, where frames go onto it as they are (no TLS)
        self._scope = trio.CancelScope()
        self._life = trio.CancelScope()
        self._flaps = 0
        self._hurry = trio.Event()

    def hurry(self) -> None:
        """The peer has just connected to us, so it is there: wait no longer to connect to it."""
        self._hurry.set()

    def send(self, frame: Frame) -> None:
        """Encode and queue. Beyond the bound the link is dropped, with all that is queued."""
        queue, limits = self._queue, self._ours.limits
        if queue is None:
            return
        for encoded in encode_frames(frame, limits.frame_bytes_max):
            small = len(encoded) <= UNSENT_BYTES  # a great one could not be overtaken any more
            if small and not queue.bytes and self._descriptor is not None:
                self._write_at_once(encoded, queue, self._descriptor)
            elif queue.bytes + len(encoded) > limits.send_queue_bytes_max:
                self._drop(queue.bytes)
                return
            else:
                queue.put(encoded, urgent=is_urgent(frame))

    def _write_at_once(self, encoded: bytes, queue: _SendQueue, descriptor: int) -> None:
        """Nothing is queued: hand it to the kernel here and now, and spare the writer's task a wake-up.

        Nothing else writes meanwhile: `queue.bytes` counts until the writer's `send_all` has returned.
        """
        try:
            sent = os.write(descriptor, encoded)
        except OSError:  # full, or broken, which the writer will find out
            sent = 0
        if sent < len(encoded):
            queue.put_rest(encoded[sent:])

    def _drop(self, queued: int) -> None:
        self._queue = self._descriptor = None
        self._scope.cancel()
        allowed = self._ours.limits.send_queue_bytes_max
        self._complain(
            "link dropped", f"the peer does not keep up: {queued} bytes queued, allowed are {allowed}"
        )

    def _complain(self, what: str, why: str) -> None:
        host, port = self._ours.addresses.get(self._peer, ("?", 0))
        address = f"{host}:{port}"
        self._ours.complaints.event(
            (self._peer, what, why), logging.WARNING, what, peer=self._peer, address=address, reason=why
        )

    def close(self) -> None:
        """The peer is no member any more."""
        self._life.cancel()

    async def run(self, inbox: Inbox) -> None:
        """Until it is closed: connect, tell the inbox, send until the link breaks, reconnect."""
        with self._life:
            await self._keep(inbox)

    async def _keep(self, inbox: Inbox) -> None:
        stream = await self._connect_patiently()
        while True:
            inbox.link_up(self._peer)
            connected_at = trio.current_time()
            await self._use(stream)
            lived_ms = (trio.current_time() - connected_at) * 1000
            stable = lived_ms >= self._ours.limits.reconnect_delay_ms_max
            self._flaps = 0 if stable else self._flaps + 1
            again, refused = await self._reconnect_at_once()
            inbox.link_down(self._peer, refused=refused)
            stream = again or await self._connect_patiently()

    async def _use(self, stream: trio.abc.Stream) -> None:
        """Send until the connection breaks, either end closes it, or the queue overflows."""
        queue = self._queue = _SendQueue()
        self._descriptor = stream.socket.fileno() if isinstance(stream, trio.SocketStream) else None
        try:
            with trio.CancelScope() as self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch, stream, nursery.cancel_scope)
                    await self._write(stream, queue)
                    nursery.cancel_scope.cancel()
        finally:
            self._queue = self._descriptor = None
            await trio.aclose_forcefully(stream)

    async def _write(self, stream: trio.abc.Stream, queue: _SendQueue) -> None:
        with contextlib.suppress(*LOST):
            while True:
                burst = await queue.burst(self._ours.limits.burst_bytes_max)
                await stream.send_all(burst)
                queue.bytes -= len(burst)

    async def _watch(self, stream: trio.abc.Stream, scope: trio.CancelScope) -> None:
        """The peer sends nothing here, so what wakes us is the end; hearing of it keeps elections short."""
        with contextlib.suppress(*LOST):
            if await stream.receive_some(1):
                self._complain("link dropped", "the peer sent bytes where only we may")
        scope.cancel()

    # -- connecting --

    async def _reconnect_at_once(self) -> tuple[trio.abc.Stream | None, bool]:
        """A new stream, if there is one now; and whether we hear that nobody listens there (PROTOCOL 9)."""
        if self._flaps > _FLAPS_MAX:
            return None, False
        for _ in range(_RECONNECTS_AT_ONCE):
            try:
                return await self._connect(), False
            except LOST as error:
                if _refused(error):
                    return None, True
                if isinstance(error, trio.TooSlowError | RemoteError):
                    break
        return None, False

    async def _connect_patiently(self) -> trio.abc.Stream:
        """Try until it works, each time after a longer and jittered wait."""
        attempt = self._flaps
        while True:
            if attempt:
                with trio.move_on_after(self._delay_s(attempt)):
                    await self._hurry.wait()
            self._hurry = trio.Event()
            try:
                return await self._connect()
            except LOST as error:
                self._complain("no connection", reason(error))
            attempt += 1

    def _delay_s(self, attempt: int) -> float:
        limits = self._ours.limits
        doubled_ms = limits.reconnect_delay_ms_min * 2 ** min(attempt - 1, 20)
        delay_ms: float = min(limits.reconnect_delay_ms_max, doubled_ms) * self._ours.rng.uniform(0.5, 1.0)
        return delay_ms / 1000

    async def _connect(self) -> trio.abc.Stream:
        """One attempt. The name is resolved anew each time, for an address may have changed."""
        await trio.lowlevel.checkpoint_if_cancelled()  # closed just now, it has no address any more
        host, port = self._ours.addresses[self._peer]
        limits = self._ours.limits
        with trio.fail_after(limits.connect_timeout_ms / 1000):
            stream: trio.SocketStream | trio.SSLStream[trio.SocketStream] = await trio.open_tcp_stream(
                host, port
            )
        try:
            assert isinstance(stream, trio.SocketStream)
            tune(stream, limits)
            if self._tls is not None:
                stream = trio.SSLStream(stream, self._tls, server_hostname=host, https_compatible=True)
            with trio.fail_after(limits.handshake_timeout_ms / 1000):
                await self._introduce(stream)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream

    async def _introduce(self, stream: trio.abc.Stream) -> None:
        hello = self._ours.fresh_hello()
        await stream.send_all(encode_hello(hello))
        answer = decode_answer(await read_handshake(stream))
        if isinstance(answer, Refusal):
            raise HandshakeRefused(f"it refused us: {answer.reason}")
        if answer.nonce != hello.nonce:
            raise HandshakeRefused("its Welcome answers another Hello")
        if answer.server_id != self._peer:
            raise HandshakeRefused(f"another server lives there: server {answer.server_id}")
        refused = self._ours.check(answer)
        if refused is not None:
            raise HandshakeRefused(refused)
