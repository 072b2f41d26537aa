"""A keyspace as a snapshot, and back.

Knows: the format. Must not know: commands, craft.

Invariants:
- A snapshot is a stream of msgpack records, cut into chunks of at most `CHUNK_BYTES_MAX` wherever that falls,
  in this order: the header; removals by slot; keys as they came; the number of keys. A stream without that
  number, or with another, is incomplete and is not restored.
- What is derived (heap, indexes) is built again. What is restored answers every command as the original does,
  the order of keys and fields included.
- It is the same whether its data are kept in memory or on a disk, and either can be restored from it.
- Who reads a stream passes over records of kinds that it does not know.

    ["kv", 1, flushed_at, now, position]
    ["stamped", timestamp]          of the batch at the position, in ns; older versions write none
    ["gone", [slot, position, …]]
    ["string", key, kind, value, version, deadline]
    ["hash", key, listpack, [field, value, …], version, deadline]
    ["fields", [field, value, …]]   more of the hash before it
    ["end", keys]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple, Protocol

import msgpack

from examples.kv.keyspace import Content, Forked
from examples.kv.values import Hash, Printed, Raw

NAME, FORMAT = "kv", 1
CHUNK_BYTES_MAX = 256 * 1024
ITEMS_A_RECORD = 1024
"""So that a hash of millions of fields is never packed at once."""

KINDS: tuple[type[bytes], ...] = (bytes, Raw, Printed)


class Moment(NamedTuple):
    """Of which batch data are."""

    now: int
    """Its time in ms."""
    position: int
    timestamp: int
    """Its time in ns; 0: not known."""


class Space(Protocol):
    """What is filled from a snapshot."""

    flushed_at: int

    def keep(self, content: Content) -> None:
        """Take a key."""

    def keep_gone(self, slot: int, position: int) -> None:
        """Take the last removal in a slot."""


def write(space: Forked, moment: Moment) -> Iterator[bytes]:
    """The chunks of data that nobody changes (a fork)."""
    pending = bytearray()
    for record in records(space, moment):
        pending += msgpack.packb(record)
        if len(pending) >= CHUNK_BYTES_MAX:
            whole = len(pending) // CHUNK_BYTES_MAX * CHUNK_BYTES_MAX
            for at in range(0, whole, CHUNK_BYTES_MAX):
                yield bytes(pending[at : at + CHUNK_BYTES_MAX])
            del pending[:whole]
    if pending:
        yield bytes(pending)


def records(space: Forked, moment: Moment) -> Iterator[tuple[Any, ...]]:
    """The stream's records."""
    yield NAME, FORMAT, space.flushed_at, moment.now, moment.position
    yield "stamped", moment.timestamp
    yield "gone", flat(sorted(space.gone.items()))
    keys = 0
    for key, value, version, deadline in space.contents():
        keys += 1
        if isinstance(value, Hash):
            first, *more = batches(value.fields)
            yield "hash", key, value.listpack, first, version, deadline
            for items in more:
                yield "fields", items
        else:
            yield "string", key, KINDS.index(type(value)), value, version, deadline
    yield "end", keys


def flat(pairs: Iterable[tuple[Any, Any]]) -> list[Any]:
    """Pairs as one list, each first before its second."""
    return [item for pair in pairs for item in pair]


def batches(fields: dict[bytes, bytes]) -> Iterator[list[Any]]:
    """The fields of a hash in pieces."""
    items = iter(fields.items())
    while piece := list(islice(items, ITEMS_A_RECORD)):
        yield flat(piece)


def read(chunks: Iterable[bytes], space: Space) -> Moment:
    """Fill an empty keyspace from a snapshot; ValueError if it is none, or is not complete."""
    stream = unpacked(chunks)
    header = next(stream, None)
    if not isinstance(header, list) or header[:2] != [NAME, FORMAT]:
        raise ValueError("this is no snapshot of the key-value store, or one of another format")
    _, _, space.flushed_at, now, position = header
    keys = timestamp = 0
    for kind, *rest in with_whole_hashes(stream):
        if kind == "string":
            key, which, text, version, deadline = rest
            space.keep(Content(key, KINDS[which](text), version, deadline))
            keys += 1
        elif kind == "hash":
            key, listpack, items, version, deadline = rest
            held = Hash(0)
            held.listpack = listpack
            held.fields.update(pairs_of(items))
            space.keep(Content(key, held, version, deadline))
            keys += 1
        elif kind == "gone":
            for slot, removed_at in pairs_of(rest[0]):
                space.keep_gone(slot, removed_at)
        elif kind == "stamped":
            [timestamp] = rest
        elif kind == "end" and rest == [keys]:
            return Moment(now, position, timestamp)
    raise ValueError("the snapshot ends too early")


def with_whole_hashes(stream: Iterable[Any]) -> Iterator[Any]:
    """The records, each hash with all of its fields."""
    held: Any = None
    for record in stream:
        if record[0] == "fields":
            held[3] += record[1]
            continue
        if held is not None:
            yield held
        held = record if record[0] == "hash" else None
        if held is None:
            yield record


def pairs_of(items: list[Any]) -> Iterator[tuple[Any, Any]]:
    """The inverse of `flat`."""
    return zip(items[::2], items[1::2], strict=True)


def unpacked(chunks: Iterable[bytes]) -> Iterator[Any]:
    """The records of a stream."""
    unpacker = msgpack.Unpacker(max_buffer_size=0)  # a value may be as large as a client may send
    for chunk in chunks:
        unpacker.feed(chunk)
        yield from unpacker
