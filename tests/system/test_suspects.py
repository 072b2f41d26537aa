"""A real directory whose log was cut at its end, after a restart of the machine: a suspect, and then none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from craft import client
from craft.cli.demo.cluster import ServerProcess, running
from craft.errors import CraftError
from tests.cli.running import craft

pytestmark = pytest.mark.system

LEDGER = "craft.cli.demo.machine:Ledger"


def tear(directory: Path) -> None:
    """The last record of the log is cut short, and the machine was restarted since."""
    (directory / "boot").write_text("another boot\n")
    logs = [path for path in (directory / "log").glob("*.log") if path.stat().st_size]
    newest = max(logs, key=lambda path: path.name)
    with newest.open("r+b") as file:
        file.truncate(newest.stat().st_size - 3)
    # The side file is not synced: a power cut may leave it as old as the last change of a vote.
    (directory / "synced").write_bytes((directory / "ballots").read_bytes()[:8192])


async def statuses(process: ServerProcess) -> list[dict[str, object]]:
    async with client.connect(process.address) as connection:
        groups: list[dict[str, object]] = (await connection.status())["groups"]
        return groups


async def started(process: ServerProcess) -> list[dict[str, object]]:
    """The first that it says of itself."""
    with trio.fail_after(60):
        while True:
            try:
                return await statuses(process)
            except CraftError:
                await trio.sleep(0.05)
    raise AssertionError("not reached: the time is over before")


async def test_a_server_with_a_torn_log_is_suspect_and_is_cleared(tmp_path: Path) -> None:
    """It starts, says why it counts for nothing, catches up, and is trusted again by its leaders."""
    async with running(tmp_path, servers=3, groups=3, state_machine=LEDGER) as processes:
        one, two, three = processes
        async with client.connect(two.address) as connection:
            for number in range(20):
                await connection.propose([b"w%d" % number])
        for process in (two, one, three):
            await process.kill()
        tear(tmp_path / "server-2")
        await two.start()
        groups = await started(two)
        assert all("torn or damaged" in str(group["suspicion"]) for group in groups), groups
        shown = await trio.to_thread.run_sync(lambda: craft("status", two.address, directory=tmp_path))
        assert "suspect  counts for nothing in group 0, 1, 2" in shown.stdout
        await one.start()
        await three.start()
        with trio.fail_after(60):
            for process in processes:
                await process.wait_ready()
            while any(one["suspicion"] for one in await statuses(two)):  # noqa: ASYNC110  # another process
                await trio.sleep(0.05)
        async with client.connect(two.address) as connection:
            counts = await connection.read(b"count " + b" ".join(b"w%d" % number for number in range(20)))
        assert list(counts) == [1] * 20
        again = await trio.to_thread.run_sync(
            lambda: craft(
                "trust", two.address, "--server-id", "2", "--nothing-is-missing", directory=tmp_path
            )
        )
        assert again.stdout == "server 2 is suspect in no group: nothing was changed\n", json.dumps(
            again.stderr
        )
