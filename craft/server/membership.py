"""`server.members`: who belongs to the cluster, and changing it while it works (PROTOCOL 8).

Knows: the engine's wanted set, the transport's peers, the roll. Must not know: groups.

Invariants
- A change that a method has returned from is done in every group, unless it was told not to wait.
- Peers that are not members any more are disconnected; where a member is reached is kept for the next start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import trio

from craft.config import Address, Config, parse_address
from craft.engine import Engine, membership
from craft.errors import ConfigError, NotReady, Refused, ResultLost, Unknown
from craft.membership import Add, Change, Members, Move, Remove
from craft.server.calls import Call
from craft.server.doors import Doors
from craft.server.roll import Roll, save
from craft.transport import Transport
from craft.types import Member, ServerId


class MemberInfo(NamedTuple):
    """One wanted server: where it is reached, and its disk (empty: not known yet)."""

    server_id: ServerId
    address: str
    disk_id: str


class MembersCall(Call):
    """One request to change the members."""

    __slots__ = ("changes",)

    def __init__(self, changes: Sequence[Change]) -> None:
        super().__init__([], many=True, started=trio.current_time())
        self.changes = changes

    def propose(self, engine: Engine) -> None:
        """Ask the engine for it; it is the token."""
        engine.change_members(self, self.changes)


class Host(Protocol):
    """What is needed of the server."""

    config: Config
    transport: Transport

    @property
    def engine(self) -> Engine:
        """What runs in it."""

    async def submit(self, call: Call) -> None:
        """Let a call be merged, and wait until it is answered."""

    def check_open(self) -> None:
        """Raise NotReady where the server takes nothing any more."""


class ServerMembers:
    """The members of the cluster, as this server sees them."""

    def __init__(self, host: Host, roll: Roll, doors: Doors | None) -> None:
        self._host = host
        self._state = host.engine.state
        self._roll = roll
        self._doors = doors
        self._moved = trio.Event()
        self._reached = -1
        self.removed = trio.Event()
        """Set when this server is no member any more, and every group is done with it: it may be stopped."""

    # -- what users call --------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """Of the wanted set, as merged here. Each change that is taken has one."""
        return self._state.members.version

    @property
    def reached_version(self) -> int:
        """The version up to which every group has followed."""
        return self._state.reached_version

    def list(self) -> list[MemberInfo]:
        """The wanted servers, by id."""
        wanted = self._state.members.servers
        return [
            MemberInfo(server, member.address or self._roll.addresses.get(server, ""), member.disk)
            for server, member in wanted.items()
        ]

    async def add(self, server_id: ServerId, address: str, *, disk_id: str = "", wait: bool = True) -> int:
        """Let a server come; with `disk_id` also one that lost its disk, on the new one.

        Returns the version.
        """
        return await self.change([Add(server_id, address, disk_id)], wait=wait)

    async def remove(self, server_id: ServerId, *, wait: bool = True) -> int:
        """Let a server go; it may be this one. Returns the version."""
        return await self.change([Remove(server_id)], wait=wait)

    async def move(self, server_id: ServerId, address: str, *, wait: bool = True) -> int:
        """A server is reached at another address from now on. Returns the version."""
        return await self.change([Move(server_id, address)], wait=wait)

    async def replace(self, gone: ServerId, server_id: ServerId, address: str, *, wait: bool = True) -> int:
        """Let one server come for another, which may be dead, in one step. Returns the version."""
        return await self.change([Add(server_id, address), Remove(gone)], wait=wait)

    async def change(self, changes: Sequence[Change], *, wait: bool = True) -> int:
        """Make several changes together, all or none. Returns the version that holds them.

        Raises Refused where one of them cannot be (nothing is changed), and as `propose` does. With `wait`
        it returns when every group has followed, once those who come are there and caught up; Unknown where
        this server ends first. To give up waiting changes nothing: the cluster goes on with it, and another
        change may take its place.
        """
        self._check_addresses(changes)
        call = MembersCall(changes)
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            await self._host.submit(call)
        except ResultLost as lost:
            raise Unknown("a snapshot holds what became of the change; look at the members") from lost
        told: Any = call.results
        if told.error:
            raise Refused(told.error)
        version: int = told.version
        if wait:
            try:
                await self.wait(version)
            except NotReady as error:  # it was taken, so it is anything but rejected
                raise Unknown(
                    f"the change is agreed, as version {version}, and goes on; but {error}, before every"
                    " group has followed it"
                ) from error
        return version

    def _check_addresses(self, changes: Sequence[Change]) -> None:
        """Raise Refused where one would be reached where another is: everyone would wait for it for ever.

        Here and not where changes are merged: only a server's roll knows where the founders are reached.
        """
        changed = {change.server for change in changes}
        stay = [one for one in self.list() if one.address and one.server_id not in changed]
        taken = {one.address: one.server_id for one in stay}
        for change in changes:
            if isinstance(change, Remove):
                continue
            other = taken.setdefault(change.address, change.server)
            if other != change.server:
                raise Refused(
                    f"address {change.address} of server {change.server} is that of server {other}; allowed:"
                    " the address at which that server itself listens for servers"
                )

    async def wait(self, version: int) -> None:
        """Wait until every group has followed a version of the wanted set, or a later one."""
        while self.reached_version < version:
            self._host.check_open()
            await self._moved.wait()
        await trio.lowlevel.checkpoint()

    # -- what the server calls --------------------------------------------------------------------

    def roll(self) -> Roll:
        """What a server that wants to join must know."""
        members = membership.told(self._state)
        addresses = {info.server_id: info.address for info in self.list() if info.address}
        serving = {i: a for i, a in self._roll.addresses.items() if i in members.servers}
        return self._roll._replace(members=members, addresses={**serving, **addresses})

    def look(self, peers: dict[ServerId, Member] | None) -> None:
        """Once a turn: there are other peers, if any are named; and wake who waits for a version."""
        if peers is not None:
            self._peers_changed(peers)
        e = self._state
        if e.reached_version != self._reached:
            self._reached = e.reached_version
            self.wake()
        if e.removed and not self.removed.is_set():
            self.removed.set()

    def wake(self) -> None:
        """Somebody may go on, or has to learn that the server has ended."""
        self._moved.set()
        self._moved = trio.Event()

    def _peers_changed(self, peers: dict[ServerId, Member]) -> None:
        """Connect to these from now on, and to nobody else."""
        newest = {peer: self._address(peer, member) for peer, member in peers.items()}
        if self._doors is not None:
            self._doors.name({peer: member.disk for peer, member in peers.items()})
            for peer, member in peers.items():
                met = self._state.disks.get(peer)
                if member.disk and met not in (None, member.disk):
                    self._host.transport.disconnect(
                        peer, f"its disk {met} is known no more; {member.disk} is"
                    )
        self._host.transport.set_peers(newest)
        self._remember()

    def _address(self, peer: ServerId, member: Member) -> Address | None:
        text = member.address or self._roll.addresses.get(peer, "")
        try:
            return parse_address(f"members.{peer}", text) if text else None
        except ConfigError:
            return None  # what only looks like an address: nobody is there

    def _copy(self) -> Members:
        return Members.unpack(membership.known(self._state).pack())

    def _remember(self) -> None:
        members = self._copy()
        addresses = dict(self._roll.addresses)
        for server, member in members.servers.items():
            if member.address:
                addresses[server] = member.address
        roll = self._roll._replace(members=members, addresses=addresses)
        if roll.pack() != self._roll.pack():
            save(self._host.config.data_dir, roll)
        self._roll = roll
