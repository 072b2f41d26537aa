"""The demo's servers: ordinary `craft serve` processes on loopback, with RocksDB below one directory.

Invariants
- No process outlives the demo, and a temporary directory only after a failure, of which the user is told.
- Nothing is removed from a directory but what an earlier demo made there.
"""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from craft import client
from craft.config import Config
from craft.errors import ConfigError, CraftError, Rejected, RemoteError

HOST = "127.0.0.1"
MARK = "craft-demo"
"""The file that tells a demo's directory from anybody else's."""
MARK_TEXT = "Made by `craft demo`, which may remove what is in here.\n"

START_TIMEOUT_S = 60
START_ATTEMPTS = 5
STOP_TIMEOUT_S = 3
POLL_S = 0.05
PORTS_BELOW_EPHEMERAL = 10_000


class DemoFailed(CraftError):
    """The demo found something that must not be, or could not go on."""


class PortTaken(DemoFailed):
    """Another process took a port between our asking for it and the server's using it."""


# -- directories and ports -------------------------------------------------------------------------


def prepare(directory: Path | None) -> Path:
    """The directory to work in, empty but for the mark. Raises ConfigError for one that is not ours."""
    if directory is None:
        directory = Path(tempfile.mkdtemp(prefix="craft-demo-"))
    try:
        directory = directory.resolve()  # a configuration's relative paths would begin at its own place
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()) and not (directory / MARK).is_file():
            raise ConfigError(
                f"--dir: '{directory}' is not empty; allowed: a new, empty or a demo's directory"
            )
        clean(directory)
        (directory / MARK).write_text(MARK_TEXT, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--dir: '{directory}' cannot be used: {error}") from error
    return directory


def clean(directory: Path) -> None:
    """Remove what an earlier demo, or an earlier attempt to start, left there."""
    for path in directory.glob("server-*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody uses at the moment: each was bound, all at once."""
    lowest = _ephemeral_from()
    candidates = list(range(max(1024, lowest - PORTS_BELOW_EPHEMERAL), lowest))
    random.shuffle(candidates)
    ports: list[int] = []
    holders: list[socket.socket] = []
    try:
        # A killed server's port must still be free when it comes back, so it is not one of those that the
        # kernel gives to outgoing connections; where there are none left, any will do.
        for candidate in [*candidates, *[0] * count]:
            if len(ports) == count:
                break
            holder = socket.socket()
            holders.append(holder)
            try:
                holder.bind((HOST, candidate))
            except OSError:
                continue
            ports.append(holder.getsockname()[1])
    finally:
        for holder in holders:
            holder.close()
    return ports


def _ephemeral_from() -> int:
    """The least port that the kernel gives to outgoing connections."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 32768


# -- processes -------------------------------------------------------------------------------------


class ServerProcess:
    """One server of the demo, running or not."""

    def __init__(self, config: Config, directory: Path, state_machine: str) -> None:
        self.server_id = config.server_id
        self.address = str(config.client_listen)
        self.up = False
        self._config_file = directory / f"server-{self.server_id}.toml"
        self._log_file = directory / f"server-{self.server_id}.log"
        self._state_machine = state_machine
        self._process: trio.Process | None = None
        self._config_file.write_text(config.to_toml(), encoding="utf-8")

    @property
    def pid(self) -> int:
        """The process, or 0."""
        return self._process.pid if self._process is not None else 0

    async def start(self) -> None:
        """Start it, as anybody would."""
        assert self._process is None
        command = [sys.executable, "-m", "craft", "serve", "--config", str(self._config_file)]
        command += ["--state-machine", self._state_machine]
        with self._log_file.open("ab") as log:
            self._process = await trio.lowlevel.open_process(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C is for the demo, which then stops its servers itself
            )

    async def wait_ready(self) -> None:
        """Wait until it takes commands. Raises DemoFailed where it ended instead."""
        with trio.move_on_after(START_TIMEOUT_S):
            while not await self._ready():
                self.check()
                await trio.sleep(POLL_S)
            self.up = True
            return
        last = self._last_words()
        raise DemoFailed(f"server {self.server_id} is not ready after {START_TIMEOUT_S} s: {last}")

    async def _ready(self) -> bool:
        try:
            async with client.connect(self.address) as connection:
                return bool((await connection.status())["ready"])
        except (Rejected, RemoteError):
            return False

    def check(self) -> None:
        """Raise DemoFailed if it ended by itself."""
        if self._process is None or self._process.poll() is None:
            return
        last = self._last_words()
        error = PortTaken if "in use" in last else DemoFailed
        raise error(f"server {self.server_id} ended by itself with code {self._process.returncode}: {last}")

    def _last_words(self) -> str:
        text = self._log_file.read_text(encoding="utf-8", errors="replace")
        lines = [line.strip(" |+-") for line in text.splitlines()]
        return next(filter(None, reversed(lines)), "it said nothing")

    async def kill(self) -> None:
        """SIGKILL: no last word to anybody, nothing flushed."""
        process, self._process = self._process, None
        assert process is not None
        self.up = False
        process.send_signal(signal.SIGKILL)
        await process.wait()

    async def restart(self) -> None:
        """Start it again, on its old ports, which another process may hold for a moment."""
        for attempt in range(START_ATTEMPTS):
            await self.start()
            try:
                await self.wait_ready()
            except PortTaken:
                if attempt == START_ATTEMPTS - 1:
                    raise
                self._process = None
                await trio.sleep(1)
            else:
                return

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL where that does not help."""
        self.up = False
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        with trio.move_on_after(STOP_TIMEOUT_S):
            await process.wait()
            return
        process.send_signal(signal.SIGKILL)
        await process.wait()


@asynccontextmanager
async def running(
    directory: Path, *, servers: int, groups: int | None, state_machine: str
) -> AsyncIterator[list[ServerProcess]]:
    """The servers, ready; whatever happens in the block, they are stopped at its end."""
    processes: list[ServerProcess] = []
    try:
        await _start(processes, directory, servers, groups, state_machine)
        yield processes
    finally:
        await _stop(processes)


async def _start(
    processes: list[ServerProcess], directory: Path, servers: int, groups: int | None, state_machine: str
) -> None:
    """Start all; where a port was taken meanwhile, all again on other ports."""
    for attempt in range(START_ATTEMPTS):
        processes[:] = [
            ServerProcess(config, directory, state_machine) for config in configs(directory, servers, groups)
        ]
        try:
            for process in processes:
                await process.start()
            for process in processes:
                await process.wait_ready()
        except PortTaken:
            if attempt == START_ATTEMPTS - 1:
                raise
            await _stop(processes)
            clean(directory)
        else:
            return


def configs(directory: Path, servers: int, groups: int | None) -> list[Config]:
    """The configuration of each server."""
    ports = free_ports(2 * servers)
    addresses = {server: f"{HOST}:{ports[server - 1]}" for server in range(1, servers + 1)}
    return [
        Config(
            cluster="demo",
            server_id=server,
            servers=addresses,
            groups=groups,
            data_dir=directory / f"server-{server}",
            client_listen=f"{HOST}:{ports[servers + server - 1]}",
            close_timeout_ms=500,  # all stop at once at the end: nobody is left to hand over to
        )
        for server in addresses
    ]


async def _stop(processes: list[ServerProcess]) -> None:
    with trio.CancelScope(shield=True):
        async with trio.open_nursery() as nursery:
            for process in processes:
                nursery.start_soon(process.stop)
