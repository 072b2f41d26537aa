"""Majorities, single and joint: the only place in craft that counts voters.

Knows: configurations and what each server has reached. Must not know: terms, logs, time.

Invariants
- While a configuration is joint, everything needs a majority of the new *and* of the old voters (dissertation
  4.3).
- A server that is unheard counts for nothing; a server that is no voter counts for nothing.

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


def _contains_majority(voters: frozenset[ServerId], servers: Collection[ServerId]) -> bool:
    return sum(voter in servers for voter in voters) >= majority(voters)


def vote_outcome(configuration: Configuration, votes: Mapping[ServerId, bool]) -> Outcome:
    """Won when a quorum granted; lost when the answers still missing cannot change that."""
    granted = [server for server, vote in votes.items() if vote]
    if is_quorum(configuration, granted):
        return Outcome.WON
    everyone = configuration.voters | configuration.outgoing
    not_refused = [server for server in everyone if votes.get(server, True)]
    return Outcome.PENDING if is_quorum(configuration, not_refused) else Outcome.LOST
