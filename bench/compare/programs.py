"""Programs that others wrote, started as servers or run as load generators, and always ended.

Invariants
- However a run ends, every process of a program is gone when `programs` is left: all that it starts stays
  in its process group, which is killed.
- If the harness itself is killed, all of them end: a shell beside each holds the harness's pipe, and kills
  the group at its end. (A load generator left alone may try forever.)
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from bench.processes import LOG_TAIL_LINES, BenchError

GUARD = 'exec 3<&0; (read -r _ <&3; kill -9 0) >/dev/null 2>&1 & exec "$@" </dev/null 3<&-'
"""The shell becomes the program, so that its pid is known, and leaves another one behind to read."""

READY_WITHIN_S = 60.0
POLL_S = 0.05
RUN_OVER_S = 60.0
"""A load generator that takes so much longer than it was told is stuck."""

HTTP_TIMEOUT_S = 10.0


def output_of(*command: str) -> str:
    """What a program says that ends at once, on both streams."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=RUN_OVER_S, stdin=subprocess.DEVNULL
    )
    return done.stdout + done.stderr


class Program:
    """One running server."""

    def __init__(self, name: str, process: trio.Process, log: Path) -> None:
        self.name = name
        self.pid = process.pid
        self._process = process
        self._log = log

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def failure(self, what: str) -> BenchError:
        """An error that shows the end of its log."""
        return BenchError(
            "\n    ".join([f"{self.name} {what}; its log ends:", *self.log.splitlines()[-LOG_TAIL_LINES:]])
        )

    def check(self) -> None:
        """Raise BenchError if it has ended."""
        if self._process.returncode is not None:
            raise self.failure(f"has ended with exit code {self._process.returncode}")

    async def until(self, ready: Callable[[], Awaitable[bool]]) -> None:
        """Wait until it is ready. Raises BenchError if it ends before, or takes too long."""
        with trio.move_on_after(READY_WITHIN_S):
            while not await ready():
                self.check()
                await trio.sleep(POLL_S)
            return
        raise self.failure(f"was not ready within {READY_WITHIN_S:.0f} s")

    async def until_said(self, text: str) -> None:
        """Wait until its log holds this."""

        async def said() -> bool:
            return text in self.log

        await self.until(said)

    async def kill(self) -> None:
        """End it and whatever it started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        assert self._process.stdin is not None
        await self._process.stdin.aclose()


@asynccontextmanager
async def programs() -> AsyncIterator[list[Program]]:
    """A list to start servers into; all of them are gone behind the block."""
    started: list[Program] = []
    try:
        yield started
    finally:
        with trio.CancelScope(shield=True):
            for one in started:
                await one.kill()


async def start(
    into: list[Program], name: str, command: list[str], directory: Path, environment: dict[str, str]
) -> Program:
    """Start a server with its log in a directory, which is also its working directory."""
    await trio.Path(directory).mkdir(parents=True, exist_ok=True)
    log = directory / "log"
    # To be cancelled in between would leave a process that nobody knows.
    with log.open("ab") as output, trio.CancelScope(shield=True):
        process = await trio.lowlevel.open_process(
            ["sh", "-c", GUARD, "sh", *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd=directory,
            env={**os.environ, **environment},
            start_new_session=True,  # a group of its own; and Ctrl-C is for the harness alone
        )
        started = Program(name, process, log)
        into.append(started)
    return started


async def run_to_end(command: list[str], within_s: float) -> str:
    """Run a load generator; what it said. Raises BenchError if it fails or is stuck."""
    shown = command[0]
    held, ours = os.pipe()
    try:
        with trio.fail_after(within_s + RUN_OVER_S):
            done = await trio.run_process(
                ["sh", "-c", GUARD, "sh", *command],
                stdin=held,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                start_new_session=True,
            )
    except trio.TooSlowError:
        raise BenchError(f"{shown} did not end within {within_s + RUN_OVER_S:.0f} s") from None
    finally:
        os.close(held)
        os.close(ours)
    output, errors = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    if done.returncode:
        said = "\n    ".join((output + errors).splitlines()[-LOG_TAIL_LINES:])
        raise BenchError(f"{shown} failed with exit code {done.returncode}:\n    {said}")
    return output


async def together(commands: list[list[str]], within_s: float) -> list[str]:
    """Run load generators side by side; what each said."""
    said = [""] * len(commands)

    async def run(place: int) -> None:
        said[place] = await run_to_end(commands[place], within_s)

    async with trio.open_nursery() as nursery:
        for place in range(len(commands)):
            nursery.start_soon(run, place)
    return said


async def http_json(url: str, body: Any = None) -> Any:
    """The answer to a request, GET or POST; None where nobody answers, or with an error."""

    def ask() -> Any:
        # Our own servers' addresses alone come here.
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(url, data=data, timeout=HTTP_TIMEOUT_S) as answer:  # noqa: S310
                return json.loads(answer.read())
        except (OSError, urllib.error.URLError, json.JSONDecodeError):
            return None

    return await trio.to_thread.run_sync(ask)
