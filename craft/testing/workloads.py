"""What clients do to a cluster, the state machine that they do it to, and the model that judges the answers.

Knows: commands, queries and a `random.Random` that is given to it. Must not know: servers, time, the world.

Invariants
- The same calls with the same random source give the same requests, in any process.
- A command is made once: every value that is written is written once. (Counters alone add the same again, and
  their results tell the additions apart.)
- Keys come in generations of a few: all writes of a while contend for the same keys, an operation on several
  keys stays inside one generation, and fresh keys follow. So what the checker has to look at together stays
  small, however long the run.
- Machine and model are written apart from each other: what one has wrong, the other does not hide.
- A machine raises at a command that its workload does not make: in a simulation that is a finding.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import msgpack

from craft.state_machine import Batch, StateMachine
from craft.testing.model import UNKNOWN_RESULT, Key, Model, State

if typing.TYPE_CHECKING:
    from random import Random

KEYS = 3
"""Keys of a generation: few, so that most operations meet another on theirs."""

GENERATION_WRITES = 60
"""Writes before fresh keys follow: enough to meet a fault, few enough to be checked in milliseconds."""

REQUESTS_MAX = 4
"""Commands of a write that has several, and queries of such a read."""

SEVERAL = 0.15
"""How often an operation has several requests."""

EARLIER = 0.15
"""How often a read asks an earlier generation: what was answered long ago must still be there."""

EXPECTED_MAX = 4
"""Among how many of the last values made for a register a compare-and-set picks the one it expects."""

PIECE_BYTES = 200
"""Of a machine's snapshot."""

DIGEST_BYTES = 8
DIGEST_MASK = (1 << 8 * DIGEST_BYTES) - 1


class Workload(Protocol):
    """One run's source of requests. It remembers what it made: take a new one for each run."""

    @property
    def name(self) -> str:
        """As in WORKLOADS and on the command line."""

    @property
    def model(self) -> Model | None:
        """The judge of results and reads; None where only a replay of the merged log can judge them."""

    def machine(self) -> StateMachine:
        """A new, empty state machine: one for every start of every server."""

    def next_write(self, rng: Random) -> tuple[bytes, ...]:
        """The commands of one write; at least one."""

    def next_read(self, rng: Random) -> tuple[bytes, ...]:
        """The queries of one read; none where the workload has no reads."""


@runtime_checkable
class Digestible(Protocol):
    """A state machine that can put its whole state into few bytes."""

    def digest(self) -> bytes:
        """Equal for equal states, on all servers and in all processes."""


def digest(machine: object) -> bytes | None:
    """The machine's digest, or None where it has none."""
    return machine.digest() if isinstance(machine, Digestible) else None


# -- requests --------------------------------------------------------------------------------------


def encode(word: str, *numbers: int) -> bytes:
    """A request of the workloads here: a msgpack array of a word and integers, the first of them the key."""
    packed: bytes = msgpack.packb((word, *numbers))
    return packed


def decode(request: bytes) -> list[Any]:
    """The word and the integers of a request."""
    decoded: list[Any] = msgpack.unpackb(request)
    return decoded


def describe(request: bytes) -> str:
    """A request in words: `add key 7, 1`."""
    word, key, *numbers = decode(request)
    return ", ".join([f"{word} key {key}", *map(str, numbers)])


def _strange(request: bytes) -> ValueError:
    return ValueError(f"request is {request!r:.120}; allowed are those that this workload makes")


def _asked(query: bytes) -> int:
    """The key that a `get` asks for."""
    word, key = decode(query)
    if word != "get":
        raise _strange(query)
    asked: int = key
    return asked


class KeyedModel:
    """What the models here share: the first integer of a request is the key that it is about."""

    def key(self, request: bytes) -> int:
        """That key: requests about others have nothing to do with it."""
        key: int = decode(request)[1]
        return key

    def describe(self, request: bytes) -> str:
        """In words."""
        return describe(request)


class Keys:
    """Which keys the next operation is about."""

    def __init__(self) -> None:
        self._writes = 0

    def for_write(self, rng: Random) -> list[int]:
        """Of the generation that is written now; a key may come twice."""
        generation = self._writes // GENERATION_WRITES
        self._writes += 1
        return self._pick(rng, generation)

    def for_read(self, rng: Random) -> list[int]:
        """Mostly of the generation that is written now."""
        generation = self._writes // GENERATION_WRITES
        if generation and rng.random() < EARLIER:
            generation = rng.randrange(generation)
        return self._pick(rng, generation)

    def _pick(self, rng: Random, generation: int) -> list[int]:
        count = rng.randint(2, REQUESTS_MAX) if rng.random() < SEVERAL else 1
        return [generation * KEYS + rng.randrange(KEYS) for _ in range(count)]


def gets(keys: list[int]) -> tuple[bytes, ...]:
    """The query that all workloads here have."""
    return tuple(encode("get", key) for key in keys)


class Digest:
    """The sum of a hash of each key and its value, kept along with every change.

    Only integers are hashed: unlike that of strings and bytes, their hash is the same in every process.
    """

    def __init__(self) -> None:
        self._sum = 0

    def change(self, key: int, old: int, new: int) -> None:
        """A key's value, or the hash of it, changed. What was never written counts as 0."""
        self._sum += hash((key, new)) - hash((key, old))

    def snapshot(self) -> Callable[[], Iterator[bytes]]:
        """The whole state, in small pieces: what a snapshot of many megabytes is to a real server."""
        state = {**vars(self), "_sum": self._sum & DIGEST_MASK}
        packed: bytes = msgpack.packb(state)
        return lambda: (packed[at : at + PIECE_BYTES] for at in range(0, len(packed), PIECE_BYTES))

    def restore(self, chunks: Iterable[bytes]) -> None:
        """That state in the place of this one."""
        vars(self).update(msgpack.unpackb(b"".join(chunks), strict_map_key=False))

    def digest(self) -> bytes:
        """Of the whole state."""
        return (self._sum & DIGEST_MASK).to_bytes(DIGEST_BYTES, "big")


# -- counters: losses and double effects show in every result --------------------------------------


class CounterMachine(Digest):
    """`add key, amount` → the new value; `get key` → the value, 0 before the first."""

    def __init__(self) -> None:
        super().__init__()
        self._values: dict[int, int] = {}

    def apply_batch(self, batch: Batch) -> list[int]:
        """One result a command: the counter's new value."""
        return [self._add(command) for command in batch]

    def _add(self, command: bytes) -> int:
        word, key, amount = decode(command)
        if word != "add":
            raise _strange(command)
        old = self._values.get(key, 0)
        new: int = old + amount
        self._values[key] = new
        self.change(key, old, new)
        return new

    def query(self, query: bytes) -> int:
        """The counter's value."""
        return self._values.get(_asked(query), 0)


class CounterModel(KeyedModel):
    """A counter's state is its value."""

    def initial(self, _key: Key) -> State:
        """Every counter starts at 0."""
        return 0

    def step(self, state: Any, request: bytes, result: Any) -> Any:
        """An addition answers the new value, a query the value."""
        word, _, *amount = decode(request)
        after = state + amount[0] if word == "add" else state
        return after if result in (UNKNOWN_RESULT, after) else None


class CounterWorkload:
    """Additions of 1 to a few counters."""

    name = "counter"

    def __init__(self) -> None:
        self.model = CounterModel()
        self._keys = Keys()

    def machine(self) -> CounterMachine:
        """All counters are 0."""
        return CounterMachine()

    def next_write(self, rng: Random) -> tuple[bytes, ...]:
        """Additions to one counter, or to several at one point."""
        return tuple(encode("add", key, 1) for key in self._keys.for_write(rng))

    def next_read(self, rng: Random) -> tuple[bytes, ...]:
        """One counter's value, or several in one state."""
        return gets(self._keys.for_read(rng))


# -- registers: stale reads and lost updates -------------------------------------------------------


class RegisterMachine(Digest):
    """`set key, value` and `cas key, expected, value` → the value before; `get key` → the value, 0 at first.

    A compare-and-set has an effect where it answers the value that it expected.
    """

    def __init__(self) -> None:
        super().__init__()
        self._values: dict[int, int] = {}

    def apply_batch(self, batch: Batch) -> list[int]:
        """One result a command: the register's value before it."""
        return [self._write(command) for command in batch]

    def _write(self, command: bytes) -> int:
        word, key, *expected, new = decode(command)
        if word not in ("set", "cas") or len(expected) != (word == "cas"):
            raise _strange(command)
        old = self._values.get(key, 0)
        if not expected or expected[0] == old:
            self._values[key] = new
            self.change(key, old, new)
        return old

    def query(self, query: bytes) -> int:
        """The register's value."""
        return self._values.get(_asked(query), 0)


class RegisterModel(KeyedModel):
    """A register's state is its value."""

    def initial(self, _key: Key) -> State:
        """Every register starts at 0."""
        return 0

    def step(self, state: Any, request: bytes, result: Any) -> Any:
        """Whatever is asked, the answer is the value before."""
        if result is not UNKNOWN_RESULT and result != state:
            return None
        match decode(request):
            case ["set", _, value]:
                return value
            case ["cas", _, expected, value]:
                return value if state == expected else state
        return state


class RegisterWorkload:
    """Writes of values that are written once, half of them compare-and-set."""

    name = "register"

    def __init__(self) -> None:
        self.model = RegisterModel()
        self._keys = Keys()
        self._made = 0
        self._recent: dict[int, list[int]] = {}

    def machine(self) -> RegisterMachine:
        """All registers are 0."""
        return RegisterMachine()

    def next_write(self, rng: Random) -> tuple[bytes, ...]:
        """Writes to one register, or to several at one point."""
        return tuple(self._write(rng, key) for key in self._keys.for_write(rng))

    def _write(self, rng: Random, key: int) -> bytes:
        self._made += 1
        recent = self._recent.setdefault(key, [0])
        expected = rng.choice(recent[-EXPECTED_MAX:])
        recent.append(self._made)
        if rng.random() < 0.5:
            return encode("set", key, self._made)
        return encode("cas", key, expected, self._made)

    def next_read(self, rng: Random) -> tuple[bytes, ...]:
        """One register's value, or several in one state."""
        return gets(self._keys.for_read(rng))


# -- lists: the order itself is read back ----------------------------------------------------------


class ListMachine(Digest):
    """`append key, value` → the whole list after it; `get key` → the whole list."""

    def __init__(self) -> None:
        super().__init__()
        self._lists: dict[int, list[int]] = {}
        self._hashes: dict[int, int] = {}

    def apply_batch(self, batch: Batch) -> list[list[int]]:
        """One result a command: the list's values after it, so that no order stays hidden until a read."""
        return [self._append(command) for command in batch]

    def _append(self, command: bytes) -> list[int]:
        word, key, value = decode(command)
        if word != "append":
            raise _strange(command)
        values = self._lists.setdefault(key, [])
        values.append(value)
        old = self._hashes.get(key, 0)
        new = self._hashes[key] = hash((old, value))
        self.change(key, old, new)
        return values.copy()

    def query(self, query: bytes) -> list[int]:
        """The list's values, oldest first; a copy, for the list goes on."""
        return list(self._lists.get(_asked(query), ()))


class ListModel(KeyedModel):
    """A list's state is the tuple of its values."""

    def initial(self, _key: Key) -> State:
        """Every list starts empty."""
        return ()

    def step(self, state: Any, request: bytes, result: Any) -> Any:
        """Both answer the values."""
        word, _, *value = decode(request)
        after = (*state, *value) if word == "append" else state
        return after if result in (UNKNOWN_RESULT, list(after)) else None


class ListWorkload:
    """Appends of values that are appended once."""

    name = "list"

    def __init__(self) -> None:
        self.model = ListModel()
        self._keys = Keys()
        self._made = 0

    def machine(self) -> ListMachine:
        """All lists are empty."""
        return ListMachine()

    def next_write(self, rng: Random) -> tuple[bytes, ...]:
        """Appends to one list, or to several at one point."""
        commands = []
        for key in self._keys.for_write(rng):
            self._made += 1
            commands.append(encode("append", key, self._made))
        return tuple(commands)

    def next_read(self, rng: Random) -> tuple[bytes, ...]:
        """One list, or several in one state."""
        return gets(self._keys.for_read(rng))


# -- a state machine of the user's own -------------------------------------------------------------


class CustomWorkload:
    """Commands, and perhaps queries, of the user's own. The merged log alone says what they should answer."""

    model = None

    def __init__(
        self,
        machine: Callable[[], StateMachine],
        commands: Callable[[Random], bytes],
        queries: Callable[[Random], bytes] | None = None,
        *,
        name: str = "custom",
    ) -> None:
        self.name = name
        self._machine = machine
        self._commands = commands
        self._queries = queries

    def machine(self) -> StateMachine:
        """What the user's factory makes."""
        return self._machine()

    def next_write(self, rng: Random) -> tuple[bytes, ...]:
        """Mostly one command, sometimes several."""
        return tuple(_checked("commands", self._commands(rng)) for _ in range(self._count(rng)))

    def next_read(self, rng: Random) -> tuple[bytes, ...]:
        """Mostly one query, sometimes several; none where the user gave none."""
        if self._queries is None:
            return ()
        return tuple(_checked("queries", self._queries(rng)) for _ in range(self._count(rng)))

    def _count(self, rng: Random) -> int:
        return rng.randint(2, REQUESTS_MAX) if rng.random() < SEVERAL else 1


def _checked(source: str, request: object) -> bytes:
    if not isinstance(request, bytes):
        raise TypeError(f"{source}(rng) returned {request!r:.120}; allowed: bytes")
    return request


WORKLOADS: Mapping[str, Callable[[], Workload]] = MappingProxyType(
    {
        CounterWorkload.name: CounterWorkload,
        RegisterWorkload.name: RegisterWorkload,
        ListWorkload.name: ListWorkload,
    }
)
"""By name; call one for each run."""
