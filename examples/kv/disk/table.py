"""The keys with all that belongs to them: read through a bounded cache, changed in memory until a batch ends.

Knows: entries, what has changed. Must not know: commands, time.

Invariants:
- `changed` has every entry that differs from the disk, and is empty between batches. An entry in it is not
  forgotten; all others may be at any time.
- All that a batch changed is written at once, with the batch's position.
- Memory does not grow with the data: the cache has a limit, and removals are at most as many as there are
  slots. What a batch changes is held whole until it is written, for that is done in one piece.
- Values in the cache are not changed in place, but those of the epoch, which are in `changed`.
"""

from __future__ import annotations

from collections.abc import Iterator

from rocksdict import Rdict, WriteBatch

from examples.kv.disk import database
from examples.kv.disk.database import ENTRY, NO_DEADLINE, Meta
from examples.kv.values import Hash, Value

CACHE_BYTES_MAX = 32 * 1024 * 1024
ENTRY_BYTES = 300
"""What an entry costs beside its key and value."""


class Entry:
    """What is known of a key."""

    __slots__ = ("deadline", "rewritten", "serial", "value", "version", "was", "was_due")

    def __init__(self, serial: int = 0, version: int = 0, deadline: int | None = None) -> None:
        self.serial = serial
        """0: the key is not there."""
        self.version = version
        self.deadline = deadline
        self.value: Value | None = None
        """None: not there, or not read."""
        self.rewritten = False
        """Has the value changed?"""
        self.was, self.was_due = serial, deadline
        """The serial and deadline on the disk."""


class Removals(dict[int, int]):
    """Slot → the position of the last removal in it; knows which have changed."""

    def __init__(self) -> None:
        super().__init__()
        self.changed: set[int] = set()

    def __setitem__(self, slot: int, position: int) -> None:
        self.changed.add(slot)
        super().__setitem__(slot, position)


class Table:
    """All keys of one server."""

    def __init__(self, db: Rdict, *, cache_bytes_max: int = CACHE_BYTES_MAX) -> None:
        self.db = db
        self.meta = database.read_meta(db)
        self.keys, self.expiring, self.serial = self.meta.keys, self.meta.expiring, self.meta.serial
        """How many keys are there, how many of them expire, and the last serial."""
        self.changed: dict[bytes, Entry] = {}
        self.gone = Removals()
        self._cleared = False
        self._generation_bytes_max = cache_bytes_max // 2
        self._young: dict[bytes, Entry] = {}
        self._old: dict[bytes, Entry] = {}
        self._young_bytes = 0
        if self.meta.complete:
            kind = database.GONE
            for key, position in database.scan(db, kind, database.behind(kind)):
                self.gone[database.SLOT_NUMBER.unpack(key[1:])[0]] = database.NUMBER.unpack(position)[0]
            self.gone.changed.clear()
        elif self.meta != Meta() or next(database.scan(db, database.ALL, database.BEHIND_ALL), None):
            self.reset()

    @property
    def cached(self) -> int:
        """How many entries are in memory."""
        return len(self._young) + len(self._old) + len(self.changed)

    # -- looking -----------------------------------------------------------------------------------

    def find(self, key: bytes) -> Entry:
        """A key's entry, whether the key is there or not."""
        entry = self.changed.get(key) or self._young.get(key)
        if entry is None:
            entry = self._old.pop(key, None) or self._read(key)
            self._remember(key, entry)
        return entry

    def value(self, key: bytes) -> Value | None:
        """A key's value; None: it is not there."""
        entry = self.find(key)
        if entry.value is None and entry.serial:
            record = self.db.get(database.value_key(entry.was))
            assert record is not None, "a key has no value"
            entry.value = database.unpacked_value(record)[1]
            self._account(len(record))
        return entry.value

    def _read(self, key: bytes) -> Entry:
        packed = None if self._cleared else self.db.get(database.KEY + key)
        if packed is None:
            return Entry()
        serial, version, deadline = ENTRY.unpack(packed)
        return Entry(serial, version, None if deadline == NO_DEADLINE else deadline)

    def _remember(self, key: bytes, entry: Entry) -> None:
        self._young[key] = entry
        self._account(ENTRY_BYTES + len(key) + (0 if entry.value is None else size(entry.value)))

    def _account(self, length: int) -> None:
        """Two generations: who is not looked at while one fills is forgotten with the next one."""
        self._young_bytes += length
        if self._young_bytes > self._generation_bytes_max:
            self._old, self._young, self._young_bytes = self._young, {}, 0

    # -- changing ----------------------------------------------------------------------------------

    def own(self, key: bytes) -> Entry:
        """A key's entry, to be changed."""
        entry = self.changed.get(key)
        if entry is None:
            entry = self.changed[key] = self.find(key)
        return entry

    def put(self, key: bytes, value: Value) -> None:
        """Set a key's value; a key that was not there comes behind all others."""
        entry = self.own(key)
        self._give(entry, value)

    def add(self, key: bytes, value: Value, version: int, deadline: int | None) -> None:
        """A key that is certainly not there, without a look at the disk."""
        entry = self.changed[key] = Entry()
        self._give(entry, value)
        entry.version = version
        self.expire(entry, deadline)

    def _give(self, entry: Entry, value: Value) -> None:
        if not entry.serial:
            self.serial += 1
            self.keys += 1
            entry.serial = self.serial
        entry.value, entry.rewritten = value, True

    def remove(self, key: bytes) -> None:
        """Take a key away that is there."""
        entry = self.own(key)
        assert entry.serial, "a key is removed that is not there"
        self.expire(entry, None)
        self.keys -= 1
        entry.serial, entry.value, entry.rewritten = 0, None, False

    def expire(self, entry: Entry, deadline: int | None) -> None:
        """Set an entry's deadline."""
        self.expiring += (deadline is not None) - (entry.deadline is not None)
        entry.deadline = deadline

    def clear(self) -> None:
        """Take everything away; serials go on."""
        self._cleared = True
        self.changed.clear()
        self.gone.clear()
        self.gone.changed.clear()
        self._young, self._old, self._young_bytes = {}, {}, 0
        self.keys = self.expiring = 0

    # -- writing -----------------------------------------------------------------------------------

    def commit(self, moment: Meta) -> None:
        """Write all that has changed, in one piece; of a moment counts what is not counted here."""
        batch = WriteBatch(raw_mode=True)
        if self._cleared:
            batch.delete_range(database.ALL, database.BEHIND_ALL)
        for key, entry in self.changed.items():
            write_entry(batch, key, entry)
            self._remember(key, entry)
        for slot in self.gone.changed:
            place = database.GONE + database.SLOT_NUMBER.pack(slot)
            batch.put(place, database.NUMBER.pack(self.gone[slot]))
        self.meta = moment._replace(keys=self.keys, expiring=self.expiring, serial=self.serial)
        batch.put(database.META, database.packed_meta(self.meta))
        self.db.write(batch)
        self._cleared = False
        self.changed.clear()
        self.gone.changed.clear()

    def reset(self) -> None:
        """Nothing is there, and that is on the disk when this returns."""
        self.clear()
        self.serial = 0
        self.commit(Meta())
        self.sync()

    def sync(self) -> None:
        """All that is written outlives a power cut. Other threads run meanwhile."""
        self.db.flush_wal(True)

    # -- walking -----------------------------------------------------------------------------------

    def stored(
        self, kind: bytes, start: bytes = b"", end: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """What the disk has of a kind, from a place on, without the kind; nothing once all was taken away."""
        if self._cleared:
            return
        for key, value in database.scan(
            self.db, kind + start, database.behind(kind) if end is None else kind + end
        ):
            yield key[1:], value


def write_entry(batch: WriteBatch, key: bytes, entry: Entry) -> None:
    """Bring the disk from what it had of a key to what is there now."""
    if entry.was and entry.was != entry.serial:
        batch.delete(database.value_key(entry.was))
    if entry.was_due is not None and entry.was_due != entry.deadline:
        batch.delete(database.deadline_key(entry.was_due, key))
    if not entry.serial:
        if entry.was:
            batch.delete(database.KEY + key)
            batch.delete(database.slot_key(key))
    else:
        deadline = NO_DEADLINE if entry.deadline is None else entry.deadline
        batch.put(database.KEY + key, ENTRY.pack(entry.serial, entry.version, deadline))
        if not entry.was:
            batch.put(database.slot_key(key), b"")
        if entry.rewritten and entry.value is not None:
            batch.put(database.value_key(entry.serial), database.packed_value(key, entry.value))
        if entry.deadline is not None and entry.was_due != entry.deadline:
            batch.put(database.deadline_key(entry.deadline, key), b"")
    entry.was, entry.was_due, entry.rewritten = entry.serial, entry.deadline, False


def size(value: Value) -> int:
    """About what a value takes in memory."""
    if isinstance(value, Hash):
        return sum([ENTRY_BYTES + len(field) + len(held) for field, held in value.fields.items()])
    return len(value)
