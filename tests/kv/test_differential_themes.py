"""The engine against a real Redis where random commands seldom reach: sums, patterns, WATCH, the table."""

from __future__ import annotations

import time
from random import Random

import pytest

from examples.kv.commands import TABLE, find, keys_of
from examples.kv.replies import Refused, encode
from examples.kv.resp.commands import LOCAL
from tests.kv.generator import (
    FLOATS,
    FLOATS_ALIKE,
    KEYS,
    LARGE_FLOATS,
    ODD_FLOATS,
    Generator,
)
from tests.kv.redis import Connection
from tests.kv.store import Store
from tests.kv.test_differential import TIMES, UNORDERED, parsed

pytestmark = pytest.mark.system


def compare(redis: Connection, store: Store, commands: list[list[bytes]]) -> None:
    """Give both the same commands; all replies are the same."""
    for args, theirs in zip(commands, redis.ask_all(commands), strict=True):
        ours = encode(store.ask(*args))
        assert ours == theirs, f"{args!r}\nours   {ours!r}\ntheirs {theirs!r}"


def random_float(rng: Random) -> bytes:
    """A text that may be a number, in one of the ways in which one may be written."""
    digits = bytes(rng.choices(b"0123456789", k=rng.randint(1, 25)))
    point = rng.randint(0, len(digits))
    exponent = rng.choice([b"", b"", b"e%d" % rng.randint(-30, 30), b"E+%d" % rng.randint(0, 4900)])
    sign = rng.choice([b"", b"", b"-", b"+"])
    if rng.random() < 0.1:
        return sign + b"0x%x.%xP%d" % (rng.getrandbits(70), rng.getrandbits(20), rng.randint(-70, 70))
    return sign + digits[:point] + rng.choice([b"", b"."]) + digits[point:] + exponent


@pytest.mark.skipif(not FLOATS_ALIKE, reason="Redis has another long double on this processor")
def test_sums_have_the_digits_of_a_long_double(redis: Connection) -> None:
    """INCRBYFLOAT and HINCRBYFLOAT of any two texts: the same digits, the same refusals."""
    rng, commands = Random(1), []
    peculiar = [*FLOATS, *ODD_FLOATS, *LARGE_FLOATS, b"nan(1)", b"INF", b"-infinity", b"1e-4951", b"1e-4966"]
    pairs = [(random_float(rng), random_float(rng)) for _ in range(1500)]
    pairs += [
        (one, rng.choice([b"0", b"-0.0", b"1", one, random_float(rng)])) for one in peculiar for _ in range(4)
    ]
    for one, amount in pairs:
        commands += [
            [b"SET", b"k", one],
            [b"INCRBYFLOAT", b"k", amount],
            [b"INCRBYFLOAT", b"k", b"-" + amount],
        ]
        commands += [[b"HSET", b"h", b"f", one], [b"HINCRBYFLOAT", b"h", b"f", amount]]
    compare(redis, Store(), commands)


def test_patterns_match_what_they_match_there(redis: Connection) -> None:
    """KEYS with patterns of all that means something in one, over keys of the same characters."""
    rng, store = Random(2), Store()
    keys = [bytes(rng.choices(b"ab*?[]^-\\\x80\xff", k=rng.randint(0, 4))) for _ in range(150)]
    compare(redis, store, [[b"SET", key, b""] for key in keys])
    patterns = [bytes(rng.choices(b"aab**?[[]]^-\\\x80\xff", k=rng.randint(0, 8))) for _ in range(2500)]
    for pattern, reply in zip(
        patterns, redis.ask_all([[b"KEYS", pattern] for pattern in patterns]), strict=True
    ):
        kind, theirs = parsed(reply)
        assert kind == b"*"
        assert sorted(map(encode, store.ask("KEYS", pattern))) == sorted(theirs), pattern


def test_common_subsequences_are_the_same_ones(redis: Connection) -> None:
    """LCS of random strings over few letters: many longest ones exist, the same is found."""
    rng, commands = Random(3), []
    for _ in range(300):
        one, other = (bytes(rng.choices(b"abc", k=rng.randint(0, 30))) for _ in range(2))
        least = b"%d" % rng.randint(0, 4)
        commands += [[b"MSET", b"x", one, b"y", other], [b"LCS", b"x", b"y"]]
        commands += [[b"LCS", b"x", b"y", b"IDX", b"MINMATCHLEN", least, b"WITHMATCHLEN"]]
    compare(redis, Store(), commands)


def test_conditions_of_deadlines_hold_where_they_do_there(redis: Connection) -> None:
    """Every pair of options, for every order of the old deadline and the new one, equal ones included."""
    commands = []
    words = [b"NX", b"XX", b"GT", b"LT"]
    options = [[], *([word] for word in words), *([one, other] for one in words for other in words)]
    times = [b"4100000000000", b"4200000000000"]
    for option in options:
        for old in (None, *times):
            for new in (*times, b"1000"):
                commands.append([b"SET", b"k", b"v", *([b"PXAT", old] if old else [])])
                commands += [[b"PEXPIREAT", b"k", new, *option], [b"PEXPIRETIME", b"k"], [b"GET", b"k"]]
    compare(redis, Store(time.time_ns() // 1_000_000), commands)


def test_a_hash_grows_out_of_the_listpack_where_it_does_there(redis: Connection) -> None:
    """At 513 fields, or a field or value of 65 bytes; and it never shrinks back."""
    commands = [[b"HSET", b"h", b"f%d" % number, b"v"] for number in range(514)]
    watched = [args for command in commands[510:] for args in (command, [b"OBJECT", b"ENCODING", b"h"])]
    removals = [[b"HDEL", b"h", b"f%d" % number] for number in range(500)]
    longer = [[b"HSET", b"g%d" % size, b"f" * size, b"v" * (129 - size)] for size in (63, 64, 65, 66)]
    asked = [[b"OBJECT", b"ENCODING", b"g%d" % size] for size in (63, 64, 65, 66)]
    compare(
        redis,
        Store(),
        [*commands[:510], *watched, *removals, [b"OBJECT", b"ENCODING", b"h"], *longer, *asked],
    )


def test_odd_names_options_and_cursors_mean_what_they_mean_there(redis: Connection) -> None:
    """The name of a container's command is two arguments; strings of C end at a zero byte."""
    commands = [[b"SET", b"k", b"v"], [b"OBJECT|ENCODING", b"x", b"k"], [b"object|encoding", b"k"]]
    commands += [[b"EXPIRE", b"k", b"1", word] for word in (b"no\0ne", b"none\r\n", b"no\r\nne")]
    cursors = [b"0\0x", b"\0", b"0" * 30, b"-" + b"0" * 9, b"1" * 20, b"1" * 21, b"0" * 9 + b"1" * 20, b"+-1"]
    compare(redis, Store(), commands + [[b"HSCAN", b"absent", text] for text in cursors])


def test_a_transaction_answers_as_exec_does(redis: Connection) -> None:
    """Random commands in one EXEC: an error among them stops none of the others."""
    store, draw = Store(time.time_ns() // 1_000_000), Generator(4)
    for _ in range(150):
        commands = [
            args
            for args in draw.sequence(12)
            if acceptable(args) and args[0].upper() not in {*TIMES, *UNORDERED}
        ]
        *_, theirs = redis.ask_all([[b"MULTI"], *commands, [b"EXEC"]])
        assert encode(store.transact(*commands)) == theirs, commands


def acceptable(args: list[bytes]) -> bool:
    """Would MULTI queue it? It refuses unknown commands and wrong arities at once."""
    try:
        return bool(find(args))
    except Refused:
        return False


@pytest.mark.parametrize("seed", [5, 6])
def test_what_touches_a_watched_key_there_changes_its_version_here(
    redis: Connection, other: Connection, seed: int
) -> None:
    """WATCH a key, let another client do anything, EXEC: it is aborted by both, or by neither."""
    draw = Generator(seed)
    store = Store(time.time_ns() // 1_000_000)
    aborted = 0
    for _ in range(500):
        for args in draw.sequence(3):
            store.ask(*args)
            redis.ask(*args)
        command = draw.sequence(1)[0]
        concerned = keys_of(command) if acceptable(command) else []
        key = draw.rng.choice(concerned or KEYS)
        redis.ask(b"WATCH", key)
        version = store.version(key)
        store.ask(*command)
        other.ask(*command)
        theirs = redis.ask_all([[b"MULTI"], [b"DBSIZE"], [b"EXEC"]])[-1]
        ours = store.transact([b"DBSIZE"], watched=[(key, version)])
        if (
            not command[0].upper().startswith(b"FLUSH")
        ):  # it changes the version of absent keys here, not there
            assert (encode(ours) == b"*-1\r\n") == (theirs == b"*-1\r\n"), (key, command)
        aborted += theirs == b"*-1\r\n"
    assert 50 < aborted < 450


def test_the_table_says_of_each_command_what_redis_says(redis: Connection) -> None:
    """Arity, whether it writes, and where its keys are."""
    for name, command in TABLE.items():
        _, [info] = parsed(redis.ask(b"COMMAND", b"INFO", name))
        _, [_, arity, (_, flags), first, last, step, *_] = info
        keys = tuple(int(number[1:]) for number in (first, last, step))
        assert int(arity[1:]) == command.arity, name
        if name != b"PUBLISH":  # ours goes through the log
            assert (b"+write\r\n" in flags) == command.writes, name
        assert keys == command.keys, name


def test_commands_about_connections_take_as_many_arguments(redis: Connection) -> None:
    """Those that Redis has, too, and as an alias of none."""
    for name, command in LOCAL.items():
        if not name.startswith(b"CRAFT.") and name not in {b"READMODE", b"CLIENT|SETINFO", b"DEBUG|SLEEP"}:
            _, [info] = parsed(redis.ask(b"COMMAND", b"INFO", name))
            assert int(info[1][1][1:]) == command.arity, name
