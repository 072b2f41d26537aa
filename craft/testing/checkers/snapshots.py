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
