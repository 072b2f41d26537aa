"""What a run ran on, so that nobody compares figures of two machines without noticing."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import craft

ROOT = Path(__file__).resolve().parent.parent

SYNC_SAMPLES = 200
SYNC_RECORD_BYTES = 128
"""About what a small command costs in the log: an entry of one command and the head of its batch."""

BUSY_LOAD = 0.3
"""Runnable tasks a core before the run begins, above which the machine had other work."""


def sync_seconds(directory: Path, samples: int = SYNC_SAMPLES) -> list[float]:
    """How long this disk takes to append a small record to a file and `fdatasync` it, sample by sample."""
    file = directory / "sync-probe"
    taken = []
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        record = os.urandom(SYNC_RECORD_BYTES)
        for _ in range(samples):
            started = time.perf_counter()
            os.write(descriptor, record)
            os.fdatasync(descriptor)
            taken.append(time.perf_counter() - started)
    finally:
        os.close(descriptor)
        file.unlink()
    return taken


def sync_p50_ms(samples: list[float]) -> float:
    """The median, in milliseconds."""
    return median(samples) * 1000


def file_system(directory: Path) -> str:
    """The type of the file system that holds a directory, or `unknown`."""
    path = directory.resolve()
    best = ("", "unknown")
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return best[1]
    for line in mounts:
        _, mount, kind, *_ = line.split(" ")
        inside = path.is_relative_to(mount.replace("\\040", " "))
        if inside and len(mount) >= len(best[0]):  # of two on one place, the later one hides the earlier
            best = (mount, kind)
    return best[1]


def describe(directory: Path) -> dict[str, Any]:
    """The machine, as plain values."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": _processor(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "file_system": file_system(directory),
        "load_before": os.getloadavg()[0],
    }


def warnings(machine: dict[str, Any]) -> list[str]:
    """What makes the figures of this run doubtful."""
    found = []
    if machine["file_system"] in {"tmpfs", "ramfs"}:
        found.append(
            f"{machine['file_system']} keeps nothing, so syncs are free: name a directory on a disk by --dir"
        )
    if machine["load_before"] > BUSY_LOAD * machine["cores"]:
        found.append(f"the machine was busy before the run (load {machine['load_before']:.1f})")
    return found


def versions() -> dict[str, str]:
    """What took part."""
    return {"craft": craft.__version__, **{name: version(name) for name in ("trio", "rocksdict", "msgpack")}}


def commit() -> str | None:
    """The checkout's commit, with `+changes` where files differ from it; None outside a checkout."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(("git", "-C", str(ROOT), *arguments), capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
