"""What is compared: a system that can be started, loaded, asked how many writes it holds, and stopped.

All get the same load: so many connections, spread over the servers, each with one write outstanding (or as
many as `pipeline` says), all of one size. What differs is said beside the figures: what an answer promises,
and which program makes the load.
"""

from __future__ import annotations

import os
import resource
import shutil
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.experiment import Figures, Progress
from bench.figures import ratio

SERVERS = 3
"""What people run; of the systems that are replicated."""

SYNCED_MAJORITY = (
    "synced, majority",
    "a majority has it in its log, synced; and it is applied where it was asked",
)
"""What an answer of several systems means."""

DRIVES = 2
"""The warm-up, and what is measured."""

SYSTEM_PATHS = ("/usr/sbin", "/sbin")
"""Where packages put servers, and where a user's PATH often does not lead."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What every system gets."""

    clients: int
    """Connections, or tasks in the servers' processes where the system is a library."""

    pipeline: int
    """Writes outstanding on each connection."""

    size: int
    """Of a value, in bytes."""

    warmup_s: float
    window_s: float


@dataclass(frozen=True, kw_only=True)
class Driven:
    """What came of driving the load for a while."""

    answered: int
    """Writes answered in the whole drive."""

    per_second: float
    p50_ms: float | None
    p99_ms: float | None


class Running(ABC):
    """The running servers of one system."""

    pids: list[int]
    """Of the servers."""

    generator_pids: list[int]
    """Of load generators that stay; those that come and go are counted when they are gone."""

    generators: int = SERVERS
    """How many single-threaded programs make the load at once; 0: it is made in the servers' processes."""

    @abstractmethod
    async def drive(self, seconds: float) -> Driven:
        """Load for about so long; afterwards nothing is outstanding that counts as answered."""

    @abstractmethod
    async def verify(self, answered: int) -> list[str]:
        """What contradicts that these writes, of all drives together, are held, alike by every server."""


class Peer(ABC):
    """One system."""

    name: str
    generator: str
    """Which program makes the load."""

    @abstractmethod
    def missing(self) -> str | None:
        """How to install what is not there; None where all is."""

    @abstractmethod
    def version(self) -> str:
        """Of the servers, where nothing is missing."""

    @abstractmethod
    def durability(self) -> tuple[str, str]:
        """What an answered write has survived: in three words, and in a sentence."""

    @abstractmethod
    def running(self, load: Load, directory: Path) -> AbstractAsyncContextManager[Running]:
        """Servers that take writes, while the block runs; afterwards nothing of them is left but files."""


# -- what is installed -----------------------------------------------------------------------------


def program(name: str) -> str | None:
    """Where a program is."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), *SYSTEM_PATHS)))


def lacking(*, programs: dict[str, str] | None = None, modules: dict[str, str] | None = None) -> str | None:
    """How to install what is not there; of a program or module its package. None where all is."""
    found = [
        f"{name} is missing: apt-get install {package}"
        for name, package in (programs or {}).items()
        if program(name) is None
    ]
    found += [
        f"{name} is missing: pip install '{package}'"
        for name, package in (modules or {}).items()
        if find_spec(name) is None
    ]
    return "; ".join(found) or None


# -- one run ---------------------------------------------------------------------------------------


def cpu_seconds(pids: list[int]) -> float:
    """What these processes have used so far, all threads."""
    ticks = 0
    for pid in pids:
        # After the name, which is in brackets and may hold anything: state is field 3, utime 14, stime 15.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def ended_children_cpu_seconds() -> float:
    """What the processes have used that this one started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


async def measured(
    peer: Peer, load: Load, directory: Path, progress: Progress, *, plant: bool = False
) -> tuple[Figures, list[str]]:
    """Start it, warm it up, measure it, count its writes, stop it.

    `plant` counts more writes than were answered, by one more than may have been on their way unanswered.
    """
    planted = (1 + DRIVES * load.clients * load.pipeline) * plant
    async with peer.running(load, directory) as running:
        progress.stage(f"{peer.name}: warming up for {load.warmup_s:g} s")
        warm = await running.drive(load.warmup_s)
        progress.stage(f"{peer.name}: measuring for {load.window_s:g} s")
        servers, staying, ended = (
            cpu_seconds(running.pids),
            cpu_seconds(running.generator_pids),
            ended_children_cpu_seconds(),
        )
        driven = await running.drive(load.window_s)
        servers = cpu_seconds(running.pids) - servers
        generators = cpu_seconds(running.generator_pids) - staying + ended_children_cpu_seconds() - ended
        progress.stage(f"{peer.name}: counting its writes")
        failures = await running.verify(warm.answered + driven.answered + planted)
        if not driven.answered:
            failures.append("nothing was answered")
    taken_s = driven.answered / driven.per_second if driven.answered else load.window_s
    return {
        "writes_per_second": round(driven.per_second, 1),
        "p50_ms": driven.p50_ms,
        "p99_ms": driven.p99_ms,
        "answered": warm.answered + driven.answered,
        "cpu_seconds_per_1000_writes": ratio(servers * 1000, driven.answered, 4),
        "generator_cores": ratio(generators / running.generators, taken_s) if running.generators else None,
    }, failures


def differing(counts: dict[str, Any], expected: range) -> list[str]:
    """What contradicts that each of these servers holds a number of writes in this range."""
    answered = expected.start
    return [
        f"{name} holds {count:,} writes; callers were answered {answered:,}"
        for name, count in counts.items()
        if count not in expected
    ]
