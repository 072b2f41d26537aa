"""Moments: points in a run at which bad luck does the most harm, so that a fault may wait for one.

Uniform randomness seldom crashes a leader between its append and the commit; a fault that waits for that
moment always does.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from craft.types import EntryKind, ServerId, Write, is_command

if typing.TYPE_CHECKING:
    from craft.testing.server import SimServer
    from craft.testing.world import World

MOMENTS = {
    "start": "a server has started on its disk",
    "elect": "a server has become leader of a group",
    "append": "a leader has appended a command; its frames have just left, its disk write has just begun",
    "close": "a leader has appended an empty entry",
    "follow": "a follower has written entries of its leader, and not yet synced them",
    "truncate": "a follower has cut its log",
    "ballot": "a server has written a new term or vote, and not yet synced it",
    "counter": "a starting server has written its new session counter, and not yet synced it",
    "open": "a leader has appended the opening of a session",
    "sync": "a sync has just ended; what waited for it has not left",
    "learn": "a follower has learnt that entries of its group are committed",
    "answer": "a client has been answered",
    "served": "a client's read has been served",
}
"""Those of every run, and what is true then."""

SNAPSHOT_MOMENTS = {
    "capture": "a server has forked its state machine, and not yet written its snapshot",
    "piece": "a piece of a peer's snapshot was written",
    "received": "a peer's snapshot is whole and durable, and not yet installed",
}
"""Those of runs that take snapshots."""

MEMBER_MOMENTS = {
    "configure": "a leader has appended a configuration",
}
"""Those of runs about members."""

ALL_MOMENTS = {**MOMENTS, **SNAPSHOT_MOMENTS, **MEMBER_MOMENTS}
"""Whatever a script may wait for."""


@dataclass(slots=True)
class _Waiting:
    after: int
    left: int
    event: Callable[[ServerId], None]


class Moments:
    """Who waits for which moment."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[_Waiting]] = {}
        self._learnt: dict[ServerId, int] = {}

    def wait(self, name: str, *, nth: int, after: int, event: Callable[[ServerId], None]) -> None:
        """Call `event(server)` right behind the nth moment of a kind at or after a time."""
        assert name in ALL_MOMENTS, name
        self._waiting.setdefault(name, []).append(_Waiting(after, nth, event))

    def reached(self, world: World, name: str, server: ServerId) -> None:
        """A moment is here."""
        waiting = self._waiting.get(name)
        if not waiting:
            return
        for one in waiting:
            if world.time >= one.after:
                one.left -= 1
                if one.left == 0:
                    world.at(world.time, partial(one.event, server))
        self._waiting[name] = [one for one in waiting if one.left > 0]

    def turned(self, world: World, server: SimServer) -> None:
        """Has a follower learnt of commits?"""
        if not self._waiting.get("learn"):
            return
        states = [replica.state for replica in server.engine.state.replicas]
        learnt = sum(r.commit_index for r in states if not r.leads)
        before, self._learnt[server.id] = self._learnt.get(server.id, learnt), learnt
        if learnt > before:
            self.reached(world, "learn", server.id)

    def wrote(self, world: World, server: SimServer, write: Write) -> None:
        """The moments that a write marks."""
        if not self._waiting:
            return
        for append in write.appends:
            if append.truncate_from:
                self.reached(world, "truncate", server.id)
            if not append.entries:
                continue
            if not server.engine.state.raft(append.group).leads:
                self.reached(world, "follow", server.id)
            elif any(entry.kind is EntryKind.SESSION for entry in append.entries):
                self.reached(world, "open", server.id)
            elif any(is_command(entry.kind) for entry in append.entries):
                self.reached(world, "append", server.id)
            else:
                if any(entry.kind is EntryKind.CONFIGURATION for entry in append.entries):
                    self.reached(world, "configure", server.id)
                self.reached(world, "close", server.id)
        for group, state in write.hard_states:
            before = server.disk.synced.hard_states[group]
            if before is None or (before.term, before.vote) != (state.term, state.vote):
                self.reached(world, "ballot", server.id)
                break
        if write.counter is not None:
            self.reached(world, "counter", server.id)
