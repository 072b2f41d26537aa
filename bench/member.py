"""One server process under test, `python -m bench.member`: started by `bench.processes`, asked by its stdin.

The first line in is the assignment, each further one a request, all JSON. Each is answered by one line
with `ok`; `measure` writes lines with `progress` before. The end of stdin ends the process: when the harness
dies, so do its servers. Between two requests it waits without polling, so that an idle server is idle.
"""

from __future__ import annotations

import cProfile
import json
import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

import craft
from bench.arrivals import OpenLoad, lateness
from bench.figures import milliseconds
from bench.reading import READS, Board, ReadLoad
from bench.workload import CapturedTable, Load, Table
from craft import Config, Server

PROGRESS_INTERVAL_S = 1.0
SETTLED_POLL_S = 0.05
REACH_POLL_S = 0.02
RECEIVE_BYTES = 64 * 1024

Reply = dict[str, Any]


async def requests(stream: trio.abc.ReceiveStream) -> AsyncIterator[dict[str, Any]]:
    """One JSON value a line, until the end of the stream."""
    buffer = b""
    while chunk := await stream.receive_some(RECEIVE_BYTES):
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            yield json.loads(line)


def write(**line: Any) -> None:
    """One line to the harness."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def written_by_process() -> dict[str, int] | None:
    """What the kernel counts for this process as `/proc/self/io`, or None where there is no such file."""
    try:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return {name: int(value) for name, value in (line.split(":") for line in lines)}


def sent_by_interface() -> dict[str, int]:
    """Bytes that left through each network interface of this process's namespace; empty without /proc."""
    try:
        lines = Path("/proc/self/net/dev").read_text(encoding="ascii").splitlines()[2:]
    except OSError:
        return {}
    # Eight figures of what was received, then of what was sent, of which bytes are the first.
    return {
        name.strip(): int(figures.split()[8]) for name, _, figures in (one.partition(":") for one in lines)
    }


class Member:
    """What the harness may ask. Each public method is a request, and its keywords are the arguments."""

    def __init__(self, server: Server[Table], nursery: trio.Nursery) -> None:
        self._server = server
        self._nursery = nursery
        self._load: Load | OpenLoad | ReadLoad | None = None
        self._captured = trio.Event()
        self._capture_s = 0.0

    async def settle(self, *, within_s: float) -> Reply:
        """Wait until this server is ready and, for a while, until every group is led where it belongs."""
        await self._server.wait_ready()
        with trio.move_on_after(within_s):
            while True:  # the server has no event for it
                if all(group["leader"] == group["preferred"] for group in self._groups()):
                    break
                await trio.sleep(SETTLED_POLL_S)
        return {"leaders": [group["leader"] for group in self._groups()]}

    async def start(self, *, mode: str, tasks: int, **how: Any) -> Reply:
        """Start the load: what the arguments of each kind are, `bench.loading.LoadPlan.starts` knows."""
        self._load = _load(self._server, mode=mode, tasks=tasks, **how)
        if self._load is not None:
            self._load.start(self._nursery, mode)
        return {}

    async def measure(
        self, *, from_s: float, to_s: float, latencies: str | None = None, profile: str | None = None
    ) -> Reply:
        """Readings at two instants of the machine's monotonic clock; the calls' latencies go to a file."""
        await trio.sleep(max(0.0, from_s - time.monotonic()))
        profiler = cProfile.Profile() if profile else None
        before = {**self.reading(), **self._instant()}  # the instant last: …
        if profiler is not None:
            profiler.enable()
        while (left := to_s - time.monotonic()) > 0:
            await trio.sleep(min(left, PROGRESS_INTERVAL_S))
            if self._load is not None:
                write(progress=self._load.answered)
        instant = self._instant()  # … and first, so that reading costs the window nothing
        if profiler is not None and profile:
            profiler.disable()
            profiler.dump_stats(profile)
        after = {**self.reading(), **instant}
        if latencies:
            window = b""
            if self._load is not None:
                window = self._load.latencies[before["calls"] : after["calls"]].tobytes()
            await trio.Path(latencies).write_bytes(window)
        return {"before": before, "after": after}

    async def stop(self) -> Reply:
        """Stop the load; answers once every call is answered."""
        load = self._load
        if load is None:
            return {"answered": 0, "overloaded": 0, "behind": 0}
        await load.stop()
        return {"answered": load.answered, "overloaded": load.overloaded, "behind": load.behind}

    async def arrived(self, *, from_s: float, to_s: float, latencies: str) -> Reply:
        """The latencies of what was to arrive between two instants go to a file; how late it was made."""
        if not isinstance(self._load, OpenLoad):
            return lateness([])
        window, late = self._load.between(from_s, to_s)
        await trio.Path(latencies).write_bytes(window.tobytes())
        return lateness(late)

    async def see(self) -> Reply:
        """Wait until all that was answered anywhere is applied here, at whatever level it was answered."""
        await self._server.read(lambda _: None)
        return {}

    async def positions(self) -> Reply:
        """How far this server is, and the digest of its merged log there."""
        status = self._server.status()
        return {name: status[name] for name in ("merged_position", "applied_position", "merged_digest")}

    async def glance(self) -> Reply:
        """How far this server is, and how many commands it has answered, now."""
        snapshots = self._server.status()["snapshots"]
        return {
            **self._instant(),
            "position": self._server.position,
            "installed": snapshots["installed"],
            "taken": snapshots["taken"],
        }

    async def capture(self) -> Reply:
        """Take a snapshot; answers when it is durable."""
        return {"position": await self._server.take_snapshot()}

    async def capture_at(self, *, at_s: float) -> Reply:
        """Take a snapshot at an instant of the monotonic clock, while other requests are answered."""
        self._captured = trio.Event()
        self._nursery.start_soon(self._capture_at, at_s, self._captured)
        return {}

    async def _capture_at(self, at_s: float, done: trio.Event) -> None:
        await trio.sleep(max(0.0, at_s - time.monotonic()))
        began = time.monotonic()
        await self._server.take_snapshot()
        self._capture_s = time.monotonic() - began
        done.set()

    async def captured(self) -> Reply:
        """How long that took, once it is durable."""
        await self._captured.wait()
        return {"took_s": self._capture_s}

    async def reach(self, *, position: int) -> Reply:
        """Wait until everything up to a position is applied here."""
        while True:  # the server has no event for it
            if self._server.status()["applied_position"] >= position:
                return {}
            await trio.sleep(REACH_POLL_S)

    async def content(self, *, plant: bool) -> Reply:
        """The state machine's content in short. `plant` falsifies one command first, to try the check."""
        table = self._server.state_machine
        if plant:
            key = next(iter(table.table))
            table.table[key] = table.table[key][:-1] + bytes([table.table[key][-1] ^ 1])
        last = [] if self._load is None else self._load.last_answered
        return {
            "state_digest": await trio.to_thread.run_sync(table.digest),
            "applied": table.applied,
            "keys": len(table.table),
            "lacking": table.lacking(last),
        }

    def _instant(self) -> Reply:
        return {
            "at_s": time.monotonic(),
            "cpu_s": time.process_time(),
            "calls": 0 if self._load is None else len(self._load.latencies),
            "answered": 0 if self._load is None else self._load.answered,
            "load": {} if self._load is None else self._load.counts(),
        }

    def reading(self) -> Reply:
        """Everything else that is counted, as it stands."""
        counted: dict[str, Any] = {}
        rungs = {name: dict(rung) for name, rung in self._server.status()["rungs"].items()}
        for metric in self._server.metrics():
            if metric["name"] == "craft_rung_seconds":
                rungs[metric["labels"]["rung"]]["p999_ms"] = milliseconds(metric["quantiles"]["0.999"])
            counted[metric["name"]] = metric["value"] if "value" in metric else _histogram(metric)
        groups = self._groups()
        return {
            "memory_bytes_max": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "io": written_by_process(),
            "sent": sent_by_interface(),
            "terms": sum(group["term"] for group in groups),
            "led": sum(group["leader"] == self._server.config.server_id for group in groups),
            "metrics": counted,
            "rungs": rungs,
        }

    async def read(self) -> Reply:
        """`reading`, on request."""
        return self.reading()

    def _groups(self) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = self._server.status()["groups"]
        return groups


def _load(server: Server[Table], *, mode: str, tasks: int, **how: Any) -> Load | OpenLoad | ReadLoad | None:
    if mode == "open":
        return OpenLoad(server, **how) if tasks else None
    if mode in READS:
        board = Board(Path(how.pop("board")), how.pop("board_tasks"))
        del how["batch"]  # a call is one command
        return ReadLoad(server, tasks=tasks, board=board, **how)
    return Load(server, tasks=tasks, **how)


def _histogram(metric: dict[str, Any]) -> dict[str, Any]:
    return {name: metric[name] for name in ("count", "sum", "max", "quantiles")}


async def serve() -> None:
    """Open the server that the first line describes, and answer requests until they end."""
    lines = requests(trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())))
    assignment = await anext(lines)
    config = Config.from_toml(assignment["config"])
    table = (CapturedTable if assignment["snapshots"] else Table)(assignment["keys"])
    async with craft.open_server(config, table) as server, trio.open_nursery() as nursery:
        member = Member(server, nursery)
        write(ok={"pid": os.getpid()})
        async for request in lines:
            ask: Callable[..., Awaitable[Reply]] = getattr(member, request.pop("do"))
            write(ok=await ask(**request))
        # The harness has what it wanted, or is gone: the data is thrown away, and no graceful end is needed.
        os._exit(0)


if __name__ == "__main__":
    trio.run(serve)
