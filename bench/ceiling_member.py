"""One bare server of `ceiling`: it replicates, syncs, merges and applies, and does nothing else.

It leads one group for as long as it lives. There are no elections, terms, checksums, sessions or limits,
and nothing is recovered: whoever is lost is lost. What is left is what no server of this design can do
without, in as few steps as Python allows: a call is packed once and never looked into before it is applied, a
turn handles all that has arrived, writes once and sends one frame a peer, and one sync at a time runs in a
thread. So it is no design but a ceiling: what craft would reach if its promises cost nothing.

`python -m bench.ceiling_member SETTINGS`, which are JSON. It prints one line of JSON behind its window, and
ends with its standard input.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import deque
from typing import Any, NamedTuple

import msgpack
import trio
from rocksdict import Options, Rdict, WriteBatch

from bench.bulk import SEED
from bench.workload import Source, Table
from craft import Batch
from craft.limits import MIB

HOST = "127.0.0.1"

APPEND, HELD, COMMITTED = range(3)
"""Messages: an entry of the sender's group; how much of one's group it has synced; how much is committed."""

RECEIVE_BYTES = MIB
CONNECT_WITHIN_S = 10.0
CONNECT_EVERY_S = 0.02

WRITE_BUFFER_BYTES = 256 * MIB
"""Nothing is flushed within a run of seconds: the log alone is written."""


class Settings(NamedTuple):
    """What a process is told."""

    me: int
    ports: list[int]
    directory: str
    batch: int
    size: int
    tasks: int
    warmup_s: float
    window_s: float


class Bare:
    """Its state, and a turn's work."""

    def __init__(self, me: int, servers: int, db: Rdict) -> None:
        self.me = me
        self.table = Table("reused")
        self.inbox: list[bytes] = []
        self.outboxes: list[list[Any]] = [[] for _ in range(servers)]
        self.proposed: deque[tuple[bytes, trio.Event]] = deque()
        self.synced: list[int] | None = None
        """How long the logs were that a sync has just covered."""
        self._db = db
        self._logs: list[list[tuple[int, bytes]]] = [[] for _ in range(servers)]
        self._committed, self._merged, self._durable = ([0] * servers for _ in range(3))
        self._held = [0] * servers  # of the log led here, by everyone
        self._answers: dict[int, trio.Event] = {}
        self._demand = 0  # a command of this stamp waits for all groups to be beyond it

    @property
    def lengths(self) -> list[int]:
        """How long the logs are."""
        return list(map(len, self._logs))

    def turn(self) -> bool:
        """Handle all that has come. Was anything written, so that a sync is due?"""
        batch = WriteBatch(raw_mode=True)
        frames, self.inbox = self.inbox, []
        for frame in frames:
            for message in msgpack.unpackb(frame, use_list=False):
                self._take(message, batch)
        self._note_synced()
        self._append(batch)
        writes = len(batch) > 0
        if writes:
            self._db.write(batch)
        self._commit()
        self._merge()
        return writes

    def _take(self, message: tuple[Any, ...], batch: WriteBatch) -> None:
        kind, group, number, *rest = message
        if kind == APPEND:
            self._store(batch, group, number, rest[0])
            if rest[0]:
                self._demand = max(self._demand, number)
        elif kind == HELD:
            self._held[group] = number
        else:
            self._committed[group] = number

    def _store(self, batch: WriteBatch, group: int, stamp: int, payload: bytes) -> None:
        log = self._logs[group]
        log.append((stamp, payload))
        key = group.to_bytes(1, "big") + len(log).to_bytes(8, "big")
        batch.put(key, stamp.to_bytes(8, "big") + payload)

    def _note_synced(self) -> None:
        if self.synced is None:
            return
        for group, length in enumerate(self.synced):
            if group == self.me:
                self._held[group] = length
            elif length > self._durable[group]:
                self.outboxes[group].append((HELD, self.me, length))
        self._durable, self.synced = self.synced, None

    def _append(self, batch: WriteBatch) -> None:
        """What callers proposed, each call an entry; without any an empty one, where somebody waits."""
        log = self._logs[self.me]
        last = log[-1][0] if log else 0
        calls: list[tuple[bytes, trio.Event | None]] = list(self.proposed)
        self.proposed.clear()
        if not calls and self._demand > last:
            calls = [(b"", None)]
        for payload, answer in calls:
            last = max(time.time_ns(), last + 1, 0 if payload else self._demand)
            self._store(batch, self.me, last, payload)
            if answer is not None:
                self._answers[len(log)] = answer
            self._tell((APPEND, self.me, last, payload))

    def _tell(self, message: tuple[Any, ...]) -> None:
        for peer, outbox in enumerate(self.outboxes):
            if peer != self.me:
                outbox.append(message)

    def _commit(self) -> None:
        reached = sorted(self._held)[len(self._held) // 2]
        if reached > self._committed[self.me]:
            self._committed[self.me] = reached
            self._tell((COMMITTED, self.me, reached))

    def _merge(self) -> None:
        known = [min(*pair) for pair in zip(self._committed, self.lengths, strict=True)]
        safe = min(log[count - 1][0] if count else 0 for log, count in zip(self._logs, known, strict=True))
        run = []
        for group, log in enumerate(self._logs):
            while self._merged[group] < known[group] and log[self._merged[group]][0] <= safe:
                stamp, payload = log[self._merged[group]]
                log[self._merged[group]] = (stamp, b"")  # its memory is free
                self._merged[group] += 1
                if payload:
                    run.append((stamp, group, self._merged[group], payload))
        for stamp, group, index, payload in sorted(run):
            self.table.apply_batch(Batch(index, stamp, msgpack.unpackb(payload)))
            if group == self.me:
                self._answers.pop(index).set()


class Process:
    """Its sockets, its thread and its clients."""

    def __init__(self, settings: Settings, db: Rdict) -> None:
        self._settings = settings
        self._db = db
        self._bare = Bare(settings.me, len(settings.ports), db)
        self._wake, self._written = trio.Event(), trio.Event()
        self._unsent = [trio.Event() for _ in settings.ports]
        self._told = False

    async def run(self) -> None:
        """Until standard input ends. Raises OSError where a peer cannot be reached."""
        settings = self._settings
        listeners = await trio.open_tcp_listeners(settings.ports[settings.me], host=HOST)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.serve_listeners, self._receive, listeners)
                for peer, port in enumerate(settings.ports):
                    if peer != settings.me:
                        nursery.start_soon(self._send, peer, await connected(port))
                nursery.start_soon(self._turns)
                nursery.start_soon(self._syncs)
                self._start_clients(nursery)
                await self._measure()
                await trio.to_thread.run_sync(sys.stdin.read)
                nursery.cancel_scope.cancel()
        except* trio.BrokenResourceError:
            if not self._told:
                raise  # else a peer only ended before us

    async def _receive(self, stream: trio.SocketStream) -> None:
        held = b""
        async for data in stream:
            held += data
            while len(held) >= 4 and len(held) >= (end := 4 + int.from_bytes(held[:4], "big")):
                self._bare.inbox.append(held[4:end])
                held = held[end:]
            self._wake.set()

    async def _send(self, peer: int, stream: trio.SocketStream) -> None:
        while True:
            await self._unsent[peer].wait()
            self._unsent[peer] = trio.Event()
            frame = msgpack.packb(self._bare.outboxes[peer])
            self._bare.outboxes[peer] = []
            await stream.send_all(len(frame).to_bytes(4, "big") + frame)

    async def _turns(self) -> None:
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            if self._bare.turn():
                self._written.set()
            for outbox, unsent in zip(self._bare.outboxes, self._unsent, strict=True):
                if outbox:
                    unsent.set()

    async def _syncs(self) -> None:
        while True:
            await self._written.wait()
            self._written = trio.Event()
            lengths = self._bare.lengths
            await trio.to_thread.run_sync(self._db.flush_wal, True)
            self._bare.synced = lengths
            self._wake.set()

    def _start_clients(self, nursery: trio.Nursery) -> None:
        settings, rng = self._settings, random.Random(SEED)
        for task in range(settings.tasks):
            source = Source(
                origin=settings.me + 1,
                first_slot=task * settings.batch,
                slots=settings.batch,
                size=settings.size,
                rng=rng,
            )
            nursery.start_soon(self._client, source)

    async def _client(self, source: Source) -> None:
        while True:
            answer = trio.Event()
            self._bare.proposed.append((msgpack.packb(source.batch()), answer))
            self._wake.set()
            await answer.wait()

    async def _measure(self) -> None:
        await trio.sleep(self._settings.warmup_s)
        applied, began, cpu = self._bare.table.applied, time.perf_counter(), time.process_time()
        await trio.sleep(self._settings.window_s)
        took = time.perf_counter() - began
        figures = {
            "applied_per_second": round((self._bare.table.applied - applied) / took, 1),
            "cores": round((time.process_time() - cpu) / took, 3),
        }
        self._told = True
        print(json.dumps(figures), flush=True)


async def connected(port: int) -> trio.SocketStream:
    """A connection to a process that is perhaps still starting."""
    deadline = trio.current_time() + CONNECT_WITHIN_S
    while True:
        try:
            return await trio.open_tcp_stream(HOST, port)
        except OSError:
            if trio.current_time() > deadline:
                raise
            await trio.sleep(CONNECT_EVERY_S)


def main(arguments: list[str]) -> int:
    """One process."""
    settings = Settings(**json.loads(arguments[0]))
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    db = Rdict(settings.directory, options)
    try:
        trio.run(Process(settings, db).run)
    finally:
        db.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
