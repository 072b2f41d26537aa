"""The roll: what a server must know of its cluster before it has read its log.

Who the cluster's first servers were, whether this one came later, and where the members are reached, as of
the newest set that this server has known. That is a hint for connections and never for a quorum: those follow
the configurations in the logs.

Invariants
- The first servers and whether this one joined are written once, and never change.
- The file is there whole or not at all, and carries a checksum: written beside, synced, renamed.
"""

from __future__ import annotations

import dataclasses
import os
import zlib
from pathlib import Path
from typing import NamedTuple

import msgpack

from craft.config import Config
from craft.errors import DamagedStorage, StorageFailed, WrongDirectory
from craft.membership import Members
from craft.types import ServerId

ROLL_FILE = "ROLL"


class Roll(NamedTuple):
    """What is kept. `addresses` are those of the members, as far as any is known here."""

    founders: tuple[ServerId, ...]
    joined: bool
    groups: int
    members: Members
    addresses: dict[ServerId, str]

    def pack(self) -> bytes:
        """As it stands in the file, and in the answer to a server that asks to join."""
        founders, joined, groups, members, addresses = self
        body: bytes = msgpack.packb((founders, joined, groups, members.pack(), sorted(addresses.items())))
        return zlib.crc32(body).to_bytes(4, "big") + body


def unpack_roll(packed: bytes) -> Roll:
    """The roll in such bytes. Raises ValueError for any others."""
    body = packed[4:]
    if len(packed) < 4 or zlib.crc32(body).to_bytes(4, "big") != packed[:4]:
        raise ValueError("its checksum does not hold")
    try:
        founders, joined, groups, members, addresses = msgpack.unpackb(body, use_list=False)
        return Roll(founders, bool(joined), groups, Members.unpack(members), dict(addresses))
    except (TypeError, msgpack.UnpackException) as error:
        raise ValueError(f"no roll: {error}") from error


def founding(config: Config) -> Roll:
    """The roll of one of the cluster's first servers."""
    return Roll(
        tuple(sorted(config.servers)),
        joined=False,
        groups=config.group_count,
        members=Members(config.servers),
        addresses=dict(config.servers),
    )


def settled(config: Config, roll: Roll) -> Config:
    """The configuration with what the roll knows: the number of groups, and where the members are.

    The roll's addresses come later than the file's. Our own is that of the file, if it has one. Raises
    WrongDirectory where the file names another number of groups.
    """
    if config.groups not in (None, roll.groups):
        raise WrongDirectory(
            f"groups is {config.groups}, and the cluster was created with {roll.groups}: that never changes"
        )
    known = {**config.servers, **{i: a for i, a in roll.addresses.items() if i in roll.members.servers}}
    kept = {server: address for server, address in known.items() if server in roll.members.servers}
    own = config.servers.get(config.server_id) or config.listen or kept.get(config.server_id, "")
    taken = {server: address for server, address in kept.items() if address != own}
    return dataclasses.replace(config, servers={**taken, config.server_id: own}, groups=roll.groups)


# -- on disk --------------------------------------------------------------------------------------


def load(config: Config) -> Roll | None:
    """The roll in the data directory; None: there is none yet. Raises DamagedStorage, StorageFailed."""
    if config.data_dir is None:
        return None
    file = config.data_dir / ROLL_FILE
    try:
        return unpack_roll(file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageFailed(f"{file} cannot be read: {error}") from error
    except ValueError as error:
        raise DamagedStorage(
            f"{file} is damaged ({error}): it says where the other servers are. Take it from a copy, or let"
            " this server come back on an empty directory, under its new disk id"
        ) from error


def save(directory: Path | None, roll: Roll) -> None:
    """Keep the roll, durably. Raises StorageFailed."""
    if directory is None:
        return
    try:
        _write(directory, roll.pack())
    except OSError as error:
        raise StorageFailed(f"{directory / ROLL_FILE} cannot be written: {error}") from error


def _write(directory: Path, packed: bytes) -> None:
    beside = directory / (ROLL_FILE + ".new")
    with beside.open("wb") as file:
        file.write(packed)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(directory / ROLL_FILE)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
