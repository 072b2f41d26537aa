"""Where leaders belong: spread evenly over servers, each with a preferred one to return to.

Knows: preferences, how long a preferred server has looked well, how often it lost a group. Must not know:
logs, messages.

Invariants
- A group's preferred server is a function of the voters and the group alone: all servers agree on it.
- A server gets a group back only after it looked well without a break for the group's back-off, which doubles
  after each involuntary loss (PROTOCOL 9, †: else a cut link makes leadership flap).
"""

from __future__ import annotations

from collections.abc import Iterable

from craft.types import GroupId, ServerId

ATTEMPTS_MAX = 16
"""Doublings of a wait that are counted; the bound is reached long before."""


class Placement:
    """One server's view of where each group should be led."""

    __slots__ = (
        "_attempts",
        "_back_off",
        "_back_off_max",
        "_back_off_min",
        "_given_away",
        "_last_leader",
        "_well_since",
    )

    def __init__(self, *, leader_return_ns: int, leader_return_ns_max: int) -> None:
        self._back_off_min = leader_return_ns
        self._back_off_max = leader_return_ns_max
        self._back_off: dict[GroupId, int] = {}
        self._well_since: dict[GroupId, int] = {}
        self._attempts: dict[GroupId, int] = {}  # hand-overs to the preferred server that did not work
        self._given_away: dict[GroupId, tuple[int, int]] = {}  # how often, by this leader, and when
        self._last_leader: dict[GroupId, ServerId] = {}

    @staticmethod
    def preferred(group: GroupId, voters: Iterable[ServerId]) -> ServerId:
        """Round robin over the voters in sorted order."""
        ranked = sorted(voters)
        return ranked[group % len(ranked)]

    @staticmethod
    def rank(group: GroupId, server: ServerId, voters: Iterable[ServerId], gone: ServerId) -> int:
        """A survivor's turn to stand after `gone` died.

        Rotated by group, so that survivors share the groups.
        """
        ranked = sorted(set(voters) - {gone})
        return (ranked.index(server) - group) % len(ranked) if server in ranked else len(ranked)

    def leader_seen(self, group: GroupId, leader: ServerId, *, preferred: ServerId, voluntary: bool) -> None:
        """A leader is known. A preferred server that lost it against its will waits longer next time."""
        before = self._last_leader.get(group)
        self._last_leader[group] = leader
        if leader != before:
            self._well_since.pop(group, None)
            self._attempts.pop(group, None)
            self._given_away.pop(group, None)
        if before == preferred != leader and not voluntary:
            back_off = self._back_off.get(group, self._back_off_min) * 2
            self._back_off[group] = min(back_off, self._back_off_max)

    def may_return(self, group: GroupId, *, well: bool, now: int) -> bool:
        """Has the preferred server looked well for long enough? Asked regularly by the group's leader."""
        if not well:
            self._well_since.pop(group, None)
            return False
        since = self._well_since.setdefault(group, now)
        wait = self._back_off.get(group, self._back_off_min) << self._attempts.get(group, 0)
        return now - since >= min(wait, self._back_off_max)

    def returning(self, group: GroupId, now: int) -> None:
        """The group is being handed to the preferred server.

        The group rests meanwhile: if it does not work, the next attempt waits twice as long, or a server that
        looks well and cannot lead would stall the group again and again.
        """
        self._well_since[group] = now
        self._attempts[group] = min(self._attempts.get(group, 0) + 1, ATTEMPTS_MAX)

    def may_give_away(self, group: GroupId, now: int) -> bool:
        """May a leader that is not to lead hand the group over? At once; after a failure, later.

        The group rests during each attempt, so each wait is twice as long as the one before.
        """
        attempts, last = self._given_away.get(group, (0, 0))
        return not attempts or now - last >= min(self._back_off_min << (attempts - 1), self._back_off_max)

    def giving_away(self, group: GroupId, now: int) -> None:
        """The group is being handed to whoever looks well."""
        attempts, _ = self._given_away.get(group, (0, 0))
        self._given_away[group] = (min(attempts + 1, ATTEMPTS_MAX), now)
