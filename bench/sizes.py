"""How large the servers of a cluster are: their directories and their processes."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import trio

from bench.processes import Cluster

TABLES = {".log", ".sst", ".blob"}
"""RocksDB's files that grow: written ahead, tables, and values beside their tables."""

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


async def largest_directory(running: Cluster) -> Counter[str]:
    """Bytes on the disk of the largest server's directory, by kind of file."""
    found = await trio.to_thread.run_sync(lambda: [_sizes(one.data_dir) for one in running.configs])
    return max(found, key=lambda one: sum(one.values()))


def largest_memory_mb(running: Cluster) -> float:
    """Resident, of the largest process."""
    return megabytes(max(_resident(one.pid) for one in running.processes))


def most_files(running: Cluster) -> int:
    """Open files, of the process that has most."""
    return max(sum(1 for _ in Path(f"/proc/{one.pid}/fd").iterdir()) for one in running.processes)


def megabytes(size: int) -> float:
    """Of bytes, for people."""
    return round(size / 1e6, 1)


def _sizes(directory: Path | None) -> Counter[str]:
    """Bytes on the disk, of what may change under our eyes, by kind of file."""
    assert directory is not None
    sizes: Counter[str] = Counter()
    for file in directory.rglob("*"):
        try:
            if file.is_file():
                sizes[_kind(file.relative_to(directory))] += file.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return sizes


def _kind(file: Path) -> str:
    """The log database by its files' suffixes, everything else by where it lies."""
    if file.parts[0] == "log":
        return f"log/*{file.suffix}" if file.suffix in TABLES else "log/…"
    return file.parts[0] if len(file.parts) > 1 else "…"


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES
