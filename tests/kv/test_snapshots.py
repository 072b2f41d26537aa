"""Snapshots: what is restored is what was forked, whatever has happened since."""

from __future__ import annotations

from typing import Any

import pytest

from examples.kv.machine import KeyValue
from examples.kv.snapshots import CHUNK_BYTES_MAX
from tests.kv.generator import Generator
from tests.kv.store import Store


def filled(seed: int = 1) -> Store:
    """A store with keys of all kinds."""
    store = Store()
    for args in Generator(seed).sequence(600):
        store.ask(*args)
    store.ask("HSET", "large", *[text for number in range(3_000) for text in (f"f{number}", number)])
    store.ask("SET", "long", "x" * (3 * CHUNK_BYTES_MAX))
    store.ask("APPEND", "long", "y")
    store.ask("SET", "short", "1", "PX", "100")
    return store


def contents(store: Store) -> list[Any]:
    """All that a client can see, orders included."""
    found: list[Any] = [store.read("KEYS", "*"), store.read("DBSIZE")]
    for key in store.read("KEYS", "*"):
        found += [store.read("OBJECT", "ENCODING", key), store.read("PEXPIRETIME", key), store.version(key)]
        value = store.read("GET", key) if store.read("TYPE", key) == "string" else store.read("HGETALL", key)
        found.append(list(value.items()) if isinstance(value, dict) else value)
    return found


def test_a_restored_server_answers_as_the_first_one() -> None:
    """Values, order, encodings, deadlines and versions; and both go on alike."""
    store = filled()
    other = store.restored()
    assert contents(other) == contents(store)
    for args in Generator(2).sequence(600):
        assert other.ask(*args) == store.ask(*args), args
    store.now = other.now = store.now + 500
    assert other.ask("GET", "short") == store.ask("GET", "short")
    assert contents(other) == contents(store)
    assert other.version(b"never there") == store.version(b"never there")


def test_a_fork_is_not_touched_by_what_comes_after() -> None:
    """Its chunks are made later, while commands change strings, hashes and deadlines."""
    store = filled()
    before, snapshot = contents(store), store.machine.snapshot()
    for args in Generator(3).sequence(600):
        store.ask(*args)
    store.ask("HSET", "large", "f1", "changed", "new", "v")
    store.ask("HDEL", "large", "f2", "f3")
    store.ask("DEL", "long")
    store.ask("FLUSHALL")
    other = Store()
    other.machine.restore(snapshot())
    assert contents(other) == before


def test_chunks_are_small_whatever_the_values_are() -> None:
    """Where chunks are cut has nothing to do with keys."""
    chunks = list(filled().machine.snapshot()())
    assert len(chunks) > 3
    assert all(0 < len(chunk) <= CHUNK_BYTES_MAX for chunk in chunks)
    pieces = [chunk[at : at + 1_000] for chunk in chunks for at in range(0, len(chunk), 1_000)]
    store = Store()
    store.machine.restore(pieces)
    assert contents(store) == contents(filled())


def test_an_incomplete_snapshot_is_refused_and_changes_nothing() -> None:
    """A stream says at its end how many keys it had."""
    store = filled()
    chunks, before = list(store.machine.snapshot()()), contents(store)
    for broken in ([], chunks[:-1], [*chunks[:-1], chunks[-1][:-1]], [b"\x93\xa2kv\x02\x00"], [b"\x01"]):
        with pytest.raises(ValueError, match="snapshot"):
            store.machine.restore(broken)
        assert contents(store) == before


def test_an_empty_store_is_restored_empty() -> None:
    """The least snapshot is one chunk."""
    store = filled()
    store.machine.restore(KeyValue().snapshot()())
    assert store.read("DBSIZE") == 0
