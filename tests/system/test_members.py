"""Real server processes come and go under load: every answered write is there once."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from craft import Config, CraftError, client
from craft.cli.demo.cluster import HOST, ServerProcess, free_ports, running
from tests.system.test_cluster import LEDGER, Writes, check

pytestmark = pytest.mark.system

LIMIT_S = 120
"""For everything; a slow machine is no failure."""


async def ask(process: ServerProcess, *changes: list[Any]) -> dict[str, Any]:
    """Change the members through one server, and wait until every group has followed."""
    async with client.connect(process.address) as connection:
        found = await connection.members([*changes, 2000])
        while found["reached_version"] < found["version"]:
            found = {**await connection.members([2000]), "version": found["version"]}
    return found


def add(process: ServerProcess, listen: str) -> list[Any]:
    return [0, process.server_id, listen, ""]


def remove(server_id: int) -> list[Any]:
    return [1, server_id]


class Newcomers:
    """Servers that were not there at the beginning."""

    def __init__(self, directory: Path, first: ServerProcess) -> None:
        self._directory, self._first = directory, first
        self.listens: dict[int, str] = {}

    async def start(self, server_id: int) -> ServerProcess:
        """It knows one address, and nothing else of the cluster."""
        listen, clients = (f"{HOST}:{port}" for port in free_ports(2))
        config = Config(
            cluster="demo",
            server_id=server_id,
            join=[self._first.address],
            listen=listen,
            data_dir=self._directory / f"server-{server_id}",
            client_listen=clients,
            close_timeout_ms=500,
        )
        process = ServerProcess(config, self._directory, LEDGER)
        self.listens[server_id] = listen
        await process.start()
        return process

    def adds(self, *processes: ServerProcess) -> list[list[Any]]:
        return [add(process, self.listens[process.server_id]) for process in processes]


@asynccontextmanager
async def stopped(*processes: ServerProcess) -> AsyncIterator[None]:
    """Whatever happens, these end."""
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            for process in processes:
                await process.stop()


async def test_one_to_three_to_five_to_three_to_one_under_load(tmp_path: Path) -> None:
    """A cluster grows and shrinks while it works; at the end it is another server's alone."""
    with trio.fail_after(LIMIT_S):
        async with running(tmp_path, servers=1, groups=3, state_machine=LEDGER) as [first]:
            newcomers = Newcomers(tmp_path, first)
            two, three, four, five = [await newcomers.start(server) for server in (2, 3, 4, 5)]
            writes = Writes()
            async with stopped(two, three, four, five), trio.open_nursery() as nursery:
                nursery.start_soon(writes.through, first)
                await writes.more(10)
                await ask(first, *newcomers.adds(two, three))
                nursery.start_soon(writes.through, two)
                await writes.more(20)
                await ask(two, *newcomers.adds(four, five))
                await writes.more(20)
                await ask(three, remove(4), remove(5))
                await writes.more(20)
                found = await ask(two, remove(1), remove(3))
                assert [server["server_id"] for server in found["servers"]] == [2]
                await writes.more(20)
                nursery.cancel_scope.cancel()
                await check([two], writes)


async def test_a_dead_server_is_replaced_in_one_command_and_the_asked_one_may_go(tmp_path: Path) -> None:
    """Server 3 dies for good; server 4 comes for it. Then server 1 is asked to remove itself."""
    with trio.fail_after(LIMIT_S):
        async with running(tmp_path, servers=3, groups=3, state_machine=LEDGER) as processes:
            one, two, three = processes
            newcomers = Newcomers(tmp_path, two)
            writes = Writes()
            four = await newcomers.start(4)
            async with stopped(four):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(writes.through, two)
                    await writes.more(20)
                    await three.kill()
                    await ask(one, *newcomers.adds(four), remove(3))
                    await writes.more(20)
                    await ask(one, remove(1))
                    await writes.more(20)
                    nursery.cancel_scope.cancel()
                await four.wait_ready()
                await check([two, four], writes)
                await four.kill()
                await four.restart()  # it finds the others by itself
                await check([two, four], writes)


async def test_a_wiped_server_is_refused_and_welcome_on_its_new_disk(tmp_path: Path) -> None:
    """The directory is gone: nothing is let in under its id, until a new version names the new disk."""
    with trio.fail_after(LIMIT_S):
        async with running(tmp_path, servers=3, groups=3, state_machine=LEDGER) as processes:
            one, two, three = processes
            writes = Writes()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(writes.through, one)
                await writes.more(20)
                nursery.cancel_scope.cancel()
            await three.kill()
            listen = next(s["address"] for s in (await ask(one))["servers"] if s["server_id"] == 3)
            shutil.rmtree(tmp_path / "server-3")
            config = Config(
                cluster="demo",
                server_id=3,
                join=[one.address],
                listen=listen,
                data_dir=tmp_path / "server-3",
                client_listen=three.address,
                close_timeout_ms=500,
            )
            again = ServerProcess(config, tmp_path, LEDGER)
            async with stopped(again):
                await again.start()
                disk = await disk_of(again)
                await said(tmp_path / "server-3.log", "craft members add 3")
                await ask(two, [0, 3, listen, disk])
                await again.wait_ready()
                await check([one, two, again], writes)


async def disk_of(process: ServerProcess) -> str:
    """Of a server that may not be up yet."""
    while True:
        try:
            async with client.connect(process.address) as connection:
                status = await connection.status()
                return str(status["disk_id"])
        except CraftError:
            await trio.sleep(0.05)


async def said(log: Path, words: str) -> None:
    """Wait until a server has said this."""
    while words not in await trio.Path(log).read_text(encoding="utf-8"):  # noqa: ASYNC110  # no events
        await trio.sleep(0.05)
