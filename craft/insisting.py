"""What a client with a session makes of its attempts: when to ask again, and what it may say it knows.

Knows: one request's attempts and what came of them, and the numbers of a session's requests. Must not know:
connections, time, how an attempt is made. The client (`craft.remote`) and the simulator's clients run it.

Invariants
- A request keeps its number through all its attempts, so it takes effect at most once in its session; and
  once the session has ended, none of them will any more.
- *Uncertain* is a request of which an attempt's answer was lost. Only one that is certainly without effect is
  rejected, or begun anew in another session.
- The answered-below line is the first request that is not settled: one that nobody waits for any more counts
  as answered.

Reference: PROTOCOL 5; Raft dissertation 6.3.
"""

from __future__ import annotations

from enum import Enum
from typing import NoReturn

from craft.errors import CraftError, NotReady, Rejected, SessionEnded, Unknown
from craft.limits import CLIENT_WINDOW_REQUESTS_MAX


class BeginAnew(Exception):
    """The session ended, and the request certainly had no effect in it."""


class Next(Enum):
    """Where the next attempt goes."""

    ELSEWHERE = "this server does not serve now; another may"
    LATER = "it is overloaded; and we must know"


class Asked:
    """One request, through all its attempts."""

    __slots__ = ("uncertain",)

    def __init__(self) -> None:
        self.uncertain = False
        """May an attempt have had an effect that we were not told of?"""

    def lost(self) -> None:
        """An attempt's answer was lost, or was *unknown*."""
        self.uncertain = True

    def refused(self, error: CraftError) -> Next:
        """An attempt had no effect. What comes next; or raises what the request comes to."""
        if type(error) in {NotReady, Rejected}:
            return Next.ELSEWHERE
        if not self.uncertain:
            raise error
        if isinstance(error, Rejected):
            return Next.LATER
        raise Unknown(f"an attempt's answer was lost, and then: {error}") from error

    def ended(self) -> NoReturn:
        """The session is not open any more. Raises BeginAnew, or SessionEnded where that may be too late."""
        if self.uncertain:
            raise SessionEnded(
                "the session ended while the answer of an attempt was lost: it took effect then, or never"
            )
        raise BeginAnew

    def unreachable(self, error: CraftError) -> NoReturn:
        """No server can be asked. Raises what the request comes to."""
        if self.uncertain:
            raise Unknown(f"an attempt's answer was lost, and then: {error}") from error
        raise error


class Window:
    """The numbers of a session's requests: which are not answered yet."""

    __slots__ = ("_next", "_unanswered")

    def __init__(self) -> None:
        self._next = 1
        self._unanswered: dict[int, None] = {}  # in rising order

    @property
    def below(self) -> int:
        """Every request below was answered."""
        return next(iter(self._unanswered), self._next)

    @property
    def full(self) -> bool:
        """Would one more be numbered beyond what the servers keep?"""
        return self._next - self.below >= CLIENT_WINDOW_REQUESTS_MAX

    def begin(self) -> int:
        """The number of a new request; not while the window is full. `settle` it in any case."""
        number = self._next
        self._next += 1
        self._unanswered[number] = None
        return number

    def settle(self, number: int) -> None:
        """It is answered, or nobody waits for the answer."""
        del self._unanswered[number]
