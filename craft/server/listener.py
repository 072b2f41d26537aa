"""The listener: clients and administration, one connection each and many requests in flight on it.

Reads, bounds and answers; what the operations are is `listener_requests`' affair.

Invariants
- Nothing that arrives can do more than end its own connection, and whoever sent it is told why.
- Everything is bounded: connections, handshakes, a request's bytes, requests in flight, and the time of each.
  A request counts as in flight until its reply is handed to the socket: who does not read its replies is not
  read from.
- One task writes to a stream. Replies go out in the order in which they are ready.
- A connection that ends takes its waiting requests along: what it proposed may still take effect, and nobody
  is left to be told.
- With `clients.tls` nothing is said to anybody before TLS stands and the client's certificate is good, but to
  one that speaks plain TCP that this is wrong.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from craft.config import ANY_CLUSTER, Address, Config
from craft.errors import ConfigError, HandshakeRefused, RemoteError
from craft.logs import RateLimited, event
from craft.server.listener_requests import FAILED, Request, answer, decode_request, reply
from craft.server.listener_sessions import ALL_OPERATIONS
from craft.transport.tcp.common import LOST, read_handshake, reason, tune
from craft.transport.tcp.tls import listening_context
from craft.wire import (
    MAGIC,
    PROTOCOL_VERSION,
    Decoder,
    Hello,
    Refusal,
    Welcome,
    decode_hello,
    encode_answer,
)

if TYPE_CHECKING:
    from craft.server.core import Server

RECEIVE_BYTES = 64 * 1024
"""One read of a client's socket."""

TLS_RECORD = b"\x16"
"""How TLS begins. A client's Hello begins with its length, which is too small for that."""

Stream: TypeAlias = "trio.SocketStream | trio.SSLStream[trio.SocketStream]"

log = logging.getLogger("craft.server.listener")


class Listener:
    """Listens where the configuration says; `run` lives in the server's nursery."""

    def __init__(self, server: Server[Any], config: Config) -> None:
        """Raises ConfigError where the files for TLS cannot be used."""
        self._server = server
        self._config = config
        self._tls = tls_for_clients(config)
        self._handshakes = 0
        self._connections = 0
        self._complaints = RateLimited(
            log, interval_ms=config.transport.complaint_interval_ms, monotonic_s=trio.current_time
        )
        metrics = server.measures.metrics
        self.requests = metrics.counter(
            "craft_client_requests_total", unit="requests", help="Requests read from clients' connections."
        )
        self.errors = metrics.counter(
            "craft_client_errors_total",
            unit="errors",
            help="Clients' connections ended for a fault of theirs.",
        )
        metrics.gauge(
            "craft_client_connections",
            unit="connections",
            help="Clients connected now.",
            read=lambda: self._connections,
        )

    async def run(self, *, task_status: trio.TaskStatus[list[Address]] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled; starts with what is bound. Raises ConfigError where nothing can be."""
        address = self._config.client_listen_address
        assert address is not None
        listeners = await self._open(address)
        bound = [Address(*listener.socket.getsockname()[:2]) for listener in listeners]
        self._server.client_addresses = bound
        for one in bound:
            event(log, logging.INFO, "listening for clients", address=one)
        task_status.started(bound)
        await trio.serve_listeners(self._serve, listeners)

    async def _open(self, address: Address) -> list[trio.SocketListener]:
        # `Config` refuses an open door; what a name really resolves to is only seen here.
        try:
            listeners = await trio.open_tcp_listeners(address.port, host=address.host)
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be one
            raise ConfigError(
                f"client_listen: '{address}' cannot be listened on ({error});"
                " allowed: a free port of this machine"
            ) from error
        for listener in listeners:
            host = str(listener.socket.getsockname()[0])
            if not (Address(host, 0).loopback or self._tls or self._config.insecure_listen):
                raise ConfigError(
                    f"client_listen: '{address}' is {host}, open beyond this machine; allowed: clients.tls,"
                    " a loopback address, or insecure_listen = true in a closed network"
                )
        return listeners

    # -- one connection ---------------------------------------------------------------------------

    async def _serve(self, socket: trio.SocketStream) -> None:
        """One connection, from its first byte to its last; whatever arrives, it raises nothing."""
        try:
            with contextlib.ExitStack() as counted:
                tune(socket, self._config.transport)
                stream = await self._greet(socket, counted)
                if stream is not None:
                    await _Connection(self._server, self, stream).run()
        except RemoteError as error:
            self.errors.value += 1
            self._complaints.event("fault", logging.WARNING, "client dropped", reason=str(error))
        except LOST as error:
            self._complaints.event("lost", logging.DEBUG, "client lost", reason=reason(error))

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self._connections += 1
        try:
            yield
        finally:
            self._connections -= 1

    async def _greet(self, socket: trio.SocketStream, counted: contextlib.ExitStack) -> Stream | None:
        """The handshake, within its time, and only so many at once; nothing where they are too many.

        Who is let in is `counted`.
        """
        limits = self._config.transport
        if self._handshakes >= limits.handshakes_max:
            self._complaints.event(
                "full", logging.WARNING, "too many handshakes", handshakes=self._handshakes
            )
            return None
        self._handshakes += 1
        try:
            with trio.fail_after(limits.handshake_timeout_ms / 1000):
                stream = await self._secure(socket)
                await self._answer(stream, counted)
                return stream
        except trio.TooSlowError:
            raise HandshakeRefused(f"no handshake within {limits.handshake_timeout_ms} ms") from None
        finally:
            self._handshakes -= 1

    async def _secure(self, socket: trio.SocketStream) -> Stream:
        """TLS, where it is spoken here. Who speaks the other of the two is told so, as far as that goes."""
        first = await socket.socket.recv(1, trio.socket.MSG_PEEK)
        if not first:
            raise trio.BrokenResourceError("the connection was closed before the handshake")
        if (first == TLS_RECORD) != (self._tls is not None):
            here, theirs = ("plain TCP", "TLS") if self._tls is None else ("TLS", "plain TCP")
            refused = f"this address speaks {here}, and was spoken to in {theirs}"
            with contextlib.suppress(*LOST):
                await socket.send_all(encode_answer(Refusal(refused)))
                await _let_it_read(socket)
            raise HandshakeRefused(refused)
        if self._tls is None:
            return socket
        stream = trio.SSLStream(socket, self._tls, server_side=True, https_compatible=True)
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError as error:
            if not isinstance(error.__cause__, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLEOFError):
                raise  # it went away
            with contextlib.suppress(*LOST):
                await _let_it_read(socket)
            raise HandshakeRefused(f"no TLS with it: {reason(error)}") from error
        return stream

    async def _answer(self, stream: Stream, counted: contextlib.ExitStack) -> None:
        """Read the Hello and answer it; raise what was wrong with it after having told the client."""
        try:
            hello = decode_hello(await read_handshake(stream))
            refused = self._refusal(hello)
            if refused is not None:
                raise HandshakeRefused(refused)
        except RemoteError as error:
            with contextlib.suppress(*LOST):
                await stream.send_all(encode_answer(Refusal(str(error))))
                await _let_it_read(stream)
            raise
        counted.enter_context(self._counted())  # before anything waits: others are greeted at the same time
        config = self._config
        welcome = Welcome(
            MAGIC,
            PROTOCOL_VERSION,
            config.cluster,
            config.server_id,
            self._server.disk_id,
            config.group_count,
            hello.nonce,
        )
        await stream.send_all(encode_answer(welcome))

    def _refusal(self, hello: Hello) -> str | None:
        """Why this one is not let in, naming what was said and what is allowed."""
        if hello.protocol_version != PROTOCOL_VERSION:
            return f"another protocol version: theirs is {hello.protocol_version}, ours is {PROTOCOL_VERSION}"
        if hello.role != "client":
            return "this address is for clients; servers have one of their own"
        if hello.cluster_id not in {ANY_CLUSTER, self._config.cluster}:
            return f"another cluster: theirs is {hello.cluster_id!r}, ours is {self._config.cluster!r}"
        if self._connections >= self._config.clients.connections_max:
            return f"{self._connections} clients are connected, which is connections_max"
        return None


class _Connection:
    """One client: reads its requests, lets each be answered in a task, and writes the replies."""

    def __init__(self, server: Server[Any], listener: Listener, stream: Stream) -> None:
        self._server = server
        self._listener = listener
        self._stream = stream
        self._limits = server.config.clients
        self._in_flight = 0
        self._room = trio.Event()
        self._replies: list[bytes] = []
        self._sending = False
        self._filled = trio.Event()

    async def run(self) -> None:
        """Serve it until it goes away. Raises RemoteError for a fault of its own, after having told it."""
        fault: RemoteError | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, nursery.cancel_scope)
                try:
                    await self._read(nursery)
                except RemoteError as error:
                    fault = error
                except LOST:
                    pass
                nursery.cancel_scope.cancel()
            if fault is not None:
                await self._tell(fault)
        finally:
            await trio.aclose_forcefully(self._stream)
        if fault is not None:
            raise fault

    async def _read(self, nursery: trio.Nursery) -> None:
        decoder = Decoder(self._limits.request_bytes_max)
        while data := await self._stream.receive_some(RECEIVE_BYTES):
            decoder.feed(data)
            for payload in decoder:
                request = decode_request(payload)
                self._listener.requests.value += 1
                while self._in_flight >= self._limits.requests_max:
                    self._room = trio.Event()
                    await self._room.wait()
                self._in_flight += 1
                nursery.start_soon(self._answer, request)

    async def _answer(self, request: Request) -> None:
        ready = await answer(self._server, request, ALL_OPERATIONS)
        # Only now: the writer may have taken the list that was there before the wait.
        self._replies.append(ready)
        self._filled.set()

    async def _write(self, scope: trio.CancelScope) -> None:
        """The only task that writes. A client that takes no replies for the time of a request is dropped."""
        with contextlib.suppress(*LOST):
            while True:
                await self._filled.wait()
                self._filled = trio.Event()
                replies, self._replies = self._replies, []
                self._sending = True
                with trio.fail_after(self._limits.request_timeout_ms / 1000):
                    await self._stream.send_all(b"".join(replies))
                self._sending = False
                self._in_flight -= len(replies)
                self._room.set()
        scope.cancel()

    async def _tell(self, fault: RemoteError) -> None:
        """Say what was wrong, where the stream still stands between two frames; then nothing more is said."""
        if self._sending:  # cut short in the middle of one
            return
        with trio.move_on_after(self._limits.request_timeout_ms / 1000), contextlib.suppress(*LOST):
            await self._stream.send_all(reply(None, FAILED, str(fault)))
            await _let_it_read(self._stream)


async def _let_it_read(stream: Stream) -> None:
    """End our direction and take what still arrives, for a moment: closing at once would discard it.

    Below TLS, which knows no end of one direction: what is taken here nobody looks at.
    """
    socket = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    await socket.send_eof()
    with trio.move_on_after(1):
        while await socket.receive_some(RECEIVE_BYTES):
            pass


def tls_for_clients(config: Config) -> ssl.SSLContext | None:
    """What the listener speaks, if it is TLS. Raises ConfigError where a file cannot be used.

    Servers' certificates are good here too: `craft status --config` has no other.
    """
    if not config.clients.tls:
        return None
    tls = config.tls
    assert tls is not None  # `Config` has checked that
    clients = [] if tls.client_ca_file is None else [tls.client_ca_file]
    return listening_context((tls.cert_file, tls.key_file), tls.ca_file, *clients)
