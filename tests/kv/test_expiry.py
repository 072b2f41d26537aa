"""Expiry by merged time: at one position everywhere, whatever any clock says."""

from __future__ import annotations

import pytest

from examples.kv import keyspace
from tests.kv.store import Store


def test_a_key_is_there_until_its_deadline_is_over() -> None:
    """At the deadline itself it still is, as in Redis; a millisecond later it is not."""
    store = Store(now=1_000)
    store.ask("SET", "k", "v", "PX", 500)
    store.now = 1_500
    assert (store.ask("GET", "k"), store.ask("PTTL", "k")) == (b"v", 0)
    store.now = 1_501
    assert (store.ask("GET", "k"), store.ask("TTL", "k"), store.ask("DBSIZE")) == (None, -2, 0)


def test_a_read_sees_a_key_expire_and_changes_nothing() -> None:
    """Between two batches time goes on for reads; what they see as gone is removed by the log only."""
    store = Store(now=1_000)
    store.ask("SET", "k", "v", "PX", 500)
    store.ask("SET", "stays", "v")
    before = dict(store.machine.space.values)
    store.now = 2_000
    assert store.read("GET", "k") is None
    assert (store.read("DBSIZE"), store.read("KEYS", "*"), store.read("EXISTS", "k")) == (1, [b"stays"], 0)
    assert store.read("SCAN", 0, "COUNT", 100_000) == [b"0", [b"stays"]]
    assert store.read("RANDOMKEY") == b"stays"
    assert store.machine.space.values == before


def test_a_read_is_never_earlier_than_what_is_applied() -> None:
    """A clock behind the log's does not bring back what the log has let expire."""
    store = Store(now=1_000)
    store.ask("SET", "k", "v", "PX", 500)
    store.now = 2_000
    store.ask("SET", "other", "v")
    assert store.machine.read([b"GET", b"k"], now=1_200) is None


def test_a_batch_sweeps_what_has_expired() -> None:
    """Keys that nobody asks for go as well, with any batch."""
    store = Store(now=1_000)
    for number in range(10):
        store.ask("SET", f"k{number}", "v", "PX", 100 + number)
    store.now = 1_105
    store.ask("GET", "nothing")
    assert sorted(store.machine.space.values) == [b"k5", b"k6", b"k7", b"k8", b"k9"]
    assert store.machine.space.versions.keys() == store.machine.space.values.keys()


def test_a_sweep_is_bounded_and_takes_the_longest_expired_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many keys with near deadlines do not hold up a server; all servers have the same ones left."""
    monkeypatch.setattr(keyspace, "SWEEP_KEYS_MAX", 3)
    store = Store(now=1_000)
    for number in range(8):
        store.ask("SET", f"k{number}", "v", "PX", 200 - number)
    store.ask("EXPIRE", "k7", 1_000)
    store.ask("PERSIST", "k6")
    other = store.restored()  # it has no deadlines that are no longer true, and must sweep alike
    for server in (store, other):
        server.now = 2_000
        server.ask("GET", "nothing")
        assert sorted(server.machine.space.values) == [b"k0", b"k1", b"k2", b"k6", b"k7"]
        assert server.ask("DBSIZE") == 2


def test_a_deadline_that_is_renewed_for_ever_costs_no_memory() -> None:
    """Sessions are kept alive by EXPIRE: deadlines that are no longer true are dropped in time."""
    store = Store()
    store.ask("SET", "k", "v")
    for number in range(1_000):
        store.ask("PEXPIRE", "k", 100_000 + number)
    assert len(store.machine.space.heap) < 100


def test_an_expired_key_leaves_nothing_to_its_successor() -> None:
    """INCR, APPEND and HSET keep a deadline, but not that of a key which is gone."""
    for command in (
        ("INCR", "k"),
        ("APPEND", "k", "v"),
        ("HSET", "k", "f", "v"),
        ("SET", "k", "v", "KEEPTTL"),
    ):
        store = Store(now=1_000)
        store.ask("SET", "k", "v", "PX", 100)
        store.now = 5_000
        store.ask(*command)
        assert store.ask("PTTL", "k") == -1, command


def test_a_time_counts_from_the_commands_own_position() -> None:
    """EX and EXPIRE are relative to the merged timestamp, which all servers share."""
    store = Store(now=10_000)
    store.ask("SET", "k", "v", "EX", 7)
    assert store.ask("PEXPIRETIME", "k") == 17_000
    store.now = 12_000
    store.ask("EXPIRE", "k", 100, "GT")
    assert store.ask("PEXPIRETIME", "k") == 112_000
    assert store.ask("EXPIRETIME", "k") == 112


def test_a_past_deadline_removes_at_once() -> None:
    """EXPIRE and GETEX with a time that is over are a DEL."""
    store = Store(now=10_000)
    store.ask("MSET", "a", "1", "b", "2")
    assert store.ask("EXPIRE", "a", -1) == 1
    assert store.ask("GETEX", "b", "PXAT", 9_000) == b"2"
    assert store.machine.space.values == {}
