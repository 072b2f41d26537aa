"""What clients are told of their writes, and where: against the merged log.

Knows who proposed what: the proposals of a committed entry name their session and request. Has a session
model of its own, written apart from the product's.

Reference: PROTOCOL 3 (the theorem), 4, 5, 6.
"""

from __future__ import annotations

import typing
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import msgpack

from craft.ready import Merged
from craft.testing.checkers.base import Checker, Violation
from craft.testing.checkers.clients import Rules, Word
from craft.testing.checkers.ledger import Ledger
from craft.testing.history import Operation, Outcome
from craft.types import EntryKind, Position, ServerId, Timestamp

if typing.TYPE_CHECKING:
    from craft.testing.server import SimServer
    from craft.testing.world import World

RequestId: TypeAlias = tuple[ServerId, int, int]
"""Origin, session counter, request number."""

OPENING = 0
"""The request number of a proposal that opens a session."""


class _Session:
    """An origin's open session, as the rules have it."""

    def __init__(self, counter: int) -> None:
        self.counter = counter
        self.below = 0
        self.done: set[int] = set()


class _Effect(NamedTuple):
    """One request in the merged log."""

    position: Position
    place: int  # within its entry


class ExactlyOnce(Checker):
    """A request takes effect once, in its session, at the first place that it is merged at.

    At the end: every answered write is in the merged log once for each time that it was asked for; nothing is
    in it that nobody asked for or that was rejected.
    """

    PROPERTY = "answered writes take effect exactly once"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._sessions: dict[ServerId, _Session] = {}
        self._requests: list[list[RequestId]] = []  # of each position
        self._operations: dict[int, _Effect] = {}
        self._bodies: Counter[bytes] = Counter()
        self._clients = Rules()
        self.judged: list[list[Word]] = []
        """Of each position, what remote clients' requests come to there."""

    def effect(self, operation: Operation) -> Position | None:
        """Where an operation's origin has applied it; a remote client's: where anybody has."""
        if operation.names:
            return self._clients.effects.get(operation.names[-1])
        found = self._operations.get(operation.number)
        return found.position if found is not None else None

    def applied(
        self, server: SimServer, entries: Sequence[Merged], _results: Sequence[Sequence[Any] | None]
    ) -> None:
        """Judge new positions by the rules, and the origin's tokens by what is at the position."""
        for merged in entries:
            if merged.position == len(self._requests) + 1:
                self._merge(server, merged)
            for place, request in enumerate(merged.requests):
                if request.token is not None:
                    self._settle(server, _Effect(merged.position, place), request.token)

    def _merge(self, server: SimServer, merged: Merged) -> None:
        log = self._ledger.committed[merged.group]
        payload = log[merged.index - 1].payload if merged.index <= len(log) else b"\x90"
        expected = list(self._due(merged, payload))
        bodies = [body for _, body in expected]
        if bodies != [request.body for request in merged.requests]:
            raise Violation(
                self.PROPERTY,
                f"at position {merged.position} server {server.id} lets requests with bodies"
                f" {[request.body for request in merged.requests]} take effect; due are"
                f" {[request for request, _ in expected]} with bodies {bodies}",
            )
        self._requests.append([request for request, _ in expected])
        self._bodies.update(bodies)

    def _due(self, merged: Merged, payload: bytes) -> typing.Iterator[tuple[RequestId, bytes]]:
        """Of what servers' sessions let through, what remote clients' sessions do."""
        words = self._clients.expire(merged.timestamp)
        self.judged.append(words)
        for request, body in self._admitted(payload):
            if merged.kind is EntryKind.MEMBERSHIP:
                continue  # it changes who is wanted, and says nothing to the state machine
            due = self._clients.judge(body, merged.position, merged.timestamp)
            if due is None:
                yield request, body
                continue
            words.append(due.word)
            if due.body is not None:
                yield request, due.body

    def _admitted(self, payload: bytes) -> typing.Iterator[tuple[RequestId, bytes]]:
        """PROTOCOL 5: in the open session only, and the first time only."""
        for origin, counter, request, answered_below, _, body in msgpack.unpackb(payload):
            session = self._sessions.get(origin)
            if request == OPENING:
                if session is None or counter > session.counter:
                    self._sessions[origin] = _Session(counter)
            elif session is not None and session.counter == counter:
                session.below = max(session.below, answered_below)
                if request >= session.below and request not in session.done:
                    session.done.add(request)
                    yield (origin, counter, request), body

    def _settle(self, server: SimServer, effect: _Effect, operation: Operation) -> None:
        first = self._operations.setdefault(operation.number, effect)
        if first != effect:
            raise Violation(
                self.PROPERTY,
                f"operation {operation.number} takes effect at position {effect.position} on server"
                f" {server.id}, and has taken effect at position {first.position}",
            )
        origin, counter, _ = self._requests[effect.position - 1][effect.place]
        if (origin, counter) != (server.id, server.engine.state.counter):
            raise Violation(
                self.PROPERTY,
                f"operation {operation.number} on server {server.id} is settled at position {effect.position}"
                f" by a request of server {origin} with session counter {counter}",
            )

    def ended(self, world: World) -> None:
        """Count, body by body; clients may ask for the same twice. Remote clients' requests have names."""
        for operation in world.history:
            if operation.names:
                self._count(operation)
        answered: Counter[bytes] = Counter()
        possible: Counter[bytes] = Counter()
        for operation in world.history:
            if operation.kind == "write":
                body = msgpack.packb(list(operation.requests))
                answered[body] += operation.outcome is Outcome.OK
                possible[body] += operation.outcome is not Outcome.REJECTED
        for body in answered.keys() | self._bodies.keys():
            if not answered[body] <= self._bodies[body] <= possible[body]:
                raise Violation(
                    self.PROPERTY,
                    f"requests {msgpack.unpackb(body)} are in the merged log {self._bodies[body]} times;"
                    f" asked for and not rejected {possible[body]} times, answered {answered[body]} times",
                )

    def _count(self, operation: Operation) -> None:
        places = [self._clients.effects[name] for name in operation.names if name in self._clients.effects]
        least, most = operation.outcome is Outcome.OK, operation.outcome is not Outcome.REJECTED
        if not least <= len(places) <= most:
            raise Violation(
                self.PROPERTY,
                f"operation {operation.number} of remote client {operation.client} is told"
                f" {operation.outcome.value} and takes effect at positions {places}",
            )


class RejectedHasNoEffect(Checker):
    """A write that a client was told is rejected is not applied: before it, or after it."""

    PROPERTY = "a rejected write has no effect"

    def __init__(self) -> None:
        self._applied: dict[int, Position] = {}

    def applied(
        self, server: SimServer, entries: Sequence[Merged], _results: Sequence[Sequence[Any] | None]
    ) -> None:
        """Note what is applied where it was asked for."""
        for merged in entries:
            for request in merged.requests:
                if request.token is not None:
                    self._applied[request.token.number] = merged.position
                    if request.token.outcome is Outcome.REJECTED:
                        self._fail(server, request.token)

    def rejected(self, server: SimServer, operation: Operation) -> None:
        """Was it applied before?"""
        if operation.number in self._applied:
            self._fail(server, operation)

    def _fail(self, server: SimServer, operation: Operation) -> None:
        raise Violation(
            self.PROPERTY,
            f"operation {operation.number} on server {server.id} is rejected, and is applied at position"
            f" {self._applied[operation.number]}",
        )


class AnswersArePlaced(Checker):
    """A write is answered with the position that its origin applied it at; a read with what is applied there.

    At the end every server that is not lost has applied every position that anybody was told.
    """

    PROPERTY = "answers tell a position that is applied"

    def __init__(self, once: ExactlyOnce) -> None:
        self._once = once
        self._greatest: Position = 0

    def answered(self, server: SimServer, operation: Operation) -> None:
        """Compare with where it was applied."""
        position = operation.position
        expected = self._once.effect(operation) if operation.kind == "write" else server.applied_position
        if position is None or position != expected or position > server.applied_position:
            raise Violation(
                self.PROPERTY,
                f"{operation.kind} {operation.number} on server {server.id} is answered with position"
                f" {position}; it belongs to {expected}, and applied there is {server.applied_position}",
            )
        self._greatest = max(self._greatest, position)

    def ended(self, world: World) -> None:
        """Everybody has it."""
        for i, server in sorted(world.servers.items()):
            if i not in world.lost and server.applied_position < self._greatest:
                raise Violation(
                    self.PROPERTY,
                    f"server {i} ends at applied position {server.applied_position}; position"
                    f" {self._greatest} was told to a client",
                )


class RealTime(Checker):
    """What is invoked after an answer comes after it: a write behind its position, a read at or behind it.

    Whatever the clocks do, whoever asks, wherever. What happens at one instant is concurrent. A read that
    wants what its client has seen comes behind that alone.
    """

    PROPERTY = "what starts after an answer is ordered after it"

    def __init__(self) -> None:
        self._times: list[int] = []
        self._greatest: list[
            tuple[Position, int]
        ] = []  # known to somebody since then, and by which operation

    def answered(self, server: SimServer, operation: Operation) -> None:
        """Compare with the greatest position that was told before this was invoked."""
        position = operation.position
        assert position is not None and operation.returned is not None
        known = bisect_left(self._times, operation.invoked)
        if operation.at_least is not None:
            if position < operation.at_least:
                raise Violation(
                    self.PROPERTY,
                    f"read {operation.number} on server {server.id} is answered with position {position}; it"
                    f" wanted {operation.at_least} at least",
                )
        elif known:
            before, number = self._greatest[known - 1]
            if position < before or (position == before and operation.kind == "write"):
                raise Violation(
                    self.PROPERTY,
                    f"{operation.kind} {operation.number} on server {server.id}, invoked at"
                    f" {operation.invoked}, is answered with position {position}; operation {number} was"
                    f" answered before that with position {before}",
                )
        # A repetition is answered from its own place, which is behind that of the effect.
        told = max(position, operation.told or 0)
        if not self._greatest or told > self._greatest[-1][0]:
            self._times.append(operation.returned)
            self._greatest.append((told, operation.number))


class CommittedIsKept(Checker):
    """What is answered at the level `committed` is merged where it said, and whoever reads later sees it.

    Later writes of the same session are ordered after it; within a stated bound of the clocks, everybody's.
    """

    PROPERTY = "what is answered as committed is kept, seen and ordered"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def ended(self, world: World) -> None:
        """Compare with the merged log, once it is whole."""
        promises = [one for one in world.history if one.committed_at is not None]
        places: dict[Timestamp, Position] = {}
        for merged in self._ledger.merged if promises else ():
            places.setdefault(merged.timestamp, merged.position)
        for promise in promises:
            if promise.committed_at not in places:
                self._fail(promise, "nothing with this timestamp is in the merged log")
        promises.sort(key=_returned)
        times = [_returned(promise) for promise in promises]
        for operation in world.history if promises else ():
            if operation.outcome is Outcome.OK and operation.at_least is None:
                self._compare(operation, promises[: bisect_left(times, operation.invoked)], places)

    def _compare(
        self, operation: Operation, earlier: list[Operation], places: dict[Timestamp, Position]
    ) -> None:
        writes = operation.kind == "write"
        bound = [one for one in earlier if not writes or one.ordered or one.session == operation.session]
        promise = max(bound, key=lambda one: one.committed_at or 0, default=None)
        if promise is None or promise.committed_at is None:
            return
        if operation.committed_at is not None:
            if operation.committed_at <= promise.committed_at:
                self._fail(promise, f"write {operation.number}, invoked later, at {operation.committed_at}")
            return
        least, position = places[promise.committed_at], operation.position or 0
        if position < least or (position == least and writes):
            self._fail(promise, f"{operation.kind} {operation.number}, invoked later, at position {position}")

    def _fail(self, promise: Operation, what: str) -> None:
        raise Violation(
            self.PROPERTY,
            f"write {promise.number} on server {promise.server} was answered at {promise.returned} as"
            f" committed at timestamp {promise.committed_at}; {what}",
        )


def _returned(operation: Operation) -> int:
    return operation.returned or 0
