"""A rolling restart of real processes under load: every call is answered, every write is there once."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

import craft
from craft import client
from craft.cli.demo.cluster import running

pytestmark = pytest.mark.system

LEDGER = "craft.cli.demo.machine:Ledger"
WRITES_BETWEEN = 20


class Load:
    """Remote clients, each with a session, that write for ever. A call that fails fails the test."""

    def __init__(self) -> None:
        self.answered: list[bytes] = []
        self.progress = trio.Event()

    async def write(self, addresses: list[str], name: int) -> None:
        """Write for ever."""
        async with craft.connect(addresses, learn=False) as remote:
            number = 0
            while True:
                number += 1
                write = b"%d-%d" % (name, number)
                assert await remote.propose(write) == 1  # how often it took effect
                self.answered.append(write)
                self.progress.set()

    async def more(self) -> None:
        """Wait until some more were answered."""
        goal = len(self.answered) + WRITES_BETWEEN
        while len(self.answered) < goal:
            self.progress = trio.Event()
            await self.progress.wait()


async def test_a_rolling_restart_fails_no_call_and_repeats_no_write(tmp_path: Path) -> None:
    """SIGTERM and a new start of each server in turn, while clients write: nobody is told of an error."""
    async with (
        running(tmp_path, servers=3, groups=3, state_machine=LEDGER) as processes,
        trio.open_nursery() as nursery,
    ):
        load = Load()
        for name in range(6):
            nursery.start_soon(load.write, [process.address for process in processes], name)
        for process in processes:
            await load.more()
            await process.stop()
            await load.more()
            await process.restart()
        await load.more()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            for process in processes:
                async with client.connect(process.address) as connection:
                    counts = await connection.read(b" ".join([b"count", *load.answered]))
                    assert set(counts) == {1}
