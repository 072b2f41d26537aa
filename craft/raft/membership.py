"""Who counts in a group: the configuration by which a replica acts, and the steps from one to the next.

Knows: one replica's log, its disk id and its peers'. Must not know: other groups, time, addresses, how the
wanted set is agreed.

Invariants
- A replica acts by the latest configuration in its log, committed or not, else by that of its log's start,
  else by that of the cluster's creation (Raft 6; dissertation 4.1). It follows appends and truncations.
- A configuration follows only one that is committed, in a term that has committed an entry of its own; so of
  any two that can be in force at once one's quorums meet the other's (dissertation 4.3; Ongaro 2015).
- Versions never fall along a log. A leader starts only what is newer than all in its log, continues what is
  under way by its latest configuration, and finishes what is joint before anything else (PROTOCOL 8, †).
- The voter is the pair (server id, disk id): what another disk says under that id counts for nothing. An id
  changes its disk by leaving the voters under the old one first.

Reference: Raft 6; dissertation 4; PROTOCOL 8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from craft.marks import mark
from craft.raft.progress import Progress
from craft.raft.state import RaftState
from craft.types import NOWHERE, Configuration, Index, Place, ServerId, unpack_configuration


class Goal(NamedTuple):
    """What a group works towards: the wanted servers with their disks (empty: not bound yet)."""

    version: int
    disks: Mapping[ServerId, str]


# -- the configuration in force -------------------------------------------------------------------


def follow_log(r: RaftState) -> None:
    """Entries were appended or cut: act by the latest configuration that the log holds now."""
    log = r.log
    last = log.configurations[-1] if log.configurations else None
    at = log.start.configuration_at if last is None else (last.term, last.index)
    if at == r.configuration_at:
        return  # places are unique within a group's log
    r.configuration_at, r.configuration = log.configuration_upto(log.last_index) or (NOWHERE, r.created)
    before, r.bound = r.bound, dict(r.configuration.disks)
    if r.leads:
        _follow_members(r, before)


def upto(r: RaftState, index: Index) -> tuple[Place, Configuration]:
    """The latest configuration at or before `index`, and its place, for whoever goes on behind it.

    That of the creation as it was: that this server is not the founder whose id it has, only it itself says.
    """
    return r.log.configuration_upto(index) or (NOWHERE, Configuration(r.created.voters))


def _follow_members(r: RaftState, before: Mapping[ServerId, str]) -> None:
    """A leader sends to whom its configuration names. Of a disk that it did not hear it knows nothing."""
    kept = {peer: progress for peer, progress in r.progress.items() if not _changed_disk(r, before, peer)}
    r.progress = {
        peer: kept.get(peer) or Progress(next_index=r.log.last_index + 1, now=r.heard_at)
        for peer in r.peers()
    }
    if r.transfer_to not in r.progress:
        r.transfer_to = None


def _changed_disk(r: RaftState, before: Mapping[ServerId, str], peer: ServerId) -> bool:
    bound = r.bound.get(peer)
    if bound == before.get(peer) or bound is None:
        return False
    return peer in before or r.disks.get(peer) != bound


def counts(r: RaftState, server: ServerId) -> bool:
    """Does what this server says now come from the disk that the configuration names? Unbound: any is."""
    bound = r.bound.get(server)
    return bound is None or r.disks.get(server) == bound


def configuration_known(r: RaftState) -> bool:
    """Is the configuration in force known committed?"""
    return r.configuration_at.index <= r.commit_index


def stands(r: RaftState) -> bool:
    """May this replica stand for election (PROTOCOL 8)?

    A voter may. (†) A former voter that an uncommitted configuration leaves out must, for perhaps nobody else
    has a log that the old voters accept: it goes on until it knows that configuration committed.
    """
    if r.votes_here:
        return counts(r, r.me)
    return not configuration_known(r) and _was_voter(r)


def _was_voter(r: RaftState) -> bool:
    """Did a configuration make this disk a voter that may still be the latest committed one?"""
    _, oldest = r.log.configuration_upto(r.commit_index) or (NOWHERE, r.created)
    later = [unpack_configuration(e.payload) for e in r.log.configurations if e.index > r.commit_index]
    return any(is_voter(one, r.me, r.disks.get(r.me, "")) for one in (oldest, *later))


def is_voter(configuration: Configuration, server: ServerId, disk: str) -> bool:
    """Does this disk vote under this id?"""
    if server not in configuration.voters | configuration.outgoing:
        return False
    return dict(configuration.disks).get(server, disk) == disk


# -- from one to the next -------------------------------------------------------------------------


def may_change(r: RaftState) -> bool:
    """May a configuration be appended now?

    The one before must be committed, and an entry of this term: what an earlier leader left is decided then.
    """
    return (
        r.leads
        and not r.noop_due
        and r.transfer_to is None
        and configuration_known(r)
        and r.commit_place.term == r.term
    )


def next_step(
    now: Configuration,
    goal: Goal,
    *,
    met: Mapping[ServerId, str],
    is_ready: Callable[[frozenset[ServerId]], bool],
    may_drop: bool,
) -> Configuration | None:
    """The configuration that follows a committed one on the way to the goal; None: wait, or arrived.

    `is_ready(voters)`: are majorities of these, and of ours, live and caught up in every group? `may_drop`:
    is the goal reached in every group, so that who left need not be served any more? `met`: the disks that
    the leader meets, which are those whose answers it has counted: a voter is bound to no other.
    """
    if now.joint:
        # (†) From joint on it is finished first, by what the configuration itself says.
        return _kept(now, voters=now.voters)
    if goal.version < now.version:
        mark("wanted set not merged yet")
        return None  # (†) what it leads to is not known here yet
    voters = _next_voters(now, goal)
    prepared = _prepared(now, goal, voters, met)
    if (prepared.members, prepared.disks) != (now.members, now.disks):
        return prepared
    if voters != now.voters:
        bound = voters - now.voters <= {server for server, _ in prepared.disks}
        return _joint(prepared, voters) if voters and bound and is_ready(voters) else None
    if goal.version > now.version:
        return prepared
    if may_drop and now.learners - goal.disks.keys():
        kept = frozenset(now.voters & goal.disks.keys())
        return Configuration(
            now.voters, version=now.version, disks=tuple(pair for pair in now.disks if pair[0] in kept)
        )
    return None


def is_reached(now: Configuration, goal: Goal) -> bool:
    """Is this the final configuration of the goal?"""
    return (
        not now.joint
        and now.version >= goal.version
        and now.voters == goal.disks.keys()
        and all(goal.disks[server] in ("", disk) for server, disk in now.disks if server in now.voters)
    )


def _next_voters(now: Configuration, goal: Goal) -> frozenset[ServerId]:
    """The wanted servers. One that is to change its disk leaves first: (id, disk) is the voter.

    Whoever else votes stays until then, wanted or not: it may be all that is left.
    """
    bound = dict(now.disks)
    changing = {
        server
        for server in now.voters & goal.disks.keys()
        if goal.disks[server] and bound.get(server, goal.disks[server]) != goal.disks[server]
    }
    if changing:
        return now.voters - changing or frozenset(goal.disks) - changing
    return frozenset(goal.disks)


def _kept(now: Configuration, *, voters: frozenset[ServerId]) -> Configuration:
    """These voters, and all other members as learners: who leaves is served until all groups are done."""
    return Configuration(voters, learners=now.members - voters, version=now.version, disks=now.disks)


def _prepared(
    now: Configuration, goal: Goal, voters: frozenset[ServerId], met: Mapping[ServerId, str]
) -> Configuration:
    """The same voters; who is to come is a learner, and every disk that can be named is."""
    members = now.members | voters
    disks = dict(now.disks)
    for server in sorted(members):
        if server not in now.voters:
            disk = goal.disks.get(server, "") or disks.get(server, "")
        else:
            disk = disks.get(server, "") or met.get(server, "")
        if disk:
            disks[server] = disk
    return Configuration(
        now.voters, learners=members - now.voters, version=goal.version, disks=tuple(sorted(disks.items()))
    )


def _joint(prepared: Configuration, voters: frozenset[ServerId]) -> Configuration:
    learners = prepared.members - voters - prepared.voters
    return Configuration(voters, prepared.voters, learners, prepared.version, prepared.disks)
