"""The client: many requests on one connection, and what became of each when the connection breaks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

import craft
from craft.client import connect
from craft.errors import HandshakeRefused, Unreachable
from craft.types import TIMESTAMP_MAX
from craft.wire import MAGIC, PROTOCOL_VERSION, Decoder, Welcome, decode_hello, encode_answer, encode_message
from craft.wire.framing import framed
from tests.server.listening import Register, one_server

Script = Callable[[trio.SocketStream, bytes], Awaitable[None]]


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[str]:
    """The address of a server that greets properly, and does as it is told once it is asked something."""

    async def serve(stream: trio.SocketStream) -> None:
        decoder = Decoder(4096)
        decoder.feed(await stream.receive_some())
        payload = decoder.next_payload()
        assert payload is not None
        nonce = decode_hello(payload).nonce
        welcome = Welcome(MAGIC, PROTOCOL_VERSION, "test", 1, "0" * 32, 3, nonce)
        await stream.send_all(encode_answer(welcome))
        await script(stream, await stream.receive_some())

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def hang_up(stream: trio.SocketStream, _: bytes) -> None:
    await stream.aclose()


# -- a server that serves --------------------------------------------------------------------------


async def test_one_can_propose_read_and_look() -> None:
    """The story of the module's docstring."""
    async with one_server() as (server, address), connect(address, cluster="test") as client:
        assert (client.cluster, client.server_id, client.groups) == ("test", 1, 3)
        assert client.disk_id == server.disk_id
        assert await client.propose([b"a", b"b"]) == (2, 2)
        assert await client.read(b"q") == (2, b"q")
        assert (await client.status())["ready"]
        assert any(metric["name"] == "craft_turns_total" for metric in await client.metrics())
        rows = await client.merged()
        assert await client.merged(after=rows[-1]["position"]) == ()
        assert await client.merged(after=TIMESTAMP_MAX) == ()


async def test_many_tasks_share_one_connection() -> None:
    """Each gets its own results, whatever the order of replies, and no more than allowed are under way."""
    machine = Register()
    async with one_server(machine) as (_, address), connect(address, requests_max=8) as client:

        async def write(number: int) -> None:
            (place,) = await client.propose([b"%d" % number])
            assert machine.commands[place - 1 :].count(b"%d" % number) <= 1

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(write, number)
        assert sorted(machine.commands) == sorted(b"%d" % number for number in range(100))


async def test_what_the_server_says_is_raised_as_what_it_means() -> None:
    """Rejected: no effect. RemoteError: it makes no sense. Unknown: nobody knows."""
    limits = craft.ClientLimits(request_timeout_ms=20)
    async with one_server(quorum=False, clients=limits) as (_, address), connect(address) as client:
        with pytest.raises(craft.Unknown, match="it may still take effect"):
            await client.propose([b"a"])
        with pytest.raises(craft.Rejected, match="no majority answers"):
            await client.read(b"q")
        with pytest.raises(craft.RemoteError, match="at least one command"):
            await client.propose([])


async def test_an_error_of_the_block_leaves_it_as_it_was() -> None:
    """Not wrapped in a group, and with its cause."""
    cause = KeyError("why")
    async with one_server() as (_, address):
        with pytest.raises(ZeroDivisionError) as caught:
            async with connect(address):
                raise ZeroDivisionError from cause
    assert caught.value.__cause__ is cause


# -- connections that do not come about ------------------------------------------------------------


async def test_nobody_there_is_unreachable() -> None:
    """A port that was just given back."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with pytest.raises(Unreachable, match=f"127.0.0.1:{port} cannot be reached: .*refused"):
        async with connect(f"127.0.0.1:{port}"):
            pytest.fail("nobody is there")


@pytest.mark.parametrize("address", ["nowhere", "host:", "host:70000", ":1", ""])
async def test_what_is_no_address_is_a_configuration_error(address: str) -> None:
    """It names the text and the form that is allowed."""
    with pytest.raises(craft.ConfigError, match="is not an address; allowed"):
        async with connect(address):
            pytest.fail("there is no such address")


async def test_a_server_of_another_cluster_is_refused() -> None:
    """Whoever names a cluster does not write into another."""
    async with one_server() as (_, address):
        with pytest.raises(HandshakeRefused, match="another cluster: theirs is 'bank', ours is 'test'"):
            async with connect(address, cluster="bank"):
                pytest.fail("it must not be let in")


async def test_another_program_behind_the_port_is_told_from_a_server() -> None:
    """It says something else, or nothing."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 mail.example.org ESMTP\r\n")

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        with pytest.raises(HandshakeRefused, match="does not speak this protocol: a frame claims 842149920"):
            async with connect(f"127.0.0.1:{listener.socket.getsockname()[1]}"):
                pytest.fail("that is a mail server")
        nursery.cancel_scope.cancel()


# -- connections that break ------------------------------------------------------------------------


async def test_a_proposal_whose_connection_broke_is_unknown() -> None:
    """The server may have taken it; nothing is proposed again."""
    async with scripted(hang_up) as address, connect(address) as client:
        with pytest.raises(craft.Unknown, match="may or may not take effect"):
            await client.propose([b"a"])


async def test_a_read_whose_connection_broke_may_be_asked_again() -> None:
    """And so may everything that comes after: nothing was sent."""
    async with scripted(hang_up) as address, connect(address) as client:
        with pytest.raises(Unreachable, match="before the answer"):
            await client.read(b"q")
        with pytest.raises(Unreachable, match="nothing was sent"):
            await client.propose([b"a"])


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (framed(b"\xc1"), "a message is not msgpack"),
        (encode_message([1, "maybe", None]), r"a reply is \(1, 'maybe', None\)"),
        (encode_message([{}, "ok", None]), r"a reply is \({}, 'ok', None\)"),
        (encode_message([None, "failed", "you break the rules"]), "the server says: you break the rules"),
        (b"\xff\xff\xff\xff", "a frame claims 4294967295 bytes"),
    ],
)
async def test_replies_that_make_no_sense_end_the_connection(said: bytes, told: str) -> None:
    """The waiting call says why."""

    async def babble(stream: trio.SocketStream, _: bytes) -> None:
        await stream.send_all(said)
        await trio.sleep_forever()

    async with scripted(babble) as address, connect(address) as client:
        with pytest.raises(craft.Unknown, match=told):
            await client.propose([b"a"])


async def test_a_cancelled_call_leaves_nothing_behind() -> None:
    """Its late reply is nobody's, and the connection serves the next call."""
    gate = trio.Event()

    async def serve_late(stream: trio.SocketStream, _: bytes) -> None:
        await gate.wait()
        await stream.receive_some()
        await stream.send_all(encode_message([1, "ok", [1]]) + encode_message([2, "ok", [2]]))
        await trio.sleep_forever()

    async with scripted(serve_late) as address, connect(address) as client:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.propose, [b"a"])
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        gate.set()
        assert await client.propose([b"b"]) == (2,)
