"""When to ask a time server again: politely.

Knows: how the last questions went, and a random source. Must not know: what time it is.

Invariants
- Never less than `FIRST_POLL_S` apart, nor, after the first `FIRST_POLLS`, than the configured interval.
- A server that says RATE is asked half as often from then on; one that says DENY or RSTR, never again.
- A server that does not answer is asked ever more seldom, up to `POLL_S_MAX`.

Reference: RFC 5905, 7.4 (kiss-o'-death); RFC 8633, 3.1 and 4 (good manners).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

FIRST_POLLS = 4
"""Questions at the start that come closer together, so that a server knows the time soon."""

FIRST_POLL_S = 2
"""Their distance, as NTP's own `iburst` has it; and the least that any configuration may ask for."""

POLL_S_MAX = 1024
"""The longest wait, as NTP's own default has it."""

DOUBLINGS_MAX = 16
"""Enough for any interval to reach `POLL_S_MAX`."""

JITTER = 0.1
"""A part by which a wait may be longer, so that servers started together do not ask together."""

KISS_RATE = "RATE"
KISS_GOODBYES = ("DENY", "RSTR")


class Polling:
    """One server's schedule."""

    def __init__(self, interval_s: float, rng: Random) -> None:
        """`interval_s`: how often to ask a server that answers."""
        self._interval_s: float = max(FIRST_POLL_S, interval_s)
        self._rng = rng
        self._asked = 0
        self._failures = 0
        self._rated = False  # it asked for a slower pace
        self.refused = ""  # the kiss-o'-death that ended it

    @property
    def ended(self) -> bool:
        """Did the server say that it does not want us?"""
        return bool(self.refused)

    @property
    def failures(self) -> int:
        """Questions since its last good answer."""
        return self._failures

    def answered(self) -> None:
        """It gave a good answer."""
        self._asked += 1
        self._failures = 0

    def failed(self, kiss: str = "") -> None:
        """It gave none, or one that is not believed; `kiss` is the code of a kiss-o'-death."""
        self._asked += 1
        self._failures += 1
        if kiss in KISS_GOODBYES:
            self.refused = kiss
        elif kiss == KISS_RATE:
            self._interval_s = min(POLL_S_MAX, 2 * self._interval_s)
            self._asked, self._rated = max(self._asked, FIRST_POLLS), True

    def restart(self) -> None:
        """All was forgotten (a suspend): ask anew, unless it asked for a slower pace."""
        if not self._rated:
            self._asked = min(self._asked, 1)

    def wait_s(self) -> float:
        """How long to wait before the next question."""
        if self._asked < FIRST_POLLS:
            wait: float = FIRST_POLL_S * 2**self._failures
        else:
            doublings = min(max(0, self._failures - FIRST_POLLS), DOUBLINGS_MAX)
            wait = min(POLL_S_MAX, self._interval_s * 2**doublings)
        return wait * (1 + self._rng.uniform(0, JITTER))
