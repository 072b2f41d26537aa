"""The operator of a simulated cluster: servers come, go, are replaced, and lose their disks for others.

Knows: the machines, what each server knows of the members, what to ask for next. Must not know: groups'
configurations (the checkers look at those), what is right.

Invariants
- It asks as an operator does: any running server, for changes relative to what that server has merged.
- Randomness is that of each change alone (`MemberChange.choice`), so that one more or less leaves the others.
- What a plan without changes does is not touched: nobody is bound to a disk there, and nobody comes or goes.
"""

from __future__ import annotations

import random
import typing
from collections.abc import Callable
from functools import partial
from typing import Any

from craft.engine import membership
from craft.errors import Rejected
from craft.marks import mark
from craft.membership import Add, Change, Members, Move, Remove
from craft.testing.disk import Crash, SimulatedDisk
from craft.testing.plan import MS, SECOND, MemberChange
from craft.types import ServerId

if typing.TYPE_CHECKING:
    from craft.engine.state import EngineState
    from craft.testing.server import SimServer
    from craft.testing.world import World

LOOK_NS = 50 * MS
"""So often the operator looks who is removed and may be switched off."""

RETRY_NS = 1 * SECOND
"""What was not told as taken is asked for again after this, at the end of a run."""

SPARE_IDS = 3
"""So many ids beyond the founders' come and go, each on a new disk every time."""


class Asked:
    """One change that the operator asked for: the token of its request."""

    def __init__(self) -> None:
        self.version: int | None = None  # of the set that holds it; None: not told, or refused
        self.told = False


class Operator:
    """Adds, removes, replaces and moves servers of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.active = bool(world.plan.changes)
        self.founders = list(world.ids)
        self.born = {i: disk.disk_id for i, disk in world.disks.items()}  # the founders' first disks
        self._gone: dict[str, SimulatedDisk] = {}  # disks that others have replaced, by their ids
        self._rolls: dict[str, Members] = {}  # by disk: what its server knew last of the members
        self._asked_at = 0
        self._told_at: dict[ServerId, int] = {}
        self._wished: set[ServerId] = set()  # whose last change that was asked for adds them
        self._askers: set[ServerId] = set()  # through whom a change was asked for
        self.regretted: dict[ServerId, int] = {}  # who is added again so long after it is switched off

    # -- what servers need of it --------------------------------------------------------------------

    def options(self, i: ServerId, disk_id: str) -> dict[str, Any]:
        """How the engine of a server is made."""
        if not self.active:
            return {}
        joined = self.born.get(i) != disk_id
        return {"disk": disk_id, "joined": joined, "roll": self._rolls.get(disk_id)}

    def disk(self, i: ServerId, disk_id: str) -> SimulatedDisk | None:
        """The disk of a server that has this id, also where another has replaced it."""
        disk = self._world.disks.get(i)
        return disk if disk is not None and disk.disk_id == disk_id else self._gone.get(disk_id)

    def peers_changed(self, server: SimServer) -> None:
        """A server connects to whom it is to know, and drops whom it is not."""
        if not self.active:
            return
        world, e = self._world, server.engine.state
        self._rolls[server.disk.disk_id] = Members.unpack(membership.known(e).pack())
        for other in world.ids:
            if other == server.id:
                continue
            if other in e.peers:
                self._connect(server.id, other)
            else:
                world.disconnect((server.id, other), refused=False)
                world.disconnect((other, server.id), refused=False)

    def _connect(self, a: ServerId, b: ServerId) -> None:
        delays = self._world.rng_delays
        self._world.connect_later(a, b, delays.randint(1, 20) * MS)
        self._world.connect_later(b, a, delays.randint(1, 20) * MS)

    def knows(self, ours: SimServer, theirs: SimServer) -> bool:
        """PROTOCOL 8: is the other end a member, on the disk by which it is known?"""
        e = ours.engine.state
        if theirs.id not in e.peers:
            return False
        bound = membership.member(e, theirs.id).disk
        if bound:
            ours.disk.peer_disks[theirs.id] = bound
        return ours.disk.peer_disks.setdefault(theirs.id, theirs.disk.disk_id) == theirs.disk.disk_id

    # -- what it does -------------------------------------------------------------------------------

    def start(self) -> None:
        """Let the plan's changes happen."""
        for change in self._world.plan.changes:
            self._world.at(change.at, partial(self._begin, change))
        if self.active:
            self._world.at(LOOK_NS, self._look)

    def _begin(self, change: MemberChange) -> None:
        world = self._world
        if world.calm:
            return
        rng = random.Random(change.choice)
        running = [one for _, one in sorted(world.servers.items()) if one.engine.session_open]
        if not running:
            return
        asked = rng.choice(running)
        servers = asked.engine.state.members.servers
        changes = {**_KINDS, **_LATER}[change.kind](self, rng, dict.fromkeys(servers))
        # It may have lost its disk for this very change.
        asked = next((one for one in (asked, *running) if one.alive), asked)
        world.say("members", f"{change.kind} by server {asked.id}: {changes}")
        self._ask(asked, changes)
        if rng.random() < 0.2:  # whoever drove it dies
            delay = rng.choice((0, 1, 20)) * MS
            world.at(world.time + delay, partial(self._crash, asked.id))

    def _crash(self, i: ServerId) -> None:
        if not self._world.calm:
            self._world.crash(i, Crash.KILL)
            self._world.start_later(i, 200 * MS)

    def _ask(self, server: SimServer, changes: list[Change]) -> Asked:
        asked = Asked()
        if changes:
            try:
                server.engine.change_members(asked, changes)
                self._askers.add(server.id)
                self._wished -= {one.server for one in changes if isinstance(one, Remove)}
                self._wished |= {one.server for one in changes if isinstance(one, Add)}
                self._world.schedule_turn(server, self._world.time)
            except Rejected:
                pass
        return asked

    def told(self, asked: Asked, version: int, error: str) -> None:
        """The change is in the merged log."""
        asked.told, asked.version = True, None if error else version
        mark("change of members refused" if error else "change of members taken")
        self._world.say("members", error or f"version {version}")

    def _look(self) -> None:
        """Who is removed is switched off, as an operator would who is told so, and has not added it again."""
        world = self._world
        for i, server in sorted(world.servers.items()):
            if server.engine.removed and i not in self._wished and not self._wanted(server):
                self._retire(i)
        world.at(world.time + LOOK_NS, self._look)

    def _wanted(self, server: SimServer) -> bool:
        """By the newest set that any server tells. Who says it is removed may not have merged that set yet.

        What was asked for last does not tell: it may never have been taken.
        """
        sets = [one.engine.state.members for one in self._world.servers.values()]
        member = max(sets, key=lambda members: members.version).servers.get(server.id)
        return member is not None and member.disk in ("", server.disk.disk_id)

    def _retire(self, i: ServerId) -> None:
        mark("removed server switched off")
        self._world.say("members", f"server {i} is switched off")
        self._world.crash(i, Crash.KILL)
        self._world.ids.remove(i)
        if (delay := self.regretted.pop(i, None)) is not None and not self._world.calm:
            self._world.at(self._world.time + delay, partial(self._add_again, i))

    def _add_again(self, i: ServerId) -> None:
        """As if it were still there."""
        ready = [one for j, one in sorted(self._world.servers.items()) if j != i and one.engine.session_open]
        if ready and i not in self._world.ids and not self._world.calm:
            self._ask(ready[0], [Add(i, self.address(i))])

    def address(self, i: ServerId) -> str:
        """Nobody looks at it here."""
        return f"server{i}:1"

    def new_machine(self, i: ServerId) -> str:
        """A server that is no member yet, on an empty disk; it knocks at once. Returns its disk's id."""
        world = self._world
        if i in world.ids:
            return world.disks[i].disk_id
        if self.used(i):
            world.wiped.add(i)
        self.keep(i)
        world.prepare(i)
        self._introduce(i)
        return world.disks[i].disk_id

    def used(self, i: ServerId) -> bool:
        """Is it a new machine under an id that some disk remembers?"""
        return i not in self._world.ids and any(i in disk.peer_disks for disk in self._world.disks.values())

    def wipe(self, i: ServerId) -> str:
        """A server loses its disk and comes back on an empty one. Returns that one's id."""
        world = self._world
        world.crash(i, Crash.POWER)
        self.keep(i)
        world.disks[i] = world.new_disk(i)
        world.wiped.add(i)
        self._introduce(i)
        return world.disks[i].disk_id

    def keep(self, i: ServerId) -> None:
        """Remember a disk that is replaced: what was counted on it was counted rightly."""
        if (disk := self._world.disks.get(i)) is not None:
            self._gone[disk.disk_id] = disk

    def _introduce(self, i: ServerId) -> None:
        """It has asked who the members are: one that knows, not one that was left behind."""
        world = self._world
        others = [server.engine.state for server in world.servers.values() if server.id != i]
        if others:
            asked = max(others, key=lambda e: membership.known(e).version)
            self._rolls[world.disks[i].disk_id] = membership.told(asked)
        world.start_later(i, 1 * MS)

    def may_wipe(self, i: ServerId) -> bool:
        """Is nothing lost by it? Everybody is up, nothing is under way, and a majority stays."""
        world = self._world
        states = [server.engine.state for server in world.servers.values()]
        versions = {e.members.version for e in states} | {e.reached_version for e in states}
        everyone = all(set(world.ids) == set(world.servers) == set(e.members.servers) for e in states)
        settled = len(versions) == 1 and not any(self._missing(e.members) for e in states)
        return everyone and settled and self._readmitted() and len(world.ids) >= 3 and not world.wiped & {i}

    def _readmitted(self) -> bool:
        """Is whoever has lost a disk wanted by its new one, as far as all have merged?

        Servers do not miss a disk that they never met: its machine may have been cut off until it was lost.
        """
        world = self._world
        return all(
            server.engine.state.members.servers[i].disk == world.disks[i].disk_id
            for server in world.servers.values()
            for i in world.wiped.intersection(server.engine.state.members.servers)
            if i in world.ids
        )

    # -- the end --------------------------------------------------------------------------------------

    def unsettled(self) -> bool:
        """At the end of a run: is something about the members still under way? Asks for what is missing."""
        if not self.active:
            return False
        world = self._world
        # Who has just started knows nothing newer than the founders.
        ready = [one for _, one in sorted(world.servers.items()) if one.engine.session_open]
        if not ready:
            return True
        states = [server.engine.state for server in ready]
        newest = max(states, key=lambda e: e.members.version).members
        self._tell_stranded([one for one in ready if one.engine.state.members.version == newest.version])
        if (missing := self._missing(newest)) and world.time >= self._asked_at + RETRY_NS:
            self._asked_at = world.time
            self._ask(ready[world.time // RETRY_NS % len(ready)], missing)
        wanted = [e for e in states if e.me in newest.servers]  # others may never hear what became of it
        asked = any(isinstance(one.token, Asked) for e in wanted for one in e.pending.values())
        if missing or asked or max(e.reached_version for e in states) < newest.version:
            return True
        if self._undecided(wanted, newest):
            return True
        leaving = [i for i in world.ids if i not in newest.servers]
        for i in sorted(set(leaving) - self._wished):
            self._retire(i)
        # Nobody was told what became of their adding. It may be in somebody's log, and come true yet.
        unknown = self._wished.intersection(leaving)
        if unknown and (len(unknown) < len(leaving) or any(e.demand for e in wanted)):
            return True
        for i in sorted(unknown):
            self._retire(i)
        return bool(leaving)  # who knew only them is stranded now

    def _undecided(self, wanted: list[EngineState], newest: Members) -> bool:
        """May a change come true that nobody waits for any more, for who asked for it has died?

        It may be in somebody's log until the next session under that id is open. Where none will be, all must
        have merged what they know of.
        """
        forgotten = self._askers.difference(e.me for e in wanted)
        world = self._world
        back = any(i in world.ids and i in newest.servers and i not in world.lost for i in forgotten)
        return back or (bool(forgotten) and any(e.demand for e in wanted))

    def _tell_stranded(self, ready: list[SimServer]) -> None:
        """Who was away while all whom it knew were replaced is started again, and asks whom it is told to."""
        world, serving = self._world, {one.id for one in ready}
        for i, server in sorted(world.servers.items()):
            alone = i not in serving and not any(self.knows(server, one) for one in ready)
            if alone and world.time >= self._told_at.get(i, 0) + RETRY_NS:
                self._told_at[i] = world.time
                mark("stranded server told of the members")
                asked = max(ready, key=lambda one: one.engine.state.members.version)
                self._rolls[server.disk.disk_id] = membership.told(asked.engine.state)
                world.crash(i, Crash.KILL)
                world.start(i)

    def _missing(self, newest: Members) -> list[Change]:
        """Members whose machine is gone leave; members on another disk are readmitted."""
        world, changes = self._world, list[Change]()
        for i, member in newest.servers.items():
            if i not in world.ids:
                changes.append(Remove(i))
            elif member.disk not in ("", world.disks[i].disk_id) or (not member.disk and self._refused(i)):
                changes.append(Add(i, self.address(i), world.disks[i].disk_id))
        others = [
            Add(i, self.address(i), world.disks[i].disk_id) for i in world.ids if i not in newest.servers
        ]
        if all(i not in world.ids for i in newest.servers):  # somebody must stay
            changes += others
        elif others and len(changes) == len(newest.servers):  # who holds what was written comes back first
            return list[Change](others)
        return changes

    def _refused(self, i: ServerId) -> bool:
        """Does somebody know another disk under this id, and says that its disk must be named?"""
        disk = self._world.disks[i].disk_id
        return any(one.disk.peer_disks.get(i, disk) != disk for one in self._world.servers.values())


# -- kinds of change --------------------------------------------------------------------------------


def _spare(operator: Operator, rng: random.Random, members: dict[ServerId, None]) -> ServerId:
    everyone = range(1, len(operator.founders) + SPARE_IDS + 1)
    return rng.choice([i for i in everyone if i not in members] or [len(operator.founders) + SPARE_IDS + 1])


def _add(operator: Operator, rng: random.Random, members: dict[ServerId, None]) -> list[Change]:
    """Without the name of its disk, mostly, unless another disk was here under that id."""
    i = _spare(operator, rng, members)
    used = operator.used(i)
    disk = operator.new_machine(i)
    return [Add(i, operator.address(i), disk if rng.random() < 0.3 or used else "")]


def _add_dead(operator: Operator, rng: random.Random, members: dict[ServerId, None]) -> list[Change]:
    """Nobody is there, so it is never reached: the next change takes its place."""
    return [Add(_spare(operator, rng, members), operator.address(0))]


def _remove(_operator: Operator, rng: random.Random, members: dict[ServerId, None]) -> list[Change]:
    return [Remove(rng.choice(sorted(members)))] if len(members) > 1 else []


def _replace(operator: Operator, rng: random.Random, members: dict[ServerId, None]) -> list[Change]:
    """A server goes, often a dead one, and another comes, in one version."""
    gone = rng.choice(sorted(members))
    if rng.random() < 0.5 and len(members) > 2:
        operator._world.crash(gone, Crash.KILL)
    return [*_add(operator, rng, members), Remove(gone)]


def _shuffle(operator: Operator, rng: random.Random, members: dict[ServerId, None]) -> list[Change]:
    """From any set to any other: 1 to 3 to 5 and back."""
    everyone = range(1, len(operator.founders) + SPARE_IDS + 1)
    wanted = rng.sample(everyone, min(len(everyone), rng.choice((1, 1, 2, 3, 3, 5))))
    added = [Add(i, operator.address(i), operator.new_machine(i)) for i in wanted if i not in members]
    return [*added, *[Remove(i) for i in sorted(members) if i not in wanted]]


def _move(_operator: Operator, rng: random.Random, members: dict[ServerId, None]) -> list[Change]:
    return [Move(rng.choice(sorted(members)), f"elsewhere:{rng.randint(1, 9)}")]


def _wipe(operator: Operator, rng: random.Random, members: dict[ServerId, None]) -> list[Change]:
    """A server comes back on an empty disk: refused under the old one's, and welcome by a new version."""
    i = rng.choice(sorted(members))
    if not operator.may_wipe(i):
        return []
    mark("wiped server readmitted")
    return [Add(i, operator.address(i), operator.wipe(i))]


def _come_back(operator: Operator, rng: random.Random, members: dict[ServerId, None]) -> list[Change]:
    """Somebody comes under an id that left: another machine, or one that has not heard of its leaving."""
    world = operator._world
    gone = [
        i for i in range(1, len(operator.founders) + SPARE_IDS + 1) if i not in members and i in world.disks
    ]
    if not gone:
        return _add(operator, rng, members)
    i = rng.choice(gone)
    named = operator.used(i) or rng.random() < 0.3
    disk = operator.new_machine(i)
    return [Add(i, operator.address(i), disk if named else "")]


def _regret(operator: Operator, rng: random.Random, members: dict[ServerId, None]) -> list[Change]:
    """A server is removed, switched off as soon as that is done, and wanted again a moment after."""
    changes = _remove(operator, rng, members)
    operator.regretted.update({one.server: rng.choice((0, 5, 40)) * MS for one in changes})
    return changes


_KINDS = {
    "add": _add,
    "add_dead": _add_dead,
    "remove": _remove,
    "replace": _replace,
    "shuffle": _shuffle,
    "move": _move,
    "wipe_and_readmit": _wipe,
}
KINDS = tuple(_KINDS)
_LATER: dict[str, Callable[[Operator, random.Random, dict[ServerId, None]], list[Change]]] = {
    "come_back": _come_back,
    "regret": _regret,
}
LATER_KINDS = tuple(_LATER)
"""Drawn in runs of their own: old seeds keep their traces."""
