"""The database: one RocksDB, how it is opened, and what its keys and values are.

Knows: RocksDB, the layout. Must not know: what a batch changes, commands.

Invariants:
- It is written without a sync: what a power cut takes is given again (craft's `Durable`). Its own log is on,
  so that a batch is there whole or not at all, and outlives the process.
- Every option that counts is given at every opening: rocksdict's own file of options is not relied on.
- No iterator outlives its function, or the loop over it: rocksdict's keep a closed database open.

    m                  msgpack: [format, …] and what `Meta` has
    k key              serial, version, deadline: 8 bytes each; deadline -1: none
    v serial           the value's kind and key, and the value; of a hash all fields
    s slot key         empty: the keys by slot, for SCAN
    d deadline key     empty: the keys that expire, the first one first
    g slot             the position of the last removal in the slot

A serial says when a key came: numbers rise, and no two keys ever have the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import NamedTuple

import msgpack
from rocksdict import BlockBasedOptions, Cache, DBCompressionType, Options, Rdict, RdictIter, ReadOptions

import craft
from examples.kv.slots import slot
from examples.kv.snapshots import KINDS
from examples.kv.values import Hash, Value

MIB = 1024 * 1024

COLUMN_FAMILY = "default"
BLOCKS_BYTES_MAX = 32 * MIB
"""Of the files' blocks in memory, with their indexes and filters."""

WRITE_BUFFER_BYTES = 16 * MIB
WRITE_BUFFERS_MAX = 8
OPEN_FILES_MAX = 256
BLOOM_BITS = 10
"""For each key: one in a hundred look-ups of a key that is not there reads a block."""

NEVER = 1 << 20

FORMAT = 1
META, KEY, VALUE, SLOT, DEADLINE, GONE = b"m", b"k", b"v", b"s", b"d", b"g"
ALL, BEHIND_ALL = b"a", b"z"
"""The bounds of all keys."""

NUMBER, SLOT_NUMBER = Struct(">Q"), Struct(">H")
ENTRY = Struct(">QQq")
VALUE_HEAD = Struct(">BI")
HASH_KIND = len(KINDS)

NO_DEADLINE = -1


class Meta(NamedTuple):
    """What is written with every batch."""

    position: int = 0
    timestamp: int = 0
    """In ns. With a position or a timestamp of 0, the data are not complete and count for nothing."""
    now: int = 0
    flushed_at: int = 0
    keys: int = 0
    expiring: int = 0
    serial: int = 0
    """The last one that was given out."""

    @property
    def complete(self) -> bool:
        """Do the data count?"""
        return self.position > 0 and self.timestamp > 0


def options() -> Options:
    """All that differs from RocksDB's defaults."""
    chosen = Options(raw_mode=True)  # bytes in, bytes out
    chosen.create_if_missing(True)
    blocks = BlockBasedOptions()
    blocks.set_block_cache(Cache(BLOCKS_BYTES_MAX))
    blocks.set_bloom_filter(BLOOM_BITS, False)
    blocks.set_cache_index_and_filter_blocks(True)  # else they grow with the data
    chosen.set_block_based_table_factory(blocks)
    chosen.set_max_open_files(OPEN_FILES_MAX)
    chosen.set_compression_type(DBCompressionType.none())
    chosen.set_write_buffer_size(WRITE_BUFFER_BYTES)
    chosen.set_max_write_buffer_number(WRITE_BUFFERS_MAX)
    # rocksdict writes with the interpreter's lock held: a write that is slowed down stops the server.
    chosen.set_level_zero_slowdown_writes_trigger(NEVER)
    chosen.set_level_zero_stop_writes_trigger(NEVER)
    chosen.set_soft_pending_compaction_bytes_limit(0)
    chosen.set_hard_pending_compaction_bytes_limit(0)
    chosen.set_max_background_jobs(2)
    chosen.set_keep_log_file_num(4)
    chosen.set_max_log_file_size(MIB)
    chosen.set_stats_dump_period_sec(0)
    return chosen


def open_database(directory: Path) -> Rdict:
    """Open, or create. Raises craft.StorageFailed."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        chosen = options()
        return Rdict(str(directory), chosen, column_families={COLUMN_FAMILY: chosen})
    except Exception as error:  # rocksdict raises bare Exceptions
        raise craft.StorageFailed(
            f"the store's data in {directory} cannot be opened: {error}; where they are damaged, remove them:"
            " they are made again from craft's"
        ) from error


def scan(db: Rdict, first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
    """All keys and values from `first` up to and without `end`."""
    bounds = ReadOptions()
    bounds.set_iterate_upper_bound(end)
    cursor = db.iter(bounds)
    cursor.seek(first)
    while cursor.valid():
        yield cursor.key(), cursor.value()
        cursor.next()
    cursor.status()  # it ends without an error at a damaged block


def once(db: Rdict) -> RdictIter:
    """An iterator of what is there now, for who walks over everything: it pushes nothing out of memory."""
    reading = ReadOptions()
    reading.fill_cache(False)  # type: ignore[call-arg]  # its stub has forgotten the argument
    return db.iter(reading)


def walk(cursor: RdictIter, kind: bytes) -> Iterator[tuple[bytes, bytes]]:
    """All keys and values of a kind that an iterator sees."""
    cursor.seek(kind)
    while cursor.valid() and (key := cursor.key()).startswith(kind):
        yield key, cursor.value()
        cursor.next()
    cursor.status()


def behind(kind: bytes) -> bytes:
    """Where the keys of a kind end."""
    return bytes((kind[0] + 1,))


# -- keys ------------------------------------------------------------------------------------------


def slot_key(key: bytes) -> bytes:
    """In the order of slots."""
    return SLOT + SLOT_NUMBER.pack(slot(key)) + key


def deadline_key(deadline: int, key: bytes) -> bytes:
    """In the order of deadlines; they are never negative."""
    return DEADLINE + NUMBER.pack(deadline) + key


def value_key(serial: int) -> bytes:
    """In the order in which keys came."""
    return VALUE + NUMBER.pack(serial)


# -- values ----------------------------------------------------------------------------------------


def read_meta(db: Rdict) -> Meta:
    """Nothing where there is none. Raises craft.StorageFailed for another format."""
    packed = db.get(META)
    if packed is None:
        return Meta()
    found = msgpack.unpackb(packed)
    if found[0] != FORMAT:
        raise craft.StorageFailed(f"the store's data are of format {found[0]}; this version knows {FORMAT}")
    return Meta(*found[1:])


def packed_meta(meta: Meta) -> bytes:
    """The record of `META`."""
    packed: bytes = msgpack.packb((FORMAT, *meta))
    return packed


def packed_value(key: bytes, value: Value) -> bytes:
    """A value with its key, for who walks over all of them."""
    if isinstance(value, Hash):
        fields = [item for pair in value.fields.items() for item in pair]
        packed: bytes = msgpack.packb((value.listpack, fields))
        return VALUE_HEAD.pack(HASH_KIND, len(key)) + key + packed
    return VALUE_HEAD.pack(KINDS.index(type(value)), len(key)) + key + value


def unpacked_value(record: bytes) -> tuple[bytes, Value]:
    """The key, and the value; a hash of no epoch, so that it is copied before it changes."""
    kind, length = VALUE_HEAD.unpack_from(record)
    at = VALUE_HEAD.size + length
    key = record[VALUE_HEAD.size : at]
    if kind != HASH_KIND:
        return key, KINDS[kind](record[at:])
    held = Hash(NO_EPOCH)
    held.listpack, fields = msgpack.unpackb(memoryview(record)[at:])
    held.fields.update(zip(fields[::2], fields[1::2], strict=True))
    return key, held


NO_EPOCH = -1
