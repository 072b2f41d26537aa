"""A cluster of processes on this machine: its configurations are made once, its processes kept running.

Knows: files and processes. Must not know: what a server does.

Invariants:
- A directory is prepared once; what is in it is used again, with the ports it was made with.
- A signal stops all servers, gracefully where that takes no more than `STOP_WITHIN_S`.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import trio

import craft
from examples.kv import settings

PEER_PORTS_FROM, CLIENT_PORTS_FROM, HTTP_PORTS_FROM = 1000, 2000, 3000
"""Beyond a server's Redis port: where its peers, craft's own clients, and HTTP's, reach it."""

STOP_WITHIN_S = 15


def say(line: str) -> None:
    """A line on stdout, which several servers share: one write, so that no other comes into the middle of it.

    (An unbuffered `print` writes the end of the line by itself.) Nobody has to read it.
    """
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(f"kv: {line}\n")
        sys.stdout.flush()


def prepare(
    directory: Path,
    *,
    servers: int,
    redis_port: int,
    http_port: int | None = None,
    store: str | None = None,
) -> list[Path]:
    """The settings of each server, made if they are not there. Raises craft.ConfigError."""
    files = [directory / f"store-{number}.toml" for number in range(1, servers + 1)]
    there = sorted(directory.glob("store-*.toml"))
    if there:
        if there != files:
            raise craft.ConfigError(
                f"--servers: {servers} is not allowed, for {directory} holds a cluster of {len(there)};"
                f" allowed: {len(there)}, or another --dir"
            )
        for file in files:
            kept = settings.load(file).store
            if store not in (None, kept):
                raise craft.ConfigError(
                    f"--store: {store} is not allowed, for {file} says {kept}; allowed: {kept}, another"
                    " --dir, or to change the file"
                )
        return files
    http_port = redis_port + HTTP_PORTS_FROM if http_port is None else http_port
    last = max(http_port, redis_port + CLIENT_PORTS_FROM) + servers - 1
    if last > settings.PORT_MAX:
        raise craft.ConfigError(
            f"--redis-port, --http-port: {last} is not allowed, the last of the ports that follow from them;"
            f" allowed: up to {settings.PORT_MAX}"
        )
    for taken in (redis_port, redis_port + PEER_PORTS_FROM, redis_port + CLIENT_PORTS_FROM):
        if abs(http_port - taken) < servers:
            raise craft.ConfigError(
                f"--http-port: {http_port} is not allowed, for the cluster has other ports from {taken} to"
                f" {taken + servers - 1}; allowed: ports apart from these"
            )
    directory.mkdir(parents=True, exist_ok=True)
    peers = {
        number: f"127.0.0.1:{redis_port + PEER_PORTS_FROM + number - 1}" for number in range(1, servers + 1)
    }
    for number, file in enumerate(files, 1):
        config = craft.Config(
            cluster="kv",
            server_id=number,
            servers=peers,
            data_dir=Path(f"data-{number}"),
            client_listen=f"127.0.0.1:{redis_port + CLIENT_PORTS_FROM + number - 1}",
        )
        (directory / f"craft-{number}.toml").write_text(config.to_toml(), encoding="utf-8")
        file.write_text(
            f'craft = "craft-{number}.toml"\nredis_listen = "127.0.0.1:{redis_port + number - 1}"\n'
            f'http_listen = "127.0.0.1:{http_port + number - 1}"\n'
            f'store = "{store or settings.MEMORY}"\n',
            encoding="utf-8",
        )
    return files


async def up(files: list[Path]) -> int:
    """Run all servers until a signal, or until none is left; returns 0, or 1 where one of them failed."""
    codes: list[int] = []
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as waiting:
            stop = trio.Event()
            waiting.start_soon(wait_for, signals, stop)
            async with trio.open_nursery() as nursery:
                for file in files:
                    nursery.start_soon(keep, file, stop, codes)
            waiting.cancel_scope.cancel()
    return 1 if any(codes) else 0


async def wait_for(signals: AsyncIterator[int], stop: trio.Event) -> None:
    """Ctrl-C, or SIGTERM."""
    async for _ in signals:
        stop.set()


async def keep(file: Path, stop: trio.Event, codes: list[int]) -> None:
    """One server's process, until it ends or all are to stop. One that ends leaves the others running."""
    command = [sys.executable, "-m", "examples.kv", "serve", "--config", str(file)]
    # In a session of its own: Ctrl-C is ours, and a server is asked to stop once.
    process = await trio.lowlevel.open_process(command, start_new_session=True)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(terminate, process, stop)
            await process.wait()
            nursery.cancel_scope.cancel()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    early = stop.is_set() and process.returncode == -signal.SIGTERM  # it did not listen for signals yet
    codes.append(0 if early else process.returncode)
    if not stop.is_set():
        say(f"{file.stem} has ended (code {process.returncode}); again with: {' '.join(command)}")


async def terminate(process: trio.Process, stop: trio.Event) -> None:
    """Ask it to stop, and make it stop if it does not."""
    await stop.wait()
    process.terminate()
    await trio.sleep(STOP_WITHIN_S)
    process.kill()
