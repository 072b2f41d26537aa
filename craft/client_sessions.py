"""Exactly once for remote clients: sessions that are opened in the merged log, and end by its time.

A client's request travels inside a request of the server that took it, which routes and repeats it. Its body
is *tagged*: `[tag, body]`, where a library's body begins with a command.

Knows: tags, and the sessions as of one place of the merged log. Must not know: who waits, clocks, groups.

Invariants
- A session is opened by an `open` in the merged log and never implicitly (PROTOCOL 5, †). Requests name the
  *position* of the `open` that they belong to: a late copy of an `open` may make a session of the same id
  again, after the first has ended, and what was asked in the first has no effect in the second.
- A session ends at the first merged entry stamped beyond its last activity + ttl, or by `close`: by merged
  time alone, so at the same place on every server.
- It keeps a *window* of executed requests, from the client's answered-below line on, not a last number.
- What is judged here depends on the merged log only: the bounds are constants, not configuration.
- Results are kept in the order of applying, the oldest are forgotten first: the same ones on every server,
  however the merged log is cut into lists.
- A merged entry costs one comparison while no session is due to end, and a session one item of a heap.

Reference: PROTOCOL 5; Raft dissertation 6.3.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import msgpack

from craft.limits import (
    CLIENT_RESULT_BYTES_MAX,
    CLIENT_RESULT_OVERHEAD_BYTES,
    CLIENT_RESULTS_BYTES_MAX,
    CLIENT_SESSION_TTL_MS_MAX,
    CLIENT_SESSION_TTL_MS_MIN,
    CLIENT_SESSIONS_MAX,
    CLIENT_WINDOW_REQUESTS_MAX,
)
from craft.marks import mark
from craft.ready import Judged, Verdict
from craft.types import Position, Timestamp

MS = 1_000_000
NEVER = 2**64
"""Beyond every timestamp."""

SESSION_ID_BYTES = 16
"""Random, so that no two clients meet, and nobody can speak for another."""

SessionId: TypeAlias = bytes


# -- tags ------------------------------------------------------------------------------------------


class OpenTag(NamedTuple):
    """Open a session that ends `ttl_ms` of merged time after its last activity."""

    session: SessionId
    ttl_ms: int


class RequestTag(NamedTuple):
    """Let the body's commands take effect once. Everything below `answered_below` was answered."""

    session: SessionId
    opened: Position
    request: int
    answered_below: int


class TouchTag(NamedTuple):
    """Nothing but activity."""

    session: SessionId
    opened: Position


class CloseTag(NamedTuple):
    """The client goes away in good order."""

    session: SessionId
    opened: Position


Tag: TypeAlias = OpenTag | RequestTag | TouchTag | CloseTag

_KINDS: tuple[type[Tag], ...] = (OpenTag, RequestTag, TouchTag, CloseTag)
_CODES = {kind: code for code, kind in enumerate(_KINDS)}

TAGGED = (b"\x92\x93", b"\x92\x95")
"""How a tagged body begins: an array of two, of which the first is an array of three or five. In a library's
body a byte string comes first."""

NO_COMMANDS = b"\x90"


def encode_tagged(tag: Tag, body: bytes = NO_COMMANDS) -> bytes:
    """A tagged body; `body` is a msgpack array of commands."""
    packed: bytes = msgpack.packb(((_CODES[type(tag)], *tag), body))
    return packed


def decode_tagged(tagged: bytes) -> tuple[Tag, bytes] | None:
    """A tag and its body, or None for what only looks like it: that has no effect, on any server."""
    try:
        (code, session, *numbers), body = msgpack.unpackb(tagged, use_list=False)
        kind = _KINDS[code]
        fields = (session, *numbers)
    except (ValueError, TypeError, IndexError, msgpack.UnpackException):
        return None
    whole = len(fields) == len(kind._fields) and type(session) is bytes and type(body) is bytes
    if not whole or len(session) != SESSION_ID_BYTES:
        return None
    if any(type(number) is not int or not 0 <= number < 2**63 for number in numbers):
        return None
    return kind(*fields), body


# -- sessions --------------------------------------------------------------------------------------


class ClientSession:
    """One client's requests."""

    __slots__ = ("below", "deadline", "executed", "opened", "ttl_ns")

    def __init__(self, opened: Position, ttl_ns: int, timestamp: Timestamp) -> None:
        self.opened = opened
        self.ttl_ns = ttl_ns
        self.deadline = timestamp + ttl_ns  # an entry stamped beyond it ends the session
        self.below = 1  # every request below was answered
        self.executed: set[int] = set()  # those at or above it that took effect

    def advance(self, below: int) -> None:
        """The client was answered everything below. Costs what is forgotten, however far the line moves."""
        if below - self.below > len(self.executed):
            self.executed = {request for request in self.executed if request >= below}
        else:
            self.executed.difference_update(range(self.below, below))
        self.below = max(self.below, below)


class ClientSessions:
    """All open sessions, as of one place of the merged log."""

    __slots__ = ("_due", "_open", "expires")

    def __init__(self) -> None:
        self.expires: Timestamp = NEVER
        """An entry stamped beyond it may end a session: then call `expire`. At most once a ttl too early."""
        self._open: dict[SessionId, ClientSession] = {}
        self._due: list[tuple[Timestamp, Position, SessionId]] = []  # a heap; its deadlines may lag behind

    def __len__(self) -> int:
        return len(self._open)

    def items(self) -> Iterator[tuple[SessionId, ClientSession]]:
        """All of them, in an order that is the same everywhere."""
        return iter(sorted(self._open.items()))

    def export(self) -> Iterator[tuple[Any, ...]]:
        """All of them as plain values, in an order that is the same everywhere: for a snapshot."""
        for session_id, one in self.items():
            yield session_id, one.opened, one.ttl_ns, one.deadline, one.below, sorted(one.executed)

    def load(self, exported: Iterable[tuple[Any, ...]]) -> None:
        """Take in what `export` gave."""
        for session_id, opened, ttl_ns, deadline, below, executed in exported:
            session = self._open[session_id] = ClientSession(opened, ttl_ns, deadline - ttl_ns)
            session.below, session.executed = below, set(executed)
            heapq.heappush(self._due, (deadline, opened, session_id))
        self.expires = self._due[0][0] if self._due else NEVER

    def get(self, session_id: SessionId) -> ClientSession | None:
        """An open session."""
        return self._open.get(session_id)

    def expire(self, timestamp: Timestamp) -> list[Judged]:
        """An entry with this stamp is merged: end the sessions that were idle for longer than their ttl."""
        ended = []
        while self._due and self._due[0][0] < timestamp:
            _, opened, session_id = heapq.heappop(self._due)
            session = self._open.get(session_id)
            if session is None or session.opened != opened:
                continue  # closed meanwhile
            if session.deadline < timestamp:
                mark("client session expired")
                del self._open[session_id]
                ended.append(Judged(Verdict.EXPIRED, None, session_id, opened))
            else:
                heapq.heappush(self._due, (session.deadline, opened, session_id))
        self.expires = self._due[0][0] if self._due else NEVER
        return ended

    def judge(
        self, token: Any, tagged: bytes, *, position: Position, timestamp: Timestamp
    ) -> tuple[Judged, bytes]:
        """What a tagged request comes to at its place, and its commands where they take effect."""
        decoded = decode_tagged(tagged)
        if decoded is None:
            mark("malformed tag")
            return Judged(Verdict.ENDED, token, b"", 0), NO_COMMANDS
        tag, body = decoded
        if isinstance(tag, OpenTag):
            return self._open_session(token, tag, position, timestamp), NO_COMMANDS
        session = self._open.get(tag.session)
        if session is None or session.opened != tag.opened:
            mark("client request outside its session")
            verdict = Verdict.ENDED
        else:
            session.deadline = timestamp + session.ttl_ns
            verdict = self._take(session, tag)
        if isinstance(tag, RequestTag):
            return Judged(verdict, token, tag.session, tag.opened, tag.request, tag.answered_below), body
        return Judged(verdict, token, tag.session, tag.opened), NO_COMMANDS

    def _open_session(self, token: Any, tag: OpenTag, position: Position, timestamp: Timestamp) -> Judged:
        session = self._open.get(tag.session)
        if session is not None:
            mark("client session opened again")  # its answer was lost
            session.deadline = timestamp + session.ttl_ns
        elif len(self._open) >= CLIENT_SESSIONS_MAX:
            mark("no room for a client session")
            return Judged(Verdict.FULL, token, tag.session, 0)
        else:
            ttl_ms = min(max(tag.ttl_ms, CLIENT_SESSION_TTL_MS_MIN), CLIENT_SESSION_TTL_MS_MAX)
            session = self._open[tag.session] = ClientSession(position, ttl_ms * MS, timestamp)
            heapq.heappush(self._due, (session.deadline, position, tag.session))
            self.expires = self._due[0][0]
        return Judged(Verdict.OPENED, token, tag.session, session.opened)

    def _take(self, session: ClientSession, tag: RequestTag | TouchTag | CloseTag) -> Verdict:
        if isinstance(tag, RequestTag):
            return _admit(session, tag)
        if isinstance(tag, TouchTag):
            return Verdict.TOUCHED
        del self._open[tag.session]
        if len(self._due) > 2 * len(self._open) + 64:  # else whoever opens and closes all day fills the heap
            self._due = [(one.deadline, one.opened, name) for name, one in self._open.items()]
            heapq.heapify(self._due)
            self.expires = self._due[0][0] if self._due else NEVER
        return Verdict.CLOSED


def _admit(session: ClientSession, tag: RequestTag) -> Verdict:
    """Does this request take effect here? Exactly once for each number."""
    # A line beyond the request itself would be a lie: it is not answered yet.
    session.advance(min(tag.answered_below, tag.request))
    if tag.request in session.executed:
        mark("repeated client request dropped")
        return Verdict.REPEATED
    if tag.request < session.below:
        return Verdict.ANSWERED
    if tag.request >= session.below + CLIENT_WINDOW_REQUESTS_MAX:
        mark("client request beyond its window")
        return Verdict.BEYOND
    session.executed.add(tag.request)
    return Verdict.EXECUTED


# -- results ---------------------------------------------------------------------------------------


class ClientResults:
    """What executed requests were answered, for their repetitions. Changes in applied order only."""

    __slots__ = ("_bytes_max", "_kept", "_requests", "bytes")

    def __init__(self, bytes_max: int | None = None) -> None:
        self.bytes = 0
        # The same on every server, or they keep other results: the constant, but in the simulator.
        self._bytes_max = CLIENT_RESULTS_BYTES_MAX if bytes_max is None else bytes_max
        self._kept: dict[tuple[SessionId, int], bytes] = {}  # the oldest first
        self._requests: dict[SessionId, dict[int, None]] = {}  # those of a session, the oldest first

    def emptied(self) -> ClientResults:
        """Another one with the same bound, which holds nothing."""
        return ClientResults(self._bytes_max)

    def keep(self, session_id: SessionId, request: int, packed: bytes) -> None:
        """Keep a request's result, at the cost of the oldest ones."""
        if len(packed) > CLIENT_RESULT_BYTES_MAX:
            mark("client result not kept")
            return
        self._kept[session_id, request] = packed
        self._requests.setdefault(session_id, {})[request] = None
        self.bytes += len(packed) + CLIENT_RESULT_OVERHEAD_BYTES
        while self.bytes > self._bytes_max:
            mark("oldest client result forgotten")
            self._forget(*next(iter(self._kept)))

    def items(self) -> Iterator[tuple[tuple[SessionId, int], bytes]]:
        """All that is kept, the oldest first."""
        return iter(self._kept.items())

    def find(self, session_id: SessionId, request: int) -> bytes | None:
        """A request's result; None where it is no longer known."""
        return self._kept.get((session_id, request))

    def prune(self, session_id: SessionId, below: int) -> None:
        """The client was answered what lies below.

        What overtook an older request goes with it: so a call costs what it forgets, and no more.
        """
        while (requests := self._requests.get(session_id)) and (first := next(iter(requests))) < below:
            self._forget(session_id, first)

    def drop(self, session_id: SessionId) -> None:
        """The session has ended."""
        for request in list(self._requests.get(session_id, ())):
            self._forget(session_id, request)

    def _forget(self, session_id: SessionId, request: int) -> None:
        self.bytes -= len(self._kept.pop((session_id, request))) + CLIENT_RESULT_OVERHEAD_BYTES
        requests = self._requests[session_id]
        del requests[request]
        if not requests:
            del self._requests[session_id]
