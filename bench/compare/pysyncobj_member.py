"""One PySyncObj process, `python -m bench.compare.pysyncobj_member`: asked by its stdin, as `bench.member`.

The load is made where users make it: in the server's process, by calls with a callback. A callback runs in
PySyncObj's own thread, and makes the next call of its task.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from pathlib import Path
from typing import Any

from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, replicated

from bench.compare.asked import serve

READY_WITHIN_S = 30.0
LAST_ANSWERS_WITHIN_S = 20.0
POLL_S = 0.02


class Table(SyncObj):  # type: ignore[misc]  # it ships no types
    """A dict of the last value of each key, how many writes there were, and a digest of all of them."""

    def __init__(self, own: str, others: list[str], journal: str, *, batched: bool) -> None:
        self.values: dict[str, bytes] = {}
        self.writes = 0
        self.digest = b""
        super().__init__(own, others, SyncObjConf(journalFile=journal, appendEntriesUseBatch=batched))

    @replicated  # type: ignore[untyped-decorator]  # as above
    def put(self, key: str, value: bytes) -> None:
        """Write."""
        self.values[key] = value
        self.writes += 1
        self.digest = hashlib.md5(self.digest + value, usedforsecurity=False).digest()


class Drive:
    """Tasks that write until they are told to stop."""

    def __init__(self, table: Table, *, origin: int, tasks: int, size: int) -> None:
        self._table = table
        self._origin = origin
        self._size = size
        self._outstanding = tasks
        self._stopping = False
        self.taken_s: list[float] = []
        self.failed = 0
        self.done = threading.Event()
        for task in range(tasks):
            self._call(task)

    def _call(self, task: int) -> None:
        began = time.perf_counter()
        head = b"%d-%d-%d-" % (self._origin, task, len(self.taken_s))
        value = head.ljust(self._size, b"x")[: self._size]

        def answered(_: Any, error: int) -> None:
            if error == FAIL_REASON.SUCCESS:
                self.taken_s.append(time.perf_counter() - began)
            else:
                self.failed += 1
            if self._stopping:
                self._outstanding -= 1
                if not self._outstanding:
                    self.done.set()
            else:
                self._call(task)

        self._table.put(f"{self._origin}-{task}", value, callback=answered)

    def finish(self) -> dict[str, Any]:
        """Let every call be answered, and make no other."""
        self._stopping = True
        answered = self.done.wait(LAST_ANSWERS_WITHIN_S)
        return {"answered": len(self.taken_s), "failed": self.failed, "unanswered": not answered}


class Member:
    """What the harness may ask."""

    def __init__(self, origin: int, table: Table) -> None:
        self._origin = origin
        self._table = table

    def start(self) -> dict[str, Any]:
        """Wait until it takes writes."""
        until = time.monotonic() + READY_WITHIN_S
        while not self._table.isReady() and time.monotonic() < until:
            time.sleep(POLL_S)
        return {"ready": self._table.isReady()}

    def drive(self, tasks: int, size: int, seconds: float, latencies: str) -> dict[str, Any]:
        """Load for so long."""
        began = time.monotonic()
        drive = Drive(self._table, origin=self._origin, tasks=tasks, size=size)
        time.sleep(seconds)
        in_window, elapsed = len(drive.taken_s), time.monotonic() - began
        told = drive.finish()
        Path(latencies).write_text(json.dumps(drive.taken_s[:in_window]), encoding="ascii")
        return {**told, "per_second": in_window / elapsed}

    def held(self) -> dict[str, Any]:
        """What this server holds now."""
        return {"writes": self._table.writes, "digest": self._table.digest.hex()}


def begin(told: dict[str, Any]) -> tuple[Member, dict[str, Any]]:
    """Start it, and wait until it takes writes."""
    member = Member(
        told["origin"], Table(told["own"], told["others"], told["journal"], batched=told["batched"])
    )
    return member, member.start()


if __name__ == "__main__":
    serve(begin)
