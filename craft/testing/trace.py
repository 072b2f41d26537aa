"""What happened in a run, one event a line, and one number that stands for all of it.

Knows: events as they are told. Must not know: where they come from.

The columns of a line are fixed and documented (`docs/reference/simulate.md`): time in milliseconds with six
decimals, server (`-` for the world), kind, group (`-` for none), peer (`-` for none), the rest in words.

Invariants
- The hash depends on what happened alone: not on the process, the hash seed of strings, or whether events are
  kept. So two runs of one seed can be compared anywhere.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import NamedTuple

from craft.messages import Frame, Heartbeats
from craft.types import GroupId, ServerId

MS = 1_000_000
LAST_EVENTS_MAX = 200
"""How many of the last events a run remembers for its report, where it does not keep all."""

WORLD: ServerId = 0
"""The server column of what happens to no server in particular."""

KINDS = {
    "start": "a server started on its disk; the rest says what it found",
    "refuse": "a server refused to start on its disk; the rest says why",
    "crash": "a server lost its memory; the rest says how, and what became of its unsynced writes",
    "end": "a server ended itself; the rest says why",
    "pause": "a server stands still, as by SIGSTOP",
    "resume": "a server goes on",
    "link": "a connection to the peer is made",
    "unlink": "the connection to the peer broke",
    "send": "a frame left for the peer; the rest is its number and its messages, with their groups",
    "receive": "a frame from the peer was taken: what was sent under that number",
    "lose": "a frame to the peer was lost",
    "write": "a batch was written, unsynced; the rest is its number and what it holds",
    "synced": "a batch is durable",
    "lead": "the server leads the group from now on, in this term",
    "follow": "the server follows the peer, or nobody, in this term",
    "append": "the last entry of the group's log here: index, term, timestamp",
    "commit": "the group's commit index here",
    "merge": "an entry of the group was merged: position, timestamp, index",
    "apply": "the state machine has applied everything up to this position",
    "capture": "a snapshot was forked at this position, and is being written",
    "restore": "the state machine was replaced by a peer's snapshot of this position",
    "propose": "a client proposed; the rest is the operation's number",
    "answer": "a client was answered: number, position",
    "reject": "a client's request had no effect and never will",
    "unknown": "a client does not know what became of its request",
    "ask": "a client with a session attempts a call: the operation's number, and the request's",
    "read": "a client asked for a read",
    "served": "a read was served: number, position",
    "fault": "bad luck begins",
    "heal": "bad luck ends",
    "phase": "the run enters another phase",
    "violation": "a property does not hold",
}
"""Every kind of event, and what it says."""


class Event(NamedTuple):
    """One thing that happened. `at` is in ns of virtual time since the run began."""

    at: int
    server: ServerId
    kind: str
    group: GroupId | None = None
    peer: ServerId | None = None
    rest: str = ""

    def line(self) -> str:
        """The event in the documented columns."""
        server = "-" if self.server == WORLD else str(self.server)
        group = "-" if self.group is None else str(self.group)
        peer = "-" if self.peer is None else str(self.peer)
        return f"{self.at / MS:15.6f} {server:>3} {self.kind:<9} {group:>3} {peer:>3} {self.rest}".rstrip()


class Trace:
    """The events of one run: all of them (`keep`), or the last few for a report, and always the hash."""

    def __init__(self, *, keep: bool = False) -> None:
        self.keep = keep
        self.events: deque[Event] = deque(maxlen=None if keep else LAST_EVENTS_MAX)
        self._hash = 0

    def add(
        self,
        at: int,
        server: ServerId,
        kind: str,
        rest: str = "",
        *,
        group: GroupId | None = None,
        peer: ServerId | None = None,
    ) -> None:
        """Something happened."""
        self.events.append(Event(at, server, kind, group, peer, rest))

    def fold(self, *numbers: int) -> None:
        """Let numbers count in the hash. Numbers only: the hash of a string differs between processes."""
        self._hash = hash((self._hash, *numbers))

    @property
    def digest(self) -> str:
        """The hash of everything folded in so far, as 16 hexadecimal digits."""
        return f"{self._hash & 0xFFFF_FFFF_FFFF_FFFF:016x}"

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)


def words(frame: Frame) -> str:
    """A frame's messages, for people."""
    if all(isinstance(message, Heartbeats) for message in frame.messages):
        return "heartbeat" if frame.messages else "commits"
    counts = Counter(_word(message) for message in frame.messages)
    return ", ".join(name if count == 1 else f"{count} {name}" for name, count in counts.items())


def _word(message: object) -> str:
    """A message's name, and its group where it is about one."""
    group = getattr(message, "group", None)
    return type(message).__name__ if group is None else f"{type(message).__name__} g{group}"
