"""The load from outside: remote clients with sessions, each of whose calls is watched.

A call is over when its caller is answered, whatever happened to the servers meanwhile: that is how long
somebody waited. Closed-loop: each task makes one call after the other.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

import craft
from craft.errors import CraftError
from craft.limits import RemoteLimits

LIMITS = RemoteLimits(servers_interval_ms=1000)
"""Who learns where servers are asks once a second, not once a minute: here they come and go as soon."""

FAILED_PAUSE_S = 0.02
"""A caller whose call failed does not fail again at once."""


@dataclass(frozen=True, slots=True)
class Wait:
    """One call: when it began, and how long its caller waited, in ns."""

    began_ns: int
    took_ns: int


@dataclass
class Callers:
    """What they asked, and what became of it."""

    waits: list[Wait] = field(default_factory=list)
    answered: list[bytes] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    repeated: list[bytes] = field(default_factory=list)
    """Writes that were answered as having taken effect more than once."""
    _stopping: bool = False
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def call(self, client: craft.Client) -> None:
        """One write after the other, for as long as the load lasts."""
        while not self._stopping:
            write = b"w%d" % next(self._numbers)
            began = time.monotonic_ns()
            try:
                times = await client.propose(write)
            except CraftError as error:
                self.failed.append(f"{type(error).__name__}: {error}")
                await trio.sleep(FAILED_PAUSE_S)
                continue
            self.waits.append(Wait(began, time.monotonic_ns() - began))
            self.answered.append(write)
            if times != 1:
                self.repeated.append(write)

    def stop(self) -> None:
        """Let each finish its call and begin no other."""
        self._stopping = True

    def wrong(self) -> list[str]:
        """Where no call may fail: those that did, and writes that took effect twice."""
        found = [f"{len(self.failed)} calls failed: {self.failed[:3]}"] if self.failed else []
        if self.repeated:
            found.append(f"{len(self.repeated)} writes took effect twice: {self.repeated[:3]}")
        return found

    def longest(self, *, from_ns: int = 0, to_ns: int = 2**63) -> int:
        """The longest that somebody waited whose call was under way between two instants, in ns."""
        during = [
            one.took_ns for one in self.waits if one.began_ns < to_ns and one.began_ns + one.took_ns > from_ns
        ]
        return max(during, default=0)


@asynccontextmanager
async def calling(
    addresses: Sequence[str], *, clients: int, tasks: int, learn: bool = False
) -> AsyncIterator[Callers]:
    """`clients` connections with `tasks` callers each, until the end of the block and the last answer.

    Where servers come and go, they `learn` where others are.
    """
    callers = Callers()
    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            nursery.start_soon(_client, callers, addresses, tasks, learn)
        yield callers
        callers.stop()


async def _client(callers: Callers, addresses: Sequence[str], tasks: int, learn: bool) -> None:
    async with craft.connect(addresses, learn=learn, limits=LIMITS) as client, trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(callers.call, client)
