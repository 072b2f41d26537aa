"""`server.members` on one server: what it refuses before it asks the cluster."""

from __future__ import annotations

import pytest
import trio.testing

import craft
from tests.server.cluster import three_servers


async def test_two_servers_are_not_reached_at_one_address(autojump_clock: trio.testing.MockClock) -> None:
    """Every group would wait for a server that cannot come. Who goes gives up its address."""
    async with three_servers() as cluster:
        members = cluster.servers[1].members
        third = members.list()[2].address
        for call in (members.add(4, third), members.move(2, third)):
            with pytest.raises(craft.Refused, match=rf"address {third} of server [42] is that of server 3"):
                await call
        both = [craft.Add(number, "10.0.0.9:7001") for number in (4, 5)]
        with pytest.raises(craft.Refused, match=r"address 10.0.0.9:7001 of server 5 is that of server 4"):
            await members.change(both)
        assert members.version == 0
        assert await members.replace(3, 4, third, wait=False) == 1
