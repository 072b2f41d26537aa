"""Walks with SCAN and HSCAN: nothing is missed, whatever happens meanwhile, on whichever server."""

from __future__ import annotations

import time

from examples.kv.globs import PATTERN_BYTES_MAX, bracket, matcher
from examples.kv.replies import is_error
from tests.kv.store import Store


def walk(*servers: Store, command: tuple[str, ...] = ("SCAN",), count: int = 10) -> list[bytes]:
    """All that a walk finds, its calls going to the servers in turn."""
    cursor, found, turn = b"0", [], 0
    while True:
        cursor, part = servers[turn % len(servers)].read(*command, cursor, "COUNT", count)
        found += part
        turn += 1
        if cursor == b"0":
            return found


def test_a_walk_finds_every_key_once() -> None:
    """Where nothing changes, also nothing twice."""
    store = Store()
    keys = [b"key:%d" % number for number in range(3_000)]
    for key in keys:
        store.ask("SET", key, "v")
    assert sorted(walk(store)) == sorted(keys)


def test_a_walk_goes_on_at_another_server() -> None:
    """A cursor is no state of a server: one that was restored from a snapshot knows it, too."""
    store = Store()
    for number in range(500):
        store.ask("SET", f"key:{number}", "v")
    assert sorted(walk(store, store.restored())) == sorted(store.read("KEYS", "*"))


def test_what_stays_is_found_while_other_keys_come_and_go() -> None:
    """The guarantee that Redis gives: whoever was there from the first call to the last is found."""
    store = Store()
    staying = {b"stay:%d" % number for number in range(200)}
    for key in staying:
        store.ask("SET", key, "v")
    cursor, found = b"0", set()
    for step in range(10_000):
        cursor, part = store.read("SCAN", cursor)
        found.update(part)
        store.ask("SET", f"new:{step}", "v")
        store.ask("DEL", f"new:{step - 20}")
        store.ask("RENAME", f"new:{step}", f"newer:{step}")
        if cursor == b"0":
            break
    assert cursor == b"0"
    assert found >= staying
    store.ask("FLUSHALL")
    assert walk(store) == []


def test_a_large_hash_is_walked_in_pieces() -> None:
    """A small one comes at once, as in Redis."""
    store = Store()
    for number in range(1_000):
        store.ask("HSET", "h", f"field:{number}", number)
    cursor, first = store.read("HSCAN", "h", 0, "COUNT", 10)
    assert cursor != b"0"
    assert 20 <= len(first) < 100
    found = walk(store, command=("HSCAN", "h"))
    assert dict(zip(found[::2], found[1::2], strict=True)) == store.read("HGETALL", "h")
    store.ask("HDEL", "h", "field:7")
    store.ask("HSET", "h", "another", "v")
    assert set(walk(store, command=("HSCAN", "h"))[::2]) == set(store.read("HKEYS", "h"))


def test_randomkey_names_any_key_and_no_other() -> None:
    """It depends on the time given, and on nothing that differs between servers."""
    store = Store()
    assert store.ask("RANDOMKEY") is None
    for number in range(20):
        store.ask("SET", f"k{number}", "v")
    other = store.restored()
    found = set()
    for now in range(2_000, 2_500):
        store.now = other.now = now
        found.add(store.read("RANDOMKEY"))
        assert store.ask("RANDOMKEY") == other.ask("RANDOMKEY")
    assert found == set(store.read("KEYS", "*"))


def test_a_pattern_as_large_as_an_entry_is_refused_at_once() -> None:
    """It would hold the server up for minutes; one that is long but not absurd is found."""
    store = Store()
    key = b"k" * (PATTERN_BYTES_MAX - 1)
    store.ask("SET", key, "v")
    assert store.read("KEYS", key + b"*") == [key]
    for command in (["KEYS"], ["SCAN", "0", "MATCH"]):
        assert is_error(store.read(*command, b"[a-z]" * 200_000))


def test_a_class_of_bytes_is_as_small_as_its_pattern() -> None:
    """The server would be held up for seconds by thousands of `[^a]`, and keep megabytes for each pattern."""
    expression, _ = bracket(b"^a]", 0)
    assert len(expression) < 30
    matches = matcher(b"[^a]" * (PATTERN_BYTES_MAX // 4))
    assert matches(b"b\0\xff`" * (PATTERN_BYTES_MAX // 16))
    assert not matches(b"bab`" * (PATTERN_BYTES_MAX // 16))


def test_a_hostile_pattern_is_answered_at_once() -> None:
    """Stars do not multiply: a matcher that tries every way would not come back within a lifetime."""
    matches = matcher(b"a*" * 200 + b"b")
    before = time.process_time()
    assert not matches(b"a" * 5_000)
    assert time.process_time() - before < 5
