"""What a user gives to `simulate`: checked before anything runs, and guarded while it does.

Knows: functions and names that a user gives. Must not know: what is done with them.

Invariants
- Bad input raises TypeError or ValueError that names the value and what is allowed.
- Whatever a user's function raises in a run arrives as the cause of a `Raised`: an AssertionError of the
  user's is no failed assertion of craft.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from craft.restoring import checked_chunk
from craft.state_machine import Batch, Snapshots, StateMachine
from craft.testing import swarm
from craft.testing.faults import FAULTS
from craft.testing.model import Model
from craft.testing.workloads import Digestible

T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """The arguments, checked."""

    machine: Callable[[], StateMachine]
    commands: Callable[[Random], bytes]
    queries: Callable[[Random], bytes] | None
    model: Model | None
    kinds: tuple[str, ...]
    skip: tuple[str, ...]
    options: str

    def repeat(self, seed: int) -> str:
        """The call that repeats a seed."""
        given = {"commands": self.commands, "queries": self.queries, "model": self.model}
        named = "".join(f", {key}={_named(value)}" for key, value in given.items() if value is not None)
        return f"simulate({_named(self.machine)}{named}, seeds=[{seed}]{self.options})"


def _named(value: object) -> str:
    name = getattr(value, "__qualname__", "<")
    return "…" if "<lambda>" in name or name == "<" else name.rpartition("<locals>.")[2]


def checked_function(name: str, value: T) -> T:
    """`commands` or `queries`."""
    if not callable(value):
        raise TypeError(f"{name} is {value!r:.120}; allowed: a function that takes a random.Random")
    return value


def checked_machine(machine: Callable[[], StateMachine], queries: object) -> Callable[[], StateMachine]:
    """A factory whose machines can do what they will be asked. It is called twice."""
    allowed = "allowed: a class, or a function without arguments, that makes a new state machine each time"
    if not callable(machine):
        raise TypeError(f"machine is {machine!r:.120}; {allowed}")
    first, second = machine(), machine()
    if first is second:
        raise ValueError(f"machine returned the same object twice, {first!r:.120}; {allowed}")
    if not callable(getattr(first, "apply_batch", None)):
        raise TypeError(f"machine returned {first!r:.120}, which has no method apply_batch; {allowed}")
    if queries is not None and not callable(getattr(first, "query", None)):
        raise TypeError(
            f"queries is {queries!r:.120}, but {type(first).__name__} has no method query;"
            " allowed: queries=None, or a machine that has it"
        )
    return machine


MODEL = ("key", "initial", "step", "describe")


def checked_model(model: Model) -> Model:
    """A model with all of its methods, guarded."""
    if isinstance(model, type) or not all(callable(getattr(model, name, None)) for name in MODEL):
        raise TypeError(f"model is {model!r:.120}; allowed: an object with the methods {', '.join(MODEL)}")
    return GuardedModel(model)


def checked_seeds(seeds: int | Iterable[int], start: int | None) -> Sequence[int]:
    """The seeds themselves."""
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        first: Any = 1 if start is None else start
        if not isinstance(first, int) or first < 0:
            raise ValueError(f"seed_start is {first!r:.120}; allowed: an integer from 0 on")
        if seeds < 1:
            raise ValueError(f"seeds is {seeds}; allowed: at least 1, or the seeds themselves")
        found: Sequence[Any] = range(first, first + seeds)
    elif isinstance(seeds, Iterable):
        found = tuple(seeds)
        if start is not None:
            raise ValueError(
                f"seed_start is {start!r} beside seeds={found!r:.120}; allowed: seeds as a count"
            )
    else:
        raise TypeError(f"seeds is {seeds!r:.120}; allowed: how many, or the seeds themselves")
    if not found:
        raise ValueError("seeds is empty; allowed: at least one")
    for seed in found:
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise ValueError(f"seeds has {seed!r:.120}; allowed: integers from 0 on")
    return found


def checked_names(option: str, given: str | Collection[str], allowed: Collection[str]) -> tuple[str, ...]:
    """Names of an option that takes one or several."""
    if not isinstance(given, Collection):
        raise TypeError(f"{option} is {given!r:.120}; allowed: one or several of {', '.join(allowed)}")
    names = (given,) if isinstance(given, str) else tuple(given)
    for name in names:
        if name not in allowed:
            raise ValueError(f"{option} has {name!r}; allowed: {', '.join(allowed)}")
    return names


def kinds_of_fault(only: str | Collection[str] | None, without: str | Collection[str]) -> tuple[str, ...]:
    """Kinds of fault, in the order in which the swarm knows them."""
    allowed = (*swarm.SWITCHES, *FAULTS)

    def kinds(option: str, given: str | Collection[str]) -> set[str]:
        names = checked_names(option, given, allowed)
        return {kind for name in names for kind in swarm.SWITCHES.get(name, (name,))}

    chosen = set(FAULTS) if only is None else kinds("only", only)
    chosen -= kinds("without", without)
    return tuple(kind for kind in FAULTS if kind in chosen)


def options_shown(
    only: str | Collection[str] | None, without: str | Collection[str], skip: str | Collection[str]
) -> str:
    """What a call that repeats a run has to say as well."""
    given = {"only": only, "without": without or None, "skip": skip or None}
    return "".join(
        f", {name}={(value if isinstance(value, str) else list(value))!r}"
        for name, value in given.items()
        if value is not None
    )


# -- the user's code -------------------------------------------------------------------------------


class Raised(Exception):
    """A function of the user's raised; its error is the cause."""


def guarded(name: str, function: Callable[..., T]) -> Callable[..., T]:
    """The same function; what it raises says whose it is."""

    def call(*arguments: Any) -> T:
        try:
            return function(*arguments)
        except Exception as error:
            shown = ", ".join(map(_shown, arguments))
            raise Raised(f"{name}({shown}) raised {error!r}") from error

    return call


def _shown(argument: object) -> str:
    return "rng" if isinstance(argument, Random) else f"{argument!r:.120}"


class GuardedModel:
    """The user's model, as the checker sees it."""

    def __init__(self, model: Model) -> None:
        self.key = guarded("model.key", _hashable(model.key))
        self.initial = guarded("model.initial", _hashable(model.initial))
        self.step = guarded("model.step", _hashable(model.step))
        self.describe = guarded("model.describe", model.describe)


def _hashable(function: Callable[..., T]) -> Callable[..., T]:
    """The search remembers keys and states: what cannot be hashed is told where it comes from."""

    def call(*arguments: Any) -> T:
        found = function(*arguments)
        hash(found)
        return found

    return call


def guarded_chunks(chunks: Callable[[], Iterable[bytes]]) -> Callable[[], Iterator[bytes]]:
    """What `snapshot` returned, judged where it is known whose it is."""

    def pieces() -> Iterator[bytes]:
        try:
            yield from map(checked_chunk, chunks())
        except Exception as error:
            raise Raised(f"what snapshot() returned raised {error!r}") from error

    return pieces


class Guarded:
    """The user's machine, as the world sees it. What it answers is copied: it may go on with it."""

    def __init__(self, machine: Any) -> None:
        self._machine = machine
        if callable(getattr(machine, "query", None)):
            self.query = guarded("query", lambda request: _answer(machine.query(request)))
        if isinstance(machine, Digestible):
            self.digest = guarded("digest", machine.digest)
        if isinstance(machine, Snapshots):
            snapshot = guarded("snapshot", machine.snapshot)
            self.snapshot = lambda: guarded_chunks(snapshot())
            self.restore = machine.restore  # whatever it raises is known as its own

    def apply_batch(self, batch: Batch) -> Any:
        """As the machine does it."""
        results = self._machine.apply_batch(batch)
        return [_copied(result) for result in results] if isinstance(results, list | tuple) else results


def guarded_machine(machine: Callable[[], StateMachine]) -> Callable[[], StateMachine]:
    """The same factory; so for its machines."""

    def make() -> Guarded:
        try:
            return Guarded(machine())
        except Exception as error:
            raise Raised(f"machine() raised {error!r}") from error

    return make


def _answer(value: Any) -> Any:
    """What a query gave, copied. Nobody looks into a coroutine or a generator: any two pass for equal."""
    if isinstance(value, Coroutine):
        value.close()  # else Python warns that nobody awaited it
    if isinstance(value, Awaitable | Iterator):
        raise TypeError(f"it returned a {type(value).__name__}; allowed: a value, such as msgpack can pack")
    return _copied(value)


def _copied(value: Any) -> Any:
    if type(value) in (int, str, bytes, bool, float, type(None)):
        return value
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001  # what cannot be copied raises what it likes
        return value
