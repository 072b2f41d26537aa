"""Majorities, single and joint: the only place in craft that counts voters.

Knows: configurations and what each server has reached. Must not know: terms, logs, time.

Invariants
- While a configuration is joint, everything needs a majority of the new *and* of the old voters (dissertation
  4.3).
- A server that is unheard counts for nothing; a server that is no voter counts for nothing.
- A suspect's vote counts only where every voter grants, of both sets while joint (PROTOCOL 10).

Reference: Raft dissertation 4.3; PROTOCOL 1, 2, 6.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum

from craft.types import Configuration, ServerId


class Outcome(Enum):
    """How a vote stands."""

    PENDING = 0
    WON = 1
    LOST = 2


def majority(voters: Collection[ServerId]) -> int:
    """How many of these voters decide."""
    return len(voters) // 2 + 1


def _reached(voters: frozenset[ServerId], values: Mapping[ServerId, int], unheard: int) -> int:
    ranked = sorted((values.get(voter, unheard) for voter in voters), reverse=True)
    return ranked[len(ranked) // 2]


def reached(configuration: Configuration, values: Mapping[ServerId, int], *, unheard: int = 0) -> int:
    """The greatest value that a majority (both, while joint) has reached.

    A missing server reached `unheard`.
    """
    assert configuration.voters, "a group without voters decides nothing"
    value = _reached(configuration.voters, values, unheard)
    if configuration.outgoing:
        value = min(value, _reached(configuration.outgoing, values, unheard))
    return value


def is_quorum(configuration: Configuration, servers: Collection[ServerId]) -> bool:
    """Do these servers contain a majority (both, while joint)?"""
    return _contains_majority(configuration.voters, servers) and (
        not configuration.outgoing or _contains_majority(configuration.outgoing, servers)
    )


def is_pair_quorum(configuration: Configuration, one: ServerId, other: ServerId) -> bool:
    """Are these two a quorum? Written out: it is asked for every entry and every follower."""
    voters, outgoing = configuration.voters, configuration.outgoing
    return (one in voters) + (other in voters) > len(voters) // 2 and (
        not outgoing or (one in outgoing) + (other in outgoing) > len(outgoing) // 2
    )


def _contains_majority(voters: frozenset[ServerId], servers: Collection[ServerId]) -> bool:
    return sum(voter in servers for voter in voters) >= majority(voters)


def vote_outcome(
    configuration: Configuration, votes: Mapping[ServerId, bool], suspects: Collection[ServerId] = ()
) -> Outcome:
    """Won when a quorum without suspects granted, or everyone; lost when what is missing cannot change that.

    Every committed entry is on a quorum, which meets any other in a server that has lost nothing, and that
    grants only logs that hold it. Where everyone grants, nobody's log is ahead: what one still holds, wins.
    """
    everyone = configuration.voters | configuration.outgoing
    granted = {server for server, vote in votes.items() if vote}
    if is_quorum(configuration, granted.difference(suspects)) or everyone <= granted:
        return Outcome.WON
    possible = {server for server in everyone if votes.get(server, True)}
    open_ = is_quorum(configuration, possible.difference(suspects)) or everyone <= possible
    return Outcome.PENDING if open_ else Outcome.LOST
