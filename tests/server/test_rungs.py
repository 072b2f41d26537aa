"""Where a command's time goes, as a server's status and metrics tell it."""

from __future__ import annotations

from typing import Any

import pytest
import trio.testing

import craft
from craft.engine.rungs import RUNGS
from craft.engine.state import Climb
from craft.server.calls import Call
from craft.server.measures import Measures
from tests.driver import MS, SECOND
from tests.driver import Cluster as Engines
from tests.server.cluster import three_servers


class SlowLedger:
    """Takes five milliseconds of virtual time a batch."""

    def __init__(self) -> None:
        self.clock: trio.testing.MockClock | None = None

    def apply_batch(self, _batch: craft.Batch) -> None:
        if self.clock is not None:
            self.clock.jump(0.005)


def histograms(server: craft.Server[Any], name: str) -> dict[str, dict[str, Any]]:
    found = [metric for metric in server.metrics() if metric["name"] == name]
    return {metric["labels"].get("rung", ""): metric for metric in found}


async def test_a_commands_way_is_in_status_and_metrics(autojump_clock: trio.testing.MockClock) -> None:
    """Every rung once a command, on the server that led it; applying is timed by itself."""
    async with three_servers(SlowLedger) as cluster:
        server = cluster.servers[1]
        # One entry of a group is watched at a time: none of others may be under way.
        while cluster.leaders()[0] != 1 or server.engine.state.probes:  # noqa: ASYNC110  # there is no event
            await trio.sleep(0.1)
        before = {name: one["count"] for name, one in server.status()["rungs"].items()}
        server.state_machine.clock = autojump_clock
        await server.propose(b"one")
        server.state_machine.clock = None
        status = server.status()["rungs"]
        assert list(status) == [*RUNGS, "total"]
        # Another server's session may have been opened through a group led here meanwhile.
        assert all(one["count"] > before[name] for name, one in status.items())
        assert status["applied"]["p99_ms"] == pytest.approx(5, rel=1 / 16)
        assert status["total"]["p99_ms"] >= status["applied"]["p99_ms"]
        by_rung = histograms(server, "craft_rung_seconds")
        assert {rung: one["count"] for rung, one in by_rung.items()} == {
            rung: status[rung]["count"] for rung in RUNGS
        }
        assert histograms(server, "craft_climb_seconds")[""]["count"] == status["total"]["count"]
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
