"""Where a command's time goes, as a server's status and metrics tell it."""

from __future__ import annotations

import time
from typing import Any

import pytest
import trio

import craft
from craft.engine.rungs import RUNGS
from craft.engine.state import Climb
from craft.server.calls import Call
from craft.server.measures import Measures
from craft.storage import Identity
from craft.storage.memory import MemoryStorage
from tests.driver import MS, SECOND
from tests.driver import Cluster as Engines
from tests.server.cluster import three_servers


class SlowLedger:
    """Takes five milliseconds a batch."""

    def apply_batch(self, _batch: craft.Batch) -> None:
        time.sleep(0.005)


def histograms(server: craft.Server[Any], name: str) -> dict[str, dict[str, Any]]:
    found = [metric for metric in server.metrics() if metric["name"] == name]
    return {metric["labels"].get("rung", ""): metric for metric in found}


async def test_a_commands_way_is_in_status_and_metrics() -> None:
    """Every rung once a command; applying is timed by itself.

    Alone, for among several a leader may come home. By the real clock: virtual time leaps while threads sync.
    """
    config = craft.Config(cluster="test", server_id=1, servers={1: "127.0.0.1:7401"})
    storage = MemoryStorage(Identity("test", 1, "f" * 32, 3))
    transport = craft.MemoryNetwork().transport(1)
    async with craft.open_server(config, SlowLedger(), storage=storage, transport=transport) as server:
        await server.wait_ready()
        assert {one["count"] for one in server.status()["rungs"].values()} == {0}
        await server.propose(b"one")
        with trio.fail_after(60):
            while not server.status()["rungs"]["total"]["count"]:  # noqa: ASYNC110  # there is no event
                await trio.sleep(0.01)
        status = server.status()["rungs"]
        assert list(status) == [*RUNGS, "total"]
        assert {one["count"] for one in status.values()} == {1}
        assert status["applied"]["p99_ms"] >= 5 * 15 / 16  # as exact as the histogram is
        assert status["total"]["p99_ms"] >= status["applied"]["p99_ms"]
        by_rung = histograms(server, "craft_rung_seconds")
        assert {rung: one["count"] for rung, one in by_rung.items()} == dict.fromkeys(RUNGS, 1)
        assert histograms(server, "craft_climb_seconds")[""]["count"] == 1
        assert server.engine.state.climbs == []
        assert server.engine.state.probes == {}


async def test_a_server_that_leads_nothing_yet_has_nothing_to_tell(autojump_clock: object) -> None:
    """Counts of zero, and no guesses."""
    async with three_servers() as cluster:
        assert cluster.servers[2].status()["rungs"]["total"] == {"count": 0, "p50_ms": None, "p99_ms": None}


def recorded(token: Any) -> dict[str, Any]:
    """What the measures say of one entry that took 1, 2, 3 and 4 ms from rung to rung."""
    measures, e = Measures(), Engines(servers=1).servers[0].engine.state
    e.climbs.append(Climb(0, token, tuple(9 * SECOND + ms * MS for ms in (0, 1, 3, 6, 10))))
    measures.take_turn(0.0, e)
    assert e.climbs == []
    return {name: one["p50_ms"] for name, one in measures.rungs().items()}


def test_each_rung_is_timed_from_the_one_below() -> None:
    """The first from the call's beginning, which is where the total begins too."""
    call = Call([b""], many=True, started=8.995)
    exact = {"appended": 5, "persisted": 1, "committed": 2, "merged": 3, "applied": 4, "total": 15}
    assert recorded(call) == pytest.approx(exact)


def test_another_servers_command_has_no_beginning_here() -> None:
    """Its rungs count; since when its caller waits only that server knows."""
    assert recorded(None) == pytest.approx(
        {"appended": None, "persisted": 1, "committed": 2, "merged": 3, "applied": 4, "total": None}
    )
