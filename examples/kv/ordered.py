"""Keys in the order of their bytes, for pages over a prefix.

Knows: an order. Must not know: values, requests.

Invariants:
- `firsts[i]` is the first key of `chunks[i]`, and no chunk is empty.
- A change costs a search and a move within one chunk; a walk costs a search, and what it walks over.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator

CHUNK = 512
"""Keys of a chunk that was just made; with twice as many it is cut in two."""


class Ordered:
    """A set of keys. It is derived from the data and built by who needs it first."""

    __slots__ = ("chunks", "firsts")

    def __init__(self, keys: Iterable[bytes]) -> None:
        ordered = sorted(keys)
        self.chunks = [ordered[at : at + CHUNK] for at in range(0, len(ordered), CHUNK)]
        self.firsts = [chunk[0] for chunk in self.chunks]

    def add(self, key: bytes) -> None:
        """Hold a key that is not held."""
        if not self.chunks:
            self.chunks, self.firsts = [[key]], [key]
            return
        place = self._place(key)
        chunk = self.chunks[place]
        insort(chunk, key)
        self.firsts[place] = chunk[0]
        if len(chunk) > 2 * CHUNK:
            self.chunks[place : place + 1] = [chunk[:CHUNK], chunk[CHUNK:]]
            self.firsts.insert(place + 1, chunk[CHUNK])

    def discard(self, key: bytes) -> None:
        """Forget a key that is held."""
        place = self._place(key)
        chunk = self.chunks[place]
        del chunk[bisect_left(chunk, key)]
        if chunk:
            self.firsts[place] = chunk[0]
        else:
            del self.chunks[place], self.firsts[place]

    def clear(self) -> None:
        """Forget all."""
        self.chunks, self.firsts = [], []

    def walk(self, start: bytes, *, beyond: bool = False) -> Iterator[bytes]:
        """From a key on, or from the next one beyond it. Nothing may change meanwhile."""
        if not self.chunks:
            return
        place = self._place(start)
        chunk = self.chunks[place]
        yield from chunk[bisect_right(chunk, start) if beyond else bisect_left(chunk, start) :]
        for chunk in self.chunks[place + 1 :]:
            yield from chunk

    def _place(self, key: bytes) -> int:
        """The chunk that holds a key, or would."""
        return max(bisect_right(self.firsts, key) - 1, 0)
