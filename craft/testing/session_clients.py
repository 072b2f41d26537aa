"""Remote clients: each has a session, asks again under the same number, and knows what it does not know.

Knows: what `craft.remote` does about attempts, and makes them as badly as a network does. What an attempt's
outcome means is judged by the product's own `craft.insisting` and `craft.applying`. Must not know: what is
right (the checkers).

A client has one link at a time, as the real one has, and as many calls in flight as its window allows. An
attempt that it has given up may still be in a server's hands, or on its way there. A client may stand still
for a while, close its session, or die and begin as another.
"""

from __future__ import annotations

import random
import typing
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgpack

from craft.applying import Told
from craft.client_sessions import (
    SESSION_ID_BYTES,
    CloseTag,
    OpenTag,
    RequestTag,
    TouchTag,
    encode_tagged,
)
from craft.errors import CraftError, Rejected, SessionEnded, Unknown, Unreachable
from craft.insisting import Asked, BeginAnew, Next, Window
from craft.marks import mark
from craft.ready import Verdict
from craft.testing.checkers.base import Violation
from craft.testing.history import ClientRequest, Operation, Outcome
from craft.testing.plan import MS, SECOND, RemoteClients
from craft.testing.sameness import ADDRESS
from craft.testing.session_links import Answer, Link, Links, Try, carried, judged
from craft.types import Position, ServerId, Timestamp

if typing.TYPE_CHECKING:
    from craft.testing.workloads import Workload
    from craft.testing.world import World

RETRY_NS = 20 * MS
"""Before every server is tried again, or an overloaded one is asked again."""

REACH_NS = 1 * SECOND
"""A call gives up where no server runs for this long."""

SILENT = 0.02
"""How often a client stands still before it does something; ten times as often when an answer was lost."""

DIES = 0.01
"""How often a client dies."""


class _Session:
    """A session that was open when we heard of it."""

    __slots__ = ("active_at", "id", "opened", "window")

    def __init__(self, session_id: bytes, opened: Position, now: int) -> None:
        self.id, self.opened, self.active_at = session_id, opened, now
        self.window = Window()


class _Call:
    """A write, until its outcome is known."""

    __slots__ = ("asked", "number", "operation", "session", "since")

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self.session: _Session | None = None
        self.number = 0
        self.asked = Asked()
        self.since: int | None = None  # no server could be reached since then


class RemoteClient:
    """One process with one session at a time."""

    def __init__(self, clients: SessionClients, number: int) -> None:
        self.number = number
        self._all, self._world, self._rng, self._plan = clients, clients.world, clients.rng, clients.plan
        self._links = Links(self._world, self._rng, lost=self._plan.lost, at=self._at)
        self.timestamp: Timestamp = 0
        """The greatest that it was answered at: the floor of what it asks."""
        self._session: _Session | None = None
        self._opening: bytes | None = None  # the id of the session that is being opened
        self._needing: list[_Call] = []  # calls that wait for a session
        self.calls: set[_Call] = set()
        self._awake_at = 0
        self._reads: set[int] = set()

    # -- what it does -----------------------------------------------------------------------------

    def start(self) -> None:
        """Let its lanes think, each of its own."""
        for _ in range(self._plan.window):
            self._think()
        self._keep_alive()

    def _think(self) -> None:
        low, high = self._world.plan.think
        self._at(self._rng.randint(low, high), self._act)

    def _at(self, delay: int, event: Callable[[], None]) -> None:
        """After a while, and not before it moves again."""
        self._world.at(self._world.time + delay, partial(self._when_awake, event))

    def _when_awake(self, event: Callable[[], None]) -> None:
        if self._world.time < self._awake_at:
            self._world.at(self._awake_at, event)
        else:
            event()

    def _act(self) -> None:
        if self._all.stopped:
            return
        self._maybe_silent(SILENT)
        luck = self._rng.random()
        if luck < DIES:
            self._die()
        elif luck < DIES + self._plan.closes:
            self._close()
        if self._rng.random() < self._world.plan.reads:
            self._read()
        else:
            self.write()

    def _maybe_silent(self, share: float) -> None:
        low, high = self._plan.silence
        if high and not self._all.stopped and self._rng.random() < share:
            self._awake_at = self._world.time + self._rng.randint(low, high)

    def wake(self) -> None:
        """Stand still no longer."""
        self._awake_at = 0

    def _read(self) -> None:
        link = self._links.reach()
        if link is None or link.server.paused:
            self._think()
            return
        operation = self._all.read(link.server.id, self.number)
        if operation.outcome is Outcome.OPEN:
            self._reads.add(operation.number)
            self._at(self._world.plan.patience, partial(self._read_ended, operation.number))
        else:
            self._think()

    def settled(self, operation: Operation) -> None:
        """A read of this client has its outcome."""
        if operation.kind == "read":
            server = self._world.servers.get(operation.server)
            if operation.outcome is Outcome.OK and server is not None:
                self.timestamp = max(self.timestamp, server.engine.state.applied_timestamp)
            self._read_ended(operation.number)

    def _read_ended(self, number: int) -> None:
        if number in self._reads:
            self._reads.remove(number)
            self._think()

    # -- one call ---------------------------------------------------------------------------------

    def write(self) -> Operation:
        """A call, which is made until its outcome is known."""
        world = self._world
        asks = self._links.current.server.id if self._links.current else self._links.ring[0]
        commands = self._all.workload.next_write(self._rng)
        operation = world.history.invoke(self.number, asks, "write", commands, at=world.time)
        if world.keep:
            world.note(asks, "propose", f"#{operation.number} in a session")
        call = _Call(operation)
        self.calls.add(call)
        self._begin(call)
        return operation

    def _begin(self, call: _Call) -> None:
        """Give it a number in the session, which is opened first where there is none."""
        if call not in self.calls:
            return
        session = self._session
        if session is None:
            self._needing.append(call)
            if self._opening is None:
                self._opening = self._rng.randbytes(SESSION_ID_BYTES)
                self._open(self._opening, self._plan.patience)
            return
        call.session, call.number, call.asked = session, session.window.begin(), Asked()
        call.operation.names += (ClientRequest(session.id, session.opened, call.number),)
        self._insist(call, self._plan.patience)

    def _insist(self, call: _Call, patience: int) -> None:
        """The next attempt."""
        if call not in self.calls:
            return
        link = self._links.reach()
        if link is None:
            self._unreachable(call, patience)
            return
        call.since = None
        session = call.session
        assert session is not None
        # (†) The line and the floor are read together, at one moment, and sent together.
        tag = RequestTag(session.id, session.opened, call.number, session.window.below)
        body = msgpack.packb(list(call.operation.requests))
        if self._world.keep:
            self._world.note(link.server.id, "ask", f"#{call.operation.number} as {call.number}")
        attempt = Try(link, patience, self._world.time)
        self._links.send(
            attempt, encode_tagged(tag, body), self.timestamp, partial(self._judge, call, attempt)
        )

    def _judge(self, call: _Call, attempt: Try, outcome: Answer) -> None:
        """What an attempt comes to, as `Client._insist` has it."""
        if call not in self.calls:
            return
        session = call.session
        assert session is not None
        told, error = judged(outcome)
        again, wait = partial(self._insist, call, attempt.longer), 0
        try:
            if told is not None:
                session.active_at = max(session.active_at, attempt.began)
                self._done(call, attempt.link, told)
                return
            if isinstance(error, SessionEnded):
                self._forget(session)
                call.asked.ended()
            if error is None or isinstance(error, Unknown):
                call.asked.lost()
                self._links.leave(attempt.link)
                self._maybe_silent(10 * SILENT)
            elif call.asked.refused(error) is Next.ELSEWHERE:
                self._links.leave(attempt.link)
            else:
                wait = RETRY_NS
        except BeginAnew:
            mark("client call begun anew in another session")
            session.window.settle(call.number)
            again = partial(self._begin, call)
        except (Rejected, Unknown) as fate:
            self._failed(call, fate)
            return
        self._at(wait, again)

    def _done(self, call: _Call, link: Link, told: Told) -> None:
        self.timestamp = max(self.timestamp, told.timestamp)
        if told.verdict is Verdict.REPEATED:
            mark("client told of its earlier attempt" if told.known else "client told that results are lost")
        operation = call.operation
        operation.told = told.position
        operation.results_lost = not told.known
        self._world.trace.fold(self._world.time, operation.number, told.position)
        self._settle(call)
        effect = self._world.effects.get(operation.names[-1])
        results = told.results
        if effect is not None and told.verdict is Verdict.REPEATED and told.known:
            _compare(operation, results, effect.carried)
            results = effect.results  # as the state machine gave them: models know them like that
        position = None if effect is None else effect.position
        self._world.answered(link.server, operation, results, position)

    def _failed(self, call: _Call, fate: CraftError) -> None:
        """Nobody makes further attempts."""
        self._settle(call)
        if isinstance(fate, Unknown):
            mark(
                "client session ended while uncertain" if isinstance(fate, SessionEnded) else "client unsure"
            )
            self._world.unknown(call.operation)
        else:
            self._world.reject(call.operation, str(fate))

    def _settle(self, call: _Call) -> None:
        if call.number and call.session is not None:
            call.session.window.settle(call.number)
        self.calls.remove(call)
        self._think()

    def _unreachable(self, call: _Call, patience: int) -> None:
        now = self._world.time
        call.since = now if call.since is None else call.since
        if now - call.since < REACH_NS:
            self._at(RETRY_NS, partial(self._insist, call, patience))
            return
        try:
            call.asked.unreachable(Unreachable(f"no server for {REACH_NS // MS} ms"))
        except (Rejected, Unknown) as fate:
            self._failed(call, fate)

    # -- its session ------------------------------------------------------------------------------

    def _open(self, session_id: bytes, patience: int) -> None:
        """Open a session. Its id stays the same through all attempts, so they open one."""
        if self._opening != session_id:
            return
        link = self._links.reach()
        if link is None:
            self._at(RETRY_NS, partial(self._open, session_id, patience))
            return
        attempt = Try(link, patience, self._world.time)
        tagged = encode_tagged(OpenTag(session_id, self._plan.ttl_ms))
        self._links.send(attempt, tagged, self.timestamp, partial(self._opened, session_id, attempt))

    def _opened(self, session_id: bytes, attempt: Try, outcome: Answer) -> None:
        if self._opening != session_id:
            return
        told, error = judged(outcome)
        if told is None:
            refused = isinstance(error, Rejected)  # overloaded, perhaps: wait
            self._links.leave(attempt.link)
            again = partial(self._open, session_id, attempt.longer)
            self._at(RETRY_NS if refused else 0, again)
            return
        self.timestamp = max(self.timestamp, told.timestamp)
        self._opening, self._session = None, _Session(session_id, told.opened, attempt.began)
        needing, self._needing = self._needing, []
        for call in needing:
            self._begin(call)

    def _forget(self, session: _Session) -> None:
        if self._session is session:
            self._session = None

    def _keep_alive(self) -> None:
        """Touch the session when nothing was answered for a third of its time to live."""
        if self._all.stopped and not self.calls:
            return
        third = self._plan.ttl_ms * MS // 3
        session = self._session
        if session is not None and session.active_at + third <= self._world.time:
            self._touch(session)
        self._at(third, self._keep_alive)

    def _touch(self, session: _Session) -> None:
        link = self._links.reach()
        if link is None:
            return

        attempt = Try(link, self._plan.patience, self._world.time)

        def hear(outcome: Answer) -> None:
            told, error = judged(outcome)
            if told is not None:
                session.active_at = max(session.active_at, attempt.began)
                self.timestamp = max(self.timestamp, told.timestamp)
            elif isinstance(error, SessionEnded):
                self._forget(session)
            else:
                self._links.leave(link)

        self._links.send(attempt, encode_tagged(TouchTag(session.id, session.opened)), 0, hear)

    def _close(self) -> None:
        """Say that nothing comes any more, and begin another session: calls in flight go on in the old."""
        session, self._session = self._session, None
        link = self._links.reach()
        if session is not None and link is not None:
            attempt = Try(link, self._plan.patience, self._world.time)
            tagged = encode_tagged(CloseTag(session.id, session.opened))
            self._links.send(attempt, tagged, 0, lambda _outcome: None)

    def _die(self) -> None:
        """Forget everything. What was in flight may still have its effect; nobody will know."""
        mark("client died with calls in flight" if self.calls else "client died")
        self._links.forget()
        self._session, self._opening, self._needing, self.timestamp = None, None, [], 0
        for call in sorted(self.calls, key=lambda one: one.operation.number):
            self.calls.remove(call)
            self._world.unknown(call.operation)
            self._think()


def _compare(operation: Operation, results: Sequence[Any] | None, first: Any) -> None:
    """The machines of two servers may print an object with different addresses."""
    found, expected = (ADDRESS.sub("", repr(one)) for one in (carried(results), first))
    if found != expected:
        raise Violation(
            "a repeated request is answered as the first time",
            f"operation {operation.number} is answered {found:.300}, and was {expected:.300}",
        )


class SessionClients:
    """All remote clients of a run."""

    def __init__(
        self,
        world: World,
        workload: Workload,
        plan: RemoteClients,
        read: Callable[[ServerId, int], Operation],
    ) -> None:
        self.world, self.workload, self.plan, self.read = world, workload, plan, read
        self.rng = random.Random(f"{world.plan.seed} session clients")
        self.stopped = False
        self._clients = {
            number: RemoteClient(self, number)
            for number in range(1, 1 + min(plan.clients, world.plan.clients))
        }

    def __contains__(self, client: int) -> bool:
        return client in self._clients

    def start(self) -> None:
        """Let all begin."""
        for client in self._clients.values():
            client.start()

    def settled(self, operation: Operation) -> None:
        """One of their operations has its outcome."""
        self._clients[operation.client].settled(operation)

    def finish(self) -> list[Operation]:
        """Each comes back, does one last write, and nothing more."""
        self.stopped = True
        for client in self._clients.values():
            client.wake()
        return [client.write() for client in self._clients.values()]

    @property
    def waiting(self) -> bool:
        """Does anybody still wait for an outcome?"""
        return any(client.calls for client in self._clients.values())
