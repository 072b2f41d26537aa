"""Remote clients' sessions: the rules once more, and that every server keeps to them alike.

Knows: the merged log's tagged requests. The rules are written apart from the product's (`client_sessions`),
as plainly as possible.

Reference: PROTOCOL 5.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import msgpack

from craft.limits import CLIENT_SESSION_TTL_MS_MAX, CLIENT_SESSION_TTL_MS_MIN, CLIENT_WINDOW_REQUESTS_MAX
from craft.ready import Judged, Merged
from craft.testing.checkers.base import Checker, Violation
from craft.testing.history import ClientRequest
from craft.types import Position, ServerId, Timestamp

if typing.TYPE_CHECKING:
    from craft.testing.server import SimServer
    from craft.testing.world import World

MS = 1_000_000
TAG_ARRAYS = (3, 5)
"""Its code, the session, and one number or more; a library's body begins with bytes."""

OPEN, REQUEST, TOUCH, CLOSE = range(4)

Word: TypeAlias = tuple[str, bytes, Position, int]
"""A verdict's name, the session, where it was opened, and the request's number, or 0."""


class _Open:
    """A session that is open, as the rules have it."""

    def __init__(self, opened: Position, ttl_ns: int, timestamp: Timestamp) -> None:
        self.opened, self.ttl_ns, self.active = opened, ttl_ns, timestamp
        self.below = 1
        self.done: set[int] = set()


class Due(NamedTuple):
    """What the rules make of a tagged request: the word for it, and its commands where they take effect."""

    word: Word
    body: bytes | None


class Rules:
    """Which requests take effect, in merged order."""

    def __init__(self) -> None:
        self.effects: dict[ClientRequest, Position] = {}
        """Where each request took effect."""
        self._open: dict[bytes, _Open] = {}

    def expire(self, timestamp: Timestamp) -> list[Word]:
        """An entry is merged: sessions that were idle for longer than their time to live end before it."""
        ended = [(name, one) for name, one in self._open.items() if timestamp > one.active + one.ttl_ns]
        for name, _ in ended:
            del self._open[name]
        return [("EXPIRED", name, one.opened, 0) for name, one in ended]

    def judge(self, tagged: bytes, position: Position, timestamp: Timestamp) -> Due | None:
        """One request; None where it is no remote client's."""
        try:
            tag, body = msgpack.unpackb(tagged, use_list=False)
            code, session, *numbers = tag
        except (ValueError, TypeError):
            return None
        if type(tag) is not tuple or len(tag) not in TAG_ARRAYS:
            return None
        if code == OPEN:
            return Due(self._opening(session, numbers[0], position, timestamp), None)
        opened, number = numbers[0], numbers[1] if code == REQUEST else 0
        one = self._open.get(session)
        word, effect = "ENDED", False
        if one is not None and one.opened == opened:
            one.active = timestamp
            if code == REQUEST:
                word = _request(one, number, numbers[2])
                effect = word == "EXECUTED"
            else:
                word = "TOUCHED" if code == TOUCH else "CLOSED"
            if code == CLOSE:
                del self._open[session]
        if effect:
            self.effects[ClientRequest(session, opened, number)] = position
        return Due((word, session, opened, number), body if effect else None)

    def _opening(self, name: bytes, ttl_ms: int, position: Position, timestamp: Timestamp) -> Word:
        one = self._open.get(name)
        if one is None:
            ttl_ms = max(CLIENT_SESSION_TTL_MS_MIN, min(CLIENT_SESSION_TTL_MS_MAX, ttl_ms))
            one = self._open[name] = _Open(position, ttl_ms * MS, timestamp)
        one.active = timestamp
        return "OPENED", name, one.opened, 0


def _request(one: _Open, number: int, below: int) -> str:
    one.below = max(one.below, min(below, number))
    if number in one.done:
        return "REPEATED" if number >= one.below else "ANSWERED"
    if number < one.below:
        return "ANSWERED"
    if number >= one.below + CLIENT_WINDOW_REQUESTS_MAX:
        return "BEYOND"
    one.done.add(number)
    return "EXECUTED"


class ClientSessionsAgree(Checker):
    """What requests come to, where sessions end, what is kept of them: the same at the same position."""

    PROPERTY = "equal client sessions at equal merged positions"

    def __init__(self, due: Sequence[Sequence[Word]]) -> None:
        self._due = due  # of each position, by the rules
        self._kept: dict[Position, tuple[int, ServerId]] = {}

    def applied(
        self, server: SimServer, entries: Sequence[Merged], _results: Sequence[Sequence[Any] | None]
    ) -> None:
        """Compare with the rules, entry by entry; and what is kept with what another server keeps."""
        for merged in entries:
            due = self._due[merged.position - 1]
            if merged.clients or due:
                self._compare(server, merged, due)
        e, results = server.engine.state, server.applier.client_results
        # Where nothing was ever kept there is nothing to compare.
        if e.merged_position == entries[-1].position and (len(e.clients) or results.bytes):
            self._agree(server, entries[-1].position)

    def _compare(self, server: SimServer, merged: Merged, due: Sequence[Word]) -> None:
        found = [_word(judged) for judged in merged.clients]
        if sorted(found) != sorted(due) or _unexpired(found) != _unexpired(due):
            raise Violation(
                self.PROPERTY,
                f"at position {merged.position} server {server.id} judges {_words(found)};"
                f" due are {_words(due)}",
            )

    def _agree(self, server: SimServer, position: Position) -> None:
        found = hash(_state(server))
        first, where = self._kept.setdefault(position, (found, server.id))
        if first != found:
            raise Violation(
                self.PROPERTY,
                f"at position {position} server {server.id} does not keep what server {where} kept there of"
                f" its clients' sessions, but {_state(server)!r:.300}",
            )

    def ended(self, world: World) -> None:
        """Compare all."""
        for _, server in sorted(world.servers.items()):
            if server.engine.state.merged_position == server.applied_position > 0:
                self._agree(server, server.applied_position)


def _state(server: SimServer) -> tuple[Any, ...]:
    sessions = tuple(
        (name, one.opened, one.ttl_ns, one.deadline, one.below, tuple(sorted(one.executed)))
        for name, one in server.engine.state.clients.items()
    )
    # What a result says is for others: a state machine's may print otherwise on each server.
    plan = server.world.plan.snapshots
    if plan is not None and plan.kept is not None:
        return sessions, ()  # what was answered before a restart is not known behind it
    return sessions, tuple(name for name, _ in server.applier.client_results.items())


def _word(judged: Judged) -> Word:
    return judged.verdict.name, judged.session, judged.opened, judged.request


def _unexpired(words: Sequence[Word]) -> list[Word]:
    """In the order of the requests; where several expire at one place their order is nobody's business."""
    return [word for word in words if word[0] != "EXPIRED"]


def _words(words: Sequence[Word]) -> str:
    return ", ".join(
        f"{name} {session.hex()[:6]}/{opened} #{number}" for name, session, opened, number in words
    )
