"""Random commands for the differential test: every command of the table, with every option it has.

Times are far in the future or over, so that it does not matter when either side executes a command: relative
ones are hours apart from each other, absolute ones beyond all of these.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from random import Random

KEYS = [b"a", b"b", b"c", b"ab", b"abc", b"h", b"g", b"", b"\x00\xff\r\n"]
FIELDS = [b"f", b"g", b"field", b"", b"\xfe\x00", b"10"]
INTEGERS = [
    b"0",
    b"1",
    b"-1",
    b"7",
    b"100",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"4611686018427387904",
]
NO_INTEGERS = [b"", b" 1", b"1 ", b"+1", b"01", b"-0", b"1.0", b"x", b"9223372036854775808", b"1_0", b"0x10"]
FLOATS = [
    b"0.1",
    b"0.2",
    b"-0.3",
    b"3.0",
    b"1e3",
    b"1.5e-10",
    b".5",
    b"5.",
    b"3e5",
    b"-1e17",
    b"12345.6789",
    b"1e-30",
]
ODD_FLOATS = [
    b"inf",
    b"-Infinity",
    b"nan",
    b"1e",
    b".",
    b"1e5000",
    b"1e-5000",
    b"1e999999999999",
    b"0x1.8p3",
    b"+2.5",
    b" 1.5",
    b"1,5",
    b"0e99999999999",
    b"--1",
    b"1e-4940",
    b"0x.8",
    b"0x",
    b"1.1\x00",
]
TEXTS = [b"", b"hello", b"a" * 44, b"a" * 45, b"b" * 64, b"b" * 65, b"\r\n\x00\xff", b"The quick brown fox"]
PATTERNS = [
    b"*",
    b"a*",
    b"?",
    b"*b*",
    b"[a-b]",
    b"[^a]",
    b"a?c",
    b"\\a",
    b"",
    b"h",
    b"*c",
    b"[",
    b"[b-a]*",
    b"*\xff*",
]
PAST_MS = [b"1", b"1000", b"1500000000000"]
FUTURE_MS = [b"%d" % (4_000_000_000_000 + 1_000_000_000 * n) for n in range(1, 6)]
WRONG_TIMES = [b"0", b"-5", b"9223372036854775807", b"9223372036854775", b"9223372036854776", b"x", b""]
LARGE_FLOATS = [
    b"1e4000",
    b"-1.18973e4932",
    b"1.1e4931",
    b"0x1p16383",
    b"0x1.8p16384",
    b"1" * 4900,
    b"9" * 5000,
    b"1e" + b"0" * 4990 + b"7",
    b"0." + b"0" * 4800 + b"1",
    b"5" * 5119,
    b"5" * 5120,
]
"""For a test of their own: thousands of digits in a key would make every LCS after them slow."""
FLOATS_ALIKE = platform.machine() == "x86_64"
"""Redis computes with the processor's long double; the engine always with that of x86."""

Args = list[bytes]


class Generator:
    """Commands from a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.hours = list(range(1, 20_000))
        self.rng.shuffle(self.hours)

    # -- arguments ---------------------------------------------------------------------------------

    def key(self) -> bytes:
        return self.rng.choice(KEYS)

    def field(self) -> bytes:
        return self.rng.choice(FIELDS)

    def some(self, one: Callable[[], bytes], most: int = 4) -> Args:
        return [one() for _ in range(self.rng.randint(1, most))]

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def integer(self) -> bytes:
        if self.chance(0.12):
            return self.rng.choice(NO_INTEGERS)
        if self.chance(0.3):
            return self.rng.choice(INTEGERS)
        return b"%d" % self.rng.randint(-50, 50)

    def number(self) -> bytes:
        if self.chance(0.1):
            return self.rng.choice(ODD_FLOATS)
        if self.chance(0.3):
            return self.rng.choice(FLOATS)
        return b"%.*f" % (self.rng.randint(0, 12), self.rng.uniform(-1e6, 1e6))

    def value(self) -> bytes:
        kind = self.rng.randrange(4)
        if kind == 0:
            return self.integer()
        if kind == 1:
            return self.number()
        if kind == 2:
            return self.rng.choice(TEXTS)
        return bytes(self.rng.choices(b"ab*c", k=self.rng.randint(0, 12)))

    def small_value(self) -> bytes:
        """Seldom one that turns a hash into a hashtable."""
        return self.value() if self.chance(0.05) else self.value()[:60]

    def hours_from_now(self, unit_ms: int) -> bytes:
        return b"%d" % (self.hours.pop() * 3_600_000 // unit_ms)

    def absolute(self, unit_ms: int) -> bytes:
        return b"%d" % (int(self.rng.choice(FUTURE_MS)) // unit_ms)

    def over(self, unit_ms: int) -> bytes:
        return b"%d" % max(int(self.rng.choice(PAST_MS)) // unit_ms, 1)

    def cased(self, word: bytes) -> bytes:
        return self.rng.choice([word, word.lower(), word.capitalize()])

    # -- options -----------------------------------------------------------------------------------

    def words(self, *words: bytes, most: int = 2) -> Args:
        """Some options that stand alone, often none."""
        return [self.cased(self.rng.choice(words)) for _ in range(max(self.rng.randint(-1, most), 0))]

    def time_option(self) -> Args:
        """EX, PX, EXAT or PXAT with a time."""
        word = self.rng.choice([b"EX", b"PX", b"EXAT", b"PXAT"])
        unit_ms = 1000 if word in (b"EX", b"EXAT") else 1
        if self.chance(0.15):
            return [self.cased(word), self.rng.choice(WRONG_TIMES)]
        if word in (b"EX", b"PX"):
            return [self.cased(word), self.hours_from_now(unit_ms)]
        return [self.cased(word), self.over(unit_ms) if self.chance(0.2) else self.absolute(unit_ms)]

    def time_options(self, *words: bytes) -> Args:
        options = [self.words(*words)]
        options += [
            self.time_option() for _ in range(self.rng.choice([0, 0, 1, 1, 1, 2]) if self.chance(0.8) else 0)
        ]
        self.rng.shuffle(options)
        options += [[self.rng.choice([b"nonsense", b"EX", b"GET", b""])]] if self.chance(0.04) else []
        return [arg for option in options for arg in option]

    def set(self) -> Args:
        return [self.key(), self.value(), *self.time_options(b"NX", b"XX", b"GET", b"KEEPTTL")]

    def getex(self) -> Args:
        return [self.key(), *self.time_options(b"PERSIST")]

    def expire(self, *, unit_ms: int, absolute: bool) -> Args:
        if self.chance(0.1):
            time = self.rng.choice(WRONG_TIMES)
        elif absolute:
            time = self.over(unit_ms) if self.chance(0.15) else self.absolute(unit_ms)
        else:
            time = b"-100" if self.chance(0.1) else self.hours_from_now(unit_ms)
        nonsense = [b"nonsense"] if self.chance(0.03) else []
        return [self.key(), time, *self.words(b"NX", b"XX", b"GT", b"LT"), *nonsense]

    def pairs(self, first: Callable[[], bytes], second: Callable[[], bytes]) -> Args:
        args = [arg for _ in range(self.rng.randint(1, 3)) for arg in (first(), second())]
        return args[:-1] if self.chance(0.05) else args

    def copy(self) -> Args:
        options = self.words(b"REPLACE", most=1)
        if self.chance(0.3):
            options += [self.cased(b"DB"), self.rng.choice([b"0", b"1", b"-1", b"x", b"99999999999"])]
        options += [b"nonsense"] if self.chance(0.03) else []
        return [self.key(), self.key(), *options]

    def lcs(self) -> Args:
        options = self.words(b"LEN", b"IDX", b"IDX", b"WITHMATCHLEN", most=3)
        if self.chance(0.4):
            options += [self.cased(b"MINMATCHLEN"), self.integer()]
        options += [b"nonsense"] if self.chance(0.03) else []
        return [self.key(), self.key(), *options]

    def scan_options(self, *, typed: bool) -> Args:
        """A COUNT that finds all at once, because cursors differ; last, so that it holds."""
        options: Args = []
        if self.chance(0.5):
            options += [self.cased(b"MATCH"), self.rng.choice(PATTERNS)]
        if self.chance(0.3) and (typed or self.chance(0.1)):
            options += [
                self.cased(b"TYPE"),
                self.rng.choice([b"string", b"hash", b"HASH", b"none", b"list", b"x"]),
            ]
        if self.chance(0.1):
            options += self.rng.choice([[b"COUNT", b"0"], [b"COUNT", b"x"], [b"MATCH"], [b"nonsense", b"x"]])
        return [*options, self.cased(b"COUNT"), b"1000000"]

    def cursor(self) -> bytes:
        if self.chance(0.1):
            return self.rng.choice([b"x", b" 0", b"0x", b"-", b"99999999999999999999", b"1x"])
        return self.rng.choice([b"0", b"0", b"0", b"", b"00", b"+0", b"-0"])

    def object(self) -> Args:
        if self.chance(0.1):
            return self.rng.choice([[b"ENCODING"], [b"nonsense"], [b"encoding", b"a", b"b"]])
        return [self.cased(b"ENCODING"), self.key()]

    def flush(self) -> Args:
        return self.rng.choice([[], [], [b"ASYNC"], [b"sync"], [b"nonsense"], [b"ASYNC", b"SYNC"]])

    # -- commands ----------------------------------------------------------------------------------

    def commands(self) -> dict[bytes, Callable[[], Args]]:
        """How the arguments of each command are drawn."""
        key, field, value, integer = self.key, self.field, self.value, self.integer
        return {
            b"GET": lambda: [key()],
            b"SET": self.set,
            b"SETNX": lambda: [key(), value()],
            b"SETEX": lambda: [key(), self.relative(1000), value()],
            b"PSETEX": lambda: [key(), self.relative(1), value()],
            b"GETSET": lambda: [key(), value()],
            b"GETDEL": lambda: [key()],
            b"GETEX": self.getex,
            b"MGET": lambda: self.some(key),
            b"MSET": lambda: self.pairs(key, value),
            b"MSETNX": lambda: self.pairs(key, value),
            b"INCR": lambda: [key()],
            b"DECR": lambda: [key()],
            b"INCRBY": lambda: [key(), integer()],
            b"DECRBY": lambda: [key(), integer()],
            b"INCRBYFLOAT": lambda: [key(), self.number()],
            b"APPEND": lambda: [key(), value()],
            b"STRLEN": lambda: [key()],
            b"GETRANGE": lambda: [key(), integer(), integer()],
            b"SUBSTR": lambda: [key(), integer(), integer()],
            b"SETRANGE": lambda: [key(), self.offset(), value()],
            b"LCS": self.lcs,
            b"DEL": lambda: self.some(key),
            b"UNLINK": lambda: self.some(key),
            b"EXISTS": lambda: self.some(key),
            b"TOUCH": lambda: self.some(key),
            b"TYPE": lambda: [key()],
            b"RENAME": lambda: [key(), key()],
            b"RENAMENX": lambda: [key(), key()],
            b"COPY": self.copy,
            b"KEYS": lambda: [self.rng.choice(PATTERNS)],
            b"SCAN": lambda: [self.cursor(), *self.scan_options(typed=True)],
            b"DBSIZE": list,
            b"FLUSHDB": self.flush,
            b"FLUSHALL": self.flush,
            b"PUBLISH": lambda: [key(), value()],
            b"EXPIRE": lambda: self.expire(unit_ms=1000, absolute=False),
            b"PEXPIRE": lambda: self.expire(unit_ms=1, absolute=False),
            b"EXPIREAT": lambda: self.expire(unit_ms=1000, absolute=True),
            b"PEXPIREAT": lambda: self.expire(unit_ms=1, absolute=True),
            b"TTL": lambda: [key()],
            b"PTTL": lambda: [key()],
            b"EXPIRETIME": lambda: [key()],
            b"PEXPIRETIME": lambda: [key()],
            b"PERSIST": lambda: [key()],
            b"HSET": lambda: [key(), *self.pairs(field, self.small_value)],
            b"HMSET": lambda: [key(), *self.pairs(field, self.small_value)],
            b"HSETNX": lambda: [key(), field(), self.small_value()],
            b"HDEL": lambda: [key(), *self.some(field)],
            b"HINCRBY": lambda: [key(), field(), integer()],
            b"HINCRBYFLOAT": lambda: [key(), field(), self.number()],
            b"HGET": lambda: [key(), field()],
            b"HMGET": lambda: [key(), *self.some(field)],
            b"HGETALL": lambda: [key()],
            b"HKEYS": lambda: [key()],
            b"HVALS": lambda: [key()],
            b"HLEN": lambda: [key()],
            b"HEXISTS": lambda: [key(), field()],
            b"HSTRLEN": lambda: [key(), field()],
            b"HSCAN": lambda: [key(), self.cursor(), *self.scan_options(typed=False)],
            b"OBJECT": self.object,
        }

    def relative(self, unit_ms: int) -> bytes:
        return self.rng.choice(WRONG_TIMES) if self.chance(0.15) else self.hours_from_now(unit_ms)

    def offset(self) -> bytes:
        """Small, or too large: what lies between would only cost memory."""
        if self.chance(0.1):
            return self.rng.choice([*NO_INTEGERS, b"-1", b"536870912", b"9223372036854775807"])
        return b"%d" % self.rng.randint(0, 70)

    def sequence(self, length: int) -> list[Args]:
        """Commands, some spoilt; a key with a past deadline is looked at, so that both sides remove it."""
        commands = self.commands()
        names = [name for name in commands if FLOATS_ALIKE or not name.endswith(b"FLOAT")]
        rare = {b"FLUSHALL": 0.1, b"FLUSHDB": 0.1, b"DEL": 0.4, b"UNLINK": 0.4}
        common = {b"SET": 3.0, b"HSET": 3.0, b"COPY": 2.0, b"LCS": 2.0, b"GETEX": 2.0}
        weights = [{**rare, **common}.get(name, 1.0) for name in names]
        found: list[Args] = []
        while len(found) < length:
            name = self.rng.choices(names, weights)[0]
            args = [self.cased(name), *commands[name]()]
            found.append(self.spoilt(args) if self.chance(0.02) else args)
            if name == b"SET" and len(args) > 3:
                found.append([b"EXISTS", args[1]])
        return found

    def spoilt(self, args: Args) -> Args:
        """Too few or too many arguments, or an unknown name."""
        return self.rng.choice(
            [args[:-1] or args, args[:1], [*args, b"more"], [b"nonsense", *args], [args[0] + b"x"]]
        )
