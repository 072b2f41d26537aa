"""Leaderless quorum reads: from any server, linearizable, with no leader, no lease and no clock.

Knows: the reports of one round at a time, and the targets that completed rounds wait for. Must not know:
logs, sockets.

Invariants
- A read that arrives after a round was sent takes the next round; each round has a fresh id, so a report from
  before a read counts for nothing. One that answers an earlier attempt for the very same reads does count: it
  was made after they arrived, and where round trips are longer than attempts there is no other.
- A round completes when, for every group, the *latest configuration named by the reader's own log or by any
  report* has its majority among those who reported (both, while joint) and are no suspects: who may have
  lost entries may not know the latest. A majority of the reader's own, outdated configuration would read
  stale (†).
- The target of a group is the greatest last command reported, term first.

Why it is linearizable: a committed entry is on a majority, so every answered write is reported; a reported
entry that was overwritten is passed as soon as the next leader's no-op commits. Reference: PROTOCOL 6.
"""

from __future__ import annotations

from typing import Any

from craft import quorum
from craft.marks import mark
from craft.messages import GroupReport, ReadReport
from craft.types import Configuration, Place, ServerId


class Waiting:
    """A completed round: what every group must have reached before its reads may be served."""

    __slots__ = ("needs", "targets", "tokens")

    def __init__(self, targets: dict[int, Place], tokens: list[Any]) -> None:
        self.targets = targets  # group → a place that must be known committed
        self.needs: dict[int, int] = {}  # group → every command up to this index must be applied
        self.tokens = tokens


class QuorumReads:
    """All reads of one server that are not served yet."""

    __slots__ = (
        "_disks",
        "_first_round",
        "_reports",
        "_tokens",
        "_waiting_round",
        "completed",
        "round",
        "started_at",
    )

    def __init__(self, first_round: int) -> None:
        self.round = first_round
        self._first_round = first_round  # the first attempt for the reads under way
        self.started_at: int | None = None  # when the round under way was sent; None: none is
        self._tokens: list[Any] = []  # reads that take the round under way
        self._waiting_round: list[Any] = []  # reads that take the next one
        self._reports: dict[ServerId, tuple[GroupReport, ...]] = {}
        self._disks: dict[ServerId, str] = {}  # of whom we have a report
        self.completed: list[Waiting] = []

    def add(self, token: Any) -> None:
        """A read has arrived."""
        self._waiting_round.append(token)

    def discard(self, token: Any) -> None:
        """The caller no longer wants this read."""
        for tokens in (self._waiting_round, self._tokens, *(waiting.tokens for waiting in self.completed)):
            if token in tokens:
                tokens.remove(token)

    @property
    def pending(self) -> int:
        """How many reads wait for a round or within one."""
        return len(self._tokens) + len(self._waiting_round)

    @property
    def waiting(self) -> int:
        """How many reads wait at all: also those whose round has found what must be applied first."""
        return self.pending + sum(len(waiting.tokens) for waiting in self.completed)

    def begin(self, now: int, retry_ns: int) -> bool:
        """Begin a round if reads wait and none is under way, or begin it afresh if it took too long."""
        if self.started_at is None:
            if not self._waiting_round:
                return False
            self._tokens, self._waiting_round = self._waiting_round, []
            self._first_round = self.round + 1
        elif now - self.started_at < retry_ns:
            return False
        else:
            mark("read round begun afresh")
        self.round += 1
        self.started_at, self._reports, self._disks = now, {}, {}
        return True

    def report(self, server: ServerId, report: ReadReport, groups: int, disk: str = "") -> None:
        """A report of the round under way or of an earlier attempt at it; any other is ignored.

        `disk` is that of the server's connection: a voter is a server on a disk (PROTOCOL 8).
        """
        asked = self.started_at is not None and self._first_round <= report.round <= self.round
        if not asked or len(report.groups) != groups:
            return
        self._reports[server], self._disks[server] = report.groups, disk
        if all(self._covered(group) for group in range(groups)):
            targets = {group: self._target(group) for group in range(groups)}
            self.completed.append(Waiting(targets, self._tokens))
            self._tokens, self.started_at = [], None

    def _covered(self, group: int) -> bool:
        latest = max((groups[group] for groups in self._reports.values()), key=lambda g: g.configuration_at)
        sound = {
            server
            for server, groups in self._reports.items()
            if not groups[group].suspect
            # What it says of itself counts too: a reader that has no log yet knows no founder's disk.
            and self._is_voter(latest.configuration, server)
            and self._is_voter(groups[group].configuration, server)
        }
        return quorum.is_quorum(latest.configuration, sound)

    def _is_voter(self, configuration: Configuration, server: ServerId) -> bool:
        """Is the disk that we heard the one which the configuration names under that id, if it names any?"""
        disk = self._disks[server]
        return all(named == disk for one, named in configuration.disks if one == server)

    def _target(self, group: int) -> Place:
        return max(groups[group].last_command for groups in self._reports.values())
