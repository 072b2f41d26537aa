"""The thread for work that blocks."""

from __future__ import annotations

import trio.testing

from craft.server.working import Worker
from craft.types import Instant

NOW = Instant(0, 0)


def unheard(result: object, now: Instant) -> None:
    raise AssertionError("nobody is told")


async def test_a_turn_behind_the_end_may_still_submit() -> None:
    """Both tasks are cancelled at one moment, and the one of the turns may run once more."""
    worker = Worker(lambda: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    worker.submit(lambda: 1, unheard)
    worker.pass_on(NOW)
