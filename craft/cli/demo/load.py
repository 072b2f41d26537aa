"""The demo's load and its eyes: for each server one connection, with writers and two watchers.

Invariants
- Every write has a name of its own, and is proposed once. It ends in exactly one of three sets: answered,
  unknown, rejected.
- Rows of the merged log are compared as they come in: two servers that differ at one position are found while
  it happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import trio

from craft import client
from craft.cli.demo.cluster import DemoFailed, ServerProcess
from craft.errors import Rejected, RemoteError, Unknown, Unreachable

WRITERS = 64
"""Writes in flight through each server."""

WATCH_S = 0.02
STATUS_S = 0.2
RECONNECT_S = 0.05


class Row(NamedTuple):
    """One entry of the merged log, as a server tells it."""

    timestamp: int
    group: int
    index: int  # type: ignore[assignment]  # the field's own word; tuple.index is never wanted here
    digest: str


class Tally:
    """What became of the writes through one server."""

    def __init__(self) -> None:
        self.answered: list[bytes] = []
        self.unknown: list[bytes] = []
        self.rejected: list[bytes] = []
        self.proposed = 0


class Station:
    """One server seen from outside: its tally, its position, and when the merge there moved."""

    def __init__(self, process: ServerProcess) -> None:
        self.process = process
        self.server_id = process.server_id
        self.tally = Tally()
        self.position = 0
        self.moved_at = 0.0
        self.gap = 0.0
        self.status: dict[str, Any] = {}

    def leads(self) -> list[int]:
        """The groups that it says it leads."""
        groups: Sequence[dict[str, Any]] = self.status.get("groups", ()) if self.process.up else ()
        return [group["group"] for group in groups if group["role"] == "leader"]

    def measure(self) -> None:
        """Begin to measure how long the merge stands still here."""
        self.gap = 0.0

    def moved(self, position: int, now: float) -> None:
        """The merge here has reached a position."""
        self.gap = max(self.gap, now - self.moved_at)
        self.position, self.moved_at = position, now


class Load:
    """Writes through every server at once, and watches all of them."""

    def __init__(self, processes: list[ServerProcess]) -> None:
        self.stations = [Station(process) for process in processes]
        self.rows: dict[int, Row] = {}
        self.top = 0
        self.difference: str | None = None
        self._writing = True
        self._writers = 0
        self._done = trio.Event()

    @property
    def answered(self) -> int:
        """Writes answered so far, through all servers."""
        return sum(len(station.tally.answered) for station in self.stations)

    async def run(self) -> None:
        """Until cancelled. Raises DemoFailed for a server that ends by itself, and for a difference."""
        async with trio.open_nursery() as nursery:
            for station in self.stations:
                nursery.start_soon(self._attend, station)

    async def stop_writing(self) -> None:
        """Let each writer have its last answer; returns when all have it. The watchers go on."""
        self._writing = False
        if self._writers:
            await self._done.wait()

    async def _attend(self, station: Station) -> None:
        """Keep a connection to the server whenever it is up."""
        while True:
            station.process.check()
            try:
                async with client.connect(station.process.address) as connection:
                    await self._use(station, connection)
            except* (Unreachable, RemoteError):
                await trio.sleep(RECONNECT_S)

    async def _use(self, station: Station, connection: client.Client) -> None:
        station.position, station.moved_at = 0, trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(WRITERS):
                nursery.start_soon(self._write, station, connection)
            nursery.start_soon(self._watch_log, station, connection)
            nursery.start_soon(self._watch_status, station, connection)

    async def _write(self, station: Station, connection: client.Client) -> None:
        tally = station.tally
        self._writers += 1
        try:
            while self._writing:
                tally.proposed += 1
                write = b"s%d-%d" % (station.server_id, tally.proposed)
                await self._write_one(station, connection, write)
        finally:
            self._writers -= 1
            if self._writers == 0:
                self._done.set()

    async def _write_one(self, station: Station, connection: client.Client, write: bytes) -> None:
        tally = station.tally
        try:
            (count,) = await connection.propose([write])
        except Unknown:
            tally.unknown.append(write)
        except Unreachable:
            tally.rejected.append(write)
            raise
        except Rejected:
            tally.rejected.append(write)
            await trio.sleep(RECONNECT_S)
        else:
            tally.answered.append(write)
            if count != 1:
                who = f"server {station.server_id}"
                self._differ(f"{who} answered that {write.decode()} took effect {count} times")

    async def _watch_log(self, station: Station, connection: client.Client) -> None:
        while True:
            rows = await connection.merged(station.position)
            for row in rows:
                seen = Row(row["timestamp"], row["group"], row["index"], row["digest"])
                self._see(station, row["position"], seen)
            if rows:
                station.moved(rows[-1]["position"], trio.current_time())
            await trio.sleep(WATCH_S)

    def _see(self, station: Station, position: int, row: Row) -> None:
        known = self.rows.setdefault(position, row)
        self.top = max(self.top, position)
        if known != row:
            self._differ(
                f"the merged log differs at position {position}: server {station.server_id} has {row},"
                f" another server {known}"
            )

    async def _watch_status(self, station: Station, connection: client.Client) -> None:
        while True:
            station.status = await connection.status()
            await trio.sleep(STATUS_S)

    def _differ(self, what: str) -> None:
        if self.difference is None:
            self.difference = what
            raise DemoFailed(what)
