"""The state machine: what the log may contain, what is read beside it, and agreement in the simulator."""

from __future__ import annotations

from random import Random
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

import craft
from craft.testing import simulate
from examples.kv import machine
from examples.kv.commands import keys_of
from examples.kv.machine import KeyValue, pack_command, pack_transaction
from examples.kv.replies import Refused, encode, is_error
from tests.kv.generator import KEYS, Generator
from tests.kv.store import Store

MALFORMED: list[Any] = [
    [],
    [1],
    [None],
    7,
    {b"a": 1},
    [b"SET", 1],
    [b"GET", [b"k"]],
    [[]],
    [[], [[]]],
    [[], [[1]]],
    [[], [b"GET"]],
    [[[b"k"]], [[b"GET", b"k"]]],
    [[[b"k", b"1"]], [[b"GET", b"k"]]],
    [[[1, 1]], [[b"GET", b"k"]]],
    [7, [[b"GET", b"k"]]],
    [[], 7],
    [[], [], []],
]


@pytest.mark.parametrize("content", MALFORMED, ids=repr)
def test_a_malformed_command_is_answered_with_an_error(content: Any) -> None:
    """Nothing that has got into the log may stop a server, and half of it is not executed."""
    store = Store()
    good = pack_command([b"SET", b"k", b"v"])
    assert store.apply(msgpack.packb(content), good) == [{"error": b"ERR malformed command"}, "OK"]


def test_what_an_entry_of_the_log_answers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a few bytes of it would fill the memory of all servers. All is executed; small answers are kept."""
    monkeypatch.setattr(machine, "REPLIES_BYTES_MAX", 100_000)
    store = Store()
    store.ask("SET", "k", "x" * 30_000)
    part, small = (
        pack_command([b"GETRANGE", b"k", b"1", b"-1"]),
        pack_command([b"GETRANGE", b"k", b"0", b"9"]),
    )
    many = pack_transaction([[b"INCR", b"n"], *[[b"GET", b"k"]] * 4])
    few = pack_transaction([[b"INCR", b"n"], [b"GET", b"k"]])
    count = pack_command([b"INCR", b"n"])
    assert store.apply(part, few, part, part, small, few, count)[3:] == [
        machine.LOST,
        b"x" * 10,
        machine.LOST,
        3,
    ]
    assert store.apply(many, count, small, few) == [machine.LOST, 5, b"x" * 10, [6, b"x" * 30_000]]
    assert store.apply(part, few, part, few) == [
        b"x" * 29_999,
        [7, b"x" * 30_000],
        b"x" * 29_999,
        machine.LOST,
    ]


@given(st.binary(max_size=60))
def test_any_bytes_are_answered(command: bytes) -> None:
    """Not only what msgpack can read."""
    [reply] = Store().apply(command)
    assert encode(reply)


WORDS = [b"SET", b"get", b"OBJECT", b"", b"\x00", b"k", b"EX", b"1"]


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6))
def test_any_arguments_are_answered(args: list[bytes]) -> None:
    """In both protocols, and as something that can be kept."""
    reply = Store().ask(*args)
    assert encode(reply, 2)
    assert encode(msgpack.unpackb(msgpack.packb(reply)), 3) == encode(reply, 3)


def test_a_command_may_be_packed_as_text() -> None:
    """Clients in languages without bytes write strings."""
    assert Store().apply(msgpack.packb(["SET", "k", "v"]), msgpack.packb(["GET", "k"])) == ["OK", b"v"]


def test_a_batch_has_one_position_and_one_time() -> None:
    """Every command of it changes its keys at that position."""
    machine = KeyValue()
    commands = [pack_command([b"SET", key, b"v", b"PX", b"5"]) for key in (b"a", b"b")]
    machine.apply_batch(craft.Batch(9, 3_999_999, commands))
    assert (machine.version(b"a", 0), machine.version(b"b", 0)) == (9, 9)
    assert machine.read([b"PEXPIRETIME", b"a"], 0) == 8


def test_a_write_is_refused_beside_the_log() -> None:
    """A read that changed something would let servers part."""
    store = Store()
    assert is_error(store.read("SET", "k", "v"))
    assert is_error(store.read("GETEX", "k"))
    assert store.read("DBSIZE") == 0


def test_a_remote_reader_asks_with_a_packed_command() -> None:
    """`craft read` gives bytes; the answer is that of the last batch's time."""
    store = Store()
    store.ask("SET", "k", "v")
    assert store.machine.query(pack_command([b"GET", b"k"])) == b"v"
    for wrong in (b"", b"\xc1", pack_command([b"SET", b"k", b"v"]), pack_transaction([[b"GET", b"k"]])):
        assert is_error(store.machine.query(wrong))


def test_the_keys_of_a_command_are_found() -> None:
    """For rights over keys: all of them, wherever they stand."""
    assert keys_of([b"get", b"k"]) == [b"k"]
    assert keys_of([b"MSET", b"a", b"1", b"b", b"2"]) == [b"a", b"b"]
    assert keys_of([b"DEL", b"a", b"b", b"c"]) == [b"a", b"b", b"c"]
    assert keys_of([b"COPY", b"a", b"b", b"REPLACE"]) == [b"a", b"b"]
    assert keys_of([b"OBJECT", b"ENCODING", b"k"]) == [b"k"]
    assert keys_of([b"DBSIZE"]) == []
    with pytest.raises(Refused):
        keys_of([b"GET"])


def drawn(rng: Random) -> bytes:
    """A command, or sometimes a transaction, as clients in the simulator send them."""
    generator = Generator(rng.getrandbits(32))
    if rng.random() < 0.1:
        return pack_transaction(generator.sequence(3), [(rng.choice(KEYS), 0)] if rng.random() < 0.5 else [])
    args = generator.sequence(1)[0]
    if args[0].upper() in (b"SET", b"GETEX") and len(args) > 1 and rng.random() < 0.5:
        args = [b"SET", args[1], b"v", b"PX", b"%d" % rng.randint(1, 2_000)]  # some expire within a run
    return pack_command(args)


def asked(rng: Random) -> bytes:
    """A command that is answered beside the log; writes are refused there."""
    return pack_command(Generator(rng.getrandbits(32)).sequence(1)[0])


def test_servers_agree_in_the_simulator() -> None:
    """Crashes, snapshots, wrong clocks, other hash seeds: the same answers everywhere."""
    simulate(KeyValue, commands=drawn, queries=asked, seeds=[1, 7])  # in 7 snapshots are taken
