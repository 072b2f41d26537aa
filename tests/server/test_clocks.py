"""The server and its clock: built from the configuration, run with the server, shown in its status."""

from __future__ import annotations

import secrets
import time
from typing import Any

import trio

import craft
from craft.clock.ntp import SYNCHRONISED
from craft.server.opening import configured_clock
from craft.storage import Identity
from craft.storage.memory import MemoryStorage
from tests.clock.responder import Lie, responding
from tests.server.cluster import Ledger, VirtualClock, three_servers

ADDRESSES = {server_id: f"127.0.0.1:{7400 + server_id}" for server_id in (1, 2, 3)}


def config(**settings: Any) -> craft.Config:
    return craft.Config(
        cluster="test", server_id=1, servers={1: "127.0.0.1:7401"}, clock=craft.ClockConfig(**settings)
    )


def test_each_source_is_built_and_watched() -> None:
    """The configuration's word for it is the status's."""
    for source, servers in (("system", []), ("chrony", []), ("ntp", ["127.0.0.1:1"])):
        clock = configured_clock(config(source=source, ntp_servers=servers))
        assert clock.status()["source"] == source
        assert {"steps", "stops", "suspends"} < set(clock.status())


async def test_a_server_runs_its_clock_and_shows_it() -> None:
    """It asks the time servers while it runs, and stamps by what a majority of them says."""
    with responding() as one, responding() as two, responding(Lie(ahead_ns=10**10)) as liar:
        servers = [f"127.0.0.1:{responder.port}" for responder in (one, two, liar)]
        settings = config(source="ntp", ntp_servers=servers, error_ms_max=100)
        network = craft.MemoryNetwork()
        async with craft.open_server(settings, Ledger(), transport=network.transport(1)) as server:
            with trio.fail_after(60):
                while not server.status()["clock"]["falsetickers"]:  # noqa: ASYNC110  # threads answer
                    await trio.sleep(0.01)
            clock = server.status()["clock"]
            assert (clock["source"], clock["state"], clock["error_ms_max"]) == ("ntp", SYNCHRONISED, 100)
            assert clock["falsetickers"] == [servers[2]]
            await server.propose(b"x")
            error = server.status()["clock"]["error_ns"]
            [(_, timestamp)] = server.state_machine.places
            assert abs(timestamp - time.time_ns()) < error + 10**10


async def test_a_programs_own_clock_is_taken_as_it_is() -> None:
    """Nothing is asked of it beyond now and error; its class names it."""
    network = craft.MemoryNetwork()
    clock = craft.ManualClock(error=7)
    async with craft.open_server(config(), Ledger(), clock=clock, transport=network.transport(1)) as server:
        assert server.status()["clock"] == {
            "source": "ManualClock",
            "state": "given by the program",
            "error_ns": 7,
            "error_ms_max": None,
        }


async def test_offsets_and_errors_are_metrics(autojump_clock: object) -> None:
    """One gauge a peer; what the clock itself does not know is left out."""
    async with three_servers() as cluster:
        cluster.clocks[3].offset_ns = 1_500_000_000
        await trio.sleep(1)
        collected = cluster.servers[1].metrics()
        cluster.clocks[1].error = lambda: 2_000_000  # type: ignore[method-assign]
        again = {
            metric["name"]: metric["value"] for metric in cluster.servers[1].metrics() if "value" in metric
        }
    offsets = {
        metric["labels"]["peer"]: round(metric["value"], 6)
        for metric in collected
        if metric["name"] == "craft_clock_offset_seconds"
    }
    assert offsets == {"2": 0, "3": 1.5}
    assert "craft_clock_error_seconds" not in {metric["name"] for metric in collected}
    assert again["craft_clock_error_seconds"] == 0.002


def offsets(server: craft.Server[Any]) -> dict[str, float]:
    found = [metric for metric in server.metrics() if metric["name"] == "craft_clock_offset_seconds"]
    return {metric["labels"]["peer"]: round(metric["value"], 6) for metric in found}


async def test_who_joins_later_is_a_metric_as_well(autojump_clock: object) -> None:
    """For the others, and they for it: no server was its peer when it started."""
    async with three_servers() as cluster:
        address, disk = "127.0.0.1:7404", MemoryStorage(Identity("test", 4, secrets.token_hex(16), 3))
        await cluster.servers[1].members.add(4, address, wait=False)
        await trio.sleep(1)  # until all know of it: this network tells nobody twice who is there
        config = craft.Config(cluster="test", server_id=4, servers={4: address, **ADDRESSES})
        transport = cluster.network.transport(4)
        async with craft.open_server(
            config, Ledger(), clock=VirtualClock(2 * 10**9), storage=disk, transport=transport
        ) as fourth:
            await trio.sleep(5)
            assert offsets(cluster.servers[1]) == {"2": 0, "3": 0, "4": 2}
            assert offsets(fourth) == {"1": -2, "2": -2, "3": -2}
