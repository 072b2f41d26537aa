"""One connection to one server: for administration, and what a client with a session is made of.

    async with craft.client.connect("127.0.0.1:8001") as client:
        print(await client.propose([b"5"]))

Knows the requests of `craft.server.listener_requests`. Many tasks may use one client at once: requests travel
one behind the other without waiting, and replies come in any order.

Invariants
- A command whose answer was lost is `Unknown`, never proposed again by itself: without a session that would
  risk a second effect. (`craft.remote` has sessions, and does.)
- Every waiting call ends when the connection does. Cancelling a call leaves nothing behind here; a cancelled
  `propose` is unknown.
"""

from __future__ import annotations

import contextlib
import secrets
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import trio

from craft.config import ANY_CLUSTER, Address, parse_address
from craft.errors import (
    HandshakeRefused,
    Rejected,
    RemoteError,
    SessionEnded,
    Unknown,
    Unreachable,
    WireError,
)
from craft.limits import ClientLimits, TransportLimits
from craft.server.listener_requests import ENDED, FAILED, OK, REJECTED, REPLY_BYTES_MAX, UNKNOWN
from craft.transport.tcp.common import LOST, read_handshake, reason, tune
from craft.wire import (
    MAGIC,
    NONCE_BYTES,
    PROTOCOL_VERSION,
    Decoder,
    Hello,
    Refusal,
    Welcome,
    decode_answer,
    decode_message,
    encode_hello,
    encode_message,
)
from craft.wire.fields import shown

__all__ = ["ANY_CLUSTER", "Client", "connect"]

RECEIVE_BYTES = 64 * 1024
"""One read of the socket."""


class _Waiting:
    """A call that waits for its reply."""

    __slots__ = ("done", "outcome", "value")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.outcome: str | None = None  # None: the connection ended first
        self.value: Any = None


class Client:
    """A connection to one server's client listener. Made by `connect`."""

    def __init__(
        self, stream: trio.abc.Stream, address: Address, welcome: Welcome, requests_max: int
    ) -> None:
        self.address = address
        self.cluster = welcome.cluster_id
        self.server_id = welcome.server_id
        self.disk_id = welcome.disk_id
        self.groups = welcome.groups
        self._stream = stream
        self._room = trio.Semaphore(requests_max)
        self._waiting: dict[int, _Waiting] = {}
        self._number = 0
        self._requests: list[bytes] = []
        self._filled = trio.Event()
        self._lost: str | None = None
        self.ended = trio.Event()

    async def ask(self, operation: str, argument: Any) -> tuple[str | None, Any]:
        """One request; its outcome and value, as they came. The outcome is None where the answer was lost.

        Raises Unreachable where nothing was sent.
        """
        waiting = await self._ask(operation, argument)
        return waiting.outcome, (self._lost if waiting.outcome is None else waiting.value)

    async def propose(self, commands: Sequence[bytes]) -> Any:
        """Propose commands that take effect together, at one position or not at all; one result a command.

        A command without a result has None. Results are as the server could pack them: tuples for lists, and
        the repr of what msgpack cannot carry.

        Raises Rejected: no effect, ever (Unreachable: it never left). Unknown: it may or may not take effect,
        now or later; also where the connection broke before the answer, and nothing was proposed again.
        RemoteError: the server finds the request wrong; no effect.
        """
        waiting = await self._ask("propose", list(commands))
        if waiting.outcome is None:
            raise Unknown(f"{self._lost} before the answer: the commands may or may not take effect")
        return _value(waiting)

    async def read(self, query: bytes) -> Any:
        """What the state machine's `query` answers, linearizable. Raises RemoteError or Rejected."""
        return await self.get("read", query)

    async def status(self) -> dict[str, Any]:
        """The server's `status()`."""
        status: dict[str, Any] = await self.get("status", None)
        return status

    async def metrics(self) -> Sequence[dict[str, Any]]:
        """The server's `metrics()`."""
        metrics: Sequence[dict[str, Any]] = await self.get("metrics", None)
        return metrics

    async def members(self, question: Sequence[Any]) -> dict[str, Any]:
        """Change the members, or ask who they are: `[[kind, id, …], …, wait_ms]` (see `craft members`).

        Raises RemoteError where a change cannot be, Unknown where the answer was lost.
        """
        waiting = await self._ask("members", list(question))
        if waiting.outcome is None:
            why = f"{self._lost} before the answer"
            raise Unknown(f"{why}; the change may be made") if len(question) > 1 else Unreachable(why)
        members: dict[str, Any] = _value(waiting)
        return members

    async def transfer(self, group: int, *, to: int, hold_ms: int | None = None) -> int | None:
        """Have a group led by server `to` for a while (`server.leaders.transfer`).

        Returns None once it is, or the server that leads it and must be asked instead. Raises Rejected, which
        says why the group stays where it is; Unknown where that takes long, or the answer was lost.
        """
        leader: int | None = await self.order("transfer", [group, to, hold_ms])
        return leader

    async def drain(self, *, hold_ms: int | None = None) -> None:
        """Let the server lead nothing for a while (`server.leaders.drain`). Raises as `transfer` does."""
        await self.order("drain", [hold_ms])

    async def bring_home(self) -> None:
        """End what holds leaders at the server, or away from it (`server.leaders.bring_home`)."""
        await self.order("home", None)

    async def servers(self) -> dict[int, str]:
        """Where clients reach the servers of whom that is known there, by id."""
        return dict(await self.get("servers", None))

    async def merged(self, after: int = 0) -> Sequence[dict[str, Any]]:
        """The last merged entries after a position, oldest first, as `recent_merged` gives them."""
        rows: Sequence[dict[str, Any]] = await self.get("merged", after)
        return rows

    async def get(self, operation: str, argument: Any) -> Any:
        """Ask what changes nothing. Raises Unreachable, Rejected, RemoteError."""
        waiting = await self._ask(operation, argument)
        if waiting.outcome is None:
            raise Unreachable(f"{self._lost} before the answer")
        return _value(waiting)

    async def order(self, operation: str, argument: Any) -> Any:
        """Ask for what changes something. Raises Unknown where the answer was lost; Rejected, RemoteError."""
        waiting = await self._ask(operation, argument)
        if waiting.outcome is None:
            raise Unknown(f"{self._lost} before the answer; it may be done")
        return _value(waiting)

    async def _ask(self, operation: str, argument: Any) -> _Waiting:
        async with self._room:
            if self._lost is not None:
                raise Unreachable(f"{self._lost}; nothing was sent")
            number = self._number = self._number + 1
            self._requests.append(encode_message([number, operation, argument]))
            self._filled.set()
            waiting = self._waiting[number] = _Waiting()
            try:
                await waiting.done.wait()
            finally:
                del self._waiting[number]
            return waiting

    # -- the connection's two tasks ---------------------------------------------------------------

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Until the connection ends. Raises nothing: each call is told."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, nursery.cancel_scope)
            task_status.started()
            try:
                await self._read()
            except LOST as error:
                self._end(f"the connection to {self.address} broke ({reason(error)})")
            else:
                self._end(f"{self.address} closed the connection")
            nursery.cancel_scope.cancel()

    def _end(self, why: str) -> None:
        self._lost = self._lost or why
        self.ended.set()
        for waiting in self._waiting.values():
            waiting.done.set()

    async def _write(self, scope: trio.CancelScope) -> None:
        with contextlib.suppress(*LOST):
            while True:
                await self._filled.wait()
                self._filled = trio.Event()
                requests, self._requests = self._requests, []
                await self._stream.send_all(b"".join(requests))
        # The server may have said why it went away: let the reader find that, but not wait for it for long.
        with trio.move_on_after(1):
            await trio.sleep_forever()
        self._end(f"the connection to {self.address} broke")
        scope.cancel()

    async def _read(self) -> None:
        decoder = Decoder(REPLY_BYTES_MAX)
        while data := await self._stream.receive_some(RECEIVE_BYTES):
            decoder.feed(data)
            for payload in decoder:
                self._take(decode_message(payload))

    def _take(self, reply: Any) -> None:
        whole = type(reply) is tuple and len(reply) == 3 and type(reply[0]) in (int, type(None))
        if not whole or reply[1] not in (OK, REJECTED, UNKNOWN, FAILED, ENDED):
            raise WireError(f"a reply is {shown(reply)}; allowed is [number or nil, outcome, value]")
        number, outcome, value = reply
        if number is None:
            raise RemoteError(f"the server says: {value}")
        waiting = self._waiting.get(number)
        if waiting is not None:  # else its call was cancelled
            waiting.outcome, waiting.value = outcome, value
            waiting.done.set()


def _value(waiting: _Waiting) -> Any:
    """What the call returns, or raises: an outcome of the server."""
    if waiting.outcome == OK:
        return waiting.value
    if waiting.outcome == REJECTED:
        raise Rejected(str(waiting.value))
    if waiting.outcome == UNKNOWN:
        raise Unknown(str(waiting.value))
    if waiting.outcome == ENDED:
        raise SessionEnded(str(waiting.value))
    raise RemoteError(str(waiting.value))


# -- connecting ------------------------------------------------------------------------------------


@asynccontextmanager
async def connect(
    address: str,
    *,
    cluster: str = ANY_CLUSTER,
    requests_max: int = ClientLimits().requests_max,
    limits: TransportLimits | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[Client]:
    """Connect to a server's `client_listen`: `async with craft.client.connect("host:port") as client:`.

    `cluster` refuses servers of any other cluster; `requests_max` calls are in flight at once, more wait;
    `limits` holds the timeouts; with `ssl_context` the connection speaks TLS. Raises ConfigError for what is
    no address, Unreachable where nobody answers, HandshakeRefused where one does that will not have us.
    """
    where = parse_address("address", address)
    limits = limits or TransportLimits()
    stream = await _open(where, limits, ssl_context)
    try:
        welcome = await _introduce(stream, where, cluster, limits)
        client = Client(stream, where, welcome, requests_max)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(client._run)
                yield client
                nursery.cancel_scope.cancel()
        finally:
            client._end("the connection was closed")  # calls of tasks elsewhere end as well
    except BaseExceptionGroup as group:
        raise_inner(group)
    finally:
        await trio.aclose_forcefully(stream)


async def _open(
    where: Address, limits: TransportLimits, ssl_context: ssl.SSLContext | None
) -> trio.abc.Stream:
    """The stream; its TLS handshake comes with the first byte."""
    try:
        with trio.fail_after(limits.connect_timeout_ms / 1000):
            stream = await trio.open_tcp_stream(where.host, where.port)
    except LOST as error:
        raise Unreachable(f"{where} cannot be reached: {reason(error)}") from error
    tune(stream, limits)
    return stream if ssl_context is None else trio.SSLStream(stream, ssl_context, server_hostname=where.host)


async def _introduce(
    stream: trio.abc.Stream, where: Address, cluster: str, limits: TransportLimits
) -> Welcome:
    nonce = secrets.token_bytes(NONCE_BYTES)
    try:
        with trio.fail_after(limits.handshake_timeout_ms / 1000):
            await stream.send_all(
                encode_hello(Hello(MAGIC, PROTOCOL_VERSION, "client", cluster, 0, "", 0, nonce))
            )
            answer = decode_answer(await read_handshake(stream))
    except RemoteError as error:
        raise HandshakeRefused(f"{where} does not speak this protocol: {error}") from error
    except LOST as error:
        raise Unreachable(f"{where} does not answer: {_reason(error)}") from error
    if isinstance(answer, Refusal):
        raise HandshakeRefused(f"{where} refused us: {answer.reason}")
    if answer.protocol_version != PROTOCOL_VERSION or answer.nonce != nonce:
        raise HandshakeRefused(
            f"{where}: its Welcome is of protocol version {answer.protocol_version}, ours is"
            f" {PROTOCOL_VERSION}, or answers another Hello"
        )
    if cluster not in {ANY_CLUSTER, answer.cluster_id}:
        raise HandshakeRefused(f"{where} is of cluster {answer.cluster_id!r}; wanted is {cluster!r}")
    return answer


def _reason(error: BaseException) -> str:
    """Why a handshake broke. OpenSSL is obscure about a server that hung up, and about one without TLS."""
    if isinstance(error.__cause__, ssl.SSLEOFError):
        return "it closed the connection in the middle of TLS; does it take our certificate?"
    if isinstance(error.__cause__, ssl.SSLError) and error.__cause__.reason == "WRONG_VERSION_NUMBER":
        return "it does not speak TLS"
    return reason(error)


def raise_inner(group: BaseExceptionGroup[BaseException]) -> NoReturn:
    """The block's own error as it was: our tasks raise none, so it is alone in the nursery's group."""
    if len(group.exceptions) > 1:
        raise group
    error = group.exceptions[0]
    raise error from error.__cause__
