"""One connection without a task of its own: bytes in, bytes out, nothing that waits.

Knows: a socket that does not block, TLS over it. Must not know: commands, who waits for what.

Invariants:
- What is put goes out in the order in which it was put; what the socket does not take waits in `unsent`.
- A line that is closed does nothing any more, whoever still holds it.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Callable

import trio

from examples.kv.resp.client import Client
from examples.kv.resp.gate import Gate, Request

RECEIVE_BYTES = 64 * 1024


class Gone(Exception):
    """The other side has ended the connection, or broken it."""


class Secure:
    """TLS: bytes from the wire become bytes of the client, and the other way round."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.shaken = False
        """Have the two come to terms?"""

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        """What has come of the client's, and what TLS itself has to say. Raises Gone."""
        self._incoming.write(data)
        found = bytearray()
        try:
            if not self.shaken:
                self._tls.do_handshake()
                self.shaken = True
            while part := self._tls.read(RECEIVE_BYTES):
                found += part
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLError, OSError) as error:
            raise Gone from error
        return bytes(found), self._outgoing.read()

    def encode(self, data: bytes) -> bytes:
        """What stands for it on the wire. Raises Gone."""
        try:
            self._tls.write(data)
        except (ssl.SSLError, OSError) as error:
            raise Gone from error
        return self._outgoing.read()


class Line:
    """One connection."""

    def __init__(self, sock: socket.socket, client: Client, gate: Gate, tls: ssl.SSLContext | None) -> None:
        self.socket = sock
        self.fd = sock.fileno()
        self.client = client
        self.gate = gate
        self.unsent = bytearray()
        self.open = True
        self.busy = False
        """Is what it has asked being answered?"""
        self.sending = False
        """Does somebody wait until it takes what is unsent?"""
        self.drained = trio.Event()
        """Set, and another put in its place, when that is over."""
        self.on_unsent: Callable[[Line], None] = lambda _: None
        """Called when the socket does not take what is put."""
        self.on_close: Callable[[Line], None] = lambda _: None
        self._secure = None if tls is None else Secure(tls)

    @property
    def shaken(self) -> bool:
        """Has the client come to terms about TLS, if it has to?"""
        return self._secure is None or self._secure.shaken

    @property
    def hung_up(self) -> bool:
        """Has the client ended its side, whether or not that has been read?"""
        poll = select.poll()
        poll.register(self.fd, select.POLLRDHUP)
        return bool(poll.poll(0))

    def receive(self) -> list[Request]:
        """The requests that have come whole. Raises Gone, ProtocolFault."""
        try:
            data = self.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return []
        except OSError as error:
            raise Gone from error
        if not data:
            raise Gone
        self.client.house.bytes_in += len(data)
        if self._secure is not None:
            data, said = self._secure.decode(data)
            if said:
                self._put(said)
            if not data:
                return []
        self.gate.known = self.client.user is not None
        return self.gate.feed(data)

    def put(self, data: bytes) -> None:
        """Send it, now or as soon as the socket takes it."""
        if self.open:
            self.client.house.bytes_out += len(data)
            try:
                self._put(data if self._secure is None else self._secure.encode(data))
            except Gone:
                self.close()

    def _put(self, data: bytes) -> None:
        if self.unsent:
            self.unsent += data
            return
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise Gone from error
        if sent < len(data):
            self.unsent += data[sent:]
            self.on_unsent(self)

    def send_more(self) -> None:
        """The socket takes something again."""
        try:
            sent = self.socket.send(self.unsent)
        except BlockingIOError:
            return
        except OSError:
            self.close()
        else:
            del self.unsent[:sent]

    def close(self) -> None:
        """End it at once; what is unsent is lost."""
        if self.open:
            self.open = False
            self.on_close(self)
            self.client.unsubscribe_all()
            self.unsent.clear()
            trio.lowlevel.notify_closing(self.fd)  # nobody may wait for the next of its number
            with contextlib.suppress(OSError):
                self.socket.close()
