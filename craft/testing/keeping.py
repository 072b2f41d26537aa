"""A simulated state machine that keeps its data on the simulated disk, as a `Durable` one does on a real one.

Invariants
- What a batch changed and that it was applied are written in one piece; the platter has that piece some time
  later, or never.
- A restore that is cut short leaves data that say so.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import msgpack

from craft.state_machine import Batch, LastApplied
from craft.testing.disk import SimulatedDisk


class Keeping:
    """Another state machine, whose data a crash leaves as they are, and a power cut as they once were."""

    def __init__(self, machine: Any, disk: SimulatedDisk, *, synced: float) -> None:
        """`synced`: the share of its writes behind which the platter has them."""
        self._machine, self._disk, self._synced = machine, disk, synced
        self._rng = random.Random(f"{disk.disk_id} {disk.synced.batch} machine")
        self._last = LastApplied()
        if disk.machine is not None:
            self._take(iter(disk.machine))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_machine":  # copies and pickles look for what is not there
            raise AttributeError(name)
        return getattr(self._machine, name)

    def last_applied(self) -> LastApplied:
        """As `Durable` wants it."""
        return self._last

    def apply_batch(self, batch: Batch) -> Sequence[Any] | None:
        """And write what it changed."""
        results: Sequence[Any] | None = self._machine.apply_batch(batch)
        self._last = LastApplied(batch.position, batch.timestamp)
        self._keep(synced=self._rng.random() < self._synced)
        return results

    def snapshot(self) -> Callable[[], Iterator[bytes]]:
        """How far the data go is part of them."""
        head, chunks = msgpack.packb(self._last), self._machine.snapshot()
        return lambda: chain([head], chunks())

    def restore(self, chunks: Iterable[bytes]) -> None:
        """First of all the data that were there count no more."""
        self._disk.keep_machine(None, synced=True)
        self._take(iter(chunks))
        self._keep(synced=True)

    def _take(self, chunks: Iterator[bytes]) -> None:
        self._last = LastApplied(*msgpack.unpackb(next(chunks)))
        self._machine.restore(chunks)

    def _keep(self, *, synced: bool) -> None:
        self._disk.keep_machine(tuple(self.snapshot()()), synced=synced)
