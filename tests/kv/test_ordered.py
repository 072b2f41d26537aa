"""Keys in the order of their bytes: the set is the model, and the chunks are cut and joined on the way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.kv import ordered
from examples.kv.ordered import Ordered
from tests.kv.store import Store

KEYS = st.binary(max_size=2)


@given(st.sets(KEYS), st.lists(KEYS, max_size=60), KEYS)
def test_a_walk_is_in_order_whatever_came_and_went(
    first: set[bytes], changes: list[bytes], start: bytes
) -> None:
    """With chunks so small that they are cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ordered, "CHUNK", 2)
        keys, held = Ordered(first), set(first)
        for key in changes:
            if key in held:
                keys.discard(key)
                held.remove(key)
            else:
                keys.add(key)
                held.add(key)
        assert all(keys.chunks)
        assert keys.firsts == [chunk[0] for chunk in keys.chunks]
        assert list(keys.walk(b"")) == sorted(held)
        assert list(keys.walk(start)) == sorted(key for key in held if key >= start)
        assert list(keys.walk(start, beyond=True)) == sorted(key for key in held if key > start)


def test_the_order_follows_the_data() -> None:
    """From when it was built on: keys that are set again, renamed, removed, and a flush."""
    store = Store()
    store.ask("MSET", "b", 1, "a", 1)

    def keys() -> list[bytes]:
        return list(store.machine.view(0).walk(b""))

    assert keys() == [b"a", b"b"]
    store.ask("MSET", "b", 2, "c", 1)
    store.ask("RENAME", "a", "d")
    assert keys() == [b"b", b"c", b"d"]
    store.ask("DEL", "c")
    assert keys() == [b"b", b"d"]
    store.ask("FLUSHALL")
    assert keys() == []
    store.ask("SET", "e", 1)
    assert keys() == [b"e"]
