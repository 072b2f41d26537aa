"""The server and its clock: built from the configuration, run with the server, shown in its status."""

from __future__ import annotations

import time
from typing import Any

import trio

import craft
from craft.clock.ntp import SYNCHRONISED
from craft.server.opening import configured_clock
from tests.clock.responder import Lie, responding
from tests.server.cluster import Ledger, three_servers


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
