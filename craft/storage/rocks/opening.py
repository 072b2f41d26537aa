"""From a directory as a crash left it to a log database that may be used, or to an error that says why not.

The judging is `craft.recovery.judge`; here its facts are gathered and its verdict is carried out. A log that
RocksDB refuses is judged on a copy, so a directory found damaged stays as it was found.
"""

from __future__ import annotations

import pathlib
from typing import NamedTuple

from rocksdict import Rdict

from craft.errors import DamagedStorage, WrongDirectory
from craft.recovery import Facts, Judgement, Verdict, judge
from craft.storage import Identity
from craft.storage.rocks import files, layout
from craft.storage.rocks.database import Contents, RefusedError, open_database, read_contents
from craft.storage.rocks.directory import Directory, pack_identity
from craft.storage.rocks.wal import strange_stretch
from craft.types import Cut


class Settings(NamedTuple):
    """What recovery needs to know besides the directory."""

    identity: Identity
    boot_id: str | None
    tail_bytes_max: int
    write_buffer_bytes: int
    behind: tuple[Cut, ...] = ()  # a usable snapshot's cuts: what the logs hold below is not read


class SideFiles:
    """The two files that are overwritten after each sync."""

    def __init__(self, directory: Directory, groups: int) -> None:
        _ensure(directory.synced_file, b"")
        _ensure(directory.ballots_file, b"\0" * layout.ballots_size(groups))
        self._files: list[files.TwoSlotFile] = []
        try:
            self.synced = self._open(directory.synced_file, 0)
            self.ballots = self._open(directory.ballots_file, layout.ballots_size(groups))
        except BaseException:
            self.close()
            raise
        synced, ballots = self.synced.load(), self.ballots.load()
        self.synced_number = synced[0] if synced and synced[0] else None
        self.ballots_number = ballots[0] if ballots and ballots[0] else None
        self.found_ballots = layout.unpack_ballots(ballots[1]) if ballots and ballots[0] else None

    def _open(self, path: pathlib.Path, payload_bytes: int) -> files.TwoSlotFile:
        opened = files.TwoSlotFile(path, payload_bytes)
        self._files.append(opened)
        return opened

    def close(self) -> None:
        """Close both; may be called again."""
        while self._files:
            self._files.pop().close()


def _ensure(path: pathlib.Path, payload: bytes) -> None:
    """Make a missing file anew with number 0, which says "nothing is known"."""
    if not path.exists():
        files.TwoSlotFile.create(path, 0, payload)


class Opened(NamedTuple):
    """A log database that may be used."""

    db: Rdict
    contents: Contents


def open_and_judge(directory: Directory, side: SideFiles, settings: Settings) -> Opened:
    """Open the log, judge it and carry out the verdict; raises if it may not be used."""
    try:
        return _open_and_judge(directory, side, settings)
    except DamagedStorage as error:
        # What was read may have been a copy; what is damaged is the original.
        text = str(error).replace(str(directory.judged), str(directory.log))
        named = text if str(directory.path) in text else f"{directory.log}: {text}"
        raise DamagedStorage(named) from error


def _open_and_judge(directory: Directory, side: SideFiles, settings: Settings) -> Opened:
    directory.settle()
    db, error = _open_strictly(directory, settings)
    if db is None:
        return _judge_copy(directory, side, settings, error)
    try:
        contents = _read(db, settings)
        verdict = judge(gather(directory, side, settings, contents, error=""))
        _refuse_if_damaged(directory, verdict)
        _mark_if_suspect(directory, side, contents, verdict)
    except BaseException:
        db.close()
        raise
    return Opened(db, contents)


def _open_strictly(directory: Directory, settings: Settings) -> tuple[Rdict | None, str]:
    """The log, or why it does not open with absolute consistency."""
    strange = strange_stretch(directory.log)
    if strange:
        return None, strange
    try:
        return open_database(directory.log, strict=True, write_buffer_bytes=settings.write_buffer_bytes), ""
    except RefusedError as error:
        return None, str(error)


def _judge_copy(directory: Directory, side: SideFiles, settings: Settings, error: str) -> Opened:
    """Read a refused log on a copy, up to its first damaged record; it may then take the log's place."""
    files.copy_database(directory.log, directory.judged)
    try:
        contents, verdict = _read_and_judge(directory, side, settings, error)
        _refuse_if_damaged(directory, verdict)
    except DamagedStorage:
        files.remove_tree(directory.judged)
        raise
    # Before the repaired log is used, which opens cleanly the next time (attack 13).
    _mark_if_suspect(directory, side, contents, verdict)
    directory.exchange()
    db = open_database(directory.log, strict=True, write_buffer_bytes=settings.write_buffer_bytes)
    return Opened(db, contents)


def _read_and_judge(
    directory: Directory, side: SideFiles, settings: Settings, error: str
) -> tuple[Contents, Verdict]:
    try:
        db = open_database(directory.judged, strict=False, write_buffer_bytes=settings.write_buffer_bytes)
    except RefusedError as refused:
        reason = f"the log database cannot be read at all: {refused}"
        raise DamagedStorage(f"{directory.path}: {reason}") from refused
    try:
        contents = _read(db, settings)
    finally:
        db.close()
    return contents, judge(gather(directory, side, settings, contents, error=error))


def _read(db: Rdict, settings: Settings) -> Contents:
    groups, tail_bytes_max = settings.identity.groups, settings.tail_bytes_max
    contents = read_contents(db, groups, tail_bytes_max=tail_bytes_max, behind=settings.behind)
    if contents.identity != pack_identity(settings.identity):
        raise WrongDirectory(
            f"the log database was made for {contents.identity!r}, its directory for {settings.identity}"
        )
    return contents


def gather(
    directory: Directory, side: SideFiles, settings: Settings, contents: Contents, *, error: str
) -> Facts:
    """What the verdict is reached from."""
    return Facts(
        opened_clean=not error,
        error=error,
        readable=True,
        ring=contents.ring,
        synced_number=side.synced_number,
        ballots_number=side.ballots_number,
        same_boot=settings.boot_id is not None and settings.boot_id == directory.remembered_boot(),
        suspect_mark=directory.suspect_mark(),
        groups=contents.facts(side.found_ballots),
    )


def _refuse_if_damaged(directory: Directory, verdict: Verdict) -> None:
    if verdict.judgement is Judgement.DAMAGED:
        raise DamagedStorage(
            f"{directory.path}: {verdict.reason}. It had been synced, so others may count on it: this server"
            " does not start from this directory. The others go on without it while they are a majority"
        )


def _mark_if_suspect(directory: Directory, side: SideFiles, contents: Contents, verdict: Verdict) -> None:
    """Mark the directory, so that no later start forgets it: whoever uses it stores that with every group."""
    if verdict.judgement is not Judgement.SUSPECT:
        return
    if not directory.suspect_mark():
        directory.mark_suspect(verdict.reason)
    if side.synced_number is None:
        side.synced.store(max(contents.ring), sync=True)
