"""Versions of keys and transactions: what WATCH and ETags stand on."""

from __future__ import annotations

from examples.kv.replies import NO_ARRAY
from tests.kv.store import Store


def test_a_version_is_the_position_of_the_last_change() -> None:
    """Reads and refused commands change none."""
    store = Store()
    store.ask("SET", "k", "v")
    assert store.version(b"k") == 1
    store.ask("GET", "k")
    store.ask("INCR", "k")
    store.ask("SETNX", "k", "w")
    assert store.version(b"k") == 1
    store.ask("EXPIRE", "k", 100)
    assert store.version(b"k") == store.position


def test_a_key_that_came_and_went_has_changed() -> None:
    """Absent before and after is not unchanged."""
    store = Store()
    before = store.version(b"k")
    store.ask("SET", "k", "v")
    store.ask("DEL", "k")
    assert store.version(b"k") > before


def test_a_key_that_expired_or_was_flushed_has_changed() -> None:
    """However it went."""
    store = Store(now=1_000)
    store.ask("SET", "k", "v", "PX", 10)
    watched = [(b"k", store.version(b"k"))]
    store.now = 2_000
    assert store.transact(["GET", "k"], watched=watched) == NO_ARRAY
    store.ask("SET", "k", "v")
    watched = [(b"k", store.version(b"k"))]
    store.ask("FLUSHALL")
    assert store.transact(["GET", "k"], watched=watched) == NO_ARRAY


def test_a_transaction_is_executed_as_one() -> None:
    """One reply of all replies; an error stops none of the others, as in Redis."""
    store = Store()
    replies = store.transact(["SET", "k", "v"], ["INCR", "k"], ["NONSENSE"], ["GET", "k"])
    assert replies[0] == "OK"
    assert b"not an integer" in replies[1]["error"]
    assert b"unknown command" in replies[2]["error"]
    assert replies[3] == b"v"
    assert store.transact() == []


def test_a_transaction_is_not_executed_if_a_watched_key_changed() -> None:
    """Of two in one batch that watch the same key, the first wins."""
    from examples.kv.machine import pack_transaction

    store = Store()
    store.ask("SET", "stock", "1")
    watched = [(b"stock", store.version(b"stock")), (b"absent", store.version(b"absent"))]
    buy = pack_transaction([[b"DECR", b"stock"]], watched)
    assert store.apply(buy, buy) == [[0], NO_ARRAY]
    assert store.ask("GET", "stock") == b"0"
