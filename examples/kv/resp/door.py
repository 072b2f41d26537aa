"""The Redis port: many connections, few tasks. What came in one look at them travels together.

A task a connection would cost more than its command does: here one task reads whatever connections have
something to say, and their writes become one call of the log, their reads one read.

Knows: sockets, and what may travel together. Must not know: what any command does.

Invariants:
- A connection that is being answered is not read: its replies leave in order, and who sends faster than it
  is answered is held up by its own socket.
- Who stops answers what it has read, and reads no more.
- What a client may use has a limit: its request (the gate), its output and its time to take it, the number of
  its neighbours. Over it, it is disconnected and nothing else is disturbed.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Callable
from typing import Any, NamedTuple

import trio

from examples.kv.commands import TABLE, Args
from examples.kv.replies import Reply, encode_all, error, size
from examples.kv.resp.client import Client, House
from examples.kv.resp.conversation import replies
from examples.kv.resp.gate import Gate, GateLimits, ProtocolFault, Unauthenticated
from examples.kv.resp.lines import Gone, Line
from examples.kv.store import Mode

HANDSHAKE_S = 10
"""A client that does not come to terms about TLS in this time is disconnected."""

LOOK_INTERVAL_S = 1
"""Between two looks for clients that are idle for too long."""

UNSENT_BYTES = 256 * 1024
"""So much waits for a client to take it before its next replies are made."""

REPLIES_AT_ONCE = 16
"""More need a task of their own, in which it is looked how much is unsent."""

REPLY_BYTES = 16
"""What a reply takes on the wire beside what it says, or nearly so."""

TOGETHER_MAX = 1024
"""Commands that travel together: the state machine executes them at one go."""

HEADERS = 4
"""A request of many small arguments takes so many times more bytes here than in the log."""

TOO_MANY = b"-ERR max number of clients reached\r\n"
READ = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT

WRITES: dict[bytes, bool] = {
    spelling: command.writes for name, command in TABLE.items() for spelling in (name, name.lower())
}
"""The commands of the engine as clients mostly spell them: do they write?"""


class Asked(NamedTuple):
    """What a connection wants to know."""

    line: Line
    requests: list[Args]


class Door:
    """Listens, and serves who comes."""

    def __init__(self, house: House, *, tls: ssl.SSLContext | None = None) -> None:
        self._house = house
        self._tls = tls
        self._lines: dict[int, Line] = {}
        self._last_id = 0
        self._nursery: trio.Nursery
        self._epoll: select.epoll
        self._reading = trio.CancelScope()
        self._empty = trio.Event()
        """Set when the last connection has ended, of those that there were when it was to stop."""

    async def run(
        self, host: str, port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Until cancelled; started with the port. Raises OSError for an address that is taken."""
        listeners = await trio.open_tcp_listeners(port, host=host)
        self._house.port = listeners[0].socket.getsockname()[1]
        with select.epoll() as self._epoll:
            try:
                async with trio.open_nursery() as self._nursery:
                    self._nursery.start_soon(self._watch)
                    task_status.started(self._house.port)
                    with self._reading:
                        async with trio.open_nursery() as reading:
                            for listener in listeners:
                                reading.start_soon(self._accept, listener)
                            await self._look()
                    await trio.sleep_forever()
            finally:
                for line in list(self._lines.values()):
                    line.close()

    async def drain(self) -> None:
        """Take nothing more, answer what was asked, and end each connection when it has its replies."""
        self._reading.cancel()
        for line in list(self._lines.values()):
            self._part(line)
        if self._lines:
            await self._empty.wait()

    def _part(self, line: Line) -> None:
        """End a connection that waits for nothing."""
        if not line.busy and not line.sending:
            line.close()

    # -- coming and going --------------------------------------------------------------------------

    async def _accept(self, listener: trio.SocketListener) -> None:
        async with listener:
            while True:
                try:
                    stream = await listener.accept()
                except OSError:  # too many open files, perhaps: those who are here are served
                    await trio.sleep(LOOK_INTERVAL_S)
                    continue
                self._welcome(socket.socket(fileno=stream.socket.detach()))

    def _welcome(self, sock: socket.socket) -> None:
        house = self._house
        house.connections += 1
        sock.setblocking(False)
        if len(self._lines) >= house.limits.clients_max:
            house.refused += 1
            with contextlib.suppress(OSError), sock:
                sock.send(TOO_MANY)
            return
        self._last_id += 1
        client = Client(
            house, id=self._last_id, address=named(sock.getpeername), local=named(sock.getsockname)
        )
        argument = house.store.command_bytes_max
        gate = Gate(GateLimits(request_bytes_max=HEADERS * argument, argument_bytes_max=argument))
        line = Line(sock, client, gate, self._tls)
        line.on_close, line.on_unsent = self._closed, self._unsent

        def send(data: bytes) -> int:
            if data:
                line.put(data)
            return len(line.unsent)

        client.send, client.end = send, line.close
        house.clients[client.id] = client
        self._lines[line.fd] = line
        self._epoll.register(line.fd, READ)

    def _closed(self, line: Line) -> None:
        del self._lines[line.fd]
        del self._house.clients[line.client.id]
        self._epoll.unregister(line.fd)
        if line.client.waiting is not None:
            line.client.waiting.cancel()
        if self._reading.cancel_called and not self._lines:
            self._empty.set()

    async def _watch(self) -> None:
        """Disconnect who is idle for longer than is allowed, never comes to terms, or left while waiting."""
        while True:
            await trio.sleep(LOOK_INTERVAL_S)
            now, idle_max = self._house.clock(), self._house.limits.idle_timeout_s
            for line in list(self._lines.values()):
                client = line.client
                idle = now - client.active_at
                if client.waiting is not None and line.hung_up:
                    line.close()
                    continue
                waits = line.busy or line.sending or client.channels or client.patterns
                if (idle_max and idle > idle_max and not waits) or (not line.shaken and idle > HANDSHAKE_S):
                    line.close()

    # -- reading -----------------------------------------------------------------------------------

    async def _look(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            now = self._house.clock()
            writing: list[Asked] = []
            reading: list[Asked] = []
            commands = 0
            for fd, _ in self._epoll.poll(0):
                line = self._lines.get(fd)
                requests = [] if line is None else self._receive(line)
                if line is None or not requests:
                    continue
                client = line.client
                client.active_at = now
                commands += len(requests)
                self._begin(line, requests)
                writes = self._travels(client, requests)
                if writes is None:
                    self._nursery.start_soon(self._converse, line, requests)
                else:
                    (writing if writes else reading).append(Asked(line, requests))
            self._house.commands += commands
            if writing:
                self._nursery.start_soon(self._write, writing)
            if reading:
                self._nursery.start_soon(self._read, reading)

    def _begin(self, line: Line, requests: list[Args]) -> None:
        """They are being answered."""
        line.client.commands += len(requests)
        line.client.last_command = requests[-1][0]
        line.busy = True

    def _receive(self, line: Line) -> list[Args]:
        """What a connection asks now; if nothing whole, more is waited for."""
        try:
            requests = line.receive()
        except Gone:
            line.close()
            return []
        except ProtocolFault as fault:
            self._complain(line, fault)
            return []
        if not requests and line.open:
            self._epoll.modify(line.fd, READ)
        return requests

    def _complain(self, line: Line, fault: ProtocolFault) -> None:
        line.put(encode_all([error(f"ERR Protocol error: {fault}")]))
        line.client.leaving = True
        self._answered(line)

    def _travels(self, client: Client, requests: list[Args]) -> bool | None:
        """Do all of these go to the engine, and does any write? None: they go one by one."""
        if not client.ordinary or len(requests) > TOGETHER_MAX:
            return None
        kinds = [WRITES.get(args[0]) for args in requests]
        if None in kinds:
            return None
        writes = True in kinds
        return writes if writes or client.mode is Mode.LINEARIZABLE else None

    # -- answering ---------------------------------------------------------------------------------

    async def _write(self, asked: list[Asked]) -> None:
        found = await self._house.store.write(*(requests for _, requests in asked))
        seen = self._house.store.position
        for line, _ in asked:
            line.client.seen = seen
        self._hand_out(asked, found)

    async def _read(self, asked: list[Asked]) -> None:
        commands = [args for _, requests in asked for args in requests]
        self._hand_out(asked, await self._house.store.read(commands, self._house.limits.replies_bytes_max))

    def _hand_out(self, asked: list[Asked], found: list[Reply]) -> None:
        at = 0
        for line, requests in asked:
            own = found[at : at + len(requests)]
            at += len(requests)
            if len(own) < len(requests):  # together they ask for too much: each has what it may by itself
                self._nursery.start_soon(self._converse, line, requests)
            elif len(own) <= REPLIES_AT_ONCE and size(own) <= UNSENT_BYTES:
                line.put(encode_all(own, line.client.protocol))
                self._answered(line)
            else:
                self._nursery.start_soon(self._pay_out, line, own)

    async def _pay_out(self, line: Line, found: list[Reply]) -> None:
        await self._put_all(line, found)
        self._answered(line)

    async def _converse(self, line: Line, requests: list[Args]) -> None:
        async with contextlib.aclosing(replies(line.client, requests)) as parts:
            async for part in parts:
                await self._put_all(line, part)
                if not line.open:
                    return  # and what else it asked is not begun
        self._answered(line)

    async def _put_all(self, line: Line, found: list[Reply]) -> None:
        """Make replies as the client takes them: all at once might be more than memory holds."""
        at = 0
        while at < len(found):
            taken = 0
            begin = at
            while at < len(found) and taken < UNSENT_BYTES:
                taken += size(found[at]) + REPLY_BYTES
                at += 1
            line.put(encode_all(found[begin:at], line.client.protocol))
            while line.sending and taken >= UNSENT_BYTES:
                await line.drained.wait()

    def _answered(self, line: Line) -> None:
        """Read it again, as soon as it has taken its replies; or let it go."""
        line.busy = False
        line.client.active_at = self._house.clock()
        if not line.open or line.sending:
            return
        if line.client.leaving or self._reading.cancel_called:
            line.close()
        elif isinstance(line.gate.fault, Unauthenticated) and line.client.user is not None:
            self._go_on(line)
        elif line.gate.fault is not None:
            self._complain(line, line.gate.fault)
        else:
            self._epoll.modify(line.fd, READ)

    def _go_on(self, line: Line) -> None:
        """With what came behind AUTH, and was too large before that."""
        try:
            requests = line.gate.welcome()
        except ProtocolFault as fault:
            self._complain(line, fault)
            return
        if requests:
            self._house.commands += len(requests)
            self._begin(line, requests)
            self._nursery.start_soon(self._converse, line, requests)
        else:
            self._epoll.modify(line.fd, READ)

    # -- slow clients ------------------------------------------------------------------------------

    def _unsent(self, line: Line) -> None:
        if not line.sending:
            line.sending = True
            self._nursery.start_soon(self._drain, line)

    async def _drain(self, line: Line) -> None:
        """Send what is unsent as the client takes it; end the connection of one that takes nothing."""
        while line.open and line.unsent:
            gone = contextlib.suppress(OSError, trio.ClosedResourceError)
            with trio.move_on_after(self._house.limits.send_timeout_s) as scope, gone:
                await trio.lowlevel.wait_writable(line.fd)
            if scope.cancelled_caught:
                line.close()
            elif line.open:
                line.send_more()
        line.sending = False
        line.drained.set()
        line.drained = trio.Event()
        if not line.busy:
            self._answered(line)


def named(ask: Callable[[], Any]) -> str:
    """An address as CLIENT LIST shows it; of a connection that is gone already, nothing."""
    try:
        host, port, *_ = ask()
    except OSError:
        return "?:0"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
