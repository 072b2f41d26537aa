"""What is left when a majority is gone for good: the merged log of the survivors, and what it may lack.

Knows stopped servers' directories. Must not know: how they were lost.

Invariants
- Of each group the log that ends at the greatest (term, index) is taken, whole. It holds everything that any
  survivor knows committed: what ends in the same term is the longer copy of one leader's log, and what ends
  in a later term comes from a leader that held whatever was committed before (Raft 5.4.3). So what any
  survivor has merged and applied is kept, at its positions.
- Behind that it holds what may or may not have been committed, and it is merged as if it had been: nobody can
  know, and a command that was answered is more than one that was not.
- Nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from craft.engine.resuming import resume
from craft.errors import ConfigError
from craft.remerging import Remerged, Remerger
from craft.storage.rocks.peeking import Peeked, StoppedServer
from craft.types import Entry, GroupId, Index, Place, Position, ServerId, Timestamp

PIECE_ENTRIES = 64
"""Read of one group before the merge asks for another."""


class Best(NamedTuple):
    """A group's log, on the survivor that has most of it."""

    server_id: ServerId
    last: Place
    timestamp: Timestamp
    committed: Index
    """Up to here some survivor's disk says so."""


class Inventory(NamedTuple):
    """What can be said before anything is done."""

    best: tuple[Best, ...]
    certain: Position
    """Up to here the merged log is as every server had it, by what the survivors' disks say. (They may have
    known more: what is committed is written down a little later.)"""
    certain_timestamp: Timestamp
    position: Position
    timestamp: Timestamp
    digest: bytes


class Survivors:
    """Stopped servers of one cluster. Raises ConfigError where they are not."""

    def __init__(self, stopped: Sequence[StoppedServer]) -> None:
        assert stopped
        self.stopped = tuple(stopped)
        _check(self.stopped)
        self.cluster_id = stopped[0].identity.cluster_id
        self.groups = stopped[0].groups
        self.base = self._find_base()
        self._best = [self._find_best(group) for group in range(self.groups)]

    def _find_base(self) -> Peeked | None:
        """The newest snapshot of any survivor, where logs are compacted; None: they are whole."""
        if not any(one.start(group).place.index for one in self.stopped for group in range(self.groups)):
            return None
        found = [snapshot for one in self.stopped for snapshot in one.snapshots()]
        if not found:
            raise ConfigError(
                f"{self.stopped[0].path}: logs are compacted, and no survivor has a whole snapshot; allowed:"
                " a backup, by `craft restore`"
            )
        return max(found, key=lambda one: one.head.position)

    def _find_best(self, group: GroupId) -> tuple[StoppedServer, Best]:
        found = []
        for one in self.stopped:
            last, start = one.last(group), one.start(group)
            place = start.place if last is None else Place(last.term, last.index)
            found.append((place, start.timestamp if last is None else last.timestamp, one))
        place, timestamp, owner = max(found, key=lambda each: each[0])
        committed = max(one.hard_state(group).commit for one in self.stopped)
        return owner, Best(owner.identity.server_id, place, timestamp, min(committed, place.index))

    def merged(self) -> Iterator[tuple[Remerged, bool]]:
        """The merged log, to its end; whether each is certain, as is every one before it."""
        remerger = Remerger.from_the_beginning(self.groups)
        if self.base is not None:
            remerger = resume(self.base.head, self.base.parts())
        logs = [self._pieces(group, remerger.first(group)) for group in range(self.groups)]
        certain = True
        while not remerger.ended:
            group = remerger.wanted.group
            piece = next(logs[group], ())
            out = remerger.take(group, piece) if piece else remerger.close(group)
            # What comes out behind what is not known committed, or because a log ends here, might have been
            # preceded by something else.
            certain = certain and bool(piece) and piece[-1].index <= self._best[group][1].committed
            for one in out:
                yield one, certain

    def _pieces(self, group: GroupId, first: Index) -> Iterator[tuple[Entry, ...]]:
        owner, best = self._best[group]
        piece: list[Entry] = []
        for entry in owner.entries(group, first, best.last.index):
            piece.append(entry)
            # A piece ends where what is known committed does: only that closes a group for certain.
            if len(piece) >= PIECE_ENTRIES or entry.index >= best.committed:
                yield tuple(piece)
                piece = []
        if piece:
            yield tuple(piece)

    def inventory(self) -> Inventory:
        """Read everything once, and say what there is."""
        position, timestamp, digest = (0, 0, bytes(16)) if self.base is None else self.base.head[1:4]
        certain, certain_timestamp = position, timestamp
        for one, known in self.merged():
            position, timestamp, digest = one.merged.position, one.merged.timestamp, one.digest
            if known:
                certain, certain_timestamp = position, timestamp
        best = tuple(best for _, best in self._best)
        return Inventory(best, certain, certain_timestamp, position, timestamp, digest)


def _check(stopped: Sequence[StoppedServer]) -> None:
    first = stopped[0]
    ids: dict[ServerId, StoppedServer] = {}
    for one in stopped:
        identity = one.identity
        if (identity.cluster_id, identity.groups) != (first.identity.cluster_id, first.groups):
            raise ConfigError(
                f"{one.path} is of cluster {identity.cluster_id!r} with {identity.groups} groups, and"
                f" {first.path} of {first.identity.cluster_id!r} with {first.groups}; allowed: servers of one"
            )
        other = ids.setdefault(identity.server_id, one)
        if other is not one:
            raise ConfigError(f"{one.path} and {other.path} are both of server {identity.server_id}")
