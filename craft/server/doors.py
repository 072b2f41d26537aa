"""Whose disk is let in under which id (PROTOCOL 8), and telling the engine who was.

Invariants
- A disk that the wanted set names is the only one under its id. Where it names none, the first that is met
  under the id is remembered, durably, and no other is let in under it.
- Servers that were restored to different states never meet: nothing else compares what they began with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from craft.storage import Storage, origin_of
from craft.types import ServerId


class Doors:
    """What handshakes ask, from both directions."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._met = dict(storage.peer_disks())
        self._named: dict[ServerId, str] = {}
        self.on_met: Callable[[ServerId, str], None] = _nobody_listens

    def name(self, disks: Mapping[ServerId, str]) -> None:
        """The wanted set names these disks."""
        self._named = {server: disk for server, disk in disks.items() if disk}

    def check(self, server_id: ServerId, disk_id: str) -> str | None:
        """Why this disk is not let in under this id, or None: it is."""
        ours, theirs = origin_of(self._storage.identity.disk_id), origin_of(disk_id)
        if ours and theirs and ours != theirs:
            return (
                f"server {server_id} was restored from another backup than this one, or to another position"
                f" (disks {disk_id} and {self._storage.identity.disk_id}): they would answer differently for"
                " ever. Restore all servers from the same backup, to the same position"
            )
        known = self._named.get(server_id) or self._first(server_id, disk_id)
        if known == disk_id:
            self.on_met(server_id, disk_id)
            return None
        return (
            f"server {server_id} comes with disk {disk_id}, but disk {known} is known under that id: its"
            " directory was wiped or replaced, and what it acknowledged may be gone. To let it come back as a"
            f" new one: craft members add {server_id} ADDRESS --disk {disk_id}"
        )

    def _first(self, server_id: ServerId, disk_id: str) -> str:
        if server_id not in self._met:
            self._storage.remember_peer_disk(server_id, disk_id)
            self._met[server_id] = disk_id
        return self._met[server_id]


def _nobody_listens(_server: ServerId, _disk: str) -> None:
    """The server is not made yet."""
