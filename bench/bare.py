"""What the disk alone would allow: bare processes, as many as servers, that append and sync the same bytes.

Each does nothing but append a batch to a plain file and `fdatasync` it, all of them at once on the servers'
file system, while the servers are idle. A batch is as large as a server's writes between two syncs were, and
every server's log holds every command: so the bytes that such a process syncs a second, by the log bytes of a
command, are the commands a second that a cluster could reach which cost nothing but its disks.

It comes behind the load, since only then it is known how large batches became; in two rounds, so that a disk
that changes its mind is seen.

A process is `python -m bench.bare FILE BYTES SECONDS INSTANT`: it begins at that instant of the machine's
monotonic clock, and prints `bytes seconds`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import trio

from bench.experiment import Figures, Progress, seconds
from bench.figures import Measured, counted, ratio
from craft.limits import MIB

ROOT = Path(__file__).resolve().parent.parent

ROUNDS = 2
START_IN_S = 0.5
"""Time for the processes to start, before they all begin."""

FILE_BYTES_MAX = 512 * MIB
"""Enough for any disk in a second or two; then a round ends before its time."""


class Work(NamedTuple):
    """What a server wrote, on the mean over the servers: what the bare processes repeat."""

    batch_bytes: int
    """Of log, between two syncs."""

    command_bytes: float
    """Of log, for each command."""


def work_of(measured: Sequence[Measured]) -> Work | None:
    """From the readings of the servers; None where nothing was written or applied within the window."""
    written, syncs, applied = (
        sum(counted(one, metric) for one in measured)
        for metric in ("craft_written_bytes_total", "craft_sync_seconds", "craft_commands_applied_total")
    )
    if not (written and syncs and applied):
        return None
    return Work(batch_bytes=max(1, round(written / syncs)), command_bytes=written / applied)


def append_and_sync(file: Path, batch_bytes: int, for_s: float) -> tuple[int, float]:
    """Bytes that were appended and synced, batch by batch, and the seconds that took. The file goes."""
    batch = os.urandom(batch_bytes)  # which no file system can compress
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    try:
        started = now = time.perf_counter()
        done = 0
        while now < started + for_s and done < FILE_BYTES_MAX:
            left = memoryview(batch)
            while left:
                left = left[os.write(descriptor, left) :]
            os.fdatasync(descriptor)
            done += batch_bytes
            now = time.perf_counter()
        return done, now - started
    finally:
        os.close(descriptor)
        file.unlink()


async def _round(directory: Path, processes: int, batch_bytes: int, for_s: float) -> list[float]:
    """Bytes a second, process by process."""
    begin = time.monotonic() + START_IN_S
    rates = [0.0] * processes

    async def one(number: int) -> None:
        work = (str(directory / f"bare-{number}"), str(batch_bytes), str(for_s), str(begin))
        done = await trio.run_process(
            [sys.executable, "-m", "bench.bare", *work], capture_stdout=True, env=environment()
        )
        size, took = done.stdout.split()
        rates[number] = float(size) / float(took)

    async with trio.open_nursery() as nursery:
        for number in range(processes):
            nursery.start_soon(one, number)
    return rates


def environment() -> dict[str, str]:
    """That of a process that imports what this one does, wherever it is started."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def add_bare_option(parser: argparse.ArgumentParser) -> None:
    """For how long."""
    parser.add_argument(
        "--bare",
        type=seconds(),
        default=1.0,
        metavar="S",
        help=f"after the load let bare processes append and sync the same bytes, {ROUNDS} times S seconds;"
        " 0: do not (default: 1)",
    )


async def beside(
    directory: Path,
    measured: Sequence[Measured],
    applied_per_second: float,
    for_s: float,
    progress: Progress,
) -> Figures:
    """What the bare processes reach, and how much of it the servers did; None where it is not known."""
    work = work_of(measured)
    if work is None or not for_s:
        return {"bare_per_second": None, "bare_ratio": None, "bare": None}
    progress.stage(f"{len(measured)} bare processes append and sync {work.batch_bytes} bytes at a time")
    rounds = [await _round(directory, len(measured), work.batch_bytes, for_s) for _ in range(ROUNDS)]
    reached = [mean(rates) / work.command_bytes for rates in rounds]
    rate = mean(reached)
    return {
        "bare_per_second": round(rate, 1),
        "bare_ratio": ratio(applied_per_second, rate),
        "bare": {
            "batch_bytes": work.batch_bytes,
            "log_bytes_per_command": round(work.command_bytes, 3),
            "seconds": for_s,
            "rounds_per_second": [round(one, 1) for one in reached],
            "syncs_per_second": round(mean(map(mean, rounds)) / work.batch_bytes, 1),
        },
    }


def shown(figures: Figures) -> list[str]:
    """A line for people, where it was measured."""
    bare = figures["bare"]
    if bare is None:
        return []
    rounds = ", ".join(f"{one:,.0f}" for one in bare["rounds_per_second"])
    line = (
        f"bare         {figures['bare_per_second']:,.0f} commands a second ({rounds}), the same"
        f" {bare['batch_bytes']:,} bytes at a time; applied is {figures['bare_ratio']:.0%} of that"
    )
    return [line]


def main(arguments: list[str]) -> int:
    """One bare process."""
    file, batch_bytes, for_s, begin = arguments
    time.sleep(max(0.0, float(begin) - time.monotonic()))
    done, took = append_and_sync(Path(file), int(batch_bytes), float(for_s))
    print(done, took)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
