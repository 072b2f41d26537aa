"""What only the hub in memory can do: cut its cables."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from craft.limits import TransportLimits
from craft.messages import Frame, ReadQuery
from craft.transport.memory import MemoryNetwork
from tests.transport.clusters import Cluster, Running
from tests.transport.inboxes import RecordingInbox


def query(number: int) -> Frame:
    return Frame(1, 0, 0, 0, 0, (), (), (ReadQuery(number),))


@pytest.fixture
def network() -> MemoryNetwork:
    return MemoryNetwork(limits=TransportLimits(), encode=True)


@pytest.fixture
def cluster(nursery: trio.Nursery, network: MemoryNetwork) -> Cluster:
    return Cluster(nursery, network.transport)


def received(server: Running) -> list[int]:
    return [
        one.frame.messages[0].round
        for one in server.inbox.arrived
        if isinstance(one.frame.messages[0], ReadQuery)
    ]


async def exchange(one: Running, two: Running, number: int) -> None:
    one.send(2, query(number))
    two.send(1, query(number))
    await trio.testing.wait_all_tasks_blocked()


async def test_a_cut_loses_frames_in_silence(network: MemoryNetwork, cluster: Cluster) -> None:
    """Like a pulled cable: nobody is told, what is sent is lost, and after healing it goes on as before."""
    one, two = await cluster.pair()
    network.cut(1, 2)
    await exchange(one, two, 1)
    network.heal()
    await exchange(one, two, 2)
    assert received(one) == received(two) == [2]
    assert (one.inbox.links, two.inbox.links) == (["up 2"], ["up 1"])


async def test_a_one_way_cut_loses_one_direction(network: MemoryNetwork, cluster: Cluster) -> None:
    """The other direction still works: a server may be heard and be deaf."""
    one, two = await cluster.pair()
    network.cut_one_way(1, 2)
    await exchange(one, two, 1)
    assert (received(one), received(two)) == ([1], [])


async def test_frames_on_their_way_are_lost_by_a_cut(network: MemoryNetwork, cluster: Cluster) -> None:
    """Sent and not yet taken is not arrived."""
    one, two = await cluster.pair()
    one.send(2, query(1))
    network.cut(1, 2)
    await trio.testing.wait_all_tasks_blocked()
    assert received(two) == []


async def test_a_restart_behind_a_cut_is_noticed_on_healing(network: MemoryNetwork, cluster: Cluster) -> None:
    """Frames for the run before never reach the run after, and the link breaks when it can be known."""
    one, two = await cluster.pair()
    network.cut_one_way(2, 1)
    await two.stop()
    one.send(2, query(1))
    again = await cluster.start(2)
    one.send(2, query(2))
    await trio.testing.wait_all_tasks_blocked()
    assert one.inbox.links == ["up 2"]
    network.heal()
    assert one.inbox.links == ["up 2", "down 2", "up 2"]
    assert again.inbox.links == ["up 1"]
    assert received(again) == []


async def test_a_stop_behind_a_cut_is_noticed_on_healing(network: MemoryNetwork, cluster: Cluster) -> None:
    """Then the reconnect is refused."""
    one, two = await cluster.pair()
    network.cut(1, 2)
    await two.stop()
    network.heal()
    assert one.inbox.links == ["up 2", "refused 2"]


async def test_a_server_runs_once(network: MemoryNetwork, cluster: Cluster) -> None:
    """Two runs of one id at a time are a mistake of the caller."""
    await cluster.start(1)
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(ValueError, match="server 1 runs already"):
        await network.transport(1).run(RecordingInbox())
