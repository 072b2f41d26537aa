"""`python -m tests.system.wrong_clock CONFIG FILE`: a server whose clock is as wrong as FILE says."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import trio

import craft
from craft.cli.demo.machine import Ledger

LOOK_AGAIN_NS = 20_000_000
"""The file is read at most once in this time."""


class FileClock:
    """The system's clock, moved and hurried: by `ahead_ns`, and by `rate_ppm` since the file was written."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._look_at = 0
        self._wrong = {"ahead_ns": 0, "rate_ppm": 0, "since_ns": 0}

    def now(self) -> int:
        true = time.time_ns()
        if true >= self._look_at:
            self._look_at = true + LOOK_AGAIN_NS
            self._wrong = json.loads(self._file.read_text(encoding="utf-8"))
        gained = (true - self._wrong["since_ns"]) * self._wrong["rate_ppm"] // 1_000_000
        return true + self._wrong["ahead_ns"] + gained

    def error(self) -> int | None:
        return 1_000_000  # a wrong clock does not know that it is


def set_clock(file: Path, *, ahead_ns: int = 0, rate_ppm: int = 0) -> None:
    """Make a server's clock wrong, or right again, from now on."""
    wrong = {"ahead_ns": ahead_ns, "rate_ppm": rate_ppm, "since_ns": time.time_ns()}
    new = file.with_suffix(".new")
    new.write_text(json.dumps(wrong), encoding="utf-8")
    new.replace(file)


async def serve(config: craft.Config, clock: FileClock) -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with craft.open_server(config, Ledger(), clock=clock):
            async for _ in signals:
                break


if __name__ == "__main__":
    trio.run(serve, craft.Config.load(Path(sys.argv[1])), FileClock(Path(sys.argv[2])))
