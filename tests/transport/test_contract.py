"""What every transport owes a server, over the hub in memory and over real sockets, with and without TLS."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

import pytest
import trio
import trio.testing
import trustme

from craft.limits import TransportLimits
from craft.messages import AppendEntries, Frame, Heartbeats, Message, ReadQuery
from craft.types import EntryKind, make_entry
from tests.transport.clusters import Cluster, memory_cluster, tcp_cluster
from tests.transport.inboxes import RecordingInbox

Make: TypeAlias = Callable[[trio.Nursery, TransportLimits], Cluster]

MIB = 1024 * 1024
HEARTBEATS = Heartbeats(1, ((0, 7),), 0, ())
LIMITS = TransportLimits(reconnect_delay_ms_min=1, reconnect_delay_ms_max=20, send_queue_bytes_max=4 * MIB)


def frame_of(*messages: Message, sent: int = 0) -> Frame:
    return Frame(1, sent, 0, 0, 0, (), (), messages)


def bulk(size: int, *, sent: int = 0) -> Frame:
    entry = make_entry(0, index=1, term=1, timestamp=1, kind=EntryKind.COMMAND, payload=b"x" * size)
    return frame_of(AppendEntries(0, 1, 0, 0, 0, (entry,)), sent=sent)


def tls_cluster(nursery: trio.Nursery, limits: TransportLimits) -> Cluster:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for context in (server, client):
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return tcp_cluster(nursery, limits, server_tls=server, client_tls=client)


MAKERS: dict[str, Make] = {
    "memory": lambda nursery, limits: memory_cluster(nursery, limits, encode=False),
    "memory-encoded": lambda nursery, limits: memory_cluster(nursery, limits, encode=True),
    "tcp": tcp_cluster,
    "tls": tls_cluster,
}


@pytest.fixture(params=MAKERS)
async def cluster(request: pytest.FixtureRequest, nursery: trio.Nursery) -> AsyncIterator[Cluster]:
    with trio.fail_after(60):  # only so that a broken transport ends the test
        yield MAKERS[request.param](nursery, LIMITS)


async def test_frames_arrive_as_they_were_sent(cluster: Cluster) -> None:
    """In both directions, in order, with their sender and their size."""
    one, two = await cluster.pair()
    sent = [frame_of(ReadQuery(n), sent=n) for n in range(5)]
    for frame in sent:
        one.send(2, frame)
    two.send(1, bulk(1000))
    await two.inbox.until(lambda inbox: len(inbox.arrived) == 5)
    await one.inbox.until(lambda inbox: inbox.arrived)
    assert [(arrived.sender, arrived.frame) for arrived in two.inbox.arrived] == [
        (1, frame) for frame in sent
    ]
    assert (one.inbox.arrived[0].sender, one.inbox.arrived[0].frame) == (2, bulk(1000))
    assert 1000 < one.inbox.arrived[0].size < 1200


async def test_peers_tell_each_other_where_clients_reach_them(cluster: Cluster) -> None:
    """Whoever connects after that knows; a server that has said nothing is left out."""
    one = await cluster.start(1)
    one.transport.advertise("one.example:8001")
    two = await cluster.start(2)
    await one.inbox.until_links("up 2")
    await two.inbox.until_links("up 1")
    two.transport.advertise("two.example:8001")
    one.send(2, frame_of(ReadQuery(1)))
    await two.inbox.until(lambda inbox: inbox.arrived)
    assert two.transport.client_addresses() == {1: "one.example:8001", 2: "two.example:8001"}


async def test_a_large_frame_arrives_whole(cluster: Cluster) -> None:
    """A frame far larger than one read of a socket."""
    one, two = await cluster.pair()
    one.send(2, bulk(3 * MIB))
    await two.inbox.until(lambda inbox: inbox.arrived)
    assert two.inbox.arrived[0].frame == bulk(3 * MIB)


async def test_what_has_no_link_is_dropped(cluster: Cluster) -> None:
    """Sending to a server that does not run, or that nobody knows, is no error and leaves nothing behind."""
    one = await cluster.start(1)
    one.send(2, frame_of(ReadQuery(1)))
    one.send(77, frame_of(ReadQuery(1)))
    two = await cluster.start(2)
    await one.inbox.until_links("up 2")
    one.send(2, frame_of(ReadQuery(2)))
    await two.inbox.until(lambda inbox: inbox.arrived)
    assert [arrived.frame.messages for arrived in two.inbox.arrived] == [(ReadQuery(2),)]


async def test_links_come_up_whoever_starts_first(cluster: Cluster) -> None:
    """Each server hears of each peer once, also of those that started before it."""
    running = [await cluster.start(server_id) for server_id in (3, 1, 2)]
    for server, peers in zip(running, ("12", "23", "13"), strict=True):
        await server.inbox.until(lambda inbox: len(inbox.links) == 2)
        assert set(server.inbox.links) == {f"up {peer}" for peer in peers}


async def test_a_peer_that_stops_is_reported_as_refused(cluster: Cluster) -> None:
    """Nobody listens there any more: the replica may count a leader there as silent at once (PROTOCOL 9)."""
    one, two = await cluster.pair()
    await two.stop()
    await one.inbox.until_links("up 2", "refused 2")


async def test_a_restarted_peer_is_connected_again(cluster: Cluster) -> None:
    """Link events alternate, and frames flow in both directions as before."""
    one, two = await cluster.pair()
    await two.stop()
    await one.inbox.until_links("up 2", "refused 2")
    again = await cluster.start(2)
    await one.inbox.until_links("up 2", "refused 2", "up 2")
    await again.inbox.until_links("up 1")
    one.send(2, frame_of(ReadQuery(1)))
    again.send(1, frame_of(ReadQuery(2)))
    await again.inbox.until(lambda inbox: inbox.arrived)
    await one.inbox.until(lambda inbox: inbox.arrived)


async def test_heartbeats_overtake_bulk(cluster: Cluster) -> None:
    """A heartbeat that waited behind bulk data would cost an election (PROTOCOL 11)."""
    one, two = await cluster.pair()
    for frame in (bulk(MIB, sent=1), bulk(MIB, sent=2), frame_of(HEARTBEATS, sent=3), frame_of(sent=4)):
        one.send(2, frame)
    await two.inbox.until(lambda inbox: len(inbox.arrived) == 4)
    assert [arrived.frame.sent for arrived in two.inbox.arrived] == [3, 4, 1, 2]


async def test_overflow_drops_the_link(cluster: Cluster) -> None:
    """A peer that does not keep up costs bounded memory: what is queued is lost, the engine hears of it."""
    one, two = await cluster.pair()
    for number in range(4):  # each a little more than a quarter of the bound
        one.send(2, bulk(MIB, sent=number))
    await one.inbox.until_links("up 2", "down 2", "up 2")
    one.send(2, frame_of(ReadQuery(9), sent=9))
    await two.inbox.until(lambda inbox: any(arrived.frame.sent == 9 for arrived in inbox.arrived))
    assert [arrived.frame.sent for arrived in two.inbox.arrived] == [9]


async def test_a_full_inbox_holds_readers_back(cluster: Cluster) -> None:
    """What has arrived and is not handled is bounded; nothing is lost by waiting."""
    one = await cluster.start(1)
    two = await cluster.start(2, inbox=RecordingInbox(bytes_max=100_000))
    await one.inbox.until_links("up 2")
    for number in range(20):
        one.send(2, bulk(100_000, sent=number))
    await two.inbox.until(lambda inbox: inbox.arrived)
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert len(two.inbox.arrived) <= 4  # what one read of a socket holds, and the frame begun before
    two.inbox.drain()
    await two.inbox.until(lambda inbox: len(inbox.arrived) == 20)
    assert [arrived.frame.sent for arrived in two.inbox.arrived] == list(range(20))
