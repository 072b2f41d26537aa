"""Every file of a server's directory with one flipped byte, at many places each: never wrong data.

`python -m tests.storage.flips` makes directories as a stop, a kill and a power cut leave them (tables, values
apart, log files, side files, two snapshots, a compacted log), flips a byte, and starts. Allowed is what was
written, read to its last byte; or a refusal with an error that says where; or a start as a suspect, when the
end of a log may be missing; or a damaged snapshot that is named and skipped. Whatever a start refuses,
`craft verify` must name as well. Prints a line a file; exit code 1 where anything else happened.
"""

from __future__ import annotations

import argparse
import logging
import pathlib
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from craft.errors import DamagedStorage, StorageFailed, WrongDirectory
from craft.storage.rocks import RocksStorage
from craft.storage.rocks.database import APART_BYTES_MIN
from craft.storage.rocks.verifying import verify
from craft.types import (
    Append,
    Configuration,
    Cut,
    Entry,
    HardState,
    Head,
    Place,
    Recovered,
    SnapshotKind,
    SnapshotPart,
    Start,
    Write,
)
from tests.storage.disks import CLUSTER, FAST_FOLDER, command, configuration, open_rocks

GROUPS = 2
PLACES = 200
ENTRIES = 60
Logs = tuple[tuple[Entry, ...], ...]


def logs_of(size: int) -> Logs:
    """What is written: every other entry of this size."""
    return tuple(
        tuple(
            configuration(index, {1, 2, 7}, group=group)
            if index == 1
            else command(index, group=group, size=size if index % 2 else SMALL_BYTES)
            for index in range(1, ENTRIES + 1)
        )
        for group in range(GROUPS)
    )


SMALL_BYTES = 300
LOGS = logs_of(SMALL_BYTES)
STATE = tuple(SnapshotPart(SnapshotKind.MACHINE, bytes([number]) * 2000) for number in range(5))
OPAQUE = ("LOG", "OPTIONS", "LOCK", "lock")
"""Files that nothing is read from: what RocksDB says for people, the options it had, locks."""


class Truth(NamedTuple):
    """What a start must find, unless it refuses."""

    recovered: Recovered
    snapshots: tuple[Head, ...]
    logs: Logs


class Image(NamedTuple):
    """A directory as the end of a run left it."""

    name: str
    path: pathlib.Path
    truth: Truth


# -- making directories ---------------------------------------------------------------------------


def images(folder: pathlib.Path) -> tuple[Image, ...]:
    """As a stop, a kill, and a power cut (all was synced) leave one; and with values apart."""
    stopped, killed = make(folder, "stopped", LOGS)
    rebooted = shutil.copytree(killed, folder / "rebooted")
    (rebooted / "boot").write_text("another boot\n")
    large = logs_of(APART_BYTES_MIN)
    apart, _ = make(folder, "apart", large)
    assert list(apart.glob("log/*.blob"))
    return (
        image("stopped", stopped, LOGS),
        image("killed", killed, LOGS),
        image("rebooted", rebooted, LOGS),
        image("apart", apart, large),
    )


def make(folder: pathlib.Path, name: str, logs: Logs) -> tuple[pathlib.Path, pathlib.Path]:
    """A directory as a stop leaves it, and as a kill before that."""
    stopped = folder / name
    storage = open_rocks(stopped, groups=GROUPS)
    storage.recover()
    fill(storage, logs)
    killed = shutil.copytree(stopped, folder / f"{name}-killed")
    storage.close()
    return stopped, killed


def image(name: str, path: pathlib.Path, logs: Logs) -> Image:
    """With what a start finds in a copy of it."""
    copy = shutil.copytree(path, path.parent / "truth")
    truth = look(open_rocks(copy, groups=GROUPS), logs)
    shutil.rmtree(copy)
    return Image(name, path, truth)


def fill(storage: RocksStorage, logs: Logs = LOGS) -> None:
    """Logs in tables and in log files, compacted, with snapshots at two places."""
    for first in range(0, ENTRIES, 5):
        appends = tuple(Append(group, 0, log[first : first + 5]) for group, log in enumerate(logs))
        states = tuple((group, HardState(1, 2, first)) for group in range(GROUPS))
        storage.write(Write(1, appends, states, first))
        if first == 30:
            starts = tuple(Start(group, cut_of(group, 10), True) for group in range(GROUPS))
            storage.write(Write(2, (), (), None, starts))
        storage.sync()
        if first in (30, 45):
            cuts = tuple(cut_of(group, first - 10) for group in range(GROUPS))
            storage.snapshots.write(Head(CLUSTER, first * 2, cuts[0].timestamp, b"d" * 16, cuts), STATE)
    storage.remember_peer_disk(2, "a" * 32)


def cut_of(group: int, index: int) -> Cut:
    """The cut behind an entry of these logs."""
    there = LOGS[group][index - 1]
    return Cut(Place(1, index), there.timestamp, Configuration(frozenset({1, 2, 7})), Place(1, 1))


# -- starting -------------------------------------------------------------------------------------


def look(storage: RocksStorage, logs: Logs = LOGS) -> Truth:
    """Start as a server does, read everything, and end."""
    try:
        kept = storage.snapshots.kept()
        for info in kept:
            assert tuple(storage.snapshots.parts(info.id)) == STATE, (
                "a snapshot's parts are not what was written"
            )
        recovered = storage.recover(kept[-1].head.cuts if kept else ())
        suspect = all(found.suspicion for found in recovered.groups)
        assert suspect or storage.peer_disks() == {2: "a" * 32}, "peers' disks are not what was written"
        for group, found in enumerate(recovered.groups):
            first, last = found.start.place.index + 1, found.offset.index + len(found.tail)
            assert suspect or last == ENTRIES, "the end of a log is missing"
            assert found.tail == logs[group][found.offset.index : last], "a tail is not what was written"
            if first <= last:
                read = storage.entries(group, first_index=first, last_index=last, bytes_max=10**9)
                assert read == logs[group][first - 1 : last], "entries are not what was written"
        return Truth(recovered, tuple(info.head for info in kept), logs)
    finally:
        storage.close()


def outcome(directory: pathlib.Path, truth: Truth) -> str:
    """What a start makes of a directory; raises AssertionError for wrong data."""
    try:
        found = look(open_rocks(directory, groups=GROUPS), truth.logs)
    except (DamagedStorage, WrongDirectory, StorageFailed) as error:
        assert names(str(error), directory), f"the error does not say where: {error}"
        return type(error).__name__
    if found == truth:
        return "right"
    assert set(found.snapshots) <= set(truth.snapshots), "a snapshot is not what was written"
    for ours, theirs in zip(found.recovered.groups, truth.recovered.groups, strict=True):
        assert ours.hard_state[:2] == theirs.hard_state[:2], "a term or vote is not what was written"
    if all(ours.suspicion for ours in found.recovered.groups):
        return "suspect"
    for ours, theirs in zip(found.recovered.groups, truth.recovered.groups, strict=True):
        assert (ours.start, ours.configurations) == (theirs.start, theirs.configurations)
        assert not ours.suspicion
    assert found.recovered.counter == truth.recovered.counter
    assert len(found.snapshots) < len(truth.snapshots)
    return "snapshot skipped"


def names(error: str, directory: pathlib.Path) -> bool:
    """Does an error name the directory or a file in it that is there?"""
    return str(directory) in error and "/judged" not in error


def verdicts_agree(directory: pathlib.Path, told: str, sound: bool) -> bool:
    """Whatever a start refuses, `verify` names."""
    return not sound or told in {"right", "snapshot skipped", "suspect"}


# -- the campaign ---------------------------------------------------------------------------------


def places(size: int, count: int) -> list[int]:
    """The beginning, the end, and evenly between."""
    return sorted({0, size - 1, *(size * number // count for number in range(count))}) if size else []


def flipped(image: Image, count: int, folder: pathlib.Path) -> Iterator[tuple[str, int, pathlib.Path]]:
    """One directory after another, with one byte changed in each; the next one takes its place."""
    for path in sorted(path for path in image.path.rglob("*") if path.is_file()):
        name = str(path.relative_to(image.path))
        for offset in places(path.stat().st_size, 2 if path.name.startswith(OPAQUE) else count):
            directory = shutil.copytree(image.path, folder / "flipped")
            target = directory / name
            data = bytearray(target.read_bytes())
            data[offset] ^= 0xFF if offset % 2 else 0x01 << offset % 8
            target.write_bytes(data)
            yield name, offset, directory
            shutil.rmtree(directory)


def campaign(image: Image, count: int, folder: pathlib.Path) -> tuple[dict[str, Counter[str]], list[str]]:
    """Outcomes by file, and what must not be."""
    found: dict[str, Counter[str]] = {}
    wrong: list[str] = []
    for name, offset, directory in flipped(image, count, folder):
        tally = found.setdefault(name, Counter())
        try:
            sound = verify(directory).sound
            told = outcome(directory, image.truth)
            assert verdicts_agree(directory, told, sound), f"{told}, and verify finds nothing"
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not be
            told = "WRONG"
            wrong.append(f"{image.name}: {name} byte {offset}: {type(error).__name__}: {error}")
        tally[told] += 1
    return found, wrong


def main(arguments: list[str]) -> int:
    """The full run."""
    parser = argparse.ArgumentParser(prog="python -m tests.storage.flips", description=__doc__)
    parser.add_argument("--places", type=int, default=PLACES, help=f"in each file (default: {PLACES})")
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    failed = 0
    with tempfile.TemporaryDirectory(dir=FAST_FOLDER, prefix="craft-flips-") as made:
        folder = pathlib.Path(made)
        for image in images(folder):
            found, wrong = campaign(image, options.places, folder)
            for name, tally in found.items():
                print(f"{image.name:9} {name:52}", *(f"{told} {n}" for told, n in sorted(tally.items())))
            print(*wrong, sep="\n", flush=True)
            failed += len(wrong)
    print(f"{failed} of them must not be" if failed else "never wrong data")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
