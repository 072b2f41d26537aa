"""A keyspace as a snapshot, and back.

Knows: the format. Must not know: commands, craft.

Invariants:
- A snapshot is a stream of msgpack records, cut into chunks of at most `CHUNK_BYTES_MAX` wherever that falls,
  in this order: the header; removals by slot; keys as they came; the number of keys. A stream without that
  number, or with another, is incomplete and is not restored.
- What is derived (heap, indexes) is built again. What is restored answers every command as the original does,
  the order of keys and fields included.

    ["kv", 1, flushed_at, now, position]
    ["gone", [slot, position, …]]
    ["string", key, kind, value, version, deadline]
    ["hash", key, listpack, [field, value, …], version, deadline]
    ["fields", [field, value, …]]   more of the hash before it
    ["end", keys]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import msgpack

from examples.kv.keyspace import Keyspace
from examples.kv.values import Hash, Printed, Raw

NAME, FORMAT = "kv", 1
CHUNK_BYTES_MAX = 256 * 1024
ITEMS_A_RECORD = 1024
"""So that a hash of millions of fields is never packed at once."""

KINDS: tuple[type[bytes], ...] = (bytes, Raw, Printed)


class Restored(NamedTuple):
    """What a snapshot held."""

    space: Keyspace
    now: int
    position: int


def write(space: Keyspace, *, now: int, position: int) -> Iterator[bytes]:
    """The chunks of a keyspace that nobody changes (a fork)."""
    pending = bytearray()
    for record in records(space, now=now, position=position):
        pending += msgpack.packb(record)
        if len(pending) >= CHUNK_BYTES_MAX:
            whole = len(pending) // CHUNK_BYTES_MAX * CHUNK_BYTES_MAX
            for at in range(0, whole, CHUNK_BYTES_MAX):
                yield bytes(pending[at : at + CHUNK_BYTES_MAX])
            del pending[:whole]
    if pending:
        yield bytes(pending)


def records(space: Keyspace, *, now: int, position: int) -> Iterator[tuple[Any, ...]]:
    """The stream's records."""
    yield NAME, FORMAT, space.flushed_at, now, position
    yield "gone", flat(sorted(space.gone.items()))
    for key, value in space.values.items():
        version, deadline = space.versions[key], space.deadlines.get(key)
        if isinstance(value, Hash):
            first, *more = batches(value.fields)
            yield "hash", key, value.listpack, first, version, deadline
            for items in more:
                yield "fields", items
        else:
            yield "string", key, KINDS.index(type(value)), value, version, deadline
    yield "end", len(space.values)


def flat(pairs: Iterable[tuple[Any, Any]]) -> list[Any]:
    """Pairs as one list, each first before its second."""
    return [item for pair in pairs for item in pair]


def batches(fields: dict[bytes, bytes]) -> Iterator[list[Any]]:
    """The fields of a hash in pieces."""
    items = iter(fields.items())
    while piece := list(islice(items, ITEMS_A_RECORD)):
        yield flat(piece)


def read(chunks: Iterable[bytes]) -> Restored:
    """The keyspace of a snapshot; ValueError if it is none, or is not complete."""
    stream = unpacked(chunks)
    header = next(stream, None)
    if not isinstance(header, list) or header[:2] != [NAME, FORMAT]:
        raise ValueError("this is no snapshot of the key-value store, or one of another format")
    space = Keyspace()
    _, _, space.flushed_at, now, position = header
    held = Hash(0)
    for kind, *rest in stream:
        if kind == "string":
            key, which, text, version, deadline = rest
            space.values[key] = KINDS[which](text)
            note(space, key, version, deadline)
        elif kind == "hash":
            key, listpack, items, version, deadline = rest
            held = space.values[key] = Hash(0)
            held.listpack = listpack
            held.fields.update(pairs_of(items))
            note(space, key, version, deadline)
        elif kind == "fields":
            held.fields.update(pairs_of(rest[0]))
        elif kind == "gone":
            space.gone.update(pairs_of(rest[0]))
        elif kind == "end" and rest == [len(space.values)]:
            space.rebuild_heap()
            return Restored(space, now, position)
    raise ValueError("the snapshot ends too early")


def note(space: Keyspace, key: bytes, version: int, deadline: int | None) -> None:
    """A restored key's version and deadline."""
    space.versions[key] = version
    if deadline is not None:
        space.deadlines[key] = deadline


def pairs_of(items: list[Any]) -> Iterator[tuple[Any, Any]]:
    """The inverse of `flat`."""
    return zip(items[::2], items[1::2], strict=True)


def unpacked(chunks: Iterable[bytes]) -> Iterator[Any]:
    """The records of a stream."""
    unpacker = msgpack.Unpacker(max_buffer_size=0)  # a value may be as large as a client may send
    for chunk in chunks:
        unpacker.feed(chunk)
        yield from unpacker
