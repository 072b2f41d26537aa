"""A client that was told one server goes on when that one is dead: it learns the others."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio

import craft
from craft.config import Address
from craft.errors import RemoteError
from craft.remote.discovery import decoded
from craft.remote.links import Links
from tests.remote.servers import Ledger, serving
from tests.remote.test_client import HASTY
from tests.server.listening import QUICK
from tests.transport.clusters import free_addresses

OFTEN = craft.RemoteLimits(servers_interval_ms=5, retry_delay_ms_min=5, retry_delay_ms_max=20)


async def until_known(client: craft.Client, count: int) -> None:
    """Wait until a client has so many addresses."""
    while len(client._links.addresses) < count:  # noqa: ASYNC110  # nobody tells
        await trio.sleep(0.005)


async def test_one_address_is_enough() -> None:
    """Its server dies, and the client's session goes on at another one."""
    async with serving(3) as s:
        for i in (1, 2, 3):
            s.advertise(i)
        async with craft.connect(s.addresses[1]) as client:
            assert await client.propose(b"a") == 1
            await until_known(client, 3)
            s.kill(1)
            assert await client.propose(b"b") == 2
            assert client.server_id in {2, 3}
            assert len(s.servers[2].engine.state.clients) == 1


async def test_servers_tell_each_other_over_their_own_connections() -> None:
    """Whole servers with sockets, as their configurations say; the client waits until it knows all."""
    addresses = [f"{host}:{port}" for host, port in free_addresses(6)]
    names = dict(enumerate(addresses[:3], start=1))
    first = trio.CancelScope()

    async def run(i: int, *, task_status: trio.TaskStatus[craft.Server[Any]]) -> None:
        config = craft.Config(
            cluster="test",
            server_id=i,
            servers=names,
            client_listen=addresses[2 + i],
            engine=QUICK,
            close_timeout_ms=100,
        )
        with first if i == 1 else trio.CancelScope():
            async with craft.open_server(config, Ledger()) as server:
                task_status.started(server)
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for i in names:
            await nursery.start(run, i)
        async with craft.connect(addresses[3], limits=OFTEN) as client:
            assert await client.propose(b"a") == 1
            await until_known(client, 3)
            first.cancel()
            assert await client.propose(b"b") == 2
            assert client.server_id in {2, 3}
        nursery.cancel_scope.cancel()


async def test_a_server_is_asked_again() -> None:
    """What it did not know at first it may know later, also a new address of an old server."""
    async with serving() as s, craft.connect(s.addresses[1], limits=OFTEN) as client:
        await client.read(b"q")
        s.advertise(1, "late.example:8001")
        await until_known(client, 2)
        s.advertise(1, "later.example:8001")
        while client._links.addresses[1].host != "later.example":  # noqa: ASYNC110  # nobody tells
            await trio.sleep(0.005)
        assert len(client._links.addresses) == 2


async def test_who_wants_no_other_servers_learns_none() -> None:
    """The addresses given are those that are tried, for instance where a proxy stands before the servers."""
    async with serving(3) as s:
        s.advertise(2)
        async with craft.connect(s.addresses[1], limits=HASTY, learn=False) as client:
            assert await client.propose(b"a") == 1
            s.kill(1)
            with pytest.raises((craft.Unreachable, craft.Unknown)):
                await client.propose(b"b")
            assert len(client._links.addresses) == 1


async def test_garbage_is_not_believed_and_disturbs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the connection is used on."""
    async with serving() as s:
        s.advertise(1, "no address")
        async with craft.connect(s.addresses[1], limits=OFTEN) as client:
            while "servers not learned" not in caplog.text:  # noqa: ASYNC110  # nobody tells
                await trio.sleep(0.005)
            assert await client.propose(b"a") == 1
            assert len(client._links.addresses) == 1
    assert "server 1: address: 'no address' is not an address" in caplog.text


async def test_another_clusters_server_is_never_gone_on_at() -> None:
    """Even where any cluster would do: a session belongs to the one where it was opened."""
    async with serving() as s, serving(cluster="other") as strangers:
        s.advertise(1, strangers.addresses[1])
        async with craft.connect(s.addresses[1], limits=HASTY) as client:
            assert await client.propose(b"a") == 1
            await until_known(client, 2)
            s.kill(1)
            with pytest.raises((craft.Unreachable, craft.Unknown), match="is of cluster|another cluster"):
                await client.propose(b"b")
        assert strangers.machine(1).commands == []


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, "servers are None; allowed is an array of at most 2"),
        (((1, "a:1"), (2, "b:1"), (3, "c:1")), "allowed is an array of at most 2"),
        ((7,), "a server is 7; allowed is [server, address]"),
        (((True, "a:1"),), "a server is (True, 'a:1'); allowed is [server, address]"),
        (((1, b"a:1"),), "a server is (1, b'a:1'); allowed is [server, address]"),
        (((0, "a:1"),), "a server's id is 0; allowed: 1 to 4294967295"),
        (((1, "a:0"),), "server 1: address: 'a:0' is not an address"),
    ],
)
def test_an_answer_is_wholly_right_or_refused(answer: Any, told: str) -> None:
    """With the value, and what is allowed."""
    with pytest.raises(RemoteError) as raised:
        decoded(answer, 2)
    assert told in str(raised.value)


async def test_what_is_learned_is_bounded() -> None:
    """Also over many answers, each of which is small; addresses that were given do not count."""

    def opener(_: Address) -> Any:
        pytest.fail("nobody connects")

    links = Links([Address("given", 1)], opener, craft.RemoteLimits(servers_max=2))
    for server in range(1, 10):
        links.learn({server: Address("learned", server)})
    assert links.addresses == [Address("given", 1), Address("learned", 1), Address("learned", 2)]


async def test_a_client_that_can_reach_nobody_can_be_left() -> None:
    """While its session wants a sign of life, which it cannot give."""
    async with AsyncExitStack() as stack:
        s = await stack.enter_async_context(serving())
        async with craft.connect(s.addresses[1], session_ttl_ms=1000, limits=OFTEN) as client:
            assert await client.propose(b"a") == 1
            session = client._session
            assert session is not None
            s.kill(1)
            await trio.sleep_until(session.active_at + 0.4)  # a third of its time has passed
