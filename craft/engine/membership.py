"""Towards the wanted set: every group's leader works its own group, and peers come and go (PROTOCOL 8).

Knows: the wanted set as merged here, every group's configuration, who is caught up where. Must not know: how
the set is changed (`craft/membership.py`), addresses' meaning, connections.

Invariants
- A peer is whom any group's configuration or the wanted set names; nobody else is listened to.
- Joint is entered only while majorities of both sets are live and caught up in *every* group: else one group
  would go on by servers through which another's merge stands still.
- Reached is a version when every group's final configuration has it, known committed here. Until then, and a
  little longer, who leaves is served as a learner, so it learns of its own leaving.
- While nothing is to be changed this costs a look a heartbeat, and says nothing to anybody.
"""

from __future__ import annotations

from craft import quorum
from craft.engine import leading, proposing
from craft.engine.state import MS, EngineState, Peer, SessionState
from craft.marks import mark
from craft.membership import Members
from craft.messages import CaughtUp
from craft.raft import RaftState, membership
from craft.raft.membership import Goal
from craft.ready import Ready
from craft.types import Configuration, EntryKind, Member, ServerId, pack_configuration

CAUGHT_UP_ENTRIES = 16
"""So close to the end of a log is caught up: under load nobody is ever at its very end."""


def created(me: ServerId, founders: frozenset[ServerId], *, joined: bool) -> Configuration:
    """The configuration that counts where a log has none: that of the cluster's creation.

    Who joined later under a founder's id lives on another disk than that founder, and is no voter by it.
    """
    disks = ((me, "founder"),) if joined and me in founders else ()
    return Configuration(founders, disks=disks)


# -- peers ----------------------------------------------------------------------------------------


def known(e: EngineState) -> Members:
    """The newest wanted set that this server was told of, merged here or not: it decides who is a peer."""
    return e.roll if e.roll.version > e.members.version else e.members


def told(e: EngineState) -> Members:
    """What a server that asks for the members is told, to keep: the wanted set, and who serves until then.

    Whoever is on its way out may be all that a new one can learn from.
    """
    members = Members.unpack(known(e).pack())
    serving = {server: Member(disk=e.disks.get(server, "")) for server in (e.me, *e.peers)}
    members.servers = dict(sorted({**serving, **members.servers}.items()))
    return members


def refresh(e: EngineState) -> None:
    """Let the peers be whom the configurations and the wanted set name, if either has changed."""
    changed = e.members.servers is not e.members_seen
    for group in sorted(e.dirty):
        at = e.raft(group).configuration_at
        if at != e.configurations_seen[group]:
            e.configurations_seen[group], changed = at, True
    if not changed:
        return
    e.members_seen = e.members.servers
    note_own(e)  # a snapshot may have told it
    _bind_own(e)
    e.unsettled = True
    heard_of = set(known(e).servers)
    if e.roll.version == e.members.version:
        heard_of |= e.roll.servers.keys()  # also who serves until then: of them we may have yet to learn
    wanted = heard_of.union(*(raft.state.configuration.members for raft in e.replicas)) - {e.me}
    e.peers_due = True
    if wanted == e.peers.keys():
        return
    for peer in e.peers.keys() - wanted:
        _forget(e, peer)
    e.peers = {peer: e.peers.get(peer) or Peer(peer) for peer in sorted(wanted)}


def _bind_own(e: EngineState) -> None:
    """We are wanted without a disk: nobody votes so, and our session, which tells it, may be open already."""
    member = e.members.servers.get(e.me)
    if member is not None and not member.disk and e.disk and e.session_state is SessionState.OPEN:
        mark("disk told again")
        proposing.propose_open(e)


def _forget(e: EngineState, peer: ServerId) -> None:
    """A server that is no member any more: nothing is kept for it, and its requests are not waited for."""
    mark("peer forgotten")
    proposing.link_lost(e, peer)
    e.gone.discard(peer)
    e.disks.pop(peer, None)
    e.fetches = {key: index for key, index in e.fetches.items() if key[0] != peer}


def note_own(e: EngineState) -> None:
    """Was it this server that the merged set names? One that joined replays its id's former lives first.

    By its disk's name it was, or where a configuration of that set has bound our disk. Without a name where
    we were told of nothing newer, as long as no other disk takes that place: it is whose session is opened
    first, and that may have been before we came, in the very version that we were told of (†).
    """
    if e.was_member and not e.nameless:
        return
    member, version = e.members.servers.get(e.me), e.members.version
    if member is None:
        e.nameless = False  # it was ours until now, or never
    elif member.disk not in ("", e.disk):
        if e.nameless:
            mark("place of another disk")
        e.was_member = e.nameless = False
    else:
        named = member.disk == e.disk or any(
            raft.state.configuration.version <= version and raft.state.bound.get(e.me) == e.disk
            for raft in e.replicas
        )
        e.was_member = e.was_member or named or version >= e.roll.version
        e.nameless = e.was_member and not named


def tell(e: EngineState, out: Ready) -> None:
    """Whom the driver is to connect to, if that has changed."""
    if e.peers_due:
        e.peers_due = False
        out.peers = {peer: member(e, peer) for peer in e.peers}


def member(e: EngineState, peer: ServerId) -> Member:
    """What is known of a peer: the wanted set's word; of one that it leaves out, the disk that votes for it.

    Who is on its way out may be needed for that, on a disk that is not the one it was first met with.
    """
    found = known(e).servers.get(peer)
    if found is not None:
        return found
    binding = [raft.state for raft in e.replicas if peer in raft.state.bound]
    newest = max(binding, key=lambda r: r.configuration.version, default=None)
    return Member() if newest is None else Member(disk=newest.bound[peer])


def met(e: EngineState, peer: ServerId, disk: str) -> None:
    """A peer's connection is from this disk: by it its votes and acknowledgements count, or do not."""
    if peer in e.peers:
        e.disks[peer] = disk
        e.unsettled = True


# -- a group's way --------------------------------------------------------------------------------


def tick(e: EngineState) -> None:
    """Let every group that is led here take its next step; tell the others who is caught up."""
    if not e.unsettled:
        return
    goal = Goal(e.members.version, e.members.disks())
    if goal.version > e.wished_version:
        e.wished_version, e.wished_at = goal.version, e.now.monotonic_ns
    _note_reached(e, goal)
    waiting = e.reached_version < goal.version
    for group in sorted(e.led):
        waiting |= _work(e, e.raft(group), goal)
    if e.reached_version < goal.version:
        _tell_caught_up(e)
    e.unsettled = waiting or not _quiet(e, goal)


def _quiet(e: EngineState, goal: Goal) -> bool:
    """Is every group where it should be, with nobody left to drop and nobody left to bind?"""
    return all(
        raft.state.configuration.voters == goal.disks.keys()
        and not raft.state.configuration.learners
        and (not e.disk or len(raft.state.bound) >= len(goal.disks))
        for raft in e.replicas
    )


def _note_reached(e: EngineState, goal: Goal) -> None:
    if e.reached_version >= goal.version:
        return
    if all(membership.is_reached(_committed(raft.state), goal) for raft in e.replicas):
        mark("wanted set reached")
        e.reached_version, e.reached_at = goal.version, e.now.monotonic_ns


def _committed(r: RaftState) -> Configuration:
    """The latest configuration that is known committed here."""
    if membership.configuration_known(r):
        return r.configuration
    found = r.log.configuration_upto(r.commit_index)
    return r.created if found is None else found[1]


def _work(e: EngineState, r: RaftState, goal: Goal) -> bool:
    """Take the group's next step, if it may be taken now. Is there any, now or later?"""
    if not membership.may_change(r):
        return True
    grace = e.limits.election_timeout_ms_max * MS
    reached = e.reached_version >= goal.version and e.now.monotonic_ns >= e.reached_at + grace
    step = membership.next_step(
        r.configuration,
        goal,
        met=e.disks,
        is_ready=lambda voters: _is_ready(e, voters),
        may_drop=reached,
    )
    if step is not None:
        mark("joint begun" if step.joint else "configuration appended")
        leading.append_now(e, r, EntryKind.CONFIGURATION, pack_configuration(step))
        refresh(e)
    return step is not None


def _is_ready(e: EngineState, voters: frozenset[ServerId]) -> bool:
    """Are majorities of these, and of those who vote now, live and caught up in every group?"""
    oldest = e.now.monotonic_ns - e.limits.election_timeout_ms_max * MS
    for raft in e.replicas:
        r = raft.state
        if r.leads:
            there = _caught_up_here(e, r)
        else:
            at, there = e.caught_up.get(r.group, (0, frozenset()))
            if at < oldest:
                return False
        both = Configuration(voters, r.configuration.voters)
        if not quorum.is_quorum(both, there):
            return False
    return True


def _caught_up_here(e: EngineState, r: RaftState) -> frozenset[ServerId]:
    # And it has answered what we sent since it is wanted: who was switched off a moment ago, and is added
    # again, is not there, however late its last words arrive.
    answered = {peer.id for peer in e.peers.values() if peer.reached_at >= e.wished_at}
    oldest = e.now.monotonic_ns - e.limits.election_timeout_ms_min * MS
    there = {
        peer
        for peer, progress in r.progress.items()
        if peer in answered
        and progress.active_at >= oldest
        and progress.counted
        and progress.counted + CAUGHT_UP_ENTRIES >= r.log.last_index
        and membership.counts(r, peer)
    }
    return frozenset(there | {e.me})


def _tell_caught_up(e: EngineState) -> None:
    """Every group's leader tells who is caught up in it: each of them waits for all."""
    if not e.led:
        return
    groups = tuple((group, tuple(sorted(_caught_up_here(e, e.raft(group))))) for group in sorted(e.led))
    for peer in e.peers.values():
        peer.out.append(CaughtUp(groups))


def handle_caught_up(e: EngineState, sender: ServerId, m: CaughtUp) -> None:
    """What the leaders on another server say of their groups."""
    for group, servers in m.groups:
        if e.raft(group).leader_id == sender:
            e.caught_up[group] = (e.now.monotonic_ns, frozenset(servers))


# -- what is to be seen ---------------------------------------------------------------------------


def joins(e: EngineState) -> bool:
    """Does this server vote nowhere yet?"""
    return not any(membership.is_voter(raft.state.configuration, e.me, e.disk) for raft in e.replicas)
