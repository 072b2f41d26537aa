"""Three real server processes under load: killed in turn, disturbed by strangers, started again."""

from __future__ import annotations

import dataclasses
import itertools
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from craft import Config, Rejected, Unknown, client
from craft.cli.demo.cluster import ServerProcess, configs, running
from craft.errors import RemoteError

pytestmark = pytest.mark.system

LEDGER = "craft.cli.demo.machine:Ledger"


@dataclass
class Writes:
    """What was proposed, and what became of it."""

    numbers: Any = field(default_factory=itertools.count)
    answered: list[bytes] = field(default_factory=list)
    unknown: list[bytes] = field(default_factory=list)
    progress: trio.Event = field(default_factory=trio.Event)

    async def through(self, process: ServerProcess) -> None:
        """Write one after the other through one server, for ever, across its deaths."""
        while True:
            try:
                async with client.connect(process.address) as connection:
                    while True:
                        await self._one(connection)
            except (RemoteError, Rejected):
                await trio.sleep(0.02)

    async def _one(self, connection: client.Client) -> None:
        write = b"w%d" % next(self.numbers)
        self.unknown.append(write)
        try:
            await connection.propose([write])
        except Unknown:
            return
        except Rejected:
            self.unknown.remove(write)
            raise
        self.unknown.remove(write)
        self.answered.append(write)
        self.progress.set()

    async def more(self, count: int, limit_s: float = 30) -> None:
        """Wait until so many more were answered: nothing stalls for good."""
        goal = len(self.answered) + count
        with trio.fail_after(limit_s):
            while len(self.answered) < goal:
                self.progress = trio.Event()
                await self.progress.wait()


@asynccontextmanager
async def cluster(directory: Path) -> AsyncIterator[list[ServerProcess]]:
    """Three servers, ready."""
    async with running(directory, servers=3, groups=3, state_machine=LEDGER) as processes:
        yield processes


async def summaries(processes: list[ServerProcess]) -> list[dict[str, Any]]:
    """Each server's state, read linearizably."""
    found = []
    for process in processes:
        async with client.connect(process.address) as connection:
            found.append(await connection.read(b"summary"))
    return found


async def check(processes: list[ServerProcess], writes: Writes) -> None:
    """Every answered write is on every server exactly once, no write is there twice, all states equal."""
    for process in processes:
        async with client.connect(process.address) as connection:
            counts = await connection.read(b" ".join([b"count", *writes.answered]))
            wrong = [w for w, count in zip(writes.answered, counts, strict=True) if count != 1]
            assert not wrong, f"server {process.server_id}: answered, but missing or there twice: {wrong[:5]}"
    states = await summaries(processes)
    assert len({state["digest"] for state in states}) == 1, states
    assert not states[0]["repeated"] and states[0]["writes"] >= len(writes.answered)


async def test_sigkill_of_each_server_under_load_loses_no_answered_write(tmp_path: Path) -> None:
    """Kill each server in turn while all three take writes; the others go on, it comes back, all agree."""
    async with cluster(tmp_path) as processes, trio.open_nursery() as nursery:
        writes = Writes()
        for process in processes:
            for _ in range(4):
                nursery.start_soon(writes.through, process)
        for victim in processes:
            await writes.more(30)
            await victim.kill()
            await writes.more(30)
            await victim.restart()
            await writes.more(30)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await check(processes, writes)


async def test_killing_all_servers_at_once_loses_no_answered_write(tmp_path: Path) -> None:
    """SIGKILL of the whole cluster: after the restart every answered write is there once."""
    async with cluster(tmp_path) as processes:
        writes = Writes()
        async with trio.open_nursery() as nursery:
            for process in processes:
                nursery.start_soon(writes.through, process)
            await writes.more(50)
            for process in processes:
                await process.kill()
            nursery.cancel_scope.cancel()
        for process in processes:
            await process.start()
        for process in processes:
            await process.wait_ready()
        await check(processes, writes)


async def test_strangers_and_garbage_disturb_nobody(tmp_path: Path) -> None:
    """Garbage on both ports, a half-open connection and a foreign cluster's server: writes go on."""
    async with cluster(tmp_path) as processes, trio.open_nursery() as nursery:
        writes = Writes()
        nursery.start_soon(writes.through, processes[1])
        await writes.more(5)
        config = Config.load(tmp_path / "server-1.toml")
        for address in (config.listen_address, config.client_listen_address):
            assert address is not None
            with socket.create_connection((address.host, address.port)) as stranger:
                stranger.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + bytes(range(256)) * 64)
            half_open = socket.create_connection((address.host, address.port))
            await writes.more(5)
            half_open.close()
        await writes.more(20)
        nursery.cancel_scope.cancel()


def serve(config_file: Path) -> subprocess.CompletedProcess[str]:
    """Run `craft serve` where it must refuse to start."""
    command = [
        sys.executable,
        "-m",
        "craft",
        "serve",
        "--config",
        str(config_file),
        "--state-machine",
        LEDGER,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


async def test_a_second_server_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    """The second process says that the directory is in use and ends with 1; the first is undisturbed."""
    async with cluster(tmp_path) as processes:
        config = Config.load(tmp_path / "server-1.toml")
        text = config.to_toml().replace(str(config.client_listen), "127.0.0.1:0")
        (tmp_path / "second.toml").write_text(text, encoding="utf-8")
        second = await trio.to_thread.run_sync(serve, tmp_path / "second.toml")
        assert second.returncode == 1
        assert "in use" in second.stderr and "Traceback" not in second.stderr
        async with client.connect(processes[0].address) as connection:
            assert await connection.propose([b"fine"])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"server_id": 2}, "server"),
        ({"cluster": "other"}, "cluster"),
        ({"groups": 5}, "groups"),
    ],
)
async def test_a_directory_of_another_server_is_refused(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    """A directory belongs to one server of one cluster and its groups; the error names what differs."""
    (own, *_) = configs(tmp_path, 3, 3)
    process = ServerProcess(own, tmp_path, LEDGER)
    await process.start()
    directory = tmp_path / "server-1"
    with trio.fail_after(20):  # killed while it is being made it would be nobody's yet, and made anew
        while not (directory / "identity").exists() or (directory / "creating").exists():  # noqa: ASYNC110
            await trio.sleep(0.02)
    await process.kill()
    foreign = dataclasses.replace(own, **change)
    (tmp_path / "foreign.toml").write_text(foreign.to_toml(), encoding="utf-8")
    refused = await trio.to_thread.run_sync(serve, tmp_path / "foreign.toml")
    assert refused.returncode == 1
    assert named in refused.stderr and "Traceback" not in refused.stderr
