"""Merging once more: entries of all groups' logs, read back, in the very order that they had.

For a subscriber that wants more than memory holds, for `craft log`, and for a backup.

Knows: where it begins (a fold and the groups' cuts there) and the entries that it is given. Must not know:
where they come from.

Invariants
- It is given committed entries only, group by group without a gap. What it hands out is then a part of the
  one merged log, with the very positions, whatever the pieces: `Merger` and `fold` are those of the engine.
- It asks for the group that everyone waits for, so it never holds back more than one piece a group.

Reference: PROTOCOL 3, 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from craft.folding import Fold, fold
from craft.merge import UNBOUNDED, Merger
from craft.ready import Merged
from craft.types import BEGINNING, Cut, Entry, GroupId, Index


class Remerged(NamedTuple):
    """An entry at its place."""

    merged: Merged
    entry: Entry
    digest: bytes
    """Of the merged log up to it."""


class Wanted(NamedTuple):
    """What must be given next, for anything more to come out."""

    group: GroupId
    first_index: Index


class Remerger:
    """Merges from a place on where everything before is folded into `state`."""

    def __init__(self, state: Fold, cuts: Sequence[Cut]) -> None:
        self.state = state
        self._merger = Merger(len(cuts))
        self._merger.closed = [cut.timestamp for cut in cuts]
        self._next: list[Index] = [cut.place.index + 1 for cut in cuts]

    @classmethod
    def from_the_beginning(cls, groups: int) -> Remerger:
        """Of logs of which nothing is compacted."""
        return cls(Fold(), [BEGINNING] * groups)

    @property
    def wanted(self) -> Wanted:
        """The next entries of the group for which all wait."""
        group = self._merger.blocking
        return Wanted(group, self._next[group])

    def first(self, group: GroupId) -> Index:
        """The next index of a group."""
        return self._next[group]

    def take(self, group: GroupId, entries: tuple[Entry, ...]) -> list[Remerged]:
        """Committed entries of a group, from `wanted` on; returns what can be merged now, in order."""
        assert entries and entries[0].index == self._next[group], "entries follow without a gap"
        self._merger.extend(group, entries)
        self._next[group] = entries[-1].index + 1
        return [self._fold(of_group, entry) for _, of_group, entry in self._merger.drain()]

    def close(self, group: GroupId) -> list[Remerged]:
        """There is nothing more of a group, and never will be: nobody waits for it any longer."""
        self._merger.closed[group] = UNBOUNDED
        return [self._fold(of_group, entry) for _, of_group, entry in self._merger.drain()]

    @property
    def ended(self) -> bool:
        """Are all groups closed?"""
        return self._merger.safe == UNBOUNDED

    def _fold(self, group: GroupId, entry: Entry) -> Remerged:
        return Remerged(fold(self.state, group, entry), entry, self.state.digest)
