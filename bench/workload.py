"""What is proposed, and what it does: unique commands, a dict as the state machine, tasks that make the load.

A command is `round (4 bytes) · origin (1) · slot (3) · random payload`, big-endian. The origin is the server
that proposes it, the slot its place in that server's load, the round counts up: the first 8 bytes differ for
every command of a run. The payload is made once a slot, so a client's work a command is joining two strings.

Invariants
- The load never proposes a command twice (what craft retries inside is its own affair, and must not show).
- The state machine costs no Python a command: it must not be what is measured.
- Digests are taken after the load, never beside it.
"""

from __future__ import annotations

import hashlib
import operator
import random
import time
from array import array
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from typing import Any, TypeAlias

import msgpack
import trio

from craft import Batch, Overloaded, Server

Propose: TypeAlias = Callable[[bytes], Awaitable[Any]]

KEY_BYTES = 8
"""Round, origin and slot: the least size of a command."""

SLOTS_MAX = 2**24
"""Slots that three bytes tell apart: tasks times batch, a server."""

ORIGINS_MAX = 2**8

OVERLOADED_PAUSE_S = 0.005
"""How long a refused client waits before it tries again with a new command."""

DIGEST_CHUNK = 10_000

SNAPSHOT_COMMANDS = 256
"""In one piece of a snapshot: with the largest commands that these experiments use it is a quarter of what a
piece may be."""

KEYS = {"reused": slice(4, KEY_BYTES), "unique": slice(0, KEY_BYTES)}
"""Where a command's key stands. `reused`: origin and slot, so that each round overwrites the one before and
memory stays bounded. `unique`: a key for every command of the run, about 250 bytes each on every server."""


class Table:
    """The state machine: a dict from a command's key to the command."""

    def __init__(self, keys: str) -> None:
        self.key_of: Callable[[bytes], bytes] = operator.itemgetter(KEYS[keys])
        self.table: dict[bytes, bytes] = {}
        self.applied = 0

    def apply_batch(self, batch: Batch) -> None:
        """Store every command under its key, in order. No results: `propose` returns None."""
        commands = batch.commands
        self.table.update(zip(map(self.key_of, commands), commands, strict=True))
        self.applied += len(commands)

    def digest(self) -> str:
        """SHA-256 of the content in the dict's order, which is that of first insertion: the merged order."""
        content = hashlib.sha256()
        values = iter(self.table.values())
        while chunk := b"".join(islice(values, DIGEST_CHUNK)):
            content.update(chunk)
        return content.hexdigest()

    def lacking(self, commands: Iterable[bytes]) -> int:
        """How many of these are not what their key holds."""
        return sum(self.table.get(self.key_of(command)) != command for command in commands)


class CapturedTable(Table):
    """The same, which can be captured and restored: snapshots are taken of it, and logs compacted."""

    def snapshot(self) -> Callable[[], Iterator[bytes]]:
        """A copy of the dict; its commands are shared."""
        values, applied = list(self.table.values()), self.applied

        def chunks() -> Iterator[bytes]:
            yield msgpack.packb(applied)
            for first in range(0, len(values), SNAPSHOT_COMMANDS):
                yield msgpack.packb(values[first : first + SNAPSHOT_COMMANDS])

        return chunks

    def restore(self, chunks: Iterable[bytes]) -> None:
        """The dict of a snapshot, in its order."""
        rest = iter(chunks)
        self.applied = msgpack.unpackb(next(rest))
        commands = chain.from_iterable(map(msgpack.unpackb, rest))
        self.table = {self.key_of(command): command for command in commands}


class Source:
    """Unique commands for one task: those of a run of slots, anew in every round.

    With a `batch` that is a part of the slots, one part after the other.
    """

    def __init__(
        self,
        *,
        origin: int,
        first_slot: int,
        slots: int,
        size: int,
        rng: random.Random,
        batch: int | None = None,
    ) -> None:
        assert 0 < origin < ORIGINS_MAX and first_slot + slots <= SLOTS_MAX and size >= KEY_BYTES
        assert batch is None or slots % batch == 0
        self._tails = [
            origin.to_bytes(1, "big") + slot.to_bytes(3, "big") + rng.randbytes(size - KEY_BYTES)
            for slot in range(first_slot, first_slot + slots)
        ]
        self._parts = 1 if batch is None else slots // batch
        self._calls = 0

    def batch(self) -> list[bytes]:
        """The commands of the next round, or of the next part of it."""
        round_, part = divmod(self._calls, self._parts)
        self._calls += 1
        head = round_.to_bytes(4, "big")
        tails = self._tails
        if self._parts > 1:
            size = len(tails) // self._parts
            tails = tails[part * size : (part + 1) * size]
        return [head + tail for tail in tails]


class Load:
    """Closed-loop clients inside one server: each has one call outstanding, and goes on when answered."""

    def __init__(
        self,
        server: Server[Table],
        *,
        tasks: int,
        batch: int,
        size: int,
        seed: int,
        slots: int | None = None,
    ) -> None:
        rng, slots = random.Random(seed), slots or batch
        self._server = server
        self._batch = batch
        self._sources = [
            Source(
                origin=server.config.server_id,
                first_slot=task * slots,
                slots=slots,
                size=size,
                rng=rng,
                batch=batch,
            )
            for task in range(tasks)
        ]
        self._stopping = False
        self._running = 0
        self._idle = trio.Event()
        self.latencies = array("d")
        """Seconds from call to answer, of every answered call since the start, in the answers' order."""
        self.overloaded = 0
        self.behind = 0
        self.last_answered: list[bytes] = []
        """Each task's last answered commands, once it has ended."""

    @property
    def answered(self) -> int:
        """Commands answered as applied to their caller since the start."""
        return len(self.latencies) * self._batch

    def counts(self) -> dict[str, int]:
        """Nothing arrives here: a client that waits does not propose."""
        return {}

    def start(self, nursery: trio.Nursery, mode: str) -> None:
        """Start every client.

        `mode` is `bulk` (propose_many), `awaited` (propose), or `committed` (propose at that level).
        """
        client = {"bulk": self._bulk, "awaited": self._awaited, "committed": self._committed}[mode]
        for source in self._sources:
            nursery.start_soon(client, source)
        self._running = len(self._sources)

    async def stop(self) -> None:
        """Let every client finish its call and begin no other."""
        self._stopping = True
        if self._running:
            await self._idle.wait()

    async def _bulk(self, source: Source) -> None:
        propose_many, now, last = self._server.propose_many, time.perf_counter, list[bytes]()
        while not self._stopping:
            commands = source.batch()
            started = now()
            try:
                await propose_many(commands)
            except Overloaded:
                await self._overloaded()
                continue
            self.latencies.append(now() - started)
            last = commands
        self._ended(last)

    async def _committed(self, source: Source) -> None:
        await self._awaited(source, partial(self._server.propose, level="committed"))

    async def _awaited(self, source: Source, propose: Propose | None = None) -> None:
        propose, now, last = propose or self._server.propose, time.perf_counter, list[bytes]()
        while not self._stopping:
            commands = source.batch()  # of one
            started = now()
            try:
                await propose(commands[0])
            except Overloaded:
                await self._overloaded()
                continue
            self.latencies.append(now() - started)
            last = commands
        self._ended(last)

    async def _overloaded(self) -> None:
        self.overloaded += 1
        await trio.sleep(OVERLOADED_PAUSE_S)

    def _ended(self, last: list[bytes]) -> None:
        self.last_answered += last
        self._running -= 1
        if not self._running:
            self._idle.set()
