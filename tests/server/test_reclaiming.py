"""The task that lets a storage give space back."""

from __future__ import annotations

import trio
import trio.testing

from craft.server.reclaiming import Reclaiming
from craft.storage import Identity
from craft.storage.memory import MemoryStorage
from craft.types import BEGINNING, Start, Write

DROPPING = Write(1, (), (), None, (Start(0, BEGINNING, True),))
PLAIN = Write(2, (), (), None)


class AskedStorage(MemoryStorage):
    """Tells the test when it is asked."""

    def __init__(self, asked: trio.MemorySendChannel[None]) -> None:
        super().__init__(Identity("orders", 1, "0" * 32, 1))
        self._asked = asked

    def reclaim(self) -> None:
        super().reclaim()
        trio.from_thread.run_sync(self._asked.send_nowait, None)


async def test_space_is_reclaimed_behind_a_synced_write_that_drops_something() -> None:
    """Not before its sync, not for any other write, and once for several."""
    send, asked = trio.open_memory_channel[None](10)
    reclaiming = Reclaiming(AskedStorage(send))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reclaiming.run)
        reclaiming.wrote(PLAIN)
        reclaiming.synced()
        reclaiming.wrote(DROPPING)
        reclaiming.wrote(DROPPING)
        reclaiming.wrote(PLAIN)
        await trio.testing.wait_all_tasks_blocked()
        assert not asked.statistics().current_buffer_used
        reclaiming.synced()
        await asked.receive()
        reclaiming.wrote(PLAIN)
        reclaiming.synced()
        await trio.testing.wait_all_tasks_blocked()
        assert not asked.statistics().current_buffer_used
        nursery.cancel_scope.cancel()
