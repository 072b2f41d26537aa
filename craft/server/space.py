"""Room on the disk, looked at now and then: below a reserve no command is taken.

A full disk ends a server, and where all are filled alike, it ends all. The reserve is what snapshots and
compactions need to make room again, while the cluster still works.

Invariants
- The event loop never waits for the file system: it is asked in a thread.
- The engine is told, and decides: what was taken before goes on, and so does everything that is no new
  command.
"""

from __future__ import annotations

import logging
import os
import pathlib
from typing import Any

import trio

from craft import logs
from craft.engine.state import EngineState

log = logging.getLogger("craft.server")

LOOK_INTERVAL_S = 1
"""Between two looks: less than a disk takes to write the least reserve that makes sense."""

BACK_AGAIN = 1.125
"""Commands are taken again at so many times the reserve: a server at its edge does not change its mind each
second."""


class Space:
    """The file system of one server's data directory; without one there is nothing to look at."""

    def __init__(self, directory: pathlib.Path | None, free_bytes_min: int, state: EngineState) -> None:
        self._directory = directory
        self._free_bytes_min = free_bytes_min
        self._state = state
        self._free_bytes: int | None = None

    def status(self) -> dict[str, Any]:
        """What the last look found."""
        return {
            "free_bytes": self._free_bytes,
            "free_bytes_min": self._free_bytes_min,
            "low": bool(self._state.disk_low),
        }

    async def run(self) -> None:
        """Look until cancelled."""
        if self._directory is None:
            return
        own = trio.CapacityLimiter(1)
        while True:
            try:
                self.found(
                    await trio.to_thread.run_sync(
                        free_bytes, self._directory, limiter=own, abandon_on_cancel=True
                    )
                )
            except OSError as error:
                logs.event(log, logging.WARNING, "free space unknown", error=str(error))
            await trio.sleep(LOOK_INTERVAL_S)

    def found(self, free: int) -> None:
        """So much is free: tell the engine."""
        self._free_bytes = free
        was_low = bool(self._state.disk_low)
        low = free < self._free_bytes_min * (BACK_AGAIN if was_low else 1)
        self._state.disk_low = (
            f"{free} bytes are free on this server's disk; disk_free_bytes_min = {self._free_bytes_min}"
            if low
            else ""
        )
        if low != was_low:
            level, words = (logging.WARNING, "below") if low else (logging.INFO, "above")
            logs.event(
                log, level, f"disk {words} its reserve", free=free, disk_free_bytes_min=self._free_bytes_min
            )


def free_bytes(directory: pathlib.Path) -> int:
    """What this process may still write to the file system of a directory."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize
