"""The reserve on the disk: looked at in a thread, told to the engine, and shown."""

from __future__ import annotations

import pathlib

import pytest
import trio

import craft
from craft.server import space
from craft.server.space import Space, free_bytes
from tests.server.cluster import Ledger

MIN = 1000


class Told:
    """As much of the engine's state as is told."""

    disk_low = ""


def looked(*found: int) -> list[bool]:
    """Is it low, after each look?"""
    told = Told()
    watched = Space(pathlib.Path(), MIN, told)  # type: ignore[arg-type]  # all that it touches
    lows = []
    for free in found:
        watched.found(free)
        lows.append(bool(told.disk_low))
        assert watched.status() == {"free_bytes": free, "free_bytes_min": MIN, "low": lows[-1]}
    return lows


def test_below_the_reserve_it_is_low_until_there_is_more_than_that() -> None:
    """It does not change its mind each second."""
    assert looked(MIN, MIN - 1, MIN, MIN + 100, MIN + 125, MIN) == [False, True, True, True, False, False]


def test_the_reason_names_the_limit_and_what_is_free() -> None:
    """For whoever is refused."""
    told = Told()
    Space(pathlib.Path(), MIN, told).found(7)  # type: ignore[arg-type]  # as above
    assert told.disk_low == "7 bytes are free on this server's disk; disk_free_bytes_min = 1000"


def test_free_bytes_are_the_file_systems(tmp_path: pathlib.Path) -> None:
    """Some, and fewer than there are in the world."""
    assert 0 < free_bytes(tmp_path) < 2**60


async def test_a_server_below_its_reserve_takes_no_commands(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And takes them again when there is room; its status says so, reads go on."""
    room = [MIN - 1]
    monkeypatch.setattr(space, "free_bytes", lambda _: room[0])
    monkeypatch.setattr(space, "LOOK_INTERVAL_S", 0)
    config = craft.Config(
        cluster="orders",
        server_id=1,
        servers={1: "127.0.0.1:7401"},
        data_dir=tmp_path / "d",
        disk_free_bytes_min=MIN,
    )
    transport = craft.MemoryNetwork().transport(1)
    async with craft.open_server(config, Ledger(), transport=transport) as server:
        await server.wait_ready()
        while not server.status()["disk"]["low"]:
            await trio.lowlevel.checkpoint()
        with pytest.raises(craft.Overloaded, match="disk_free_bytes_min = 1000"):
            await server.propose(b"no room")
        assert await server.read(lambda ledger: len(ledger.commands)) == 0
        room[0] = 2 * MIN
        while server.status()["disk"]["low"]:
            await trio.lowlevel.checkpoint()
        assert await server.propose(b"room again") == 1
