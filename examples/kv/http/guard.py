"""Who asks: HTTP's Basic authentication, with passwords that are dear to check.

Knows: users, the Authorization header. Must not know: what is asked for.

Invariants:
- A password is checked in a thread, one at a time. Who was recognized is remembered for a while, by a keyed
  hash under a key of this process: no password is kept.
- What waits is bounded, for each address too: a flood of wrong passwords holds up the newcomers of its own
  address before it holds up others', and nobody who is remembered.

Reference: RFC 7617.
"""

from __future__ import annotations

import hashlib
import os
from base64 import b64decode
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import trio

from examples.kv.http.problems import AGAIN, Problem
from examples.kv.users import User, Users

REMEMBERED_MAX = 1024
REMEMBERED_S = 60

CHALLENGE = {"www-authenticate": 'Basic realm="kv", charset="UTF-8"'}


class Known(NamedTuple):
    """Somebody whose password was right."""

    user: User
    until: float


class Guard:
    """Tells users from their headers."""

    def __init__(self, users: Users, *, waiting_max: int, clock: Callable[[], float]) -> None:
        self._users = users
        self._clock = clock
        self._key = os.urandom(32)
        self._known: OrderedDict[bytes, Known] = OrderedDict()
        self._waiting: Counter[str] = Counter()
        self._waiting_max = waiting_max
        self._turn = trio.Lock()
        self.checks = 0
        """Passwords checked so far."""

    async def identify(self, authorization: str | None, address: str) -> User:
        """Who sends this header. Raises Problem."""
        everybody = self._users.everybody
        if everybody is not None:
            return everybody
        name, password = credentials(authorization)
        mark = self._mark(name, password)
        return self._remembered(mark) or await self._checked(name, password, mark, address)

    async def _checked(self, name: str, password: bytes, mark: bytes, address: str) -> User:
        waiting = self._waiting
        if waiting.total() >= self._waiting_max or waiting[address] >= max(1, self._waiting_max // 2):
            raise Problem("too-many-passwords", "come again in a second", headers=AGAIN)
        waiting[address] += 1
        try:
            async with self._turn:
                known = self._remembered(mark)  # another of the same user's requests came first
                if known is not None:
                    return known
                self.checks += 1
                user = await trio.to_thread.run_sync(self._users.verify, name, password)
        finally:
            waiting[address] -= 1
            waiting += Counter()  # forgets those of whom none waits
        if user is None:
            raise Problem("who-are-you", "there is no such user, or the password is wrong", headers=CHALLENGE)
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
        return hashlib.blake2b(name.encode() + b":" + password, key=self._key, digest_size=32).digest()


def credentials(authorization: str | None) -> tuple[str, bytes]:
    """The name and password of a header."""
    if authorization is None:
        raise Problem("who-are-you", "the header Authorization is missing", headers=CHALLENGE)
    scheme, _, encoded = authorization.partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError
        name, colon, password = b64decode(encoded.strip(), validate=True).partition(b":")
        if not colon:
            raise ValueError
        return name.decode(), password
    except ValueError:
        raise Problem("who-are-you", "the header Authorization is no Basic one", headers=CHALLENGE) from None
