"""The wanted set of servers: replicated state with a version, changed by requests in the merged log.

Knows: who is wanted, where each is reached and on which disk it lives; what a change may ask for. Must not
know: groups, who leads, who is there already (`craft/engine/membership.py` works towards it).

Invariants
- It changes in merged order only, so it is the same on every server at the same position, down to its bytes.
- A change is taken whole or refused whole, and each that is taken has a version of its own. What changes
  nothing is taken, and has the version that is there: a change may be repeated.
- A disk is bound to an id by the first session that is opened under it (or told again, where it was open
  before the id was wanted), or by a change that names it. Binding what was unbound is no change of the wanted
  set and has no version.

Reference: PROTOCOL 8.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgpack

from craft.errors import Refused
from craft.limits import ADDRESS_CHARS_MAX, MEMBERS_MAX
from craft.types import DISK_ID_CHARS_MAX, SERVER_ID_MAX, Member, ServerId

TAG = b"\x81\xa7members"
"""How a request that changes the wanted set begins: a map, where a body of commands is an array."""


class Add(NamedTuple):
    """Let a server come, or come again on another disk."""

    server: ServerId
    address: str
    disk: str = ""


class Remove(NamedTuple):
    """Let a server go."""

    server: ServerId


class Move(NamedTuple):
    """A server is reached at another address."""

    server: ServerId
    address: str


Change = Add | Remove | Move

_KINDS: tuple[type[Change], ...] = (Add, Remove, Move)
_CODES = {kind: code for code, kind in enumerate(_KINDS)}


def encode_changes(changes: Iterable[Change]) -> bytes:
    """The body of a request that makes these changes together."""
    packed: bytes = msgpack.packb({"members": [(_CODES[type(change)], *change) for change in changes]})
    return packed


def encode_items(items: Iterable[Sequence[Any]]) -> bytes:
    """The same of changes as clients spell them: `[kind, id, …]`, the kind by its number."""
    packed: bytes = msgpack.packb({"members": list(items)})
    return packed


def decode_changes(body: bytes) -> list[Change]:
    """The changes in such a body. Raises Refused where it is none: it is judged alike on every server."""
    try:
        items = msgpack.unpackb(body, use_list=False)["members"]
        return [_KINDS[code](*fields) for code, *fields in items]
    except (ValueError, TypeError, KeyError, IndexError, msgpack.UnpackException) as error:
        raise Refused(f"{body[:64]!r} is no change of members") from error


class Members:
    """The wanted set, as of one position of the merged log."""

    __slots__ = ("servers", "version")

    def __init__(self, founders: Iterable[ServerId] = ()) -> None:
        self.version = 0
        self.servers: dict[ServerId, Member] = {server: Member() for server in sorted(founders)}

    def apply(self, body: bytes) -> str:
        """Make the changes of a request, or none of them. Returns why not; empty: it is done."""
        try:
            servers = _changed(self.servers, decode_changes(body))
        except Refused as refused:
            return str(refused)
        if servers != self.servers:
            self.version += 1
            self.servers = dict(sorted(servers.items()))
        return ""

    def bind(self, server: ServerId, disk: str) -> None:
        """A session was opened under this id, from this disk."""
        member = self.servers.get(server)
        if member is not None and not member.disk and is_disk(disk):
            self.servers = {**self.servers, server: member._replace(disk=disk)}

    def disks(self) -> dict[ServerId, str]:
        """The disk of each wanted server; empty where none is bound yet."""
        return {server: member.disk for server, member in self.servers.items()}

    def pack(self) -> bytes:
        """As it is kept in snapshots, and told to servers: equal sets are equal bytes."""
        packed: bytes = msgpack.packb(
            (self.version, [(server, *member) for server, member in self.servers.items()])
        )
        return packed

    @classmethod
    def unpack(cls, packed: bytes) -> Members:
        """The set in such bytes. Raises ValueError for any others."""
        try:
            version, servers = msgpack.unpackb(packed, use_list=False, max_array_len=MEMBERS_MAX)
            found = {server: Member(address, disk) for server, address, disk in servers}
            for server, member in found.items():
                if server != 0:  # the founder of a cluster that is driven by hand may be that
                    _check_server(server)
                if member.address:
                    _check_address(member.address)
                if member.disk:
                    _check_disk(member.disk)
            if type(version) is not int or not 0 <= version < 2**63:
                raise Refused(f"version {version!r}; allowed are 0 to 2**63 - 1")
        except (ValueError, TypeError, msgpack.UnpackException, Refused) as error:
            raise ValueError(f"{packed[:64]!r} is no set of servers: {error}") from error
        members = cls()
        members.version, members.servers = version, dict(sorted(found.items()))
        return members


def is_disk(disk: Any) -> bool:
    """Could this be a disk's id?"""
    return type(disk) is str and 0 < len(disk) <= DISK_ID_CHARS_MAX and disk.isascii() and disk.isalnum()


def is_address(address: Any) -> bool:
    """Could a server be reached there? `host:port`."""
    if type(address) is not str or not 0 < len(address) <= ADDRESS_CHARS_MAX or not address.isprintable():
        return False
    host, _, port = address.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 2**16


# -- what a change may ask for --------------------------------------------------------------------


def _changed(servers: Mapping[ServerId, Member], changes: list[Change]) -> dict[ServerId, Member]:
    after = dict(servers)
    for change in changes:
        _check_server(change.server)
        _MAKE[type(change)](after, change)
    if not after:
        raise Refused("no server would be left; a cluster has at least one")
    if len(after) > MEMBERS_MAX:
        raise Refused(f"{len(after)} servers; allowed are MEMBERS_MAX = {MEMBERS_MAX}")
    if all(_changes_disk(servers, server, member) for server, member in after.items()):
        raise Refused("every server would be on another disk; one at least must hold what was written")
    return after


def _changes_disk(servers: Mapping[ServerId, Member], server: ServerId, member: Member) -> bool:
    before = servers.get(server)
    return before is not None and before.disk not in ("", member.disk)


def _add(servers: dict[ServerId, Member], change: Add) -> None:
    _check_address(change.address)
    if change.disk:
        _check_disk(change.disk)
    there = servers.get(change.server)
    if there is not None and change.disk in ("", there.disk) and there.address not in ("", change.address):
        raise Refused(
            f"server {change.server} is a member at {there.address} already; to let it be reached elsewhere,"
            " move it; to let it come on another disk, name that disk"
        )
    disk = change.disk or (there.disk if there is not None else "")
    servers[change.server] = Member(change.address, disk)


def _remove(servers: dict[ServerId, Member], change: Remove) -> None:
    if servers.pop(change.server, None) is None:
        raise _unknown(servers, change.server)


def _move(servers: dict[ServerId, Member], change: Move) -> None:
    _check_address(change.address)
    if change.server not in servers:
        raise _unknown(servers, change.server)
    servers[change.server] = servers[change.server]._replace(address=change.address)


_MAKE: dict[type, Any] = {Add: _add, Remove: _remove, Move: _move}


def _unknown(servers: Mapping[ServerId, Member], server: ServerId) -> Refused:
    return Refused(f"server {server} is not a member; members are {', '.join(map(str, sorted(servers)))}")


def _check_server(server: Any) -> None:
    if type(server) is not int or not 0 < server <= SERVER_ID_MAX:
        raise Refused(f"server id {server!r}; allowed are 1 to {SERVER_ID_MAX}")


def _check_address(address: Any) -> None:
    if not is_address(address):
        raise Refused(f"address {address!r}; allowed is host:port with a port from 1 to 65535")


def _check_disk(disk: Any) -> None:
    if not is_disk(disk):
        raise Refused(f"disk id {disk!r}; allowed are 1 to {DISK_ID_CHARS_MAX} letters and digits")
