"""The HTTP port: connections are counted, watched and handed to Hypercorn, which speaks HTTP/1.1 and HTTP/2.

`hypercorn.trio.serve` would listen by itself, but it bounds neither connections nor the time in which a
client takes its answer, and it sends under a shield: one client that reads nothing would keep the server from
ending. So the streams are ours, and what it makes of each (`TCPServer`) is used as `serve` uses it.

Knows: sockets, TLS, Hypercorn. Must not know: paths.

Invariants:
- A client that takes nothing, says nothing, or comes when there are too many is disconnected, and nothing
  else is disturbed. What a library makes of its bytes ends its connection only.
- When the door is cancelled, every socket is closed at once: nothing that is shielded holds it open.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import sys
from collections.abc import Callable

import trio
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app

from examples.kv.http.app import application
from examples.kv.http.house import House
from examples.kv.http.limits import PIECE_BYTES, HttpLimits

LOG = logging.getLogger("kv.http")

HANDSHAKE_S = 10

LINGER_S = 5
"""So long after its last byte a client may still take its answer."""

TURNED_AWAY = (
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\n"
    b"content-type: text/plain\r\ncontent-length: 22\r\n\r\ntoo many connections\r\n"
)


class Line(trio.abc.HalfCloseableStream):
    """A client's connection, as long as it takes what it is sent."""

    def __init__(
        self, stream: trio.SocketStream, *, send_timeout_s: float, closed: Callable[[Line], None]
    ) -> None:
        self._stream = stream
        self._send_timeout_s = send_timeout_s
        self._closed = closed
        self.socket = stream.socket
        self.ended = trio.Event()
        """The client sends no more."""
        self.gone = trio.Event()
        """Closed."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """In pieces, each in its time. Raises trio.BrokenResourceError for a client that takes too long."""
        with memoryview(data) as view:
            for at in range(0, max(len(view), 1), PIECE_BYTES):
                with trio.move_on_after(self._send_timeout_s) as scope:
                    await self._stream.send_all(view[at : at + PIECE_BYTES])
                if scope.cancelled_caught:
                    self.close()
                    raise trio.BrokenResourceError("the client takes nothing")

    async def wait_send_all_might_not_block(self) -> None:
        """As a socket."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """As a socket."""
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError:
            self.ended.set()
            raise
        if not data:
            self.ended.set()
        return data

    async def send_eof(self) -> None:
        """As a socket."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """At once."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """At once; whoever waits for it is told."""
        self.socket.close()
        self.gone.set()
        self._closed(self)


class Entrance(trio.abc.Listener[Line]):
    """Lets in as many as there may be."""

    def __init__(self, listener: trio.SocketListener, house: House) -> None:
        self._listener = listener
        self._house = house
        self.lines: set[Line] = set()

    async def accept(self) -> Line:
        """The next connection; those that are too many are turned away."""
        house = self._house
        while True:
            stream = await self._listener.accept()
            if house.connections < house.limits.connections_max:
                line = Line(stream, send_timeout_s=house.limits.send_timeout_s, closed=self._closed)
                self.lines.add(line)
                house.connections += 1
                return line
            house.turned_away += 1
            with contextlib.suppress(OSError), socket.socket(fileno=stream.socket.detach()) as refused:
                refused.send(TURNED_AWAY)

    async def aclose(self) -> None:
        """No more come."""
        await self._listener.aclose()

    def close_all(self) -> None:
        """End every connection."""
        for line in list(self.lines):
            line.close()

    def _closed(self, line: Line) -> None:
        if line in self.lines:
            self.lines.remove(line)
            self._house.connections -= 1


def configuration(limits: HttpLimits) -> Config:
    """Hypercorn's."""
    config = Config()
    config.errorlog = LOG
    config.accesslog = None
    config.include_server_header = False
    config.h11_max_incomplete_size = limits.header_bytes_max
    config.h2_max_header_list_size = limits.header_bytes_max
    config.h2_max_concurrent_streams = limits.streams_max
    config.keep_alive_timeout = float(limits.idle_timeout_s)
    config.ssl_handshake_timeout = float(HANDSHAKE_S)
    config.keep_alive_max_requests = sys.maxsize
    return config


class Door:
    """Listens, and has Hypercorn serve who comes."""

    def __init__(self, house: House, *, tls: ssl.SSLContext | None = None) -> None:
        self._house = house
        self._tls = tls
        # Starlette and Hypercorn each have their own types of ASGI.
        self._app = wrap_app(application(house), 0, "asgi")  # type: ignore[arg-type]
        self._config = configuration(house.limits)
        self._context = WorkerContext(None)
        self._accepting = trio.CancelScope()
        self._entrances: list[Entrance] = []
        if tls is not None:
            tls.set_alpn_protocols(self._config.alpn_protocols)

    async def run(
        self, host: str, port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Until cancelled; started with the port. Raises OSError for an address that is taken."""
        found = await trio.open_tcp_listeners(port, host=host)
        self._house.port = found[0].socket.getsockname()[1]
        self._entrances = entrances = [Entrance(listener, self._house) for listener in found]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(close_when_cancelled, entrances)
            task_status.started(self._house.port)
            with self._accepting:
                if self._tls is None:
                    await trio.serve_listeners(self._serve, entrances, handler_nursery=nursery)
                else:
                    secured = [
                        trio.SSLListener(entrance, self._tls, https_compatible=True) for entrance in entrances
                    ]
                    await trio.serve_listeners(self._serve, secured, handler_nursery=nursery)

    async def drain(self) -> None:
        """Take nothing more, answer what was asked, and end each connection when it has its answers."""
        self._accepting.cancel()
        self._house.stopping.set()
        await self._context.terminated.set()  # Hypercorn ends what is idle, and the others when they are
        for entrance in self._entrances:
            for line in list(entrance.lines):
                await line.gone.wait()

    async def _serve(self, stream: Line | trio.SSLStream[Line]) -> None:
        line = stream if isinstance(stream, Line) else stream.transport_stream
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(end_after, line, nursery.cancel_scope)
                await self._speak(stream)
                nursery.cancel_scope.cancel()
        except Exception:  # whatever a client's bytes bring about ends its own connection
            LOG.warning("a connection ended", exc_info=True)
        finally:
            line.close()

    async def _speak(self, stream: Line | trio.SSLStream[Line]) -> None:
        state = ConnectionState({})
        await TCPServer(self._app, self._config, self._context, state, stream).run()  # type: ignore[arg-type]


async def end_after(line: Line, scope: trio.CancelScope) -> None:
    """Some ways to leave make Hypercorn wait for ever: whoever sends no more is soon gone."""
    await line.ended.wait()
    await trio.sleep(LINGER_S)
    line.close()
    scope.cancel()


async def close_when_cancelled(entrances: list[Entrance]) -> None:
    """Close every connection as soon as the door is cancelled, before those that serve them have ended."""
    try:
        await trio.sleep_forever()
    finally:
        for entrance in entrances:
            entrance.close_all()
