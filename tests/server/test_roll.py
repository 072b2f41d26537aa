"""What a server knows of its cluster before it has read its log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from craft import Config, DamagedStorage, Server, StorageFailed, Unknown, WrongDirectory, open_server
from craft.membership import Add, Remove, encode_changes
from craft.server.joining import renewed
from craft.server.roll import ROLL_FILE, founding, load, save, settled, unpack_roll
from craft.storage import Identity
from craft.storage.memory import MemoryStorage
from craft.wire import encode_message
from tests.server.cluster import Ledger
from tests.server.listening import one_server, raw_client

FIRST = Config(cluster="c", server_id=1, servers={1: "127.0.0.1:7001", 2: "127.0.0.1:7002"})


def test_a_roll_survives_the_disk(tmp_path: Path) -> None:
    """Packed, written, read, unpacked."""
    roll = founding(FIRST)
    save(tmp_path, roll)
    found = load(Config(cluster="c", server_id=1, servers=FIRST.servers, data_dir=tmp_path))
    assert found is not None
    assert found.pack() == roll.pack()
    assert (found.founders, found.joined, found.groups) == ((1, 2), False, 3)


def test_a_flipped_byte_is_named(tmp_path: Path) -> None:
    """The file, and what may be done."""
    save(tmp_path, founding(FIRST))
    file = tmp_path / ROLL_FILE
    packed = bytearray(file.read_bytes())
    for place in range(len(packed)):
        packed[place] ^= 1
        with pytest.raises(ValueError, match="checksum"):
            unpack_roll(bytes(packed))
        packed[place] ^= 1
    file.write_bytes(packed[:-1])
    with pytest.raises(DamagedStorage, match=str(file)):
        load(Config(cluster="c", server_id=1, servers=FIRST.servers, data_dir=tmp_path))


async def test_a_start_that_finds_no_roll_closes_the_storage_that_it_was_given(tmp_path: Path) -> None:
    """open_server owns it from the call on, however it ends."""
    (tmp_path / ROLL_FILE).write_bytes(b"no roll")
    storage = MemoryStorage(Identity("c", 1, "d" * 32, 2))
    config = Config(cluster="c", server_id=1, servers=FIRST.servers, data_dir=tmp_path)
    with pytest.raises(DamagedStorage, match=ROLL_FILE):
        async with open_server(config, Ledger(), storage=storage):
            pytest.fail("it must not start")
    with pytest.raises(StorageFailed, match="the storage is closed"):
        storage.sync()


def test_a_disk_that_refuses_it_is_this_servers_failure(tmp_path: Path) -> None:
    """It ends the server, in a line that names the file: a full disk says only that it is full."""
    full = tmp_path / ROLL_FILE
    Path(f"{full}.new").symlink_to("/dev/full")
    with pytest.raises(StorageFailed, match=f"{full} cannot be written: .*No space left on device"):
        save(tmp_path, founding(FIRST))
    full.mkdir()
    with pytest.raises(StorageFailed, match=f"{full} cannot be read: .*Is a directory"):
        load(Config(cluster="c", server_id=1, servers=FIRST.servers, data_dir=tmp_path))


def test_a_joining_server_takes_groups_and_addresses_from_the_roll() -> None:
    """Its own address is that of its file; who is no member is left out."""
    members = founding(FIRST).members
    members.apply(encode_changes([Add(3, "127.0.0.1:7003"), Remove(2)]))
    roll = founding(FIRST)._replace(joined=True, groups=7, members=members)
    config = Config(cluster="c", server_id=3, join=["127.0.0.1:8001"], listen="127.0.0.1:7003")
    assert settled(config, roll).servers == {1: "127.0.0.1:7001", 3: "127.0.0.1:7003"}
    assert settled(config, roll).group_count == 7


async def test_a_server_that_was_away_learns_of_newer_members_at_its_start() -> None:
    """All that it knew may have been replaced. Without an answer, or news, it goes on with what it knows."""
    async with one_server() as (server, address):
        await server.members.add(9, "127.0.0.1:7009", wait=False)
        config = Config(cluster="test", server_id=2, join=[address], listen="127.0.0.1:7002")
        old = founding(server.config)
        found = await renewed(config, old)
        assert (found.members.version, found.addresses[9]) == (1, "127.0.0.1:7009")
        assert await renewed(config, found) is found
        elsewhere = old._replace(groups=old.groups + 1)
        assert await renewed(config, elsewhere) is elsewhere
    assert await renewed(config, old) is old


async def stop_once_taken(server: Server[Any]) -> None:
    """It begins to stop when a change of the members is agreed, and before any group has followed it."""
    while server.members.version == 0:  # noqa: ASYNC110  # it is merged some turn
        await trio.sleep(0.01)
    server.engine.hand_over(server._now())
    server.members.wake()


async def test_a_change_that_was_taken_is_not_rejected_when_the_server_ends() -> None:
    """The set is another one from then on; how far the groups will follow is not known here."""
    async with one_server() as (server, _), trio.open_nursery() as nursery:
        told = trio.Event()

        async def change() -> None:
            with pytest.raises(Unknown, match="is agreed, as version 1, and goes on; but the server is stop"):
                await server.members.add(9, "127.0.0.1:7009")
            told.set()

        nursery.start_soon(change)
        await stop_once_taken(server)
        await told.wait()


async def test_a_client_is_told_of_the_change_that_was_taken_when_the_server_ends() -> None:
    """The reply has its version, and how far the groups are."""
    async with one_server() as (server, address), raw_client(address) as client:
        await client.stream.send_all(encode_message([1, "members", [[0, 9, "127.0.0.1:7009", ""], 60_000]]))
        await stop_once_taken(server)
        number, outcome, told = await client.reply()
        assert (number, outcome) == (1, "ok")
        assert told["reached_version"] < told["version"] == 1
        assert (await client.ask(2, "members", [0]))[1] == "rejected"  # who only asks may ask another


def test_another_number_of_groups_is_refused_by_name() -> None:
    """It is part of the cluster; where the file says nothing, the roll's counts."""
    roll = founding(replace(FIRST, groups=4))
    assert settled(FIRST, roll).groups == settled(replace(FIRST, groups=4), roll).groups == 4
    with pytest.raises(WrongDirectory, match="groups is 5, and the cluster was created with 4"):
        settled(replace(FIRST, groups=5), roll)
