"""`craft.connect`: calls that are made until they are answered, once each, by whichever server.

Knows the operations of `craft.server.listener_sessions`. Many tasks may use one client at once.

Invariants
- A request keeps its number through all its attempts; what they come to is judged in `craft.insisting`, which
  the simulator runs too.
- The answered-below line and the floor (the greatest timestamp that we were answered at) are read together
  and travel together (PROTOCOL 5, †).
- The session is opened by the first call that needs it, and touched while there is nothing else to say.
"""

from __future__ import annotations

import secrets
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any

import trio

from craft import client as connection
from craft.client import Client as Link
from craft.client_sessions import SESSION_ID_BYTES
from craft.config import ANY_CLUSTER, Address, parse_address
from craft.errors import (
    CommandTooLarge,
    Compacted,
    ConfigError,
    CraftError,
    NotReady,
    Overloaded,
    Rejected,
    RemoteError,
    ResultLost,
    Unreachable,
)
from craft.insisting import Asked, BeginAnew, Next
from craft.limits import (
    CLIENT_SESSION_TTL_MS,
    CLIENT_SESSION_TTL_MS_MAX,
    CLIENT_SESSION_TTL_MS_MIN,
    CLIENT_WINDOW_REQUESTS_MAX,
    RemoteLimits,
    TransportLimits,
)
from craft.remote.discovery import discover
from craft.remote.links import Links, Opener
from craft.remote.sessions import Session
from craft.server.calls import COMMAND_OVERHEAD_BYTES
from craft.server.listener_requests import ENDED, FAILED, OK, REJECTED
from craft.tailing import TailEntry, unpack_rows
from craft.wire.fields import shown
from craft.wire.framing import ITEMS_MAX

_REJECTIONS = {kind.__name__: kind for kind in (CommandTooLarge, NotReady, Overloaded, Rejected)}


ENVELOPE_BYTES = 128
"""What a request carries beside its commands, at most."""


class Client:
    """A client of a cluster. Made by `connect`; every method is for tasks of the same Trio run."""

    def __init__(self, links: Links, limits: RemoteLimits, session_ttl_ms: int) -> None:
        self.position = 0
        """The greatest position of the merged log that this client was answered at."""
        self._timestamp = 0  # likewise: the floor of what comes next
        self._links = links
        self._limits = limits
        self._ttl_ms = session_ttl_ms
        self._session: Session | None = None
        self._opening = trio.Lock()
        self._room = trio.Semaphore(limits.requests_max)

    @property
    def server_id(self) -> int | None:
        """The server that we are connected to at this moment; None: to none."""
        return None if self._links.current is None else self._links.current.server_id

    async def propose(self, command: bytes) -> Any:
        """Propose one command; returns its result, as the server could pack it, or None.

        It takes effect exactly once, whichever servers fail meanwhile. Raises Rejected (and its kinds): no
        effect, ever. SessionEnded, Unknown: it may have taken effect, at most once. ResultLost: it has, and
        nobody knows the result any more. Waits while the cluster has no majority: bound it with a scope, and
        take what is cancelled as unknown.
        """
        results = await self.propose_many([command])
        return results[0]

    async def propose_many(self, commands: Sequence[bytes]) -> Sequence[Any]:
        """Propose commands that take effect together, at one position or not at all; one result a command.

        Raises as `propose` does.
        """
        listed = list(commands)
        for number, command in enumerate(listed):
            if not isinstance(command, bytes):
                raise TypeError(f"command {number} must be bytes, not {type(command).__name__}")
        if not listed:
            await trio.lowlevel.checkpoint()
            return []
        self._check_size(listed)
        async with self._room:
            while True:
                session = await self._open_session()
                number = await session.begin()
                try:
                    return await self._insist(session, number, listed)
                except BeginAnew:
                    continue
                finally:
                    session.settle(number)

    async def read(self, query: bytes, *, at_least: int = 0) -> Any:
        """What the state machine's `query` answers, linearizable, so at a position of at least `at_least`.

        Raises RemoteError where the server finds the query wrong, Overloaded, Unreachable. Nothing changes.
        """
        self._check_size([query])
        return await self._get("query", [query, at_least])

    @trio.as_safe_channel
    async def subscribe(self, after: int | None = None) -> AsyncGenerator[tuple[TailEntry, ...], None]:
        """Follow the merged log: `async with client.subscribe(after=position) as batches:`, then `async for`.

        Yields batches of what is applied after that position, without a gap, from whichever server is
        reached: positions are equal on all. None: from where our server is when the first batch is asked for.
        Raises Compacted where that is compacted, Overloaded, Unreachable.
        """
        if after is not None and after < 0:
            raise ValueError(f"after is {after!r}; allowed is a position, 0 or greater")
        if after is None:
            after = (await self.status())["applied_position"]
        while True:
            batch = await self.poll(after)
            if batch:
                yield batch
                after = batch[-1].position

    async def poll(self, after: int) -> tuple[TailEntry, ...]:
        """The next batch after a position, or none where nothing comes for a while. Raises as `subscribe`."""
        answer = await self._get("tail", [after, self._limits.tail_wait_ms])
        if type(answer) is not tuple or len(answer) != 2 or type(answer[0]) is not int:
            raise RemoteError(f"an answer to tail is {shown(answer)}; allowed is [position, batch]")
        retained, rows = answer
        if rows is None:
            raise Compacted(after, retained)
        batch = unpack_rows(rows)
        if [entry.position for entry in batch] != list(range(after + 1, after + 1 + len(batch))):
            raise RemoteError(f"a batch after {after} has a gap")
        return batch

    async def status(self) -> dict[str, Any]:
        """The `status()` of the server that we are connected to."""
        status: dict[str, Any] = await self._get("status", None)
        return status

    async def metrics(self) -> Sequence[dict[str, Any]]:
        """Its `metrics()`."""
        metrics: Sequence[dict[str, Any]] = await self._get("metrics", None)
        return metrics

    def _check_size(self, parts: list[bytes]) -> None:
        """Before it is sent: for what is too long for a frame a server ends the connection of all calls."""
        size = ENVELOPE_BYTES + sum(map(len, parts)) + COMMAND_OVERHEAD_BYTES * len(parts)
        if size > self._limits.request_bytes_max:
            raise CommandTooLarge(
                f"{size} bytes in one call; request_bytes_max allows {self._limits.request_bytes_max}"
            )
        if len(parts) > ITEMS_MAX:
            raise CommandTooLarge(f"{len(parts)} commands in one call; allowed are {ITEMS_MAX}")

    # -- one call ---------------------------------------------------------------------------------

    async def _insist(self, session: Session, number: int, commands: list[bytes]) -> Sequence[Any]:
        """Attempt after attempt, until the request is answered."""
        asked = Asked()
        while True:
            try:
                link = await self._links.reach()
            except Unreachable as error:
                asked.unreachable(error)
            # (†) Read together, at one moment, and sent together.
            line, floor = session.below, self._timestamp
            request = [session.id, session.opened, number, line, floor, commands]
            try:
                outcome, value = await self._attempt(link, "request", request, session)
            except Unreachable:
                continue  # the connection broke before it was sent: reach another
            if outcome == OK:
                return self._results(value)
            if outcome == ENDED:
                self._forget(session)
                asked.ended()
            if outcome in {REJECTED, FAILED}:
                await self._refused(link, outcome, value, asked)
            else:
                asked.lost()
                self._links.leave(link)

    def _results(self, value: Any) -> Sequence[Any]:
        results, known = self._placed(value)
        if not known:
            raise ResultLost("the commands took effect; their results are no longer kept")
        if not isinstance(results, list | tuple):
            raise RemoteError(f"results are {shown(results)}; allowed is an array")
        return results

    def _forget(self, session: Session) -> None:
        """The session has ended. Another one is opened for whoever needs it."""
        if self._session is session:
            self._session = None

    async def _refused(self, link: Link, outcome: str | None, value: Any, asked: Asked) -> None:
        """An attempt without effect: raise what it means, or return to try again."""
        if asked.refused(_error(outcome, value)) is Next.ELSEWHERE:
            self._links.leave(link)
        else:
            await trio.sleep(self._limits.retry_delay_ms_max / 1000)

    async def _attempt(
        self, link: Link, operation: str, argument: Any, session: Session | None = None
    ) -> tuple[str | None, Any]:
        """Ask once. The outcome is None where no answer came."""
        started = trio.current_time()
        with trio.move_on_after(self._limits.attempt_timeout_ms / 1000):
            outcome, value = await link.ask(operation, argument)
            if outcome == OK and session is not None:
                session.active_at = max(session.active_at, started)
            return outcome, value
        self._links.leave(link)
        return None, None

    async def _get(self, operation: str, argument: Any) -> Any:
        async with self._room:
            value = await self._until_answered(operation, argument)
        return self._placed(value)[0] if operation == "query" else value

    async def _until_answered(self, operation: str, argument: Any) -> Any:
        """What may be asked twice is asked until it is answered."""
        while True:
            link = await self._links.reach()
            try:
                outcome, value = await self._attempt(link, operation, argument)
            except Unreachable:
                continue  # the connection broke before it was sent: reach another
            if outcome == OK:
                return value
            if outcome in {REJECTED, FAILED}:
                await self._refused(link, outcome, value, Asked())
            else:
                self._links.leave(link)

    def _placed(self, value: Any) -> tuple[Any, bool]:
        """Note where an answer stands in the merged log; its value, and whether that is known."""
        if type(value) is not tuple or len(value) != 4 or not all(type(one) is int for one in value[:2]):
            raise RemoteError(f"an answer is {shown(value)}; allowed is [position, timestamp, value, known]")
        position, timestamp, inner, known = value
        self.position = max(self.position, position)
        self._timestamp = max(self._timestamp, timestamp)
        return inner, bool(known)

    # -- the session ------------------------------------------------------------------------------

    async def _open_session(self) -> Session:
        if self._session is None:  # a lock alone would let one call a tick through
            async with self._opening:
                if self._session is None:
                    self._session = await self._open()
        return self._session

    async def _open(self) -> Session:
        """Open a session. Its id stays the same through all attempts, so they open one."""
        session_id = secrets.token_bytes(SESSION_ID_BYTES)
        started = trio.current_time()
        value = await self._until_answered("open", [session_id, self._ttl_ms, self._timestamp])
        opened, _ = self._placed(value)
        if type(opened) is not int:
            raise RemoteError(f"a session was opened at {shown(opened)}; allowed is a position")
        return Session(session_id, opened, started)

    async def _keep_alive(self) -> None:
        """Touch the session when nothing was answered for a third of its time to live. Raises nothing."""
        third = self._ttl_ms / 3000
        while True:
            session = self._session
            await trio.sleep_until((trio.current_time() if session is None else session.active_at) + third)
            if session is not None and session is self._session:
                await self._touch(session, third)

    async def _touch(self, session: Session, third: float) -> None:
        while self._session is session and session.active_at + third <= trio.current_time():
            try:
                link = await self._links.reach()
                outcome, value = await self._attempt(link, "touch", [session.id, session.opened], session)
            except Unreachable:
                continue
            if outcome == ENDED:
                self._forget(session)
            elif outcome == OK:
                self._placed(value)
            else:
                self._links.leave(link)

    async def _close(self) -> None:
        """Say that nothing comes any more, if that can be said quickly."""
        session, link = self._session, self._links.current
        if session is not None and link is not None:
            with trio.move_on_after(self._limits.close_timeout_ms / 1000), suppress(Unreachable):
                await link.ask("close", [session.id, session.opened])


def _error(outcome: str | None, value: Any) -> CraftError:
    """What a server's refusal means; it begins with the name of a kind of Rejected."""
    if outcome == FAILED:
        return RemoteError(str(value))
    name, _, text = str(value).partition(": ")
    kind = _REJECTIONS.get(name)
    return Rejected(str(value)) if kind is None else kind(text)


# -- connecting ------------------------------------------------------------------------------------


@asynccontextmanager
async def connect(
    addresses: Sequence[str] | str,
    *,
    cluster: str = ANY_CLUSTER,
    learn: bool = True,
    session_ttl_ms: int = CLIENT_SESSION_TTL_MS,
    ssl_context: ssl.SSLContext | None = None,
    limits: RemoteLimits | None = None,
    transport_limits: TransportLimits | None = None,
) -> AsyncIterator[Client]:
    """Connect to a cluster by its servers' `client_listen` addresses; one that is reachable will do.

    `cluster` refuses servers of any other cluster; without it, of any other than the first one's. With
    `learn` servers are asked where clients reach the others, so that one address is enough. The client's
    session ends `session_ttl_ms` of the merged log's time after its last sign of life, which it gives by
    itself. With `ssl_context` connections speak TLS (to servers with `clients.tls`). Raises ConfigError, and
    Unreachable or HandshakeRefused where no server can be talked to.
    """
    if not trio.lowlevel.in_trio_run():
        raise RuntimeError("craft.connect runs on Trio; allowed elsewhere: craft.blocking")
    limits = limits or RemoteLimits()
    where = [
        parse_address("address", one) for one in ([addresses] if isinstance(addresses, str) else addresses)
    ]
    _check(len(where), session_ttl_ms, limits)
    opener = partial(
        connection.connect,
        requests_max=limits.requests_max,
        limits=transport_limits,
        ssl_context=ssl_context,
    )
    links = Links(list(dict.fromkeys(where)), _of_one_cluster(opener, cluster), limits)
    client = Client(links, limits, session_ttl_ms)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(links.run)
            await links.first()
            nursery.start_soon(client._keep_alive)
            if learn:
                nursery.start_soon(discover, links, limits)
            try:
                yield client
                await client._close()
            finally:
                links.close()
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        connection.raise_inner(group)


def _of_one_cluster(opener: Callable[..., AbstractAsyncContextManager[Link]], cluster: str) -> Opener:
    """The first server's cluster is every server's: a session must never go on in another one."""
    wanted = cluster

    @asynccontextmanager
    async def open_link(address: Address) -> AsyncIterator[Link]:
        nonlocal wanted
        async with opener(str(address), cluster=wanted) as link:
            wanted = link.cluster
            yield link

    return open_link


def _check(addresses: int, session_ttl_ms: int, limits: RemoteLimits) -> None:
    if not addresses:
        raise ConfigError("addresses: none is given; allowed: at least one host:port")
    if not CLIENT_SESSION_TTL_MS_MIN <= session_ttl_ms <= CLIENT_SESSION_TTL_MS_MAX:
        raise ConfigError(
            f"session_ttl_ms: {session_ttl_ms} is not allowed; allowed: {CLIENT_SESSION_TTL_MS_MIN} to"
            f" {CLIENT_SESSION_TTL_MS_MAX}"
        )
    if not 1 <= limits.requests_max <= CLIENT_WINDOW_REQUESTS_MAX:
        raise ConfigError(
            f"requests_max: {limits.requests_max} is not allowed; allowed: 1 to {CLIENT_WINDOW_REQUESTS_MAX}"
        )
