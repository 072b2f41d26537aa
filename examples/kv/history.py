"""What keys held before: for looking back, as far as memory for it goes.

Knows: changes in the order of the log. Must not know: commands, how data are kept.

Invariants:
- A record says what a key held until a time. At a time t a key held what its first record says that ends
  behind t; without one, what it holds now.
- No more than `bytes_max` is kept, the newest. `since` says from when on it is complete.
- It is this server's own, and no part of the state: it begins anew with a restart or a snapshot.
- A change costs a tuple at the end of a queue; who looks back pays for the search.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from examples.kv.values import Hash, Value

RECORD_BYTES = 200
"""What a record costs beside its key and value."""

A_HASH = Hash(0)
"""Stands for all: of a hash it is only kept that it was one, and its fields would be more than is counted."""


class Held(NamedTuple):
    """What a key held."""

    value: Value | None
    """None: the key was not there. Of a hash it only says that it was one."""
    deadline: int | None


class History:
    """The last changes."""

    __slots__ = ("_bytes", "_bytes_max", "_records", "since")

    def __init__(self, bytes_max: int, since: int = 0) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._records: deque[tuple[int, bytes, Value | None, int | None, int]] = deque()
        """Until when, which key, what it held until when it would have expired; and what that takes here."""
        self.since = since
        """In ms: everything from then on is here."""

    def note(self, now: int, key: bytes, value: Value | None, deadline: int | None) -> None:
        """A key held this, and is about to hold something else."""
        size = RECORD_BYTES + len(key)
        if isinstance(value, Hash):
            value = A_HASH
        elif value is not None:
            size += len(value)
        self._records.append((now, key, value, deadline, size))
        self._bytes += size
        while self._bytes > self._bytes_max:
            until, _, _, _, size = self._records.popleft()
            self._bytes -= size
            self.since = max(self.since, until)

    def clear(self, now: int) -> None:
        """Nothing before is known any more."""
        self._records.clear()
        self._bytes = 0
        self.since = now

    def at(self, key: bytes, time: int) -> Held | None:
        """What a key held at a time; None: what it holds now. The time is not before `since`."""
        for until, changed, value, deadline, _ in self._records:
            if until > time and changed == key:
                return Held(value, deadline)
        return None
