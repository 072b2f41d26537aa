"""Servers joined in memory: engines, wire, storage and state machines in one process, in virtual time.

What a turn costs can then be timed part by part, with neither sockets nor threads nor a scheduler around it,
and what a command takes can be counted exactly: the same calls give the same turns, frames and bytes on any
machine. It carries out a `Ready` as the server's shell does (`craft/server/core.py`).

All servers take their turns in rounds of ROUND_NS: what leaves in a round arrives in the next one, and a
write is synced by then. A *beat* is one call (or several) at every server, and the rounds until all of them
are answered.

Invariants
- Nothing but the wall clock's readings in `spent` differs between two runs.
- No Python of this module runs per command.
"""

from __future__ import annotations

import gc
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter_ns
from types import FrameType
from typing import TypeAlias

from bench.workload import Source, Table
from craft.applying import Applier
from craft.engine import Engine
from craft.limits import EngineLimits
from craft.messages import Frame
from craft.ready import Merged, Ready
from craft.server.calls import checked, pack
from craft.storage import Identity, Storage
from craft.storage.memory import MemoryStorage
from craft.storage.rocks import RocksStorage
from craft.types import Instant, Write
from craft.wire import Decoder, decode_frame, encode_frames

MS = 1_000_000
ROUND_NS = 100_000
EPOCH_NS = 1_700_000_000_000_000_000

CLUSTER = "joined"

ROUNDS_MAX = 10_000
"""A second of virtual time: what takes longer is stuck."""

FRAME_BYTES_MAX = 4 * 1024 * 1024

PARTS = ("call", "unpack", "engine", "pack", "write", "sync", "apply")
"""Of a turn, in its order: packing a caller's commands, frames that arrived, the engine, frames that leave,
the storage's batch, its sync, and the state machine (which unpacks the commands)."""

Input: TypeAlias = Callable[[], None]


@contextmanager
def python_calls() -> Iterator[dict[str, int]]:
    """How often Python functions are called meanwhile, and C functions by Python."""
    seen = {"call": 0, "c_call": 0}

    def note(_frame: FrameType, event: str, _argument: object) -> None:
        if event in seen:
            seen[event] += 1

    before = sys.getprofile()
    gc.collect()
    gc.disable()  # whose callbacks may be Python as well
    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(before)
        gc.enable()


class Stuck(Exception):
    """The servers did not get where they had to be: a defect, here or in craft."""


class Node:
    """One server."""

    def __init__(self, joined: Joined, server_id: int, storage: Storage) -> None:
        self.id, self.storage = server_id, storage
        self.inbox: list[Input] = []
        self.decoders = {peer: Decoder(FRAME_BYTES_MAX) for peer in joined.ids}
        self.applier = Applier(Table("reused"))
        self.answered = 0
        self.engine = Engine(
            server_id,
            joined.ids,
            storage.recover(),
            limits=joined.limits,
            rng=random.Random(server_id),
            now=joined.instant(),
            cluster_id=CLUSTER,
        )

    @property
    def table(self) -> Table:
        """Its state machine."""
        machine = self.applier.machine
        assert isinstance(machine, Table)
        return machine


class Joined:
    """All of them, and the time."""

    def __init__(self, servers: int = 3, groups: int = 3, *, directory: Path | None = None) -> None:
        """With a directory, each has a RocksDB in it; else a disk in memory."""
        self.ids = range(1, servers + 1)
        self.limits = EngineLimits()
        self.now_ns = ROUND_NS
        self.counts: Counter[str] = Counter()
        """turns, frames, messages, wire_bytes, writes (each is one sync), entries and log_bytes, of all."""
        self.spent: Counter[str] = Counter()
        """Nanoseconds, part by part, of all servers together."""
        self.nodes = {one: Node(self, one, _storage(one, groups, directory)) for one in self.ids}
        for one, node in self.nodes.items():
            for peer in self.ids:
                if peer != one:
                    node.engine.link_up(peer, self.instant())

    def instant(self) -> Instant:
        """Now; every clock is right."""
        return Instant(self.now_ns, EPOCH_NS + self.now_ns)

    def close(self) -> None:
        """Release the disks."""
        for node in self.nodes.values():
            node.storage.close()

    # -- time -------------------------------------------------------------------------------------

    def round(self) -> None:
        """Whoever has a reason takes a turn, on what left in earlier rounds."""
        self.now_ns += ROUND_NS
        arrived = {}
        for node in self.nodes.values():
            arrived[node.id], node.inbox = node.inbox, []
        for node in self.nodes.values():
            inbox = arrived[node.id]
            if inbox or node.engine.wake_at <= self.now_ns or node.engine.has_more:
                self._turn(node, inbox)

    def run_until(self, condition: Callable[[], bool], what: str) -> int:
        """Rounds until it holds."""
        for number in range(ROUNDS_MAX):
            if condition():
                return number
            self.round()
        raise Stuck(f"{what}: not within {ROUNDS_MAX} rounds")

    def _turn(self, node: Node, inbox: list[Input]) -> None:
        for take in inbox:
            take()
        with self._timed("engine"):
            node.engine.tick(self.instant())
            ready = node.engine.ready(self.instant())
        self.counts["turns"] += 1
        self._carry_out(node, ready)

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = perf_counter_ns()
        yield
        self.spent[part] += perf_counter_ns() - started

    # -- carrying out a Ready ---------------------------------------------------------------------

    def _carry_out(self, node: Node, ready: Ready) -> None:
        assert not (ready.loads or ready.capture or ready.receive or ready.restore), "all of it is in memory"
        for peer, frame in ready.frames.items():
            self._send(node, peer, frame)
        if ready.write is not None:
            self._write(node, ready.write)
        if ready.apply:
            self._apply(node, ready.apply)

    def _send(self, node: Node, peer: int, frame: Frame) -> None:
        with self._timed("pack"):
            encoded = b"".join(encode_frames(frame, FRAME_BYTES_MAX))
        self.counts["frames"] += 1
        self.counts["messages"] += len(frame.messages)
        self.counts["wire_bytes"] += len(encoded)
        receiver = self.nodes[peer]
        receiver.inbox.append(partial(self._receive, receiver, node.id, encoded))

    def _receive(self, node: Node, sender: int, encoded: bytes) -> None:
        with self._timed("unpack"):
            decoder = node.decoders[sender]
            decoder.feed(encoded)
            frames = [decode_frame(payload, groups=len(node.engine.state.replicas)) for payload in decoder]
        with self._timed("engine"):
            for frame in frames:
                node.engine.receive(sender, frame, self.instant())

    def _write(self, node: Node, write: Write) -> None:
        with self._timed("write"):
            node.storage.write(write)
        with self._timed("sync"):
            node.storage.sync()
        self.counts["writes"] += 1
        self.counts["entries"] += sum(len(append.entries) for append in write.appends)
        self.counts["log_bytes"] += sum(entry.size for append in write.appends for entry in append.entries)
        node.inbox.append(partial(self._persisted, node, write.number))

    def _persisted(self, node: Node, number: int) -> None:
        with self._timed("engine"):
            node.engine.persisted(number, self.instant())

    def _apply(self, node: Node, entries: list[Merged]) -> None:
        with self._timed("apply"):
            answers = node.applier.run(entries)
        with self._timed("engine"):
            node.engine.applied(entries[-1].position, self.instant())
        node.answered += len(answers)

    # -- what is done with them -------------------------------------------------------------------

    def settle(self) -> None:
        """Until every server leads its groups and takes calls, and then to just behind a heartbeat."""

        def settled() -> bool:
            leaders = [
                {node.engine.state.leaders[group][1] for node in self.nodes.values()}
                for group in range(len(self.nodes[1].engine.state.replicas))
            ]
            return all(node.engine.session_open for node in self.nodes.values()) and all(
                len(one) == 1 and None not in one for one in leaders
            )

        self.run_until(settled, "leaders and sessions")
        self.calm()

    def calm(self) -> None:
        """Nobody has anything to say for now, and no heartbeat comes soon: what is counted next is exact."""

        def quiet() -> bool:
            soon = self.now_ns + self.limits.heartbeat_interval_ms * MS * 9 // 10
            return all(
                not node.inbox and node.engine.state.next_heartbeat > soon for node in self.nodes.values()
            )

        self.run_until(quiet, "a quiet moment")

    def propose(self, node: Node, commands: list[bytes]) -> None:
        """A caller's `propose_many`, which the next turn takes."""

        def take() -> None:
            with self._timed("call"):
                body = pack(checked(commands))
            with self._timed("engine"):
                node.engine.propose(self, body)

        node.inbox.append(take)

    def beat(self, sources: dict[int, Source], calls: int = 1) -> None:
        """So many calls at once at every server that has a source, and the rounds until all are answered."""
        wanted = {one: self.nodes[one].answered + calls for one in sources}
        for one, source in sources.items():
            for _ in range(calls):
                self.propose(self.nodes[one], source.batch())
        self.run_until(
            lambda: all(self.nodes[one].answered >= count for one, count in wanted.items()), "answers"
        )

    def finish(self) -> None:
        """Until everybody has applied everything; a heartbeat tells who did not wait for it."""

        def even() -> bool:
            states = [node.engine.state for node in self.nodes.values()]
            return (
                len({state.applied_position for state in states}) == 1
                and not any(state.pending for state in states)
                and not any(node.inbox for node in self.nodes.values())
            )

        self.run_until(even, "one position")

    def differences(self, answered: int) -> list[str]:
        """What contradicts that every server applied these many commands, and the same."""
        found = []
        for what, values in (
            ("position", [node.engine.state.applied_position for node in self.nodes.values()]),
            ("digest", [node.engine.state.digest.hex() for node in self.nodes.values()]),
            ("state", [node.table.digest() for node in self.nodes.values()]),
        ):
            if len(set(values)) > 1:
                found.append(f"{what} differs: {values}")
        found += [
            f"server {node.id} applied {node.table.applied} commands; proposed were {answered}"
            for node in self.nodes.values()
            if node.table.applied != answered
        ]
        return found


def _storage(server_id: int, groups: int, directory: Path | None) -> Storage:
    if directory is None:
        return MemoryStorage(Identity(CLUSTER, server_id, f"{server_id:032x}", groups))
    place = directory / f"server-{server_id}"
    return RocksStorage.open(place, cluster_id=CLUSTER, server_id=server_id, groups=groups)


def sources(ids: range, *, batch: int, size: int) -> dict[int, Source]:
    """A caller at each server, with commands that no other has."""
    return {
        one: Source(origin=one, first_slot=0, slots=batch, size=size, rng=random.Random(one)) for one in ids
    }
