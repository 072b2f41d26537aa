"""From the events of a run to what lasted: who led from when to when, which frame arrived, what was answered.

Knows: the words of the events (`craft.testing.trace`). Must not know: how anything is drawn.

A trace may begin in the middle of a run: what has no beginning in it began with it. What has no end in it
(`end` is None) lasted to its end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from craft.testing.trace import Event
from craft.types import GroupId, ServerId

FRAME = re.compile(r"^f(\d+) ")
GROUP = re.compile(r"\bg(\d+)\b")
NUMBER = re.compile(r"^#(\d+)")
TERM = re.compile(r"\bterm (\d+)")
POSITION = re.compile(r"\bposition (\d+)")

QUIET = (("heartbeat", "Heartbeats"), ("commits",), ("ReadQuery", "ReadReport"))
"""Frames that say little, the least first: frames of nothing else are left out first."""


@dataclass(slots=True)
class Led:
    """A server leads a group in a term."""

    server: ServerId
    group: GroupId
    term: int
    begin: int
    end: int | None = None


@dataclass(slots=True)
class State:
    """A server is `down` or `paused`, and why."""

    server: ServerId
    kind: str
    begin: int
    why: str
    end: int | None = None


@dataclass(slots=True)
class Fault:
    """Bad luck. `details`: what it chose."""

    number: int
    words: str
    begin: int
    end: int | None = None
    details: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Operation:
    """A client's read or write. `outcome`: the kind of the event that ended it; empty: it is open."""

    number: int
    server: ServerId
    kind: str
    begin: int
    end: int | None = None
    outcome: str = ""
    told: str = ""


@dataclass(slots=True)
class Message:
    """A frame. `arrived` is None where it never did, `lost` where that was seen."""

    sender: ServerId
    receiver: ServerId
    sent: int
    words: str
    arrived: int | None = None
    lost: bool = False

    @property
    def group(self) -> GroupId | None:
        """The group that it is about; None where there is not exactly one."""
        groups = set(GROUP.findall(self.words))
        return GroupId(int(groups.pop())) if len(groups) == 1 else None

    @property
    def quiet(self) -> int:
        """0: it says something. Else the smaller, the less it says."""
        names = {re.sub(r"^\d+ ", "", part).partition(" ")[0] for part in self.words.split(", ")}
        quiet: set[str] = set()
        for level, more in enumerate(QUIET, start=1):
            quiet.update(more)
            if names <= quiet:
                return level
        return 0


@dataclass(slots=True)
class Entry:
    """An entry of the merged log, at the time when a server first merged it."""

    position: int
    group: GroupId
    server: ServerId
    at: int
    words: str


class Story:
    """All of it, read from the events once."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.begin = events[0].at if events else 0
        self.end = max(events[-1].at if events else 0, self.begin + 1)
        self.led: list[Led] = []
        self.states: list[State] = []
        self.faults: list[Fault] = []
        self.operations: list[Operation] = []
        self.messages: list[Message] = []
        self.marks: list[Event] = []
        self.log: list[Entry] = []
        self.notes: list[Event] = []  # phases and violations
        self._seen: set[ServerId] = set()
        self._leads: dict[tuple[ServerId, GroupId], Led] = {}
        self._in: dict[tuple[ServerId, str], State] = {}
        self._open: dict[int, Operation] = {}
        self._frames: dict[int, Message] = {}
        self._lasting: dict[int, Fault] = {}
        self._merged: set[int] = set()
        read: dict[str, Callable[[Event], None]] = {
            "start": self._start,
            "refuse": self._refuse,
            "crash": self._crash,
            "pause": self._pause,
            "resume": self._resume,
            "send": self._send,
            "receive": self._receive,
            "lose": self._lose,
            "lead": self._lead,
            "follow": self._follow,
            "append": self.marks.append,
            "commit": self.marks.append,
            "apply": self.marks.append,
            "merge": self._merge,
            "propose": self._ask,
            "read": self._ask,
            "answer": self._settle,
            "served": self._settle,
            "reject": self._settle,
            "unknown": self._settle,
            "fault": self._fault,
            "heal": self._heal,
            "phase": self.notes.append,
            "violation": self.notes.append,
        }
        for event in events:
            reader = read.get(event.kind)
            if reader is not None:
                reader(event)
            self._seen.add(event.server)

    # -- servers ----------------------------------------------------------------------------------

    def _enter(self, server: ServerId, kind: str, at: int, why: str) -> None:
        if (server, kind) not in self._in:
            self._in[server, kind] = State(server, kind, at, why)
            self.states.append(self._in[server, kind])

    def _leave(self, server: ServerId, kind: str, at: int) -> None:
        state = self._in.pop((server, kind), None)
        if state is not None:
            state.end = at

    def _start(self, event: Event) -> None:
        if event.server not in self._seen and event.at > self.begin:
            self._enter(event.server, "down", self.begin, "not started yet")
        self._leave(event.server, "down", event.at)

    def _refuse(self, event: Event) -> None:
        self._leave(event.server, "down", event.at)
        self._enter(event.server, "down", event.at, f"refused its disk: {event.rest}")

    def _crash(self, event: Event) -> None:
        self._leave(event.server, "paused", event.at)
        self._enter(event.server, "down", event.at, event.rest)
        for server, group in list(self._leads):
            if server == event.server:
                self._cease(server, group, event.at)

    def _pause(self, event: Event) -> None:
        self._enter(event.server, "paused", event.at, "")

    def _resume(self, event: Event) -> None:
        self._leave(event.server, "paused", event.at)

    # -- leaders ----------------------------------------------------------------------------------

    def _cease(self, server: ServerId, group: GroupId, at: int) -> None:
        led = self._leads.pop((server, group), None)
        if led is not None:
            led.end = at

    def _lead(self, event: Event) -> None:
        if event.group is None:
            return
        term = _number(TERM, event.rest)
        now = self._leads.get((event.server, event.group))
        if now is not None and now.term == term:
            return
        self._cease(event.server, event.group, event.at)
        led = Led(event.server, event.group, term, event.at)
        self._leads[event.server, event.group] = led
        self.led.append(led)

    def _follow(self, event: Event) -> None:
        if event.group is not None:
            self._cease(event.server, event.group, event.at)

    # -- frames -----------------------------------------------------------------------------------

    def _send(self, event: Event) -> None:
        if event.peer is None:
            return
        message = Message(event.server, event.peer, event.at, FRAME.sub("", event.rest))
        self._frames[_number(FRAME, event.rest)] = message
        self.messages.append(message)

    def _receive(self, event: Event) -> None:
        """A frame that comes again is drawn once more, from where it was sent."""
        sent = self._frames.get(_number(FRAME, event.rest))
        if sent is None or event.peer is None:
            return
        if sent.arrived is not None or sent.lost:
            again = f"again: {sent.words}"
            self.messages.append(Message(sent.sender, sent.receiver, sent.sent, again, event.at))
        else:
            sent.arrived = event.at

    def _lose(self, event: Event) -> None:
        sent = self._frames.get(_number(FRAME, event.rest))
        if sent is not None:
            sent.lost = True

    # -- the log ----------------------------------------------------------------------------------

    def _merge(self, event: Event) -> None:
        position = _number(POSITION, event.rest)
        if event.group is not None and position not in self._merged:
            self._merged.add(position)
            self.log.append(Entry(position, event.group, event.server, event.at, event.rest))

    # -- clients ----------------------------------------------------------------------------------

    def _ask(self, event: Event) -> None:
        kind = "write" if event.kind == "propose" else "read"
        operation = Operation(_number(NUMBER, event.rest), event.server, kind, event.at)
        self._open[operation.number] = operation
        self.operations.append(operation)

    def _settle(self, event: Event) -> None:
        operation = self._open.pop(_number(NUMBER, event.rest), None)
        if operation is not None:
            operation.end, operation.outcome = event.at, event.kind
            operation.told = NUMBER.sub("", event.rest).strip()

    # -- faults -----------------------------------------------------------------------------------

    def _fault(self, event: Event) -> None:
        """A numbered fault begins; what has no number is what the last one chose."""
        if not NUMBER.match(event.rest):
            if self.faults:
                self.faults[-1].details.append(event.rest)
            return
        fault = Fault(_number(NUMBER, event.rest), event.rest, event.at)
        self._lasting[fault.number] = fault
        self.faults.append(fault)

    def _heal(self, event: Event) -> None:
        fault = self._lasting.pop(_number(NUMBER, event.rest), None)
        if fault is not None:
            fault.end = event.at


def _number(pattern: re.Pattern[str], text: str) -> int:
    found = pattern.search(text)
    return int(found[1]) if found else 0
