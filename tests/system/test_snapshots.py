"""Real processes that compact their logs: one is away too long, all are restarted, a file is damaged."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from craft import Config, EngineLimits, Unknown, client
from craft.cli.demo.cluster import ServerProcess, running
from tests.system.test_cluster import LEDGER, Writes, check

pytestmark = pytest.mark.system

LIMIT_S = 180
"""For everything; a slow machine is no failure."""

SMALL = EngineLimits(
    snapshot_log_bytes=512 * 1024,
    log_trailing_bytes=1024,
    log_held_bytes_max=1024,
    snapshot_chunk_bytes=64 * 1024,
)
PADDING = b"x" * 900
"""Writes are large enough that a few thousand of them fill such logs."""


class LargeWrites(Writes):
    """Of a kilobyte, many at a time."""

    async def _one(self, connection: client.Client) -> None:
        writes = [b"w%d-%s" % (next(self.numbers), PADDING) for _ in range(16)]
        try:
            await connection.propose(writes)
        except Unknown:
            return
        self.answered += writes
        self.progress.set()


@asynccontextmanager
async def cluster(directory: Path) -> AsyncIterator[list[ServerProcess]]:
    """Three servers, ready, with small limits."""
    async with running(directory, servers=3, groups=3, state_machine=LEDGER) as processes:
        for process in processes:
            await process.kill()
            file = directory / f"server-{process.server_id}.toml"
            file.write_text(dataclasses.replace(Config.load(file), engine=SMALL).to_toml())
        for process in processes:
            await process.start()
        for process in processes:
            await process.wait_ready()
        yield processes


async def snapshots(process: ServerProcess) -> dict[str, Any]:
    async with client.connect(process.address) as connection:
        found: dict[str, Any] = (await connection.status())["snapshots"]
        return found


async def compactions(process: ServerProcess) -> float:
    async with client.connect(process.address) as connection:
        metrics = {metric["name"]: metric for metric in await connection.metrics()}
        return float(metrics["craft_compactions_total"]["value"])


async def test_a_server_that_was_away_catches_up_by_snapshot_while_writes_go_on(tmp_path: Path) -> None:
    """Then all are killed and start from their snapshots; then one with a damaged newest file."""
    with trio.fail_after(LIMIT_S):
        async with cluster(tmp_path) as processes, trio.open_nursery() as nursery:
            writes = LargeWrites()
            one, two, late = processes
            await late.kill()
            for process in (one, two):
                nursery.start_soon(writes.through, process)
            while min([await compactions(process) for process in (one, two)]) < 6:
                await writes.more(100, LIMIT_S)
            await late.restart()
            while not (await snapshots(late))["installed"]:
                await writes.more(16, LIMIT_S)
            await writes.more(100, LIMIT_S)
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await check_all(processes, writes)
                await restart_all(processes)
                await check_all(processes, writes)
                await late.kill()
                damage(tmp_path / "server-3")
                await late.restart()
                await check_all(processes, writes)
                assert len(list((tmp_path / "server-3").rglob("*.damaged"))) == 1


async def check_all(processes: list[ServerProcess], writes: Writes) -> None:
    """As ever, on the last writes: a question has its limit."""
    some = Writes()
    some.answered = writes.answered[-500:]
    await check(processes, some)
    assert writes.answered


async def restart_all(processes: list[ServerProcess]) -> None:
    for process in processes:
        await process.kill()
    for process in processes:
        await process.start()
    for process in processes:
        await process.wait_ready()


def damage(directory: Path) -> None:
    """A bit of the newest snapshot flips."""
    newest = max(directory.rglob("*.snapshot"))
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
