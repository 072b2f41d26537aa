"""The merged log: one order everywhere, closed timestamps that hold, one state at each position.

Reference: PROTOCOL 3.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any

from craft.ready import Merged
from craft.testing.checkers.base import Checker, Violation
from craft.testing.checkers.ledger import Ledger
from craft.testing.sameness import Sight, same, sight
from craft.testing.workloads import digest
from craft.types import GroupId, Index, Position, ServerId, Timestamp, is_command

if typing.TYPE_CHECKING:
    from craft.testing.server import SimServer
    from craft.testing.world import World

DIGEST_EVERY = 16
"""Positions between two looks at the whole state, where a batch ends there; at the end all are compared."""


def words(merged: Merged) -> str:
    """A merged entry, for people."""
    return (
        f"(timestamp {merged.timestamp}, group {merged.group}, index {merged.index},"
        f" {merged.kind.name.lower()}, {len(merged.requests)} requests)"
    )


class MergedLogsAgree(Checker):
    """The merged logs of two servers are prefixes of one another, whatever was restarted."""

    PROPERTY = "merged logs are prefixes of one another"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._last: dict[ServerId, Position] = {}

    def started(self, server: SimServer) -> None:
        """It begins at position 1 again, or behind its snapshot."""
        self._last[server.id] = server.applied_position

    def restored(self, server: SimServer) -> None:
        """Or behind a peer's."""
        self._last[server.id] = server.applied_position

    def applied(
        self, server: SimServer, entries: Sequence[Merged], _results: Sequence[Sequence[Any] | None]
    ) -> None:
        """Compare with what stands there, position by position."""
        last = self._last[server.id]
        for merged in entries:
            last += 1
            if merged.position != last:
                raise Violation(
                    self.PROPERTY, f"server {server.id} applies position {merged.position}, not {last}"
                )
            first = self._ledger.merged[last - 1]
            if merged is not first and _content(merged) != _content(first):
                raise Violation(
                    self.PROPERTY,
                    f"position {last} is {words(merged)} on server {server.id}, and was {words(first)}",
                )
        self._last[server.id] = last


def _content(merged: Merged) -> tuple[Any, ...]:
    """All but the tokens, which the origin alone has, and remote clients' verdicts, which have a checker."""
    return (*merged[:5], [request.body for request in merged.requests])


class MergedInOrder(Checker):
    """The merged log rises strictly in (timestamp, group) and leaves no committed command entry out."""

    PROPERTY = "merged in the order of (timestamp, group)"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._last: tuple[Timestamp, GroupId] = (-1, -1)
        self._next: dict[GroupId, Index] = {}
        self._position: Position = 0

    def applied(
        self, server: SimServer, entries: Sequence[Merged], _results: Sequence[Sequence[Any] | None]
    ) -> None:
        """Look at positions that nobody has applied before: the others must equal them."""
        for merged in entries:
            if merged.position == self._position + 1:
                self._position = merged.position
                self._check(server, merged)

    def _check(self, server: SimServer, merged: Merged) -> None:
        place = (merged.timestamp, merged.group)
        if place <= self._last:
            raise Violation(
                self.PROPERTY,
                f"position {merged.position} on server {server.id} is {words(merged)}, behind {self._last}",
            )
        self._last = place
        log, first = self._ledger.committed[merged.group], self._next.get(merged.group, 1)
        entry = log[merged.index - 1] if merged.index <= len(log) else None
        if entry is None or (entry.timestamp, entry.kind) != (merged.timestamp, merged.kind):
            raise Violation(
                self.PROPERTY,
                f"position {merged.position} on server {server.id} is {words(merged)}; committed there is"
                f" {entry[:4] if entry is not None else 'nothing'}",
            )
        left_out = [one.index for one in log[first - 1 : merged.index - 1] if is_command(one.kind)]
        if left_out or merged.index < first:
            raise Violation(
                self.PROPERTY,
                f"position {merged.position} on server {server.id} is {words(merged)}; due was index"
                f" {left_out[0] if left_out else first}",
            )
        self._next[merged.group] = merged.index + 1


class ResultsAgree(Checker):
    """The state machine answers the same at the same position on every server."""

    PROPERTY = "equal results at equal positions"

    def __init__(self) -> None:
        self._results: list[Sight] = []

    def applied(
        self, server: SimServer, entries: Sequence[Merged], results: Sequence[Sequence[Any] | None]
    ) -> None:
        """Not the results are kept: a machine may go on with what it returned."""
        for merged, result in zip(entries, results, strict=True):
            if merged.position <= server.applier.ahead.position:
                continue  # it answered before its restart
            seen = sight(result)
            if merged.position > len(self._results):
                self._results.append(seen)
            elif not same(self._results[merged.position - 1], seen):
                raise Violation(
                    self.PROPERTY,
                    f"position {merged.position} gives {seen.text} on server {server.id}, and gave"
                    f" {self._results[merged.position - 1].text}",
                )


class MergedDigestsAgree(Checker):
    """The engine's digest of all that was merged is equal at equal merged positions."""

    PROPERTY = "equal digests at equal merged positions"

    def __init__(self) -> None:
        self._digests: list[bytes | None] = []
        self._last: dict[ServerId, Position] = {}

    def started(self, server: SimServer) -> None:
        """It begins at position 1 again."""
        self._last[server.id] = 0

    def turned(self, server: SimServer) -> None:
        """Compare what was merged in this turn, as far as the engine remembers it."""
        e = server.engine.state
        last, position = self._last[server.id], e.merged_position
        if position == last:
            return
        self._last[server.id] = position
        if len(self._digests) < position:
            self._digests += [None] * (position - len(self._digests))
        for back in range(1, min(position - last, len(e.recent)) + 1):
            self._compare(server, e.recent[-back][0], e.recent[-back][-1])
        self._compare(server, position, e.digest)

    def _compare(self, server: SimServer, position: Position, found: bytes) -> None:
        first = self._digests[position - 1]
        if first is None:
            self._digests[position - 1] = found
        elif first != found:
            raise Violation(
                self.PROPERTY,
                f"merged position {position} has digest {found.hex()} on server {server.id}, and had"
                f" {first.hex()}",
            )


class StatesAgree(Checker):
    """The state machines of all servers are equal at equal applied positions, where they have a digest."""

    PROPERTY = "equal states at equal positions"

    def __init__(self, *, every: int = DIGEST_EVERY) -> None:
        self._every = every
        self._digests: dict[Position, tuple[bytes, ServerId]] = {}

    def applied(
        self, server: SimServer, entries: Sequence[Merged], _results: Sequence[Sequence[Any] | None]
    ) -> None:
        """The machine stands behind the last of the entries now."""
        if entries and entries[-1].position % self._every == 0:
            self._compare(server, entries[-1].position)

    def started(self, server: SimServer) -> None:
        """A snapshot's state is the state there."""
        self._look(server)

    def restored(self, server: SimServer) -> None:
        """Nor may a peer's differ."""
        self._look(server)

    def _look(self, server: SimServer) -> None:
        if server.applied_position:
            self._compare(server, server.applied_position)

    def ended(self, world: World) -> None:
        """Compare all."""
        for _, server in sorted(world.servers.items()):
            self._compare(server, server.applied_position)

    def _compare(self, server: SimServer, position: Position) -> None:
        if server.engine.snapshots.restoring:
            return  # its state is of another position
        found = digest(server.machine)
        if found is None:
            return
        first, where = self._digests.setdefault(position, (found, server.id))
        if first != found:
            raise Violation(
                self.PROPERTY,
                f"at position {position} the state of server {server.id} has digest {found.hex()}, that of"
                f" server {where} had {first.hex()}",
            )


class ClosedTimestampsHold(Checker):
    """A group's closed timestamp is that of an entry committed and durable there; nothing commits below it.

    The second follows from the first and from rising stamps; it is the promise, so it is checked by itself.
    """

    PROPERTY = "closed timestamps are never violated"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._closed: dict[ServerId, list[Timestamp]] = {}
        self._promised: dict[GroupId, tuple[Timestamp, Index, ServerId]] = {}

    def started(self, server: SimServer) -> None:
        """It has closed nothing."""
        self._closed[server.id] = [0] * len(server.engine.state.replicas)

    def turned(self, server: SimServer) -> None:
        """Look at what was committed, and at what was closed."""
        closed, known = server.engine.state.merger.closed, self._closed[server.id]
        for group, entry in self._ledger.fresh:
            stamp, index, by = self._promised.get(group, (0, 0, 0))
            if entry.timestamp <= stamp and entry.index > index:
                raise Violation(
                    self.PROPERTY,
                    f"entry {entry.index} of group {group} with timestamp {entry.timestamp} is committed;"
                    f" server {by} had closed {stamp} with entry {index}",
                )
        if closed != known:
            for group, stamp in enumerate(closed):
                if stamp != known[group]:
                    self._check(server, group, known[group], stamp)
            self._closed[server.id] = closed[:]

    def crashed(self, server: SimServer) -> None:
        """In its last turn, perhaps."""
        self.turned(server)

    def _check(self, server: SimServer, group: GroupId, before: Timestamp, stamp: Timestamp) -> None:
        e = server.engine.state
        index, log = e.cursor[group], self._ledger.committed[group]
        entry = log[index - 1] if 0 < index <= len(log) else None
        durable = _durable_timestamp(server, group, index)
        if stamp < before or entry is None or entry.timestamp != stamp or durable != stamp:
            raise Violation(
                self.PROPERTY,
                f"server {server.id} closes group {group} at {stamp}, before at {before}, with entry {index};"
                f" committed there is {entry[:4] if entry is not None else 'nothing'}, its platter has"
                f" timestamp {durable}",
            )
        if stamp > self._promised.get(group, (0, 0, 0))[0]:
            self._promised[group] = (stamp, index, server.id)


def _durable_timestamp(server: SimServer, group: GroupId, index: Index) -> Timestamp | None:
    """What the platter has at an index; at the log's start, which is durable as well, that of the cut.

    A kept snapshot is durable before the logs begin behind it.
    """
    for info in server.disk.snapshots.kept():
        if info.head.cuts[group].place.index == index:
            return info.head.cuts[group].timestamp
    platter = server.disk.synced.logs[group]
    if index == platter.start_index:
        return platter.start.timestamp
    entry = platter.get(index)
    return entry.timestamp if entry is not None else None
