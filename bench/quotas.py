"""A share of a core for each server of one experiment, by the kernel's control groups, version 1 or 2.

A server is throttled by the scheduler within each period of 10 ms; no process is stopped by a signal. The
groups stand at the top of the hierarchy that has the controller `cpu`, named `craft-bench-<pid>-<start>-<n>`
by the harness's process and when it started.

Invariants
- A group is limited only between `limit` and `lift`: starting up and comparing are not what is measured.
- The groups are removed when the block ends. If the harness is killed, a keeper, which ends with its standard
  input, removes them once the servers have ended; what it could not remove, the next run does (`sweep`).
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.processes import BenchError, Host

MOUNTS = Path("/proc/self/mounts")

PERIOD_US = 10_000
"""Ten times shorter than the kernel's own: a server out of quota is away for a few milliseconds, far less
than a heartbeat, as it would be behind a slower core."""

JOIN = 'echo $$ > "$0" && exec "$@"'
"""The shell puts itself into the group, and becomes the command."""

KEEP = """cat
for _ in $(seq 100); do
    left=
    for group; do rmdir "$group" 2>/dev/null; [ -d "$group" ] && left=yes; done
    [ "$left" ] || exit 0
    sleep 0.1
done"""
"""Wait for the harness's end, then for the servers': a group with a process in it cannot be removed."""

REMOVE_WITHIN_S = 5.0
REMOVE_POLL_S = 0.02

NAME = re.compile(r"craft-bench-(\d+)-(\d+)-\d+")


@dataclass(frozen=True)
class Hierarchy:
    """Where groups with a quota can be made."""

    root: Path
    version: int

    def quota(self, cores: float | None) -> Mapping[str, str]:
        """What to write into a group's files for a quota; None lifts it."""
        if self.version == 2:
            share = "max" if cores is None else str(round(cores * PERIOD_US))
            return {"cpu.max": f"{share} {PERIOD_US}"}
        share = "-1" if cores is None else str(round(cores * PERIOD_US))
        return {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": share}


class Quotas:
    """The groups of one cluster's servers."""

    def __init__(self, hierarchy: Hierarchy, groups: list[Path]) -> None:
        self.hosts = [Host(prefix=("sh", "-c", JOIN, str(group / "cgroup.procs"))) for group in groups]
        self._hierarchy = hierarchy
        self._groups = groups

    def limit(self, cores: float) -> None:
        """From now on each server has so much of a core."""
        self._write(cores)

    def lift(self) -> None:
        """From now on they have what they want again."""
        self._write(None)

    def _write(self, cores: float | None) -> None:
        for group in self._groups:
            for file, text in self._hierarchy.quota(cores).items():
                try:
                    (group / file).write_text(text, encoding="ascii")
                except OSError as error:
                    raise BenchError(f"{group / file} does not take {text!r}: {error.strerror}") from None


def hierarchy(mounts: str) -> Hierarchy | None:
    """The hierarchy with the controller `cpu`, of what `/proc/mounts` says."""
    for line in mounts.splitlines():
        _, place, kind, options, *_ = line.split(" ")
        root = Path(place.replace("\\040", " "))
        if kind == "cgroup" and "cpu" in options.split(","):
            return Hierarchy(root, 1)
        if kind == "cgroup2" and "cpu" in _controllers(root):
            return Hierarchy(root, 2)
    return None


def _controllers(root: Path) -> list[str]:
    """What groups below this one are given."""
    try:
        return (root / "cgroup.subtree_control").read_text(encoding="ascii").split()
    except OSError:
        return []


def found() -> Hierarchy | None:
    """This machine's."""
    try:
        return hierarchy(MOUNTS.read_text(encoding="utf-8"))
    except OSError:
        return None


def missing() -> str | None:
    """What keeps this machine from limiting servers, and what to do about it; None where nothing does."""
    here = found()
    if here is None:
        return (
            "no control groups with the controller cpu: mount cgroup v1's, or write +cpu into"
            " cgroup.subtree_control at the top of cgroup v2"
        )
    if not os.access(here.root, os.W_OK):
        return f"no control group can be made in {here.root}: run as root, where it is mounted writable"
    return None


@contextlib.contextmanager
def quotas(servers: int) -> Iterator[Quotas]:
    """A group for each server, without a limit yet, while the block runs."""
    here = found()
    if here is None:
        raise BenchError(missing() or "no control groups")
    sweep(here)
    owner = f"craft-bench-{os.getpid()}-{started(os.getpid())}"
    groups = [here.root / f"{owner}-{number}" for number in range(1, servers + 1)]
    keeper = _keeper(groups)
    with keeper:  # which closes its standard input, and waits until it has ended
        try:
            for group in groups:
                _make(group)
            yield Quotas(here, groups)
        finally:
            _remove(groups)


def started(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; with the id it names the process. None without one."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]  # field 22; the second is a name, which may hold anything


def sweep(here: Hierarchy) -> list[str]:
    """Remove the groups of harnesses that are dead; their names. What still has a process in it stays."""
    swept = []
    for group in here.root.glob("craft-bench-*"):
        name = NAME.fullmatch(group.name)
        if name is not None and started(int(name[1])) != name[2]:
            with contextlib.suppress(OSError):
                group.rmdir()
                swept.append(group.name)
    return swept


def _keeper(groups: list[Path]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ("sh", "-c", KEEP, "keeper", *map(str, groups)),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # whatever ends the harness must not end it
    )


def _make(group: Path) -> None:
    try:
        group.mkdir()
    except OSError as error:
        raise BenchError(f"the control group {group} cannot be made: {error.strerror}") from None


def _remove(groups: list[Path]) -> None:
    """Remove them; the kernel needs a moment after the last process."""
    until = time.monotonic() + REMOVE_WITHIN_S
    left = [group for group in groups if group.exists()]
    while left and time.monotonic() < until:
        for group in left:
            with contextlib.suppress(OSError):
                group.rmdir()
        left = [group for group in left if group.exists()]
        if left:
            time.sleep(REMOVE_POLL_S)
