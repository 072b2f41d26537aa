"""What a state machine must not look at, held still: clocks, the global random source, the system's entropy.

Knows: the functions of the standard library that tell the time or a random number, and every module that has
imported one of them by name. Must not know: state machines, what is replayed, why.

Invariants
- Around one call, what is seen depends on `Surroundings` and on the place of the call alone: not on how many
  calls were made before.
- Only the thread that entered sees it; everything is put back when it leaves.
- A function that was kept elsewhere (in a class attribute, a default argument) is out of reach: it goes on
  telling the truth, and two replays differ.
"""

from __future__ import annotations

import datetime as dt
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

START_NS = 1_700_000_000_000_000_000
"""Where time stands still: in November 2023."""

SHIFT_NS = (400 * 24 * 3600 + 5 * 3600 + 17 * 60 + 13) * 1_000_000_000 + 123_456_789
"""Another time: another year, month, weekday, hour, minute, second and fraction."""

PLACE_NS = 1_000_000
"""From one place to the next."""

TICK_NS = 1_000_000
"""At another time a clock moves on with every look."""


class Surroundings(NamedTuple):
    """Which clock, random source and entropy: 0 everywhere, or others."""

    clock: int = 0
    random: int = 0
    entropy: int = 0


class _Site(NamedTuple):
    """Where a function or class is to be found."""

    names: dict[str, Any]
    name: str
    real: Any
    stand_in: Any


class Controls:
    """Makes surroundings. One a process and thread at a time."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._now_ns = START_NS
        self._tick_ns = 0
        self._entropy = random.Random(0)
        self._stand_ins = self._make_stand_ins()
        self._sites = _sites(self._stand_ins)
        self._seed = random.Random.seed

    @contextmanager
    def around(self, which: Surroundings, place: int) -> Iterator[None]:
        """Hold everything still around one call. `place` tells one call from another."""
        self._now_ns = START_NS + place * PLACE_NS + SHIFT_NS * which.clock
        self._tick_ns = TICK_NS * which.clock
        self._entropy = random.Random(f"{place} {which.entropy}")
        state = random.getstate()
        random.seed(f"{place} {which.random}")
        try:
            for site in self._sites:
                site.names[site.name] = site.stand_in
            setattr(random.Random, "seed", self._make_seed())  # noqa: B010  # mypy knows that it is a method
            yield
        finally:
            setattr(random.Random, "seed", self._seed)  # noqa: B010  # as above
            for site in self._sites:
                site.names[site.name] = site.real
            random.setstate(state)

    # -- stand-ins --------------------------------------------------------------------------------

    def _now(self) -> int:
        self._now_ns += self._tick_ns
        return self._now_ns

    def _mine(self, real: Callable[..., Any], stand_in: Callable[..., Any]) -> Callable[..., Any]:
        """Other threads see what there is."""

        def choose(*args: Any, **options: Any) -> Any:
            if threading.get_ident() != self._thread:
                return real(*args, **options)
            return stand_in(*args, **options)

        return choose

    def _urandom(self, size: int) -> bytes:
        return self._entropy.randbytes(size)

    def _make_stand_ins(self) -> list[tuple[Any, Any]]:
        """What is real, and what stands in for it."""
        pairs: list[tuple[Any, Any]] = []
        for name in ("time", "monotonic", "perf_counter", "process_time", "thread_time"):
            pairs.append((getattr(time, name), lambda: self._now() / 1e9))
            pairs.append((getattr(time, f"{name}_ns"), self._now))
        pairs.append((time.clock_gettime, lambda _clock: self._now() / 1e9))
        pairs.append((time.clock_gettime_ns, lambda _clock: self._now()))
        pairs += [(real, self._seconds(real)) for real in (time.localtime, time.gmtime, time.ctime)]
        strftime, localtime, asctime = time.strftime, time.localtime, time.asctime
        pairs.append((strftime, lambda form, *at: strftime(form, *(at or [localtime(self._now() / 1e9)]))))
        pairs.append((asctime, lambda *at: asctime(*(at or [localtime(self._now() / 1e9)]))))
        pairs.append((os.urandom, self._urandom))
        wrapped = [(real, self._mine(real, stand_in)) for real, stand_in in pairs]
        return [*wrapped, *self._dates()]

    def _seconds(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def stand_in(seconds: float | None = None) -> Any:
            return real(self._now() / 1e9 if seconds is None else seconds)

        return stand_in

    def _dates(self) -> list[tuple[Any, Any]]:
        """`datetime` and `date`: classes in C, which cannot be changed, so that a class stands in."""
        moment, day = dt.datetime, dt.date

        def now(_: type, tz: dt.tzinfo | None = None) -> dt.datetime:
            return moment.fromtimestamp(self._now() / 1e9, tz)

        def utcnow(_: type) -> dt.datetime:
            return moment.fromtimestamp(self._now() / 1e9, dt.UTC).replace(tzinfo=None)

        def today(_: type) -> dt.date:
            return day.fromtimestamp(self._now() / 1e9)

        moments = {"now": self._mine(moment.now, now), "utcnow": utcnow, "today": now}
        return [(moment, _stand_in(moment, moments)), (day, _stand_in(day, {"today": today}))]

    def _make_seed(self) -> Callable[..., None]:
        """A `random.Random()` without a seed takes the entropy of here."""
        real, entropy = self._seed, self._entropy

        def seed(source: random.Random, a: Any = None, version: int = 2) -> None:
            real(source, entropy.getrandbits(64) if a is None else a, version)

        return seed


def _stand_in(real: type, methods: dict[str, Callable[..., Any]]) -> type:
    """A class that makes, and knows as its own, the objects of another."""

    class Meta(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, real)

        def __subclasscheck__(cls, subclass: type) -> bool:
            return issubclass(subclass, real)

    names: dict[str, Any] = {name: classmethod(method) for name, method in methods.items()}
    names["__new__"] = lambda _, *args, **options: real(*args, **options)
    return Meta(real.__name__, (real,), names)


def _sites(stand_ins: list[tuple[Any, Any]]) -> list[_Site]:
    """Every module's own name for one of these."""
    by_id = {id(real): (real, stand_in) for real, stand_in in stand_ins}
    found = []
    for module in list(sys.modules.values()):
        names = getattr(module, "__dict__", None)
        if not isinstance(names, dict):
            continue
        for name, value in list(names.items()):
            if id(value) in by_id:
                found.append(_Site(names, name, *by_id[id(value)]))
    return found
