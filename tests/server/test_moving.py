"""`server.leaders`: done when they return, or they say why not."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import craft
from craft.server.listener_requests import OPERATIONS, Request, answer
from craft.wire import PREFIX_BYTES, decode_message
from tests.server.cluster import Cluster, three_servers

Clock = trio.testing.MockClock


def leaders(cluster: Cluster) -> list[int | None]:
    """Each group's, by the word of server 3."""
    return [group["leader"] for group in cluster.servers[3].status()["groups"]]


async def test_a_group_is_led_where_it_was_put_when_the_call_returns(clock: Clock) -> None:
    """It stays, is shown as held, and may be let go."""
    async with three_servers() as cluster:
        await cluster.servers[1].leaders.transfer(0, to=2)
        assert cluster.servers[1].status()["groups"][0]["leader"] == 2
        await trio.sleep(20)
        assert leaders(cluster) == [2, 2, 3]
        assert cluster.servers[2].status()["groups"][0]["held_ms"] > 0
        cluster.servers[2].leaders.bring_home()
        await trio.sleep(20)
        assert leaders(cluster) == [1, 2, 3]
    del clock


async def test_a_drained_server_leads_nothing_when_the_call_returns(clock: Clock) -> None:
    """Its own callers are answered all the same; afterwards it leads again what belongs to it."""
    async with three_servers() as cluster:
        await cluster.servers[1].leaders.drain(hold_ms=30_000)
        assert all(group["role"] != "leader" for group in cluster.servers[1].status()["groups"])
        assert 0 < cluster.servers[1].status()["drained_ms"] <= 30_000
        assert await cluster.servers[1].propose(b"forwarded") == 1
        await trio.sleep(35)
        assert leaders(cluster) == [1, 2, 3]
    del clock


async def test_who_cannot_hand_over_says_why(clock: Clock) -> None:
    """The leader must be asked; and the time is bounded."""
    async with three_servers() as cluster:
        with pytest.raises(craft.NotLeader, match="group 1 is led by server 2; allowed: to ask that server"):
            await cluster.servers[1].leaders.transfer(1, to=3)
        with pytest.raises(ValueError, match="hold_ms is 0; allowed: 1 to 86400000"):
            await cluster.servers[1].leaders.transfer(0, to=3, hold_ms=0)
        for other in (2, 3):
            await cluster.servers[other].leaders.drain()
        await trio.sleep(0.3)
        with pytest.raises(craft.TransferFailed, match="still leads groups 0, 1, 2: no other server"):
            await cluster.servers[1].leaders.drain()
    del clock


async def test_a_client_is_told_that_a_wish_goes_on(clock: Clock) -> None:
    """Rejected would be: it has no effect, ever. But the server goes on trying."""
    async with three_servers(close_timeout_ms=2000) as cluster:
        for other in (2, 3):
            await cluster.servers[other].leaders.drain()
        await trio.sleep(0.3)
        request = Request(1, "drain", (None,))
        framed = await answer(cluster.servers[1], request, OPERATIONS)
        told = decode_message(memoryview(framed)[PREFIX_BYTES:])
        assert told[:2] == (1, "unknown")
        assert "still leads groups 0, 1, 2" in told[2]
    del clock
