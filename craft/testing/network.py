"""A simulated network: one connection a direction and pair of servers, with every way in which they go wrong.

Knows: who is connected to whom, what is cut, how long a frame takes. Must not know: what a frame says.

Invariants
- On one connection frames arrive in order, unless reordering is asked for; what is under way on a connection
  that breaks is lost.
- A cut drops silently, as a pulled cable does. Only after `SILENCE_NS` the ends notice that nothing arrives.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from craft.types import ServerId

Way = tuple[ServerId, ServerId]
"""From, to."""

SILENCE_NS = 5_000_000_000
"""How long a cut connection stays up without a word, as TCP_USER_TIMEOUT has it."""


@dataclass
class Network:
    """Delays, losses and cuts. Times in ns."""

    delay: tuple[int, int] = (200_000, 400_000)
    loss: float = 0.0
    repeat: float = 0.0
    reorder: float = 0.0
    links: dict[Way, int] = field(default_factory=dict)  # which connection, by number; absent: none
    cuts: Counter[Way] = field(default_factory=Counter)  # how many faults cut this way at the moment
    slow: dict[Way, int] = field(default_factory=dict)  # extra delay of a way
    arrivals: dict[Way, int] = field(default_factory=dict)  # of the newest frame on the connection
    serial: int = 0

    def connect(self, way: Way) -> int:
        """A new connection; what was under way on the one before is lost."""
        self.serial += 1
        self.links[way] = self.serial
        self.arrivals.pop(way, None)
        return self.serial

    def disconnect(self, way: Way) -> bool:
        """The connection breaks; was there one?"""
        return self.links.pop(way, None) is not None

    def cut(self, way: Way) -> None:
        """Nothing passes this way from now on."""
        self.cuts[way] += 1

    def mend(self, way: Way) -> None:
        """One of the faults that cut this way is over."""
        self.cuts[way] -= 1
        if self.cuts[way] <= 0:
            del self.cuts[way]

    def arrival(self, way: Way, now: int, rng: random.Random) -> int:
        """When a frame that leaves now arrives."""
        low, high = self.delay
        at = now + self.slow.get(way, 0) + (low + int(rng.random() * (high - low)))
        at = max(at, self.arrivals.get(way, 0) + 1)
        self.arrivals[way] = at
        return at
