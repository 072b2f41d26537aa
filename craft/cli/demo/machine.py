"""The demo's state machine: a ledger that counts how often each write took effect.

An ordinary one: it is given to `craft serve --state-machine craft.cli.demo.machine:Ledger`, and asked through
`craft read`.

Invariant: `digest` is the sum of a hash of each effect, `(write, how often by then)`: equal states have equal
digests, and a server whose state differs in any write has another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from itertools import islice
from typing import Any

import msgpack

from craft.state_machine import Batch

DIGEST_BITS = 128

COUNTS_A_CHUNK = 4096
"""Some hundred KiB: packed in a few milliseconds, while the server waits for no more."""


class Ledger:
    """Which writes there are, and how often each took effect."""

    def __init__(self) -> None:
        self.counts: dict[bytes, int] = {}
        self.position = 0
        self.repeated: list[bytes] = []
        self._sum = 0

    def apply_batch(self, batch: Batch) -> list[int]:
        """Count each write; the result is how often it took effect by now."""
        results = [self._apply(write) for write in batch]
        self.position = batch.position
        return results

    def _apply(self, write: bytes) -> int:
        count = self.counts[write] = self.counts.get(write, 0) + 1
        if count == 2:
            self.repeated.append(write)
        effect = blake2b(write + b" %d" % count, digest_size=DIGEST_BITS // 8).digest()
        self._sum = (self._sum + int.from_bytes(effect, "big")) % 2**DIGEST_BITS
        return count

    def snapshot(self) -> Callable[[], Iterator[bytes]]:
        """Copy the map, which is quick: its keys and values never change. Pack it later, chunk by chunk."""
        head = msgpack.packb((self.position, self._sum.to_bytes(DIGEST_BITS // 8), self.repeated))
        counts = self.counts.copy()

        def chunks() -> Iterator[bytes]:
            yield head
            rest = iter(counts.items())
            while some := list(islice(rest, COUNTS_A_CHUNK)):
                yield msgpack.packb(some)

        return chunks

    def restore(self, chunks: Iterable[bytes]) -> None:
        """The same backwards: the first chunk is the head."""
        head, *rest = (msgpack.unpackb(chunk) for chunk in chunks)
        self.position, total, self.repeated = head
        self._sum = int.from_bytes(total)
        self.counts = {write: count for some in rest for write, count in some}

    @property
    def digest(self) -> str:
        """Of the whole state."""
        return f"{self._sum:032x}"

    def query(self, query: bytes) -> Any:
        """`summary`: a map of what there is; `count ID ID …`: how often each of these writes took effect."""
        word, *writes = query.split(b" ")
        if word == b"summary" and not writes:
            return {
                "position": self.position,
                "writes": len(self.counts),
                "repeated": [write.decode(errors="replace") for write in self.repeated[:10]],
                "digest": self.digest,
            }
        if word == b"count":
            return [self.counts.get(write, 0) for write in writes]
        raise ValueError(f"query is {query[:40]!r}; allowed are b'summary' and b'count ID ID …'")
