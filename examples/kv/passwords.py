"""Passwords are dear to check: who may wait for it, and who was recognized a while ago.

Knows: users. Must not know: protocols.

Invariants:
- A password is checked in a thread, one at a time; the same of the same user once for all who wait for it.
- Who was recognized is remembered for a while, by a keyed hash under a key of this process: no password is
  kept.
- What waits is bounded, for each address too: a flood of wrong passwords holds up the newcomers of its own
  address before it holds up others', and nobody who is remembered.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import trio

from examples.kv.users import User, Users

REMEMBERED_MAX = 1024
REMEMBERED_S = 60


class TooMany(Exception):
    """Too many passwords wait to be checked."""


class Known(NamedTuple):
    """Somebody whose password was right."""

    user: User
    until: float


class Check:
    """Of one password, under way."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self.found: list[User | None] = []
        """What came of it; nothing, if who asked for it left."""


class Passwords:
    """Tells users from their passwords."""

    def __init__(self, users: Users, *, waiting_max: int, clock: Callable[[], float]) -> None:
        self._users = users
        self._clock = clock
        self._key = os.urandom(32)
        self._known: OrderedDict[bytes, Known] = OrderedDict()
        self._waiting: Counter[str] = Counter()
        self._waiting_max = waiting_max
        self._under_way: dict[bytes, Check] = {}
        self._turn = trio.Lock()
        self.checks = 0
        """Passwords checked so far."""

    async def check(self, name: str, password: bytes, address: str) -> User | None:
        """The user of that name with that password; None: there is none. Raises TooMany."""
        mark = self._mark(name, password)
        while True:
            known = self._remembered(mark)
            if known is not None:
                return known
            other = self._under_way.get(mark)
            if other is None:
                return await self._checked(name, password, mark, address)
            await other.over.wait()
            if other.found:
                return other.found[0]

    async def _checked(self, name: str, password: bytes, mark: bytes, address: str) -> User | None:
        waiting = self._waiting
        if waiting.total() >= self._waiting_max or waiting[address] >= max(1, self._waiting_max // 2):
            raise TooMany
        waiting[address] += 1
        check = self._under_way[mark] = Check()
        try:
            async with self._turn:
                self.checks += 1
                user = await trio.to_thread.run_sync(self._users.verify, name, password)
            check.found.append(user)
        finally:
            del self._under_way[mark]
            check.over.set()
            waiting[address] -= 1
            waiting += Counter()  # forgets those of whom none waits
        if user is not None:
            self._known[mark] = Known(user, self._clock() + REMEMBERED_S)
            if len(self._known) > REMEMBERED_MAX:
                self._known.popitem(last=False)
        return user

    def _remembered(self, mark: bytes) -> User | None:
        known = self._known.get(mark)
        if known is None:
            return None
        if known.until < self._clock():
            del self._known[mark]
            return None
        return known.user

    def _mark(self, name: str, password: bytes) -> bytes:
        text = name.encode(errors="surrogateescape")
        sizes = b"%d:" % len(text)
        return hashlib.blake2b(sizes + text + password, key=self._key, digest_size=32).digest()
