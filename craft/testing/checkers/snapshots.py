"""Snapshots: what a server keeps, it can begin from (PROTOCOL 7)."""

from __future__ import annotations

import typing

from craft.testing.checkers.base import Checker, Violation
from craft.types import ServerId, SnapshotInfo, Write

if typing.TYPE_CHECKING:
    from craft.testing.server import SimServer


class NewestSnapshotBegins(Checker):
    """Behind no cut of a server's newest snapshot is anything compacted: else its next start finds a gap."""

    PROPERTY = "a server can begin from its newest snapshot"

    def __init__(self) -> None:
        self._seen: dict[ServerId, tuple[SnapshotInfo, ...]] = {}

    def wrote(self, server: SimServer, write: Write) -> None:
        """Look where logs begin anew."""
        if write.starts:
            self._judge(server)

    def turned(self, server: SimServer) -> None:
        """And where there is another snapshot."""
        kept = server.engine.state.snapshots.kept
        if kept and self._seen.get(server.id) is not kept:
            self._seen[server.id] = kept
            self._judge(server)

    def _judge(self, server: SimServer) -> None:
        e = server.engine.state
        if e.snapshots.unfounded or not e.snapshots.kept:
            return
        newest = e.snapshots.kept[-1]
        for raft, cut in zip(e.replicas, newest.head.cuts, strict=True):
            start = raft.state.log.start.place.index
            if cut.place.index < start:
                raise Violation(
                    self.PROPERTY,
                    f"server {server.id} keeps a snapshot at position {newest.head.position} whose cut in"
                    f" group {raft.state.group} is {cut.place.index}; its log begins behind {start}",
                )


class AnyKeptSnapshotBegins(Checker):
    """Compacting leaves every kept snapshot a beginning: a damaged newest one costs time, not the server.

    (Installing a peer's may not: where a log is discarded for it, what was kept before begins nothing.)
    """

    PROPERTY = "a log is compacted at most to the older of the kept snapshots"

    def wrote(self, server: SimServer, write: Write) -> None:
        """Look at what is compacted."""
        for start in write.starts:
            for info in server.engine.state.snapshots.kept if start.keep else ():
                cut = info.head.cuts[start.group].place.index
                if cut < start.cut.place.index:
                    raise Violation(
                        self.PROPERTY,
                        f"server {server.id} forgets its log of group {start.group} up to"
                        f" {start.cut.place.index}; it keeps a snapshot at position {info.head.position}"
                        f" whose cut there is {cut}",
                    )
