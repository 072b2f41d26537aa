"""One connection to any of several servers; when it is lost, one to the next.

Knows addresses and connections. Must not know what is asked on them.

Invariants
- At most one connection at a time. The order of the servers is drawn once, so that clients spread over them.
- Addresses that were given are kept for ever. Behind them come those that were learned, one a server and
  bounded; the newest word about a server is right.
- When every server was tried in vain there is a wait, which grows: a cluster that comes back is not trampled.
- Whoever waits for a connection learns why there is none.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

import trio

from craft.client import Client as Link
from craft.config import Address
from craft.errors import HandshakeRefused, Unreachable
from craft.limits import RemoteLimits
from craft.types import ServerId

Opener: TypeAlias = Callable[[Address], AbstractAsyncContextManager[Link]]


class Links:
    """The connection of the moment. `run` keeps one."""

    def __init__(self, addresses: Sequence[Address], opener: Opener, limits: RemoteLimits) -> None:
        self.current: Link | None = None
        self._given = random.sample(addresses, len(addresses))
        self._learned: dict[ServerId, Address] = {}
        self._opener = opener
        self._limits = limits
        self._changed = trio.Event()
        self._faults: dict[
            Address, HandshakeRefused | Unreachable
        ] = {}  # of the last attempt, where it failed
        self._tried = False  # each server once, since the start
        self._closed = False
        self._left: trio.CancelScope | None = None

    @property
    def addresses(self) -> list[Address]:
        """Whom to try, in this order."""
        return list(dict.fromkeys([*self._given, *self._learned.values()]))

    def learn(self, told: Mapping[ServerId, Address]) -> None:
        """Servers may be reached there too."""
        for server, address in told.items():
            if server in self._learned or len(self._learned) < self._limits.servers_max:
                self._learned[server] = address
        known = set(self.addresses)
        self._faults = {address: fault for address, fault in self._faults.items() if address in known}

    async def run(self) -> None:
        """Connect, and connect again, until cancelled. Raises nothing."""
        delay = self._limits.retry_delay_ms_min
        while True:
            tried: set[Address] = set()
            # Anew after each: while we were connected to one, others may have been learned.
            while (address := next((one for one in self.addresses if one not in tried), None)) is not None:
                tried.add(address)
                if await self._use(address) * 1000 > self._limits.retry_delay_ms_max:
                    delay = self._limits.retry_delay_ms_min
            self._tried = True
            self._tell()
            await trio.sleep(delay / 1000 * random.uniform(0.5, 1.0))
            delay = min(2 * delay, self._limits.retry_delay_ms_max)

    async def _use(self, address: Address) -> float:
        """Connect to one server and stay until the connection ends; for how many seconds that was."""
        started = trio.current_time()
        try:
            with trio.CancelScope() as self._left:
                async with self._opener(address) as link:
                    self._faults.pop(address, None)
                    started = trio.current_time()
                    self.current = link
                    self._tell()
                    await link.ended.wait()
        except (Unreachable, HandshakeRefused) as error:
            self._faults[address] = error
            return 0.0
        finally:
            self.current, self._left = None, None
        return trio.current_time() - started

    def leave(self, link: Link) -> None:
        """This server does not serve: go to another one. Calls that wait on it are told that it broke."""
        if self.current is link:
            self.current = None
            assert self._left is not None
            self._left.cancel()

    def close(self) -> None:
        """No more connections: whoever waits for one is told."""
        self._closed = True
        self._tell()

    async def first(self) -> Link:
        """The first connection. Raises Unreachable or HandshakeRefused once all were tried in vain."""
        while self.current is None and not self._tried:
            await self._changed.wait()
        if self.current is not None:
            return self.current
        refusals = [error for error in self._faults.values() if isinstance(error, HandshakeRefused)]
        kind = HandshakeRefused if len(refusals) == len(self._faults) > 0 else Unreachable
        raise kind(self._why())

    async def connected(self) -> Link:
        """The connection of the moment, or the next one, however long that takes."""
        while self.current is None:
            await self._changed.wait()
        return self.current

    async def reach(self) -> Link:
        """The connection of the moment, or the next one. Raises Unreachable where none comes about."""
        with trio.move_on_after(self._limits.reach_timeout_ms / 1000):
            while self.current is None and not self._closed:
                await self._changed.wait()
        if self._closed:
            await trio.lowlevel.checkpoint()  # or a task that tries again could never be cancelled
            raise Unreachable("the client is closed")
        if self.current is None:
            raise Unreachable(f"no server for {self._limits.reach_timeout_ms} ms: {self._why()}")
        return self.current

    def _why(self) -> str:
        return "; ".join(str(error) for error in self._faults.values()) or "every connection was lost at once"

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
