"""The clock port: what time it is, and how wrong that may be; sources in `system`, `chrony`, `ntp`, `manual`.

A clock is read once a turn, on the event loop, so both methods return at once: no system call that may block,
no network. A source that asks others for the time does so in a task of its own (`RunningClock`) and answers
from what it has learnt.

What may go wrong, and must do no harm (PROTOCOL 2)
- A clock may step, forwards or backwards, run fast or slow, stand still, or be an hour off. Timestamps keep
  rising along each log all the same (`max(…, last + 1)`), and a leader's reading counts only up to the
  majority's plus `clock_offset_ms_max`.
- A stated `error` may be wrong. Nothing that is answered `applied` depends on it.
- So clocks decide how long the merge waits and how close merged timestamps are to real time. **Order,
  exactly-once and linearizable answers never depend on a clock.** Waiting and timeouts are measured by the
  driver's monotonic clock (`Instant.monotonic_ns`), which is not this port.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from craft.types import Timestamp


class Clock(Protocol):
    """A source of real time. Any object with these two methods will do."""

    def now(self) -> Timestamp:
        """Nanoseconds since the Unix epoch. Never blocks, never raises; may be wrong."""

    def error(self) -> int | None:
        """Nanoseconds by which `now` may be off from true time, either way; None where that is unknown."""


@runtime_checkable
class RunningClock(Clock, Protocol):
    """A clock that asks others for the time. The server runs it for as long as the server runs."""

    async def run(self) -> None:
        """Ask, until cancelled. Who does not answer is no error: `error` grows, and `status` says so."""


@runtime_checkable
class TellingClock(Clock, Protocol):
    """A clock that says how it is."""

    def status(self) -> dict[str, Any]:
        """Plain values; `source` and `state` among them."""


def clock_status(clock: Clock) -> dict[str, Any]:
    """What there is to see of any clock: source, state in words, error in ns, and what it adds."""
    told = clock.status() if isinstance(clock, TellingClock) else {}
    return {
        "source": type(clock).__name__,
        "state": "given by the program",
        "error_ns": clock.error(),
        **told,
    }
