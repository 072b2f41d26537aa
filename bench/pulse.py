"""The state machine of what is measured from outside: it notes when each batch was merged.

An ordinary one, given to `craft serve --state-machine bench.pulse:Pulse`; it counts writes as the demo's
does, so that one that took effect twice, or never, is found afterwards.

The instants are those of the machine's monotonic clock, which all processes share, 8 bytes each, in a file
named after the process in the directory that `PULSES` names. A killed process has left all of them behind.
"""

from __future__ import annotations

import itertools
import os
import time
from array import array
from pathlib import Path

from craft import Batch
from craft.cli.demo.machine import Ledger

PULSES = "CRAFT_BENCH_PULSES"
"""The environment's word for the directory."""


class Pulse(Ledger):
    """A ledger of writes, and of when they were applied."""

    def __init__(self) -> None:
        super().__init__()
        self._file = (Path(os.environ[PULSES]) / str(os.getpid())).open("ab", buffering=0)

    def apply_batch(self, batch: Batch) -> list[int]:
        """Note the instant, and count."""
        self._file.write(time.monotonic_ns().to_bytes(8, "little"))
        return super().apply_batch(batch)


def instants(directory: Path, pid: int) -> list[int]:
    """When a process applied its batches, in ns, in order; none where it applied none."""
    try:
        content = (directory / str(pid)).read_bytes()
    except FileNotFoundError:
        return []
    found = array("q")
    found.frombytes(content[: len(content) // 8 * 8])
    return found.tolist()


def longest_gap(pulses: list[int], *, from_ns: int, to_ns: int) -> int:
    """The longest time without a pulse of which some lies between two instants, in ns.

    It counts from the last pulse before: what stalled at `from_ns` may have stalled already. Where none comes
    after, it ends at `to_ns`.
    """
    before = max((one for one in pulses if one <= from_ns), default=from_ns)
    inside = [one for one in pulses if from_ns < one < to_ns]
    after = min((one for one in pulses if one >= to_ns), default=to_ns)
    edges = [before, *inside, after]
    return max(second - first for first, second in itertools.pairwise(edges))
