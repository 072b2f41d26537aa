"""A client with a session: every call takes effect exactly once, whatever breaks on the way."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter

import pytest
import trio
import trustme

import craft
from craft.errors import HandshakeRefused, RemoteError
from craft.wire import encode_message
from tests.remote.servers import Ledger, Silent, serving, until_applied, wire
from tests.test_client import scripted

HASTY = craft.RemoteLimits(
    attempt_timeout_ms=300, reach_timeout_ms=300, retry_delay_ms_min=5, retry_delay_ms_max=20
)

# -- when all is well --------------------------------------------------------------------------------


async def test_one_can_propose_read_and_look() -> None:
    """The story of the package's docstring."""
    async with serving() as s, craft.connect(s.addresses[1], cluster="test") as client:
        assert client.server_id == 1
        assert await client.propose(b"a") == 1
        assert list(await client.propose_many([b"b", b"c"])) == [2, 3]
        assert await client.propose_many([]) == []
        assert await client.read(b"q") == (3, b"q")
        assert await client.read(b"q", at_least=client.position) == (3, b"q")
        assert (await client.status())["ready"]
        assert any(metric["name"] == "craft_turns_total" for metric in await client.metrics())
        assert client.position == s.servers[1].engine.state.applied_position


async def test_commands_without_results_have_none() -> None:
    """One None each."""
    async with serving(machine=Silent) as s, craft.connect([s.addresses[1]]) as client:
        assert await client.propose(b"a") is None
        assert list(await client.propose_many([b"b", b"c"])) == [None, None]


async def test_leaving_closes_the_session() -> None:
    """Nothing is left on the servers."""
    async with serving() as s:
        async with craft.connect(s.addresses[1]) as client:
            await client.read(b"q")
            assert len(s.servers[1].engine.state.clients) == 0  # who only reads needs none
            await client.propose(b"a")
            assert len(s.servers[1].engine.state.clients) == 1
        assert len(s.servers[1].engine.state.clients) == 0


async def test_many_tasks_share_one_session() -> None:
    """More of them than a window holds; requests travel one behind the other."""
    async with serving() as s, craft.connect(s.addresses[1]) as client:
        async with trio.open_nursery() as nursery:
            for number in range(3000):
                nursery.start_soon(client.propose, b"%d" % number)
        assert sorted(s.machine(1).commands) == sorted(b"%d" % number for number in range(3000))
        assert s.servers[1].engine.state.merged_position < 3000  # requests share entries
        assert len(s.servers[1].engine.state.clients) == 1


async def test_what_makes_no_sense_is_told() -> None:
    """By the client, or by the server; the client goes on."""
    async with serving() as s, craft.connect(s.addresses[1]) as client:
        with pytest.raises(TypeError, match="command 1 must be bytes, not str"):
            await client.propose_many([b"a", "b"])  # type: ignore[list-item]
        with pytest.raises(craft.CommandTooLarge, match="entry_bytes_max"):
            await client.propose(bytes(1024 * 1024 - 20))
        with pytest.raises(RemoteError, match="no such thing"):
            await client.read(b"wrong")
        assert await client.propose(b"a") == 1


async def test_what_no_server_would_read_is_not_sent() -> None:
    """A server would end the connection, with all calls on it; and another one as well."""
    async with serving() as s, wire(s.addresses[1]) as one, craft.connect(one.address) as client:
        for commands in ([bytes(2_000_000)], [b""] * 70_000):
            with pytest.raises(craft.CommandTooLarge, match="in one call"):
                await client.propose_many(commands)
        with pytest.raises(craft.CommandTooLarge, match="request_bytes_max allows"):
            await client.read(bytes(2_000_000))
        fits = bytes(1024 * 1024 - 100)
        assert await client.propose(fits) == 1
        assert len(await client.propose_many([b""] * 65_536)) == 65_536
        assert one.connections == 1


# -- answers that are lost ---------------------------------------------------------------------------


async def test_a_lost_answer_is_got_from_another_server() -> None:
    """The command had taken effect; the second attempt brings the first one's result."""
    async with serving(3) as s, wire(s.addresses[1]) as one:
        async with craft.connect([one.address, s.addresses[2]]) as client, trio.open_nursery() as nursery:
            assert await client.propose(b"a") == 1
            assert client.server_id == 1
            one.swallow = True

            async def propose() -> None:
                assert await client.propose(b"b") == 2

            nursery.start_soon(propose)
            await one.swallowed.wait()
            await s.servers[3].propose(b"c")
            one.cut()
        await s.servers[2].propose(b"d")
        assert s.machine(2).commands == [b"a", b"b", b"c", b"d"]


async def test_a_server_that_says_nothing_is_left() -> None:
    """Its connection stands, but no answer comes: another server is asked the same request."""
    async with serving(3) as s, wire(s.addresses[1]) as one:
        async with craft.connect([one.address, s.addresses[2]], limits=HASTY) as client:
            assert await client.propose(b"a") == 1
            one.swallow = True
            assert await client.propose(b"b") == 2
            assert client.server_id == 2
        assert s.machine(2).commands == [b"a", b"b"]


async def test_a_lost_result_that_is_no_longer_kept_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """It took effect, once; what it was answered nobody knows any more."""
    monkeypatch.setattr("craft.client_sessions.CLIENT_RESULT_BYTES_MAX", 0)
    async with serving() as s, wire(s.addresses[1]) as one:
        async with craft.connect([one.address, s.addresses[1]], limits=HASTY) as client:
            assert await client.propose(b"a") == 1
            one.swallow = True
            with pytest.raises(craft.ResultLost, match="took effect"):
                await client.propose(b"b")
        assert s.machine(1).commands == [b"a", b"b"]


async def test_a_server_that_dies_costs_no_command_and_doubles_none() -> None:
    """Many tasks write while their server is killed; they go on at another one, and all is there once."""
    async with serving(3) as s:
        addresses = list(s.addresses.values())
        async with craft.connect(addresses, limits=HASTY) as client:

            async def write(task: int) -> None:
                for number in range(20):
                    await client.propose(b"%d.%d" % (task, number))

            async with trio.open_nursery() as nursery:
                for task in range(30):
                    nursery.start_soon(write, task)
                await until_applied(s.servers[2], 10)
                s.kill(1)
            assert client.server_id in {2, 3}
            expected = {b"%d.%d" % (task, number): 1 for task in range(30) for number in range(20)}
            assert await client.read(b"q") == (600, b"q")
        assert Counter(s.machine(2).commands) == expected
        for task in range(30):
            own = [command for command in s.machine(2).commands if command.startswith(b"%d." % task)]
            assert own == [b"%d.%d" % (task, number) for number in range(20)]


async def test_a_stopping_server_is_left_for_another() -> None:
    """It refuses, so nothing is uncertain."""
    async with serving(3) as s, craft.connect([s.addresses[1], s.addresses[2]]) as client:
        await client.propose(b"a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(s.servers[1].close)
            await client.propose(b"b")
            assert client.server_id == 2
        assert s.machine(2).commands == [b"a", b"b"]


async def test_a_server_without_a_majority_is_left_for_one_with() -> None:
    """It says that it does not know; the other one knows."""
    quick = craft.ClientLimits(request_timeout_ms=50)
    async with serving(3, clients=quick) as s:
        s.network.cut(1, 2)
        s.network.cut(1, 3)
        async with craft.connect([s.addresses[1], s.addresses[2]]) as client:
            assert await client.read(b"q") == (0, b"q")
            assert client.server_id == 2
        async with craft.connect([s.addresses[1], s.addresses[2]]) as client:
            assert await client.propose(b"a") == 1


# -- sessions that end -------------------------------------------------------------------------------


async def test_an_idle_client_keeps_its_session() -> None:
    """It touches it, so that merged time never passes it by."""
    async with serving() as s, craft.connect(s.addresses[1], session_ttl_ms=1000) as client:
        await client.propose(b"a")
        sessions = s.servers[1].engine.state.clients
        [opened] = [session.opened for session in sessions._open.values()]
        await until_applied(s.servers[1], s.servers[1].engine.state.applied_position + 4)
        await s.servers[1].propose(b"b")
        assert [session.opened for session in sessions._open.values()] == [opened]


async def test_a_call_that_was_not_taken_begins_anew_in_another_session() -> None:
    """Merged time jumps beyond the session: what certainly had no effect is proposed again."""
    async with serving() as s, craft.connect(s.addresses[1]) as client:
        await client.propose(b"a")
        s.clock.offset_ns += 10**12
        await s.servers[1].propose(b"b")
        assert len(s.servers[1].engine.state.clients) == 0
        assert await client.propose(b"c") == 3
        assert s.machine(1).commands == [b"a", b"b", b"c"]


async def test_a_call_whose_answer_was_lost_with_the_session_is_told_so() -> None:
    """It may have taken effect; craft does not try again, and neither may the caller without looking."""
    async with serving() as s, wire(s.addresses[1]) as one:
        async with craft.connect([one.address, s.addresses[1]]) as client:
            await client.propose(b"a")
            one.swallow = True
            async with trio.open_nursery() as nursery:

                async def propose() -> None:
                    with pytest.raises(craft.SessionEnded, match="took effect then, or never"):
                        await client.propose(b"b")

                nursery.start_soon(propose)
                await one.swallowed.wait()
                s.clock.offset_ns += 10**12
                await s.servers[1].propose(b"c")
                one.cut()
            assert await client.propose(b"d") == 4
        assert s.machine(1).commands == [b"a", b"b", b"c", b"d"]


async def test_there_is_room_for_so_many_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Overloaded: nothing was taken; reads go on."""
    monkeypatch.setattr("craft.client_sessions.CLIENT_SESSIONS_MAX", 1)
    async with (
        serving() as s,
        craft.connect(s.addresses[1]) as first,
        craft.connect(s.addresses[1]) as second,
    ):
        await first.propose(b"a")
        with pytest.raises(craft.Overloaded, match="CLIENT_SESSIONS_MAX"):
            await second.propose(b"b")
        assert await second.read(b"q") == (1, b"q")


# -- nobody there ------------------------------------------------------------------------------------


async def free_address() -> str:
    """A port that was just given back."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    return f"127.0.0.1:{port}"


async def test_nobody_there_is_unreachable() -> None:
    """Once every address was tried; each is named."""
    addresses = [await free_address(), await free_address()]
    with pytest.raises(craft.Unreachable, match=f"{addresses[0]} cannot.*; {addresses[1]} cannot"):
        async with craft.connect(addresses):
            pytest.fail("nobody is there")


async def test_one_address_of_many_will_do() -> None:
    """The others are tried again later."""
    async with serving() as s, craft.connect([await free_address(), s.addresses[1]]) as client:
        assert await client.propose(b"a") == 1


async def test_another_cluster_is_refused() -> None:
    """Whoever names a cluster does not write into another."""
    async with serving() as s:
        with pytest.raises(HandshakeRefused, match="another cluster"):
            async with craft.connect(s.addresses[1], cluster="bank"):
                pytest.fail("it must not be let in")


async def test_a_cluster_that_goes_away_is_unreachable_or_unknown() -> None:
    """Unreachable where nothing was sent; unknown where an answer was lost."""
    async with serving() as s, wire(s.addresses[1]) as one:
        async with craft.connect(one.address, limits=HASTY) as client:
            await client.propose(b"a")
            one.swallow = True
            one.target = await free_address()

            async def propose() -> None:
                with pytest.raises(craft.Unknown, match="answer was lost, and then: no server for 300 ms"):
                    await client.propose(b"b")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(propose)
                await one.swallowed.wait()
                one.cut()
            with pytest.raises(craft.Unreachable, match="no server for 300 ms"):
                await client.propose(b"c")
            with pytest.raises(craft.Unreachable):
                await client.read(b"q")
        assert s.machine(1).commands == [b"a", b"b"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"addresses": []}, "addresses: none is given"),
        ({"addresses": ["nowhere"]}, "is not an address; allowed"),
        (
            {"addresses": "127.0.0.1:1", "session_ttl_ms": 1},
            "session_ttl_ms: 1 is not allowed; allowed: 1000",
        ),
        (
            {"addresses": "127.0.0.1:1", "limits": craft.RemoteLimits(requests_max=2000)},
            "requests_max: 2000 is not allowed; allowed: 1 to 1024",
        ),
    ],
)
async def test_wrong_arguments_are_named(arguments: dict[str, object], told: str) -> None:
    """The value, and what is allowed."""
    with pytest.raises(craft.ConfigError, match=told):
        async with craft.connect(**arguments):  # type: ignore[arg-type]
            pytest.fail("it makes no sense")


def test_an_asyncio_program_is_told_what_is_for_it() -> None:
    """A first mistake, which Trio itself would answer with an AttributeError of its own."""

    async def program() -> None:
        async with craft.connect("127.0.0.1:9"):
            pytest.fail("it has connected")

    with pytest.raises(RuntimeError, match="craft.connect runs on Trio; allowed elsewhere: craft.blocking"):
        asyncio.run(program())


async def test_an_error_of_the_block_leaves_it_as_it_was() -> None:
    """Not wrapped in a group."""
    async with serving() as s:
        with pytest.raises(ZeroDivisionError):
            async with craft.connect(s.addresses[1]) as client:
                await client.propose(b"a")
                raise ZeroDivisionError


# -- whoever waits, and whoever does not -------------------------------------------------------------


async def test_a_cancelled_call_holds_nothing_up() -> None:
    """Its number counts as answered, so that the window moves on."""
    async with (
        serving() as s,
        wire(s.addresses[1]) as one,
        craft.connect([one.address, s.addresses[1]]) as client,
    ):
        await client.propose(b"a")
        one.swallow = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.propose, b"b")
            await one.swallowed.wait()
            nursery.cancel_scope.cancel()
        one.cut()
        assert await client.propose(b"c") == 3
        [session] = s.servers[1].engine.state.clients._open.values()
        assert session.below == 3


async def test_a_connection_that_breaks_as_one_leaves_is_no_error() -> None:
    """All was answered; that the session cannot be closed any more is nothing to the caller."""
    async with serving() as s, craft.connect(s.addresses[1]) as client:
        assert await client.propose(b"a") == 1
        link = client._links.current
        assert link is not None
        link._end("the connection broke")


async def test_calls_of_other_tasks_end_when_the_client_is_closed() -> None:
    """They are told what became of their commands."""
    told: list[type] = []
    async with serving() as s, wire(s.addresses[1]) as one, trio.open_nursery() as nursery:
        async with craft.connect(one.address, limits=HASTY) as client:
            await client.propose(b"a")
            one.swallow = True

            async def propose() -> None:
                try:
                    await client.propose(b"b")
                except craft.CraftError as error:
                    told.append(type(error))

            nursery.start_soon(propose)
            await one.swallowed.wait()
            one.swallow = False
        with pytest.raises(craft.Unreachable, match="the client is closed"):
            await client.propose(b"c")
    assert told == [craft.Unknown]


@pytest.mark.parametrize("value", ["nonsense", [1, 2, 3], [1, "x", None, True], [1, 2, "no position", True]])
async def test_answers_that_make_no_sense_are_the_servers_fault(value: object) -> None:
    """The call says so; nothing hangs."""

    async def babble(stream: trio.SocketStream, _: bytes) -> None:
        await stream.send_all(encode_message([1, "ok", value]))
        await trio.sleep_forever()

    async with scripted(babble) as address, craft.connect(address, learn=False) as client:
        with pytest.raises(RemoteError, match="allowed is"):
            await client.propose(b"a")


async def test_tls_is_spoken_where_a_context_is_given() -> None:
    """To whatever ends it before the servers; without the right authority nobody is talked to."""
    authority = trustme.CA()
    ours, theirs = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(ours)
    authority.issue_cert("127.0.0.1").configure_cert(theirs)
    async with serving(machine=Ledger) as s, wire(s.addresses[1], theirs) as one:
        async with craft.connect(one.address, ssl_context=ours) as client:
            assert await client.propose(b"a") == 1
        with pytest.raises(craft.Unreachable, match="certificate"):
            async with craft.connect(one.address, ssl_context=ssl.create_default_context()):
                pytest.fail("that may be anybody")
