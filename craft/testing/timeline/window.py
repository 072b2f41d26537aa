"""Which part of a run a picture shows, where nobody says it."""

from __future__ import annotations

from collections.abc import Sequence

from craft.testing.trace import MS, Event

WINDOW_NS = 400 * MS
"""Virtual time in one picture: an election and what follows from it, with messages that can be told apart."""

BEFORE_SHARE = 4
"""One part in so many of a window stands before the fault that it is about."""

Window = tuple[int, int]
"""From, to: ns of virtual time."""


def last_window(events: Sequence[Event], ns: int = WINDOW_NS) -> Window:
    """The last `ns` of a run: before a violation, with which a run ends."""
    end = max(events[-1].at if events else 0, 1)
    return max(0, end - ns), end


def telling_window(events: Sequence[Event], ns: int = WINDOW_NS) -> Window:
    """The end of a run that violates something; else around its first fault behind the first election."""
    if any(event.kind == "violation" for event in events):
        return last_window(events, ns)
    elected = next((event.at for event in events if event.kind == "lead"), 0)
    fault = next(
        (event.at for event in events if event.kind in {"fault", "crash"} and event.at >= elected), None
    )
    begin = max(0, (elected if fault is None else fault) - ns // BEFORE_SHARE)
    last = max(events[-1].at if events else 0, 1)
    return min(begin, last - 1), min(begin + ns, last)
