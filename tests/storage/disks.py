"""The two disks under one handle, with the two ways in which a server's run ends badly."""

from __future__ import annotations

import pathlib
import random
import shutil
from typing import Protocol, cast

from craft.recovery import TAIL_BYTES_MAX
from craft.storage import Identity, Storage
from craft.storage.memory import MemoryStorage
from craft.storage.rocks import RocksStorage
from craft.testing.disk import Crash, SimulatedDisk
from craft.types import (
    Append,
    Configuration,
    Cut,
    Entry,
    EntryKind,
    GroupId,
    HardState,
    Place,
    Recovered,
    Start,
    Write,
    make_entry,
    pack_configuration,
)

FAST_FOLDER = "/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None
"""A file system in memory, where there is one: its syncs cost nothing."""

CLUSTER, SERVER, GROUPS = "orders", 7, 3


class Disk(Protocol):
    """A storage that can be killed. `kill` and `power_cut` restart it and return what it recovers."""

    @property
    def storage(self) -> Storage:
        """The storage of the present run."""

    @property
    def recovered(self) -> Recovered:
        """What the first run recovered."""

    def sync(self) -> None:
        """Sync the storage."""

    def kill(self, behind: tuple[Cut, ...] = ()) -> Recovered:
        """SIGKILL: the kernel lives on and has all that was written."""

    def power_cut(self, behind: tuple[Cut, ...] = ()) -> Recovered:
        """All that was not synced is gone."""

    def close(self) -> None:
        """End the test."""


class MemoryDisk:
    def __init__(self, tail_bytes_max: int) -> None:
        identity = Identity(CLUSTER, SERVER, "0" * 32, GROUPS)
        self.storage = MemoryStorage(identity, tail_bytes_max=tail_bytes_max)
        self.recovered = self.storage.recover()

    def sync(self) -> None:
        self.storage.sync()

    def kill(self, behind: tuple[Cut, ...] = ()) -> Recovered:
        self.storage = self.storage.reopen()
        return self.storage.recover(behind)

    def power_cut(self, behind: tuple[Cut, ...] = ()) -> Recovered:
        self.storage = self.storage.crash()
        return self.storage.recover(behind)

    def close(self) -> None:
        self.storage.close()


class _NothingKept(random.Random):
    """A power cut after which nothing is left that was not synced."""

    def randint(self, a: int, b: int) -> int:
        return a


class SimulatedHandle:
    """The simulated disk, as far as it is a storage."""

    def __init__(self, tail_bytes_max: int) -> None:
        self.disk = SimulatedDisk("0" * 32, GROUPS, tail_bytes_max=tail_bytes_max)
        self.storage = cast("Storage", self.disk)
        self.recovered = self.disk.recover()

    def sync(self) -> None:
        self.disk.sync()

    def kill(self, behind: tuple[Cut, ...] = ()) -> Recovered:
        self.disk.crash(Crash.KILL, random.Random(0))
        return self.disk.recover(behind)

    def power_cut(self, behind: tuple[Cut, ...] = ()) -> Recovered:
        self.disk.crash(Crash.POWER, _NothingKept(0))
        return self.disk.recover(behind)

    def close(self) -> None:
        pass


class RocksDisk:
    """Each restart happens in a copy of the directory: as it is now, or as it was after the last sync."""

    def __init__(self, path: pathlib.Path, tail_bytes_max: int) -> None:
        self._path, self._tail_bytes_max, self._restarts = path, tail_bytes_max, 0
        self.storage, self.recovered = self._open(path / "0", ())
        self._image()

    def _open(self, directory: pathlib.Path, behind: tuple[Cut, ...]) -> tuple[RocksStorage, Recovered]:
        storage = open_rocks(directory, tail_bytes_max=self._tail_bytes_max)
        return storage, storage.recover(behind)

    def _image(self) -> None:
        shutil.rmtree(self._path / "synced", ignore_errors=True)
        shutil.copytree(self._path / str(self._restarts), self._path / "synced")

    def sync(self) -> None:
        self.storage.sync()
        self._image()

    def kill(self, behind: tuple[Cut, ...] = ()) -> Recovered:
        return self._restart_from(self._path / str(self._restarts), behind)

    def power_cut(self, behind: tuple[Cut, ...] = ()) -> Recovered:
        return self._restart_from(self._path / "synced", behind)

    def _restart_from(self, source: pathlib.Path, behind: tuple[Cut, ...]) -> Recovered:
        self._restarts += 1
        target = self._path / str(self._restarts)
        shutil.copytree(source, target)
        self.storage.close()
        self.storage, recovered = self._open(target, behind)
        self._image()
        return recovered

    def close(self) -> None:
        self.storage.close()


def open_rocks(
    directory: pathlib.Path,
    *,
    groups: int = GROUPS,
    tail_bytes_max: int = TAIL_BYTES_MAX,
    boot_id_file: pathlib.Path | None = None,
) -> RocksStorage:
    """Open a directory as the server of these tests."""
    if boot_id_file is None:
        return RocksStorage.open(
            directory, cluster_id=CLUSTER, server_id=SERVER, groups=groups, tail_bytes_max=tail_bytes_max
        )
    return RocksStorage.open(
        directory,
        cluster_id=CLUSTER,
        server_id=SERVER,
        groups=groups,
        tail_bytes_max=tail_bytes_max,
        boot_id_file=boot_id_file,
    )


def command(index: int, *, group: GroupId = 0, term: int = 1, size: int = 100) -> Entry:
    """A command entry whose payload tells it from any other."""
    payload = f"{group}/{index}/{term} ".encode().ljust(size, b"x")
    stamp = term * 1000 + index
    return make_entry(group, index=index, term=term, timestamp=stamp, kind=EntryKind.COMMAND, payload=payload)


def configuration(index: int, voters: set[int], *, group: GroupId = 0, term: int = 1) -> Entry:
    """A configuration entry."""
    payload = pack_configuration(Configuration(frozenset(voters)))
    stamp = term * 1000 + index
    kind = EntryKind.CONFIGURATION
    return make_entry(group, index=index, term=term, timestamp=stamp, kind=kind, payload=payload)


def cut_at(entry: Entry) -> Cut:
    """The cut behind an entry."""
    configured = Configuration(frozenset({1, 2, 3}), disks=((2, "d" * 32),))
    return Cut(Place(entry.term, entry.index), entry.timestamp, configured, Place(1, 1))


def begun(
    cut: Cut, *entries: Entry, keep: bool = True, group: GroupId = 0, state: HardState | None = None
) -> Write:
    """A write that lets one group's log begin behind a cut, and appends."""
    states = () if state is None else ((group, state),)
    appends = (Append(group, 0, entries),) if entries else ()
    return Write(1, appends, states, None, (Start(group, cut, keep),))


def empty(index: int, *, group: GroupId = 0, term: int = 1) -> Entry:
    """An entry that is no command."""
    return make_entry(group, index=index, term=term, timestamp=term * 1000 + index, kind=EntryKind.EMPTY)


def appended(
    *entries: Entry,
    group: GroupId = 0,
    truncate_from: int = 0,
    hard_state: HardState | None = None,
    counter: int | None = None,
) -> Write:
    """A write to one group, by default with the term of its last entry and nothing committed."""
    if hard_state is None:
        hard_state = HardState(entries[-1].term if entries else 1, None, 0)
    return Write(1, (Append(group, truncate_from, entries),), ((group, hard_state),), counter)


def ballot(term: int, vote: int | None, *, commit: int = 0, group: GroupId = 0) -> Write:
    """A write of a hard state only."""
    return Write(1, (), ((group, HardState(term, vote, commit)),), None)
