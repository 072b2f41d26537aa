"""Taking a backup from a running server, any one: once, or on and on.

Knows the operations `log`, `merged`, `snapshots` and `snapshot` of a server's listener.

Invariants
- Only what that server knows committed is taken, and merged here once more: the digest that comes out must be
  the server's, or the backup is refused.
- A round ends with everything synced, and then the manifest: a crash loses a round, and the next run goes on.
- The server is asked for one piece at a time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from craft.archive.files import (
    BASE,
    LOCK,
    MANIFEST,
    LogWriter,
    Manifest,
    read_manifest,
    sync_names,
    write_manifest,
)
from craft.archive.reading import Backup, snapshot_parts
from craft.client import Client
from craft.errors import Compacted, ConfigError, DamagedBackup, RemoteError
from craft.folding import DIGEST_BYTES
from craft.remerging import Remerger
from craft.snapshots import Decoder
from craft.types import Entry, GroupId, Index, decode_entry
from craft.wire.fields import shown


class Archivist:
    """Takes one backup. Made by `begin`."""

    def __init__(self, directory: Path, client: Client, manifest: Manifest, remerger: Remerger) -> None:
        self.manifest = manifest
        self._directory = directory
        self._client = client
        self._remerger = remerger
        self._last = list(manifest.last)
        self._timestamp = manifest.timestamp
        self._writers = [LogWriter(directory, group, last) for group, last in enumerate(self._last)]

    async def round(self) -> int:
        """Take what was applied there by now; returns how many positions that is.

        Raises Compacted where the server has compacted what comes next.
        """
        before = self._remerger.state.merged_position
        upto = (await self._client.status())["applied_position"]
        while self._remerger.state.merged_position < upto:
            group, first = self._remerger.wanted
            self._take(group, await self._committed(group, first))
        position = self._remerger.state.merged_position
        if position > before:
            await self._compare()
            self._finish()
        return position - before

    def _take(self, group: GroupId, entries: tuple[Entry, ...]) -> None:
        self._writers[group].append(entries)
        self._last[group] = entries[-1].index
        for one in self._remerger.take(group, entries):
            self._timestamp = one.merged.timestamp

    async def _committed(self, group: GroupId, first: Index) -> tuple[Entry, ...]:
        answer = await self._client.get("log", [group, first])
        if type(answer) is not tuple or len(answer) != 4 or type(answer[3]) is not tuple:
            raise RemoteError(
                f"an answer to log is {shown(answer)}; allowed is [start, commit, last, records]"
            )
        start, commit, _, records = answer
        if first <= start:
            raise Compacted(self._remerger.state.merged_position, self._remerger.state.merged_position + 1)
        entries = tuple(decode_entry(group, record) for record in records)
        found = tuple(entry for entry in entries if entry.index <= commit)
        if [entry.index for entry in found] != list(range(first, first + len(found))) or not found:
            raise RemoteError(f"group {group}: the server answers with no committed entries from {first} on")
        return found

    async def _compare(self) -> None:
        """The server's digest at our position, where it still remembers it."""
        state = self._remerger.state
        rows: Sequence[dict[str, Any]] = await self._client.merged(after=state.merged_position - 1)
        theirs = next((row["digest"] for row in rows if row["position"] == state.merged_position), None)
        if theirs is not None and theirs != state.digest.hex():
            raise DamagedBackup(
                f"{self._directory}: up to position {state.merged_position} it has another history than the"
                f" server: digest {state.digest.hex()} here, {theirs} there"
            )

    def _finish(self) -> None:
        for writer in self._writers:
            writer.sync()
        sync_names(self._directory)
        state = self._remerger.state
        self.manifest = self.manifest._replace(
            position=state.merged_position,
            timestamp=self._timestamp,
            digest=state.digest.hex(),
            last=tuple(self._last),
        )
        write_manifest(self._directory, self.manifest)


async def begin(directory: Path, client: Client) -> Archivist:
    """Begin a backup in an empty directory, or go on with the one that is there; `alone` in it."""
    if not _has_one(directory):
        await _begin_anew(directory, client)
    backup = Backup(directory)
    manifest = backup.manifest
    if (manifest.cluster_id, manifest.groups) != (client.cluster, client.groups):
        raise ConfigError(
            f"{directory} is a backup of cluster {manifest.cluster_id!r} with {manifest.groups} groups, not"
            f" of {client.cluster!r} with {client.groups}; allowed: a directory for each cluster"
        )
    remerger = backup.remerger()
    for _ in backup.merged(remerger):
        pass  # what is there is read and checked to its end, and known then
    return Archivist(directory, client, manifest, remerger)


def _has_one(directory: Path) -> bool:
    """Is a backup begun there? Raises ConfigError where something else is."""
    directory.mkdir(parents=True, exist_ok=True)
    if read_manifest(directory) is not None:
        return True
    ours = re.compile(rf"log-.*|{re.escape(BASE)}|{MANIFEST}\.new|{LOCK}")
    foreign = [path.name for path in directory.iterdir() if not ours.fullmatch(path.name)]
    if foreign:
        raise ConfigError(
            f"{directory} contains {min(foreign)!r}; allowed: an empty directory, or a backup's"
        )
    return False


async def _begin_anew(directory: Path, client: Client) -> None:
    kept = await client.get("snapshots", None)
    first: tuple[Index, ...] = (0,) * client.groups
    position = timestamp = 0
    digest = bytes(DIGEST_BYTES)
    if kept:
        await _fetch_snapshot(directory / BASE, client, kept[-1])
        decoder = Decoder()
        for _ in snapshot_parts(directory / BASE, decoder):
            pass
        _, position, timestamp, digest, cuts = decoder.finish()
        first = tuple(cut.place.index for cut in cuts)
    begun = (position, timestamp)
    write_manifest(
        directory, Manifest(client.cluster, client.groups, *begun, *begun, digest.hex(), first, first)
    )


async def _fetch_snapshot(path: Path, client: Client, kept: Sequence[int]) -> None:
    position, nonce, size = kept
    with path.open("wb") as file:
        while file.tell() < size:
            data = await client.get("snapshot", [position, nonce, file.tell()])
            if type(data) is not bytes or not data:
                raise RemoteError(f"the server no longer has its snapshot at position {position}: try again")
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
