"""The keyspace whose data are on a disk: the same to views and editors as the one in memory.

Knows: the table, the orders of its keys. Must not know: commands, craft.

Invariants:
- Every command is answered as from memory, also by what a batch has changed and not written yet.
- No order of keys is held in memory: SCAN, deadlines and pages walk over the disk.
- `soonest` is no later than any deadline.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any

from rocksdict import Rdict

from examples.kv.disk import database
from examples.kv.disk.database import ENTRY, NO_DEADLINE, NUMBER, SLOT_NUMBER, Meta
from examples.kv.disk.table import CACHE_BYTES_MAX, Table
from examples.kv.keyspace import Content, Forked, Keyspace
from examples.kv.slots import SLOTS, slot
from examples.kv.values import Value

NEVER = 2**63


class Values(MutableMapping[bytes, Value]):
    """The values of keys, in the order in which the keys came."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def get(self, key: bytes, default: Any = None) -> Any:
        """A key's value."""
        value = self._table.value(key)
        return default if value is None else value

    def __getitem__(self, key: bytes) -> Value:
        value = self._table.value(key)
        if value is None:
            raise KeyError(key)
        return value

    def __contains__(self, key: object) -> bool:
        assert isinstance(key, bytes)
        return self._table.find(key).serial > 0

    def __setitem__(self, key: bytes, value: Value) -> None:
        self._table.put(key, value)

    def __delitem__(self, key: bytes) -> None:
        self._table.remove(key)

    def __len__(self) -> int:
        return self._table.keys

    def __iter__(self) -> Iterator[bytes]:
        """Reads all keys at once, as KEYS does; no value."""
        table = self._table
        found = [
            (ENTRY.unpack(packed)[0], key)
            for key, packed in table.stored(database.KEY)
            if key not in table.changed
        ]
        found += [(entry.serial, key) for key, entry in table.changed.items() if entry.serial]
        return iter([key for _, key in sorted(found)])


class Versions(MutableMapping[bytes, int]):
    """The positions of the last changes of keys."""

    def __init__(self, table: Table, keys: Values) -> None:
        self._table, self._keys = table, keys

    def __getitem__(self, key: bytes) -> int:
        entry = self._table.find(key)
        if not entry.serial:
            raise KeyError(key)
        return entry.version

    def __setitem__(self, key: bytes, version: int) -> None:
        self._table.own(key).version = version

    def __delitem__(self, key: bytes) -> None:
        """It goes with its key."""

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._keys)


class Deadlines(MutableMapping[bytes, int]):
    """When keys expire that do."""

    def __init__(self, table: Table, keys: Values) -> None:
        self._table, self._keys = table, keys

    def get(self, key: bytes, default: Any = None) -> Any:
        """When a key expires."""
        deadline = self._table.find(key).deadline if self._table.expiring else None
        return default if deadline is None else deadline

    def __getitem__(self, key: bytes) -> int:
        deadline = self._table.find(key).deadline
        if deadline is None:
            raise KeyError(key)
        return deadline

    def __contains__(self, key: object) -> bool:
        assert isinstance(key, bytes)
        return self.get(key) is not None

    def __setitem__(self, key: bytes, deadline: int) -> None:
        self._table.expire(self._table.own(key), deadline)

    def __delitem__(self, key: bytes) -> None:
        self._table.expire(self._table.own(key), None)

    def pop(self, key: bytes, default: Any = None) -> Any:
        """Take a deadline away, if there is one."""
        deadline = self.get(key)
        if deadline is None:
            return default
        del self[key]
        return deadline

    def __len__(self) -> int:
        return self._table.expiring

    def __iter__(self) -> Iterator[bytes]:
        return iter([key for key in self._keys if key in self])


class DiskKeyspace(Keyspace):
    """All data of one server, on its disk."""

    __slots__ = ("soonest", "table")

    def __init__(self, db: Rdict, *, cache_bytes_max: int = CACHE_BYTES_MAX) -> None:
        super().__init__()
        self.table = Table(db, cache_bytes_max=cache_bytes_max)
        self.values = keys = Values(self.table)
        self.versions = Versions(self.table, keys)
        self.deadlines = Deadlines(self.table, keys)
        self.gone = self.table.gone
        self.flushed_at = self.table.meta.flushed_at
        self.soonest = self._first_deadline()

    def commit(self, *, now: int, position: int, timestamp: int) -> None:
        """Write what a batch has changed, and which batch it was."""
        self.epoch += 1  # what was written may be forgotten: who changes a hash must say so
        self.table.commit(Meta(position, timestamp, now, self.flushed_at))

    def reset(self) -> None:
        """Nothing is there."""
        self.table.reset()
        self.flushed_at, self.soonest = 0, NEVER

    def fork(self) -> Forked:
        """The data as they were written last; copies nothing."""
        assert not self.table.changed, "a fork within a batch"
        return Fork(self.table.db, self.flushed_at)

    def keep(self, content: Content) -> None:
        """A key of a snapshot; the data count for nothing until a commit says which batch they are of."""
        self.table.add(*content)
        if content.deadline is not None:
            self.soonest = min(self.soonest, content.deadline)

    def clear(self) -> None:
        """No key is there, and none has been removed."""
        self.table.clear()
        self.soonest = NEVER

    # -- deadlines ---------------------------------------------------------------------------------

    def set_deadline(self, key: bytes, deadline: int) -> None:
        """A key that is there expires then."""
        self.deadlines[key] = deadline
        self.soonest = min(self.soonest, deadline)

    def next_deadline(self) -> int | None:
        """No key expires before this; None: none ever does. It may be that of a key which is gone."""
        return self.soonest if self.table.expiring else None

    def overdue(self, now: int, most: int) -> Iterable[bytes]:
        """Expired keys, the longest expired first."""
        if self.soonest >= now:
            return ()
        assert not self.table.changed, "a sweep within a batch"
        found: list[bytes] = []
        self.soonest = NEVER
        for deadline, key in self._by_deadline():
            if deadline >= now or len(found) == most:
                self.soonest = deadline
                break
            found.append(key)
        return found

    def due(self, now: int) -> set[bytes]:
        """Those that have expired but are held."""
        if self.soonest >= now:
            return set()
        changed = self.table.changed
        found = {key for _, key in self._by_deadline(now) if key not in changed}
        found |= {
            key for key, entry in changed.items() if entry.deadline is not None and entry.deadline < now
        }
        return found

    def _by_deadline(self, before: int = NEVER) -> Iterator[tuple[int, bytes]]:
        """What the disk has."""
        for place, _ in self.table.stored(database.DEADLINE, end=NUMBER.pack(before)):
            yield NUMBER.unpack_from(place)[0], place[NUMBER.size :]

    def _first_deadline(self) -> int:
        return next((deadline for deadline, _ in self._by_deadline()), NEVER)

    # -- orders ------------------------------------------------------------------------------------

    def scan(self, cursor: int, count: int) -> tuple[int, list[bytes]]:
        """At least `count` keys from a slot on (whole slots only), and the next cursor: 0 at the end."""
        if cursor >= SLOTS:
            return 0, []
        found: list[bytes] = []
        place = cursor
        for number, key in self._by_slot(cursor):
            if number > place:
                if len(found) >= count:
                    return place + 1, found
                place = number
            found.append(key)
        return (place + 1 if len(found) >= count and place + 1 < SLOTS else 0), found

    def _by_slot(self, cursor: int) -> Iterator[tuple[int, bytes]]:
        """Keys in the order (slot, key), with what a batch has changed."""
        changed = self.table.changed
        new = sorted(
            (slot(key), key)
            for key, entry in changed.items()
            if entry.serial and not entry.was and slot(key) >= cursor
        )
        new.reverse()
        for place, _ in self.table.stored(database.SLOT, SLOT_NUMBER.pack(cursor)):
            here = SLOT_NUMBER.unpack_from(place)[0], place[SLOT_NUMBER.size :]
            while new and new[-1] < here:
                yield new.pop()
            if here[1] not in changed or changed[here[1]].serial:
                yield here
        yield from reversed(new)

    def walk(self, start: bytes, *, beyond: bool = False) -> Iterator[bytes]:
        """In the order of their bytes, from a key on or beyond it. Nothing may change meanwhile."""
        assert not self.table.changed, "a page within a batch"
        for key, _ in self.table.stored(database.KEY, start + b"\0" if beyond else start):
            yield key


class Fork:
    """The data at a moment; reads the disk, in any thread.

    An iterator sees what was there when it was made. One of rocksdict's `Snapshot` does not: it sees what is
    there when *it* is made; only the snapshot's look-ups are of its moment.
    """

    def __init__(self, db: Rdict, flushed_at: int) -> None:
        self._cursor, self._entries = database.once(db), db.snapshot()
        self.flushed_at = flushed_at

    @property
    def gone(self) -> Mapping[int, int]:
        """Slot → the position of the last removal in it."""
        return {
            SLOT_NUMBER.unpack(key[1:])[0]: NUMBER.unpack(position)[0]
            for key, position in database.walk(self._cursor, database.GONE)
        }

    def contents(self) -> Iterator[Content]:
        """All keys, in the order in which they came."""
        for _, record in database.walk(self._cursor, database.VALUE):
            key, value = database.unpacked_value(record)
            _, version, deadline = ENTRY.unpack(self._entries[database.KEY + key])
            yield Content(key, value, version, None if deadline == NO_DEADLINE else deadline)
