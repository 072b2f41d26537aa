"""As `tests.storage.flips`, with a whole server on top: it serves what was written, or says why it does not.

`python -m tests.storage.served` runs a cluster of one server, stops it, and starts it again on copies of
its directory with one flipped byte each. Allowed: every command is there, in its order; the server ends
with an error that says where; or it waits as a suspect (alone, it finds nobody to clear it).
"""

from __future__ import annotations

import argparse
import logging
import pathlib
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import trio

import craft
from tests.storage.disks import FAST_FOLDER
from tests.storage.flips import OPAQUE, names, places

PLACES = 200
COMMANDS = [b"command %d " % number + bytes(100) for number in range(200)]
WAIT_S = 20
"""For a server that is not ready: nothing is concluded from time but that it still waits."""

QUICK = craft.EngineLimits(heartbeat_interval_ms=5, election_timeout_ms_min=20, election_timeout_ms_max=40)


class Commands:
    """A state machine that is the list of its commands."""

    def __init__(self) -> None:
        self.applied: list[bytes] = []

    def apply_batch(self, batch: craft.Batch) -> Sequence[Any] | None:
        """Remember them."""
        self.applied += list(batch)
        return None


def config(directory: pathlib.Path) -> craft.Config:
    """One server, on this directory."""
    servers = {1: "127.0.0.1:7401"}
    return craft.Config(
        cluster="flips", server_id=1, servers=servers, groups=2, data_dir=directory, engine=QUICK
    )


async def fill(directory: pathlib.Path) -> None:
    """Write all commands, in two runs: the first one's are in tables then."""
    for half in (COMMANDS[:100], COMMANDS[100:]):
        transport = craft.MemoryNetwork().transport(1)
        async with craft.open_server(config(directory), Commands(), transport=transport) as server:
            await server.wait_ready()
            for command in half:
                await server.propose(command)


async def serve(directory: pathlib.Path) -> str:
    """Start on a directory, and say what came of it; raises AssertionError for wrong data."""
    told = "WRONG: it is not ready and does not say why"
    try:
        with trio.move_on_after(WAIT_S):
            transport = craft.MemoryNetwork().transport(1)
            async with craft.open_server(config(directory), Commands(), transport=transport) as server:
                while not server.status()["ready"]:
                    if any(raft.state.suspicion for raft in server.engine.state.replicas):
                        return "suspect"
                    await trio.sleep(0.002)
                applied = await server.read(lambda machine: list(machine.applied))
                assert applied == COMMANDS, f"{len(applied)} commands, not those that were written"
                told = "right"
    except (craft.DamagedStorage, craft.WrongDirectory, craft.StorageFailed) as error:
        assert names(str(error), directory), f"the error does not say where: {error}"
        return type(error).__name__
    return told


def flipped(image: pathlib.Path, count: int, folder: pathlib.Path) -> Iterator[tuple[str, int, pathlib.Path]]:
    """One directory after another, with one byte changed in each."""
    for path in sorted(path for path in image.rglob("*") if path.is_file()):
        name = str(path.relative_to(image))
        for offset in places(path.stat().st_size, 2 if path.name.startswith(OPAQUE) else count):
            directory = shutil.copytree(image, folder / "flipped")
            data = bytearray((directory / name).read_bytes())
            data[offset] ^= 0xFF if offset % 2 else 0x01 << offset % 8
            (directory / name).write_bytes(data)
            yield name, offset, directory
            shutil.rmtree(directory)


async def campaign(folder: pathlib.Path, count: int) -> tuple[dict[str, Counter[str]], list[str]]:
    """Outcomes by file, and what must not be."""
    await fill(folder / "image")
    found: dict[str, Counter[str]] = {}
    wrong: list[str] = []
    for name, offset, directory in flipped(folder / "image", count, folder):
        try:
            told = await serve(directory)
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not be
            told = f"WRONG: {type(error).__name__}: {error}"
        if told.startswith("WRONG"):
            wrong.append(f"{name} byte {offset}: {told}")
        found.setdefault(name, Counter())[told] += 1
    return found, wrong


def main(arguments: list[str]) -> int:
    """The full run."""
    parser = argparse.ArgumentParser(prog="python -m tests.storage.served", description=__doc__)
    parser.add_argument("--places", type=int, default=PLACES, help=f"in each file (default: {PLACES})")
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(dir=FAST_FOLDER, prefix="craft-served-") as made:
        found, wrong = trio.run(campaign, pathlib.Path(made), options.places)
    for name, tally in found.items():
        print(f"{name:40}", *(f"{told} {number}" for told, number in sorted(tally.items())))
    print(*wrong, sep="\n")
    print(f"{len(wrong)} of them must not be" if wrong else "never wrong data")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
