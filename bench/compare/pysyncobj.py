"""PySyncObj, three processes: a Raft library in Python, as craft is, with one leader and pickled calls."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

import trio

from bench.compare.peer import SERVERS, Driven, Load, Peer, Running, differing, lacking
from bench.compare.programs import POLL_S
from bench.figures import milliseconds, percentile
from bench.loading import evenly
from bench.processes import BenchError, Process, free_ports, together

AGREE_WITHIN_S = 20.0


class _Members(Running):
    generators = 0

    def __init__(self, load: Load, directory: Path, members: list[Process]) -> None:
        self.pids = [one.pid for one in members]
        self.generator_pids = []
        self._load = load
        self._directory = directory
        self._members = members

    async def drive(self, seconds: float) -> Driven:
        """Tasks in every process, each with one call outstanding."""
        files = [self._directory / f"latencies-{one.number}" for one in self._members]
        tasks = evenly(self._load.clients * self._load.pipeline, SERVERS)
        told = await together(
            [
                partial(
                    one.ask, "drive", tasks=tasks[place], size=self._load.size, seconds=seconds,
                    latencies=str(files[place]), patience_s=seconds,
                )
                for place, one in enumerate(self._members)
            ]
        )  # fmt: skip
        for one in told:
            if one["failed"] or one["unanswered"]:
                raise BenchError(f"PySyncObj: {one['failed']} calls failed, unanswered: {one['unanswered']}")
        taken = sorted(one for file in files for one in json.loads(file.read_bytes()))
        return Driven(
            answered=sum(one["answered"] for one in told),
            per_second=sum(one["per_second"] for one in told),
            p50_ms=milliseconds(percentile(taken, 0.5)),
            p99_ms=milliseconds(percentile(taken, 0.99)),
        )

    async def verify(self, answered: int) -> list[str]:
        """Each server has applied all writes, in one order."""
        held: list[dict[str, object]] = []
        with trio.move_on_after(AGREE_WITHIN_S):
            while len({str(one) for one in held}) != 1:
                held = [await one.ask("held") for one in self._members]
                await trio.sleep(POLL_S)
        if len({one["digest"] for one in held}) != 1:
            return [f"the servers differ: {held}"]
        counts = {f"server {number}": one["writes"] for number, one in enumerate(held, start=1)}
        return differing(counts, range(answered, answered + 1))


class PySyncObj(Peer):
    """The library that a Python programmer finds first.

    `batched` is its own default: entries wait for its next round, every `appendEntriesPeriod` (0.1 s) at the
    latest. Callers that wait for each write get a fraction of what they get without, so both are there.
    """

    def __init__(self, name: str, *, batched: bool) -> None:
        self.name = name
        self._batched = batched

    generator = "tasks in the servers (callbacks)"

    def missing(self) -> str | None:
        """It is in the extra."""
        return lacking(modules={"pysyncobj": "craft-consensus[bench]"})

    def version(self) -> str:
        """Of the library."""
        return version("pysyncobj")

    def durability(self) -> tuple[str, str]:
        """As its source has it: `FileJournal.add` writes to a mapping of the file, which it never flushes."""
        return (
            "not synced, majority",
            "a majority has it in a mapped journal file that is not synced: a power cut can lose it",
        )

    @asynccontextmanager
    async def running(self, load: Load, directory: Path) -> AsyncIterator[Running]:
        """Three servers with a journal file each."""
        addresses = [f"127.0.0.1:{port}" for port in free_ports(SERVERS)]
        members: list[Process] = []
        try:
            for number, own in enumerate(addresses, start=1):
                assignment = {
                    "origin": number,
                    "own": own,
                    "others": [one for one in addresses if one != own],
                    "journal": str(directory / f"journal-{number}"),
                    "batched": self._batched,
                }
                log = directory / f"member-{number}.log"
                members.append(await Process.begin("bench.compare.pysyncobj_member", number, assignment, log))
            ready = await together([partial(one.answer, "start") for one in members])
            if not all(one["ready"] for one in ready):
                raise BenchError("PySyncObj's servers did not find a leader")
            yield _Members(load, directory, members)
        finally:
            for one in members:
                await one.kill()
