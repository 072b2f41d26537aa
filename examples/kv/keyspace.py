"""The data: keys with their values, versions and deadlines; a view to read them, an editor to change them.

Knows: which key is there at a time, and when it last changed. Must not know: commands, replies, any clock.

Invariants:
- `now` (ms) comes from outside and never falls along the merged log. A key is gone as soon as now > deadline,
  whether or not it has been removed.
- Only an `Editor` changes data, and only while a batch is applied: what is removed, and at which position,
  follows from the log alone. Expired keys are removed when an editor meets them, and by a sweep of at most
  `SWEEP_KEYS_MAX` a batch in the order (deadline, key).
- A key's version is the position of its last change. That of an absent key is kept for its slot (the last
  removal there), so that a key which came and went in between is not taken for unchanged; the price is a
  false alarm where another key of the slot went.
- `heap` holds every deadline, and some that are no longer true (less than it holds true ones, and a few).
- Views and editors use what a keyspace offers and not how it keeps it: another may keep the same on a disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from heapq import heapify, heappop, heappush
from typing import NamedTuple, Protocol

from examples.kv.history import History
from examples.kv.ordered import Ordered
from examples.kv.slots import Index, slot
from examples.kv.values import Hash, Value

SWEEP_KEYS_MAX = 1000
"""About a millisecond a batch, so that many keys with one deadline do not hold a server up."""

HEAP_SLACK = 64


class Content(NamedTuple):
    """A key with all that belongs to it."""

    key: bytes
    value: Value
    version: int
    deadline: int | None


class Forked(Protocol):
    """The data as they were, to be read only, by another thread."""

    @property
    def flushed_at(self) -> int:
        """The position of the last FLUSHALL."""

    @property
    def gone(self) -> Mapping[int, int]:
        """Slot → the position of the last removal in it."""

    def contents(self) -> Iterator[Content]:
        """All keys, in the order in which they came."""


class Keyspace:
    """All data of one server, in memory."""

    __slots__ = (
        "deadlines",
        "epoch",
        "flushed_at",
        "gone",
        "heap",
        "history",
        "index",
        "ordered",
        "values",
        "versions",
    )

    def __init__(self) -> None:
        self.values: MutableMapping[bytes, Value] = {}
        self.versions: MutableMapping[bytes, int] = {}
        self.deadlines: MutableMapping[bytes, int] = {}
        self.heap: list[tuple[int, bytes]] = []
        self.gone: MutableMapping[int, int] = {}
        """Slot → the position of the last removal in it."""
        self.flushed_at = 0
        self.epoch = 0
        """How many forks have been taken; a hash of an earlier one is copied before it changes."""
        self.index: Index | None = None
        """Built by the first SCAN."""
        self.ordered: Ordered | None = None
        """Built by the first page of keys in their order."""
        self.history: History | None = None
        """What keys held before, where that is wanted."""

    def fork(self) -> Forked:
        """The data as they are now, to be read only. Copies three tables and no value."""
        fork = Keyspace()
        fork.values, fork.versions = dict(self.values), dict(self.versions)
        fork.deadlines, fork.gone = dict(self.deadlines), dict(self.gone)
        fork.flushed_at = self.flushed_at
        self.epoch += 1
        return fork

    def contents(self) -> Iterator[Content]:
        """All keys, in the order in which they came."""
        for key, value in self.values.items():
            yield Content(key, value, self.versions[key], self.deadlines.get(key))

    def keep(self, content: Content) -> None:
        """A key of a snapshot; behind the last one, `rebuild_heap`."""
        key, self.values[key], self.versions[key], deadline = content
        if deadline is not None:
            self.deadlines[key] = deadline

    def keep_gone(self, slot: int, position: int) -> None:
        """The last removal in a slot, of a snapshot."""
        self.gone[slot] = position

    def clear(self) -> None:
        """No key is there, and none has been removed."""
        for table in (self.values, self.versions, self.deadlines, self.gone):
            table.clear()
        self.heap.clear()
        if self.index is not None:
            self.index.clear()
        if self.ordered is not None:
            self.ordered.clear()

    # -- deadlines ---------------------------------------------------------------------------------

    def rebuild_heap(self) -> None:
        """Only the deadlines that are true."""
        self.heap = [(deadline, key) for key, deadline in self.deadlines.items()]
        heapify(self.heap)

    def set_deadline(self, key: bytes, deadline: int) -> None:
        """A key that is there expires then."""
        self.deadlines[key] = deadline
        heappush(self.heap, (deadline, key))
        if len(self.heap) > 2 * len(self.deadlines) + HEAP_SLACK:
            self.rebuild_heap()

    def next_deadline(self) -> int | None:
        """No key expires before this; None: none ever does. It may be that of a key which is gone."""
        return self.heap[0][0] if self.heap else None

    def overdue(self, now: int, most: int) -> Iterable[bytes]:
        """Expired keys, the longest expired first; each is removed before the next one is asked for."""
        heap = self.heap
        # Deadlines that are no longer true do not count: how many there are depends on the last restart.
        while heap and heap[0][0] < now and most:
            deadline, key = heappop(heap)
            if self.deadlines.get(key) == deadline:
                yield key
                most -= 1

    def due(self, now: int) -> set[bytes]:
        """Those that have expired but are held. Walks the top of the heap: costs what it finds."""
        heap, found, pending = self.heap, set(), [0]
        while pending:
            place = pending.pop()
            if place < len(heap) and heap[place][0] < now:
                deadline, key = heap[place]
                if self.deadlines.get(key) == deadline:
                    found.add(key)
                pending += (2 * place + 1, 2 * place + 2)
        return found

    # -- orders ------------------------------------------------------------------------------------

    def scan(self, cursor: int, count: int) -> tuple[int, list[bytes]]:
        """At least `count` keys from a slot on (whole slots only), and the next cursor: 0 at the end."""
        if self.index is None:
            self.index = Index(self.values)
        return self.index.scan(cursor, count)

    def walk(self, start: bytes, *, beyond: bool = False) -> Iterator[bytes]:
        """In the order of their bytes, from a key on or beyond it. Nothing may change meanwhile."""
        if self.ordered is None:
            self.ordered = Ordered(self.values)
        return self.ordered.walk(start, beyond=beyond)


class View:
    """The data as they are seen at a time."""

    __slots__ = ("now", "space", "values")

    def __init__(self, space: Keyspace, now: int) -> None:
        self.space = space
        self.now = now
        self.values = space.values

    def value(self, key: bytes) -> Value | None:
        """A key's value, None where it is absent or expired."""
        if key in self.space.deadlines and self.is_due(key):
            return None
        return self.values.get(key)

    def is_due(self, key: bytes) -> bool:
        """Is its deadline over?"""
        deadline = self.space.deadlines.get(key)
        return deadline is not None and deadline < self.now

    def deadline(self, key: bytes) -> int | None:
        """When a key that is there expires; None: never."""
        return self.space.deadlines.get(key)

    def version(self, key: bytes) -> int:
        """The position of the last change of a key, whether it is there or not."""
        if self.value(key) is None:
            return max(self.space.gone.get(slot(key), 0), self.space.flushed_at)
        return self.space.versions[key]

    def keys(self) -> list[bytes]:
        """All that are there, in the order in which they came."""
        due = self.due()
        return [key for key in self.values if key not in due] if due else list(self.values)

    def count(self) -> int:
        """How many are there."""
        return len(self.values) - len(self.due())

    def next_deadline(self) -> int | None:
        """No key expires before this; None: none ever does. It may be that of a key which is gone."""
        return self.space.next_deadline()

    def due(self) -> set[bytes]:
        """Those that have expired but are held."""
        return self.space.due(self.now)

    def scan(self, cursor: int, count: int) -> tuple[int, list[bytes]]:
        """Keys of whole slots, and the next cursor; expired ones may be among them."""
        return self.space.scan(cursor, count)

    def walk(self, start: bytes, *, beyond: bool = False) -> Iterator[bytes]:
        """Keys in the order of their bytes; expired ones may be among them."""
        return self.space.walk(start, beyond=beyond)


class Editor(View):
    """A view that changes what it sees; every change carries its position."""

    __slots__ = ("position", "publish")

    def __init__(
        self, space: Keyspace, now: int, position: int, publish: Callable[[bytes, bytes], int]
    ) -> None:
        super().__init__(space, now)
        self.position = position
        self.publish = publish
        """Tell this server's subscribers of a channel; returns how many there are."""

    def value(self, key: bytes) -> Value | None:
        """As a view; an expired key is removed when it is met."""
        if key in self.space.deadlines and self.is_due(key):
            self.remove(key)
        return self.values.get(key)

    def sweep(self) -> None:
        """Remove expired keys, the longest expired first."""
        for key in self.space.overdue(self.now, SWEEP_KEYS_MAX):
            self.remove(key)

    def put(self, key: bytes, value: Value, deadline: int | None = None) -> None:
        """Set a key with its deadline, whatever it was before."""
        self.replace(key, value)
        if deadline is not None:
            self.set_deadline(key, deadline)
        elif self.space.deadlines:
            self.space.deadlines.pop(key, None)

    def replace(self, key: bytes, value: Value) -> None:
        """Set a key and keep its deadline. The caller has looked at it, so it is not an expired one's."""
        self.note(key)
        space = self.space
        if space.ordered is not None and key not in self.values:
            space.ordered.add(key)
        self.values[key] = value
        space.versions[key] = self.position
        if space.index is not None:
            space.index.add(key)

    def touch(self, key: bytes) -> None:
        """Something about a key that is there has changed."""
        self.space.versions[key] = self.position

    def note(self, key: bytes) -> None:
        """A key is about to change: its history, where there is one, keeps what it holds."""
        space = self.space
        if space.history is not None:
            space.history.note(self.now, key, self.values.get(key), space.deadlines.get(key))

    def set_deadline(self, key: bytes, deadline: int | None) -> None:
        """Let a key that is there expire, or (None) stay."""
        self.note(key)
        self.touch(key)
        if deadline is None:
            self.space.deadlines.pop(key, None)
        else:
            self.space.set_deadline(key, deadline)

    def remove(self, key: bytes) -> None:
        """Take a key away that is held, expired or not."""
        self.note(key)
        del self.values[key]
        del self.space.versions[key]
        self.space.deadlines.pop(key, None)
        self.space.gone[slot(key)] = self.position
        if self.space.index is not None:
            self.space.index.discard(key)
        if self.space.ordered is not None:
            self.space.ordered.discard(key)

    def flush(self) -> None:
        """Take everything away."""
        space = self.space
        space.flushed_at = self.position
        space.clear()
        if space.history is not None:
            space.history.clear(self.now)

    def owned(self, key: bytes, held: Hash) -> Hash:
        """A key's hash as one that may be changed: a copy takes its place if a fork may still read it."""
        if held.epoch != self.space.epoch:
            held = held.copy(self.space.epoch)
            self.values[key] = held
        return held
