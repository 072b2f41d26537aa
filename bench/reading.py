"""Readers inside one server, alone or mixed with writes, whose every read is checked against all servers.

All servers of a run share a small file, the board: whoever was answered for a write notes there, in one word
of 8 bytes, which round of its slot that was and at which position. A reader on any server takes such a word
first and reads then: it must find that round or a later one, unless it asked for a stale read.

Invariants
- A word is written after its write was answered, and taken before the read begins.
- A word is one aligned store of 8 bytes: no reader sees half of one.
"""

from __future__ import annotations

import mmap
import random
import time
from array import array
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

from bench.workload import OVERLOADED_PAUSE_S, Source, Table
from craft import Overloaded, Server
from craft.types import Position

READS = ("linearizable", "session", "stale")
"""`session`: at least at the position at which the write was answered that the reader has heard of."""

POSITION_BITS = 40
WORD_BYTES = 8
ROUNDS_MAX = 2 ** (8 * WORD_BYTES - POSITION_BITS)

Query = Callable[[Table], Any]


def pack(round_: int, position: Position) -> int:
    """A word of the board; 0 is that of a slot without an answered write."""
    assert 0 <= round_ < ROUNDS_MAX - 1 and 0 <= position < 2**POSITION_BITS
    return (round_ + 1) << POSITION_BITS | position


def unpack(word: int) -> tuple[int, Position]:
    """The round, -1 where there is none, and the position."""
    return (word >> POSITION_BITS) - 1, word & 2**POSITION_BITS - 1


def is_behind(found: bytes | None, round_: int) -> bool:
    """Does a slot's command, as it was read, come before this round?"""
    return (-1 if found is None else int.from_bytes(found[:4], "big")) < round_


class Board:
    """The words of all servers' slots, in a file that all map. The first to open it makes it."""

    def __init__(self, file: Path, tasks: list[int]) -> None:
        self._slots = [(origin, slot) for origin, own in enumerate(tasks, start=1) for slot in range(own)]
        self._places = {slot: place for place, slot in enumerate(self._slots)}
        with file.open("ab") as made:
            made.truncate(len(self._slots) * WORD_BYTES)
        with file.open("r+b") as opened:
            self._words = memoryview(mmap.mmap(opened.fileno(), 0)).cast("Q")

    def note(self, origin: int, slot: int, word: int) -> None:
        """A write of this slot was answered."""
        self._words[self._places[origin, slot]] = word

    def any(self, rng: random.Random) -> tuple[bytes, int]:
        """The key of some slot, and its word."""
        place = rng.randrange(len(self._slots))
        origin, slot = self._slots[place]
        return origin.to_bytes(1, "big") + slot.to_bytes(3, "big"), self._words[place]


class ReadLoad:
    """Closed-loop clients inside one server, each with one read or write outstanding."""

    def __init__(
        self,
        server: Server[Table],
        *,
        tasks: int,
        size: int,
        seed: int,
        write_share: float,
        board: Board,
    ) -> None:
        self._server = server
        self._board = board
        self._write_share = write_share
        self._tasks = tasks
        self._size = size
        self._seed = seed
        self._stopping = False
        self._ended = trio.Event()
        self.latencies = array("d")
        """Seconds from call to answer, of every read."""
        self.answered = 0
        """Writes."""
        self.overloaded = 0
        self.behind = 0
        """Reads that did not see a write which had been answered before."""
        self.last_answered: list[bytes] = []

    def counts(self) -> dict[str, int]:
        """Nothing arrives here."""
        return {}

    def start(self, nursery: trio.Nursery, kind: str) -> None:
        """Start every client."""
        nursery.start_soon(self._run, kind)

    async def stop(self) -> None:
        """Let every client finish its call and begin no other."""
        self._stopping = True
        await self._ended.wait()

    async def _run(self, kind: str) -> None:
        rng = random.Random(self._seed)
        async with trio.open_nursery() as nursery:
            for slot in range(self._tasks):
                nursery.start_soon(self._client, kind, slot, rng.getrandbits(64))
        self._ended.set()

    async def _client(self, kind: str, slot: int, seed: int) -> None:
        rng, read = random.Random(seed), self._reader(kind)
        origin = self._server.config.server_id
        source = Source(origin=origin, first_slot=slot, slots=1, size=self._size, rng=rng)
        last = await self._write(source, slot)  # there is something to read from the beginning
        while not self._stopping:
            if rng.random() < self._write_share:
                last = await self._write(source, slot) or last
            else:
                await self._read(read, rng)
        self.last_answered += last

    async def _write(self, source: Source, slot: int) -> list[bytes]:
        commands = source.batch()
        try:
            await self._server.propose(commands[0])
        except Overloaded:
            await self._overloaded()
            return []
        self.answered += 1
        round_ = int.from_bytes(commands[0][:4], "big")
        self._board.note(self._server.config.server_id, slot, pack(round_, self._server.position))
        return commands

    async def _read(self, read: Callable[[Query, Position], Awaitable[Any]], rng: random.Random) -> None:
        key, word = self._board.any(rng)
        round_, position = unpack(word)
        started = time.perf_counter()
        try:
            found = await read(lambda table: table.table.get(key), position)
        except Overloaded:
            await self._overloaded()
            return
        self.latencies.append(time.perf_counter() - started)
        self.behind += is_behind(found, round_)

    def _reader(self, kind: str) -> Callable[[Query, Position], Awaitable[Any]]:
        server = self._server

        async def stale(query: Query, _: Position) -> Any:
            return (await server.read_stale(query)).value

        return {
            "linearizable": lambda query, _: server.read(query),
            "session": lambda query, position: server.read(query, at_least=position),
            "stale": stale,
        }[kind]

    async def _overloaded(self) -> None:
        self.overloaded += 1
        await trio.sleep(OVERLOADED_PAUSE_S)
