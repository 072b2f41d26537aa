"""Exactly once: the sessions that every server keeps equal, because they change in merged order only.

Knows: which requests of which server incarnation took effect; how proposals are packed into an entry. Must
not know: clocks, groups.

Invariants
- A command takes effect only if its session is open at its place in the merged log; a session is never
  created implicitly (PROTOCOL 5, †).
- A session keeps a *window* of executed requests, not a last number: with pipelining request 6 may merge
  before 5.
- The highest counter per server id is kept for ever; a lower one never opens again.

Reference: PROTOCOL 5; Raft dissertation 6.3.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any

import msgpack

from craft.marks import mark
from craft.types import Proposal, ServerId

OPEN = 0  # the request number of the proposal that opens a session; its body is the incarnation's nonce
NONCE_BYTES = 16
PROPOSAL_HEADER_BYTES = 56
"""What a proposal costs at most besides its body: seven msgpack headers and five numbers."""


class Opened(Enum):
    """What became of an `open`."""

    OPENED = 0
    REPEATED = 1  # the very same open again: a duplicate
    REFUSED = 2  # a lower counter, or the same one with another nonce


class Session:
    """One server incarnation's requests."""

    __slots__ = ("below", "counter", "executed", "nonce")

    def __init__(self, counter: int, nonce: bytes) -> None:
        self.counter = counter
        self.nonce = nonce
        self.below = 1  # every request below was answered to its origin
        self.executed: set[int] = set()  # those at or above it that took effect


class Sessions:
    """All sessions, as of one position of the merged log."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[ServerId, Session] = {}

    def highest(self, server_id: ServerId) -> int:
        """The highest counter that was ever opened under this id; 0 if none."""
        session = self._open.get(server_id)
        return session.counter if session is not None else 0

    def current(self, server_id: ServerId) -> Session | None:
        """The open session of a server."""
        return self._open.get(server_id)

    def export(self) -> Iterator[tuple[Any, ...]]:
        """All of them as plain values, in an order that is the same everywhere: for a snapshot."""
        for server_id, session in sorted(self._open.items()):
            yield server_id, session.counter, session.nonce, session.below, sorted(session.executed)

    def load(self, exported: Iterable[tuple[Any, ...]]) -> None:
        """Take in what `export` gave."""
        for server_id, counter, nonce, below, executed in exported:
            session = self._open[server_id] = Session(counter, nonce)
            session.below, session.executed = below, set(executed)

    def open(self, server_id: ServerId, counter: int, nonce: bytes) -> Opened:
        """A higher counter ends the lower ones; anything else has no effect."""
        session = self._open.get(server_id)
        if session is None or counter > session.counter:
            self._open[server_id] = Session(counter, nonce)
            return Opened.OPENED
        same = counter == session.counter and nonce == session.nonce
        mark("session opened again" if same else "session refused")
        return Opened.REPEATED if same else Opened.REFUSED

    def admit(self, proposal: Proposal) -> bool:
        """Does this request take effect here? True exactly once for each, and only in an open session."""
        session = self._open.get(proposal.server_id)
        if session is None or session.counter != proposal.counter:
            mark("request of an ended session dropped")
            return False
        if proposal.answered_below > session.below:
            session.below = proposal.answered_below
            session.executed = {request for request in session.executed if request >= session.below}
        request = proposal.request
        if request < session.below or request in session.executed:
            mark("repeated request dropped")
            return False
        session.executed.add(request)
        return True


def encode_payload(proposals: list[Proposal]) -> bytes:
    """The payload of a command entry: its proposals, their bodies as they came."""
    packed: bytes = msgpack.packb(proposals)
    return packed


def decode_payload(payload: bytes) -> list[Proposal]:
    """The proposals of a command entry that was committed (so it was checked when it entered)."""
    unpacked = msgpack.unpackb(payload, use_list=False, max_array_len=len(payload), max_bin_len=len(payload))
    return [Proposal(*fields) for fields in unpacked]
