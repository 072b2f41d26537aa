"""Keys by slot: an order that outlives changes, restarts and servers, for the cursors of SCAN and HSCAN.

Knows: which slot a key falls into. Must not know: values, commands.

Invariants:
- A key's slot never changes, so a cursor (the next slot) finds every key that was there from the first call
  to the last, whichever server answers, and whatever was added or removed meanwhile.
- The order inside a slot is that of the keys' bytes: the same on every server.
"""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

SLOTS = 16_384
"""A million keys are 61 in a slot: about what one call of SCAN may answer beyond its COUNT."""


def slot(key: bytes) -> int:
    """Where a key belongs."""
    return crc32(key) % SLOTS


class Index:
    """The keys of each slot that has any. It is derived from the data and built by who needs it first."""

    __slots__ = ("buckets",)

    def __init__(self, keys: Iterable[bytes]) -> None:
        self.buckets: dict[int, set[bytes]] = {}
        for key in keys:
            self.add(key)

    def add(self, key: bytes) -> None:
        """Hold a key (again)."""
        self.buckets.setdefault(slot(key), set()).add(key)

    def discard(self, key: bytes) -> None:
        """Forget a key."""
        place = slot(key)
        bucket = self.buckets.get(place, set())
        bucket.discard(key)
        if not bucket:
            self.buckets.pop(place, None)

    def clear(self) -> None:
        """Forget all."""
        self.buckets.clear()

    def scan(self, cursor: int, count: int) -> tuple[int, list[bytes]]:
        """At least `count` keys from a slot on (whole slots only), and the next cursor: 0 at the end."""
        found: list[bytes] = []
        place = cursor
        while place < SLOTS and len(found) < count:
            found += sorted(self.buckets.get(place, ()))
            place += 1
        return (place if place < SLOTS else 0), found
