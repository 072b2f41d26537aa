"""What the requests of one server share, and how they reach the store.

Knows: the store, limits, counters. Must not know: any request.

Invariants:
- Nothing waits for ever: a command without an answer in time has an unknown outcome, and says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import trio

import craft
from examples.kv.commands import Args
from examples.kv.http.asking import Freshness
from examples.kv.http.guard import Guard
from examples.kv.http.limits import HttpLimits
from examples.kv.http.problems import Problem, of_read, of_write
from examples.kv.replies import Reply
from examples.kv.store import Mode, Query, Store

T = TypeVar("T")

FRESH = Freshness(Mode.LINEARIZABLE, 0)


@dataclass(slots=True)
class House:
    """One server's."""

    store: Store
    guard: Guard
    limits: HttpLimits
    hosts: frozenset[str] | None = None
    """The names by which it may be called; None: any. Without users a page in a browser of this machine must
    not reach it under a name of its own."""
    port: int = 0
    requests: int = 0
    """Under way."""
    followers: int = 0
    connections: int = 0
    """Open."""
    turned_away: int = 0
    stopping: trio.Event = field(default_factory=trio.Event)
    """Whoever would go on for ever ends now."""
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By method and status."""

    async def write(self, commands: Sequence[Args], watched: Sequence[tuple[bytes, int]] = ()) -> Reply:
        """A transaction's replies. Raises Problem."""
        try:
            with trio.move_on_after(self.limits.answer_timeout_s):
                return await self.store.carry_out(commands, watched)
        except craft.CraftError as error:
            raise of_write(error) from error
        raise Problem("no-answer", f"none in {self.limits.answer_timeout_s} s", fate="unknown")

    async def see(self, query: Query[T], fresh: Freshness = FRESH) -> T:
        """What a query answers. Raises Problem."""
        self.store.reads += 1
        try:
            with trio.move_on_after(self.limits.answer_timeout_s):
                return await self.store.see(query, fresh.mode, fresh.at_least)
        except craft.CraftError as error:
            raise of_read(error) from error
        raise Problem("no-answer", f"none in {self.limits.answer_timeout_s} s: is a majority in touch?")

    def metrics(self) -> list[dict[str, Any]]:
        """Of this port and the store, in the shape of craft's own."""
        keys = len(self.store.machine.space.values)
        found = [
            metric(
                "kv_http_connections", "gauge", "connections", "open on the HTTP port", value=self.connections
            ),
            metric("kv_http_followers", "gauge", "followers", "of the change stream", value=self.followers),
            metric("kv_http_passwords_total", "counter", "passwords", "checked", value=self.guard.checks),
            metric("kv_http_refused_total", "counter", "connections", "turned away", value=self.turned_away),
            metric("kv_keys", "gauge", "keys", "held, expired ones too", value=keys),
            metric("kv_reads_total", "counter", "reads", "asked of the store", value=self.store.reads),
            metric("kv_writes_total", "counter", "commands", "given to the log", value=self.store.writes),
        ]
        for (method, status), count in sorted(self.answers.items()):
            labels = {"method": method, "status": str(status)}
            found.append(
                metric("kv_http_answers_total", "counter", "answers", "sent", value=count, labels=labels)
            )
        return found


def metric(
    name: str, type: str, unit: str, help: str, *, value: int, labels: dict[str, str] | None = None
) -> dict[str, Any]:
    """One, as `server.metrics()` has them."""
    return {"name": name, "type": type, "unit": unit, "help": help, "labels": labels or {}, "value": value}
