"""One group's log, read to its end although something is wrong in it: `craft verify` names all of it.

Invariants
- Each record is judged as recovery would, against the last one that could be read.
- A damaged log has thousands of findings; the first are spelled out, the rest is counted.
"""

from __future__ import annotations

from typing import NamedTuple

from craft.errors import DamagedStorage
from craft.recovery import check_record, check_successor
from craft.types import (
    Configuration,
    Cut,
    Entry,
    EntryKind,
    GroupId,
    Index,
    Place,
    Timestamp,
    unpack_configuration,
)

FINDINGS_MAX = 10
"""Of one group's log."""


class GroupReport(NamedTuple):
    """One group's log: behind what it begins, where it ends, and what is in between."""

    group: GroupId
    start: Place
    last: Place
    entries: int
    bytes: int


class LogCheck:
    """Takes a group's records in the order of their keys. `wanted` are places that snapshots name."""

    def __init__(self, group: GroupId, start: Cut, wanted: frozenset[Index]) -> None:
        self.group, self.start = group, start
        self.findings: list[str] = []
        self.left_out = 0
        self._wanted = wanted
        self._places: dict[Index, tuple[Place, Timestamp]] = {start.place.index: start[:2]}
        self._configurations = [(start.configuration_at, start.configuration)]
        self._last, self._timestamp = start.place, start.timestamp
        self._entries = self._bytes = 0

    def take(self, index: Index, record: bytes) -> None:
        """The next record, with the index of its key."""
        self._entries += 1
        self._bytes += len(record)
        if index <= self.start.place.index:
            self._say(f"group {self.group}: entry {index} is there, though compacted")
            return
        try:
            entry = check_record(self.group, index, record)
            check_successor(
                self.group,
                entry,
                index=self._last.index,
                term=self._last.term,
                timestamp=self._timestamp,
            )
        except DamagedStorage as error:
            self._say(str(error))
            # What follows is held to follow it.
            self._last = Place(self._last.term, index)
            return
        self._note(entry)

    def _note(self, entry: Entry) -> None:
        self._last, self._timestamp = Place(entry.term, entry.index), entry.timestamp
        if entry.index in self._wanted:
            self._places[entry.index] = (self._last, entry.timestamp)
        if entry.kind is EntryKind.CONFIGURATION:
            try:
                self._configurations.append((self._last, unpack_configuration(entry.payload)))
            except ValueError as error:
                self._say(f"group {self.group}: entry {entry.index}: {error}")

    def _say(self, finding: str) -> None:
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(finding)
        else:
            self.left_out += 1

    def report(self) -> GroupReport:
        """When all was taken."""
        return GroupReport(self.group, self.start.place, self._last, self._entries, self._bytes)

    def compare(self, cut: Cut) -> str:
        """Does a snapshot's cut stand in this log as it says? Empty if it does, or cannot be told."""
        index = cut.place.index
        if not self.start.place.index <= index <= self._last.index or index not in self._places:
            return ""
        if self._places[index] != cut[:2]:
            place, timestamp = self._places[index]
            return (
                f"group {self.group}: its cut is entry {index} of term {cut.place.term} at {cut.timestamp};"
                f" the log has term {place.term} at {timestamp} there"
            )
        return self._compare_configuration(cut)

    def _compare_configuration(self, cut: Cut) -> str:
        found: tuple[Place, Configuration] = self._configurations[0]
        for at, configuration in self._configurations:
            if at.index <= cut.place.index:
                found = (at, configuration)
        if found[1].voters and found != (cut.configuration_at, cut.configuration):
            return (
                f"group {self.group}: its configuration is {cut.configuration} of entry"
                f" {cut.configuration_at.index}; the log has {found[1]} at entry {found[0].index}"
            )
        return ""
