"""One of three servers has a wrong clock while all serve: nobody is answered wrongly, no server stalls."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from craft import client
from craft.cli.demo.cluster import ServerProcess, configs
from craft.cli.status import ask_all, table
from tests.system.test_cluster import LEDGER, Writes, check
from tests.system.wrong_clock import set_clock

pytestmark = pytest.mark.system

HOUR_NS = 3_600 * 1_000_000_000
VICTIM = 1  # the second of the processes

WRONG = {
    "an hour ahead": {"ahead_ns": HOUR_NS},
    "an hour behind": {"ahead_ns": -HOUR_NS},
    "half as fast again": {"rate_ppm": 500_000},
    "half as fast": {"rate_ppm": -500_000},
}

NOTICED_WITHIN_S = 60
"""A bound for a machine that is busy with other things; it takes less than a second."""


class WrongProcess(ServerProcess):
    """A server process whose clock reads what a file makes of it."""

    async def start(self) -> None:
        """As `craft serve` would, but for the clock."""
        self.clock_file = self._config_file.with_suffix(".clock")
        set_clock(self.clock_file)
        command = [
            sys.executable,
            "-m",
            "tests.system.wrong_clock",
            str(self._config_file),
            str(self.clock_file),
        ]
        with self._log_file.open("ab") as log:
            self._process = await trio.lowlevel.open_process(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, process_group=0
            )


@asynccontextmanager
async def cluster(directory: Path) -> AsyncIterator[list[WrongProcess]]:
    """Three of them, ready; stopped in the end."""
    processes = [WrongProcess(config, directory, LEDGER) for config in configs(directory, 3, 3)]
    try:
        for process in processes:
            await process.start()
        for process in processes:
            await process.wait_ready()
        yield processes
    finally:
        with trio.CancelScope(shield=True):
            for process in processes:
                await process.kill()


async def shown(processes: list[WrongProcess], verdict: str) -> str:
    """Wait until `craft status` says this of the clocks."""
    with trio.fail_after(NOTICED_WITHIN_S):
        while True:
            text = table(await ask_all([process.address for process in processes]))
            if f"\nclocks     {verdict}" in text:
                return text
            await trio.sleep(0.1)


async def more(writes: list[Writes], count: int) -> None:
    """Every server answers so many more: the one whose clock is wrong as well."""
    for one in writes:
        await one.more(count)


async def read_back(processes: list[WrongProcess], writes: list[Writes]) -> None:
    """Whatever was answered before a read, by any server, is seen by it, on every server."""
    for process in processes:
        async with client.connect(process.address) as connection:
            for one in writes:
                for answered in (one.answered[-20:], one.answered[:20]):
                    counts = await connection.read(b" ".join([b"count", *answered]))
                    assert set(counts) == {1}, f"server {process.server_id}: {counts}"


async def test_a_wrong_clock_costs_no_answer_and_is_named(tmp_path: Path) -> None:
    """Moved by an hour to either side, drifting by half: every answer is right, writes go on, all agree."""
    async with cluster(tmp_path) as processes, trio.open_nursery() as nursery:
        numbers = itertools.count()
        writes = [Writes(numbers) for _ in processes]
        for process, one in zip(processes, writes, strict=True):
            for _ in range(2):
                nursery.start_soon(one.through, process)
        await more(writes, 10)
        victim = processes[VICTIM]
        for how, wrong in WRONG.items():
            set_clock(victim.clock_file, **wrong)
            side = "behind" if min(wrong.values()) < 0 else "ahead of"
            text = await shown(processes, f"wild: server {victim.server_id} is {side} a majority by ")
            assert text.count("wild: server") == 1, how
            await more(writes, 30)
            await read_back(processes, writes)
            set_clock(victim.clock_file)
            await more(writes, 10)
        text = await shown(processes, "good: ")
        assert "unknown" not in text.rpartition("\nclocks")[2]
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            answered = [write for one in writes for write in one.answered]
            await check([*processes], Writes(answered=answered))
