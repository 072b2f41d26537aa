"""Programs that are ended by a signal: they clean up first, as they do when they fail."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from types import FrameType

import trio

SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def unless_signalled(work: Callable[[], Awaitable[int]]) -> int:
    """The exit code of `work`; on a signal it is cancelled, and the code is 128 + its number."""
    token = trio.lowlevel.current_trio_token()
    ended_by: list[int] = []
    with trio.CancelScope() as scope:

        def end(number: int, _: FrameType | None) -> None:
            ended_by.append(number)
            token.run_sync_soon(scope.cancel)

        before = [(number, signal.signal(number, end)) for number in SIGNALS]
        try:
            return await work()
        finally:  # `end` works while Trio runs; whoever called may go on after that
            for number, handler in before:
                signal.signal(number, handler)
    return 128 + ended_by[0]
