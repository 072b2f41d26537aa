"""A whole data directory, read to its last byte without changing it: what `craft verify` tells.

A start refuses at the first thing that is wrong, and need not read what a snapshot covers; here everything is
read, and all that is wrong is named, with its file and place.

Invariants
- The directory is locked meanwhile, and is afterwards as it was: RocksDB changes what it opens, so it opens a
  copy.
- Whatever a start would refuse is an error here.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

from rocksdict import Rdict

from craft.errors import DamagedSnapshot, DamagedStorage, WrongDirectory
from craft.recovery import Judgement, judge
from craft.storage import Identity
from craft.storage.rocks import files, layout
from craft.storage.rocks.database import (
    WRITE_BUFFER_BYTES,
    RefusedError,
    open_database,
    read_contents,
    reading,
    scan,
    scan_kind,
)
from craft.storage.rocks.directory import (
    BOOT_ID_FILE,
    IDENTITY_FILE,
    Directory,
    pack_identity,
    read_boot_id,
    standing_log,
    unpack_identity,
)
from craft.storage.rocks.logcheck import GroupReport, LogCheck
from craft.storage.rocks.opening import Settings, SideFiles, gather
from craft.storage.rocks.wal import strange_stretch
from craft.storage.snapshots import DAMAGED, DirectoryFiles, Snapshots, id_of
from craft.types import BEGINNING, Cut, GroupId, SnapshotInfo

ERROR, WARNING = "error", "warning"


class Finding(NamedTuple):
    """Something to know. An error: a start refuses it, or data is lost. A warning: it costs something."""

    level: str
    file: str
    message: str


class SnapshotReport(NamedTuple):
    """One whole snapshot."""

    file: str
    position: int
    timestamp: int
    bytes: int


class Report(NamedTuple):
    """All that there is to know."""

    identity: Identity | None
    groups: tuple[GroupReport, ...]
    snapshots: tuple[SnapshotReport, ...]
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Is nothing wrong?"""
        return not any(finding.level == ERROR for finding in self.findings)


def verify(path: pathlib.Path) -> Report:
    """Check a directory that no server uses. Raises WrongDirectory where there is none, or it is in use."""
    if not (path / IDENTITY_FILE).is_file():
        raise WrongDirectory(f"{path} is no server's data directory: it has no file {IDENTITY_FILE!r}")
    directory = Directory(path)
    try:
        return _Verification(directory).run()
    finally:
        files.remove_tree(directory.looked_at)
        directory.close()


class _Verification:
    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._log = standing_log(directory.path)
        self._findings: list[Finding] = []
        self._groups: list[GroupReport] = []
        self._snapshots: dict[str, SnapshotInfo] = {}

    def run(self) -> Report:
        identity = self._identity()
        if identity is not None:
            self._check_snapshots(identity)
            self._check_small_files()
            self._check_log(identity)
        snapshots = tuple(
            SnapshotReport(file, info.head.position, info.head.timestamp, info.size)
            for file, info in self._snapshots.items()
        )
        return Report(identity, tuple(self._groups), snapshots, tuple(self._findings))

    def _say(self, level: str, file: str, message: object) -> None:
        # What was read was a copy; what is wrong is the original.
        text = str(message).replace(str(self._directory.looked_at), str(self._log))
        finding = Finding(level, file, text)
        if finding not in self._findings:
            self._findings.append(finding)

    @contextmanager
    def _naming(self, file: str) -> Iterator[None]:
        """What is damaged in here is an error of this file."""
        try:
            yield
        except (DamagedStorage, DamagedSnapshot, WrongDirectory, RefusedError) as error:
            self._say(ERROR, file, error)

    def _identity(self) -> Identity | None:
        file = self._directory.path / IDENTITY_FILE
        try:
            return unpack_identity(file.read_bytes(), file)
        except (DamagedStorage, WrongDirectory) as error:
            self._say(ERROR, IDENTITY_FILE, error)
            return None

    # -- snapshots and small files ------------------------------------------------------------------

    def _check_snapshots(self, identity: Identity) -> None:
        path = self._directory.snapshots
        if not path.is_dir():
            return
        opened = DirectoryFiles(path)
        store = Snapshots(opened, cluster_id=identity.cluster_id, groups=identity.groups)
        for name in opened.names():
            file = f"{path.name}/{name}"
            if name.endswith(DAMAGED):
                self._say(WARNING, file, "an earlier start found it damaged and put it aside")
            snapshot_id = id_of(name)
            if snapshot_id is not None:
                with self._naming(file):
                    self._snapshots[file] = store.check(name, snapshot_id)

    def _check_small_files(self) -> None:
        directory = self._directory
        for file in (directory.synced_file, directory.ballots_file):
            if not file.exists():
                self._say(ERROR, file.name, "it is missing")
        mark = directory.suspect_mark()
        if mark:
            self._say(WARNING, directory.suspect_file.name, f"marked suspect: {mark}")

    # -- the log database ---------------------------------------------------------------------------

    def _check_log(self, identity: Identity) -> None:
        directory = self._directory
        if not self._log.is_dir():
            self._say(ERROR, "log", "the log database is missing")
            return
        files.remove_tree(directory.looked_at)
        files.copy_database(self._log, directory.looked_at)
        with self._naming("log"):
            db, refusal = self._open()
            with closing(db):
                self._judge(db, identity, refusal)
                self._read_logs(db, identity)

    def _open(self) -> tuple[Rdict, str]:
        """The copy, and why it does not open cleanly."""
        refusal = strange_stretch(self._log)
        if not refusal:
            try:
                return open_database(self._directory.looked_at, strict=True), ""
            except RefusedError as error:
                refusal = str(error)
        self._say(WARNING, "log", f"it does not open cleanly: {refusal}")
        return open_database(self._directory.looked_at, strict=False), refusal

    def _judge(self, db: Rdict, identity: Identity, refusal: str) -> None:
        """The verdict of a start that reads everything, with what the side files say."""
        directory = self._directory
        if not (directory.synced_file.exists() and directory.ballots_file.exists()):
            return
        with self._naming("log"), closing(SideFiles(directory, identity.groups)) as side:
            for file, slots in ((directory.synced_file, side.synced), (directory.ballots_file, side.ballots)):
                self._check_slots(file.name, slots.damaged_slots())
            contents = read_contents(db, identity.groups, tail_bytes_max=0)
            if contents.identity != pack_identity(identity):
                self._say(
                    ERROR, "log", f"it was made for {contents.identity!r}, its directory for {identity}"
                )
            settings = Settings(identity, read_boot_id(BOOT_ID_FILE), 0, WRITE_BUFFER_BYTES)
            verdict = judge(gather(directory, side, settings, contents, error=refusal))
            if verdict.judgement is Judgement.DAMAGED:
                self._say(ERROR, "log", verdict.reason)
            elif verdict.judgement is Judgement.SUSPECT:
                self._say(WARNING, "log", f"a start makes the server suspect: {verdict.reason}")
            for group, reason in sorted(contents.suspicions.items()):
                self._say(WARNING, "log", f"group {group} is suspect: {reason}")

    def _check_slots(self, file: str, damaged: list[int]) -> None:
        if len(damaged) == 2:
            self._say(ERROR, file, "neither slot is valid")
        elif damaged:
            self._say(WARNING, file, f"slot {damaged[0]} is torn or damaged; the other one counts")

    def _read_logs(self, db: Rdict, identity: Identity) -> None:
        """Every record of every group, whatever the verdict; then what snapshots say of them."""
        starts: dict[GroupId, Cut] = {}
        with reading("reading the log database"):
            self._check_keys(db, identity)
            for key, value in scan_kind(db, layout.START):
                with self._naming("log"):
                    starts[int.from_bytes(key[1:], "big")] = layout.start_of(key, value)
        for group in range(identity.groups):
            cuts = [info.head.cuts[group] for info in self._snapshots.values()]
            wanted = frozenset(cut.place.index for cut in cuts)
            check = LogCheck(group, starts.get(group, BEGINNING), wanted)
            with self._naming("log"), reading(f"reading the entries of group {group}"):
                for key, record in scan(db, layout.entry_key(group, 0), layout.entries_end(group)):
                    check.take(layout.entry_index(key), record)
            self._take(check)

    def _take(self, check: LogCheck) -> None:
        for message in check.findings:
            self._say(ERROR, "log", message)
        if check.left_out:
            self._say(ERROR, "log", f"group {check.group}: {check.left_out} more entries are wrong")
        self._groups.append(check.report())
        reached = not check.start.place.index
        for file, info in self._snapshots.items():
            cut = info.head.cuts[check.group]
            difference = check.compare(cut)
            if difference:
                self._say(ERROR, file, difference)
            reached = reached or cut.place.index >= check.start.place.index
        if not reached:
            self._say(
                WARNING,
                "log",
                f"group {check.group} begins behind entry {check.start.place.index}, and no usable snapshot"
                " reaches that: the server applies nothing until a peer gives it one",
            )

    def _check_keys(self, db: Rdict, identity: Identity) -> None:
        """Keys that no start looks at."""
        for first, end in (
            (b"", bytes([layout.ENTRY])),
            (layout.entries_end(identity.groups - 1), bytes([layout.HARD_STATE])),
            (layout.KIND_END[layout.SUSPICION], b"\xff" * 16),
        ):
            stray = next(iter(scan(db, first, end)), None)
            if stray is not None:
                self._say(ERROR, "log", f"a key that is none of ours: {stray[0].hex()}")
