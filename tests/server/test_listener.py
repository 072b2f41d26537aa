"""The clients' port: what may be asked, how it is bounded, and that nobody's faults disturb anybody else."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio

import craft
from craft.client import Client, connect
from craft.server.listener_requests import reply
from craft.wire import PREFIX_BYTES, Hello, Refusal, Welcome, decode_message, encode_message
from craft.wire.framing import framed
from tests.server.listening import HELLO, RawClient, Register, one_server, raw_client

# -- what may be asked -----------------------------------------------------------------------------


async def test_every_operation_is_answered() -> None:
    """One client proposes, reads back, and looks at the server."""
    async with one_server() as (server, address), raw_client(address) as client:
        assert await client.ask(1, "propose", [b"a", b"b"]) == (1, "ok", (2, 2))
        assert await client.ask(2, "read", b"q") == (2, "ok", (2, b"q"))
        number, outcome, status = await client.ask(3, "status", None)
        assert (number, outcome, status["ready"], status["server_id"]) == (3, "ok", True, 1)
        metrics = {metric["name"]: metric for metric in (await client.ask(4, "metrics", None))[2]}
        assert metrics["craft_client_requests_total"]["value"] == 4
        assert metrics["craft_client_connections"]["value"] == 1
        rows = (await client.ask(5, "merged", 0))[2]
        assert rows[-1]["position"] == server.status()["merged_position"]
        assert (await client.ask(6, "merged", rows[-1]["position"]))[2] == ()


async def test_what_msgpack_cannot_carry_arrives_as_its_repr() -> None:
    """The command was applied all the same: its caller learns that, and what the result looked like."""
    async with one_server() as (_, address), raw_client(address) as client:
        reply = await client.ask(1, "propose", [b"object", b"x", b"huge", b"nested"])
        assert reply == (1, "ok", ("{1, 2}", 4, str(2**70), (1, {"a": "{3}"})))


class Unspeakable:
    """Not even its repr can be had."""

    def __repr__(self) -> str:
        raise ValueError("no words")


def nested(depth: int) -> list[Any]:
    """Lists in lists."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def nested_tuples(depth: int, core: Any) -> Any:
    """As they arrive, around something."""
    for _ in range(depth):
        core = (core,)
    return core


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ({"\udcff": 1}, r"{'\udcff': 1}"),
        ("\udcff", r"'\udcff'"),
        ([Unspeakable()], ("an object of Unspeakable without a repr",)),
        (nested(5000), nested_tuples(30, "an object of list without a repr")),
        (ENDLESS, nested_tuples(30, "[[...]]")),
    ],
    ids=["key", "text", "unspeakable", "deep", "endless"],
)
async def test_no_result_of_a_state_machine_ends_the_server(result: Any, told: Any) -> None:
    """Whoever wrote it, and whichever client's command brought it about."""

    class Odd(Register):
        def _result(self, command: bytes) -> Any:
            return result

    async with one_server(Odd()) as (_, address), raw_client(address) as client:
        assert await client.ask(1, "propose", [b"x"]) == (1, "ok", (told,))
        assert (await client.ask(2, "read", b"q"))[1] == "ok"


def test_whatever_depth_msgpack_allows_a_reply_keeps_to_it() -> None:
    """A value that would just go alone stands deeper in a reply; the results beside it are not disturbed."""
    for depth in range(500, 520):
        results = decode_message(reply(1, "ok", [nested(depth), 7])[PREFIX_BYTES:])[2]
        assert len(results) == 2 and results[1] == 7


async def test_an_answer_too_long_is_replaced_by_a_text() -> None:
    """A client's memory is bounded by what the server sends."""
    async with one_server() as (_, address), raw_client(address) as client:
        _, outcome, text = await client.ask(1, "read", b"bytes 20000000")
        assert outcome == "ok"
        assert "not sent; allowed are 16777216" in text


async def test_replies_come_as_they_are_ready() -> None:
    """A request that is answered at once does not wait for one before it, and none is lost for it."""
    async with one_server() as (_, address), raw_client(address) as client:
        requests = [[number, "propose", [b"%d" % number]] for number in range(20)] + [[20, "merged", 0]]
        await client.stream.send_all(b"".join(map(encode_message, requests)))
        replies = [await client.reply() for _ in requests]
        assert replies[0][0] == 20
        assert sorted(reply[0] for reply in replies) == list(range(21))
        assert {reply[1] for reply in replies} == {"ok"}


# -- requests that make no sense -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "argument", "told"),
    [
        ("grow", None, "operation is 'grow'; allowed are propose, read, status, metrics, merged"),
        (["read"], None, "operation is ('read',); allowed are"),
        ("propose", [b"a", 7], "command 1 is 7; allowed are bytes"),
        ("propose", b"a", "propose takes b'a'; allowed is an array"),
        ("propose", [], "allowed is an array of at least one command"),
        ("read", "text", "read takes 'text'; allowed are bytes"),
        ("read", b"wrong", "query raised ValueError: no such thing"),
        ("merged", -1, "merged takes -1; allowed is a position"),
        ("status", 5, "status takes 5; allowed is nil"),
        ("servers", 5, "servers takes 5; allowed is nil"),
        ("members", [-1], "members takes (-1,); allowed is [[kind, id, …], …, wait_ms], which waits 0 …"),
        ("members", [[2, 1, "a:1"], -1], "members takes ((2, 1, 'a:1'), -1); allowed is"),
    ],
)
async def test_a_wrong_request_is_told_and_the_connection_goes_on(
    operation: Any, argument: Any, told: str
) -> None:
    """The stream can still be trusted: the value is named, and what is allowed."""
    machine = Register()
    async with one_server(machine) as (_, address), raw_client(address) as client:
        number, outcome, text = await client.ask(7, operation, argument)
        assert (number, outcome) == (7, "failed")
        assert told in text
        assert (await client.ask(8, "status", None))[:2] == (8, "ok")
        assert machine.commands == []


async def test_a_state_machine_without_query_cannot_be_read() -> None:
    """The reader is told so, by the name of the class."""

    class Silent:
        def apply_batch(self, batch: craft.Batch) -> None:
            """Nothing to tell."""

    async with one_server(Silent()) as (_, address), raw_client(address) as client:
        assert await client.ask(1, "propose", [b"a"]) == (1, "ok", (None,))
        assert "Silent cannot be read" in (await client.ask(2, "read", b""))[2]


async def test_commands_too_large_are_rejected_by_name() -> None:
    """They fit in a request, but not in an entry."""
    async with one_server() as (_, address), raw_client(address) as client:
        _, outcome, text = await client.ask(1, "propose", [bytes(2**20 + 100)])
        assert (outcome, text[:16]) == ("rejected", "CommandTooLarge:")
        assert "entry_bytes_max allows 1048576" in text


# -- streams that cannot be trusted ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("hello", "told"),
    [
        (HELLO._replace(protocol_version=9), "another protocol version: theirs is 9, ours is 1"),
        (HELLO._replace(cluster_id="other"), "another cluster: theirs is 'other', ours is 'test'"),
        (
            HELLO._replace(role="peer", server_id=2, disk_id="0" * 32, groups=3),
            "this address is for clients",
        ),
    ],
)
async def test_who_does_not_belong_here_is_refused_with_a_reason(hello: Hello, told: str) -> None:
    """Another version, another cluster, or a server at the wrong door."""
    async with one_server() as (_, address), raw_client(address, greet=False) as client:
        answer = await client.greet(hello)
        assert isinstance(answer, Refusal)
        assert told in answer.reason
        assert await client.payload() is None


async def test_garbage_instead_of_a_handshake_is_refused_with_a_reason() -> None:
    """A browser, for example; others are served meanwhile and afterwards."""
    async with one_server() as (_, address), raw_client(address) as other:
        async with raw_client(address, greet=False) as client:
            await client.stream.send_all(b"GET / HTTP/1.1\r\nHost: craft\r\n\r\n")
            answer = await client.answer()
            assert isinstance(answer, Refusal)
            assert answer.reason == "a frame claims 1195725856 bytes; allowed are 4096"
            assert await client.payload() is None
        assert await other.ask(1, "propose", [b"a"]) == (1, "ok", (1,))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ((2**30).to_bytes(4, "big"), "a frame claims 1073741824 bytes; allowed are 1114112"),
        (bytes(8) + b"x", "checksum mismatch"),
        (framed(b"\xc1"), "a message is not msgpack"),
        (
            encode_message([1, "status"]),
            "a request is (1, 'status'); allowed is [number, operation, argument]",
        ),
        (encode_message(["a", "status", None]), "a request's number is 'a'; allowed is an integer"),
    ],
)
async def test_a_broken_stream_ends_its_connection_with_a_reason(data: bytes, told: str) -> None:
    """Whoever sent it is told, and nobody else notices."""
    async with one_server() as (_, address), raw_client(address) as other:
        async with raw_client(address) as client:
            await client.stream.send_all(data)
            number, outcome, text = await client.reply()
            assert (number, outcome) == (None, "failed")
            assert told in text
            assert await client.payload() is None
        assert await other.ask(1, "propose", [b"a"]) == (1, "ok", (1,))


async def test_a_client_that_goes_away_leaves_nothing_behind() -> None:
    """In the middle of a frame, with requests under way."""
    async with one_server(quorum=False) as (_, address), connect(address) as other:
        async with raw_client(address) as client:
            await client.stream.send_all(encode_message([1, "propose", [b"a"]]) + b"\0\0")
            while (await other.status())["pending_requests"] == 0:
                pass  # each turn is a request of its own: the other one is on its way
        while await _connections(other) > 1:
            pass


async def _connections(client: Client) -> int:
    metrics = {metric["name"]: metric for metric in await client.metrics()}
    return int(metrics["craft_client_connections"]["value"])


# -- bounds ----------------------------------------------------------------------------------------


async def test_no_more_than_so_many_clients_are_let_in() -> None:
    """The next one is told why; when one leaves there is room again."""
    limits = craft.ClientLimits(connections_max=2)
    async with one_server(clients=limits) as (_, address), connect(address) as first:
        async with raw_client(address), raw_client(address, greet=False) as third:
            answer = await third.greet()
            assert isinstance(answer, Refusal)
            assert answer.reason == "2 clients are connected, which is connections_max"
        while await _connections(first) > 1:
            pass
        async with raw_client(address, greet=False) as fourth:
            assert isinstance(await fourth.greet(), Welcome)


async def test_those_who_come_at_one_moment_are_counted_too() -> None:
    """However many are greeted together, no more than so many are let in."""
    async with (
        one_server(clients=craft.ClientLimits(connections_max=2)) as (_, address),
        AsyncExitStack() as stack,
    ):
        clients = [await stack.enter_async_context(raw_client(address, greet=False)) for _ in range(5)]
        answers: list[object] = []

        async def come(client: RawClient) -> None:
            answers.append(await client.greet())

        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(come, client)
        assert sum(isinstance(answer, Welcome) for answer in answers) == 2
        assert sum(isinstance(answer, Refusal) for answer in answers) == 3


async def test_who_says_nothing_is_not_waited_for() -> None:
    """A connection without a handshake ends after handshake_timeout_ms."""
    limits = craft.TransportLimits(handshake_timeout_ms=20)
    async with one_server(transport=limits) as (_, address), raw_client(address, greet=False) as client:
        assert await client.payload() is None


async def test_a_proposal_without_an_answer_becomes_unknown() -> None:
    """No quorum: the command may still take effect when one comes. A read has none, so it is rejected."""
    limits = craft.ClientLimits(request_timeout_ms=20)
    async with one_server(quorum=False, clients=limits) as (_, address), raw_client(address) as client:
        _, outcome, text = await client.ask(1, "propose", [b"a"])
        assert outcome == "unknown"
        assert text == "not applied within request_timeout_ms = 20; it may still take effect"
        _, outcome, text = await client.ask(2, "read", b"q")
        assert outcome == "rejected"
        assert "no majority answers" in text


async def test_no_more_than_so_many_requests_are_under_way() -> None:
    """The third request is not even read before one of two hopeless ones has had its time."""
    limits = craft.ClientLimits(requests_max=2, request_timeout_ms=50)
    async with one_server(quorum=False, clients=limits) as (_, address), raw_client(address) as client:
        requests = [[1, "propose", [b"a"]], [2, "propose", [b"b"]], [3, "status", None]]
        await client.stream.send_all(b"".join(map(encode_message, requests)))
        replies = [await client.reply() for _ in requests]
        assert [reply[1] for reply in replies] == ["unknown", "unknown", "ok"]


# -- where it listens ------------------------------------------------------------------------------


async def test_an_address_in_use_is_a_configuration_error() -> None:
    """Named, with what is allowed; and what had already been opened is closed."""
    async with one_server() as (_, address):
        with pytest.raises(craft.ConfigError, match=f"client_listen: '{address}' cannot be listened on"):
            async with one_server(client_listen=address):
                pytest.fail("it must not start")


async def test_a_name_that_cannot_be_one_is_a_configuration_error() -> None:
    """Python says so in another way than the system would."""
    with pytest.raises(craft.ConfigError, match=r"client_listen: 'a\.\.b:8001' cannot be listened on"):
        async with one_server(client_listen="a..b:8001", insecure_listen=True):
            pytest.fail("it must not start")


async def test_whoever_asks_is_told_where_clients_reach_the_servers() -> None:
    """Those of whom that is known here, by id; port 0 is no address to tell."""
    async with one_server() as (server, address), raw_client(address) as client:
        assert await client.ask(1, "servers", None) == (1, "ok", ())
        server.transport.advertise("one.example:8001")
        assert await client.ask(2, "servers", None) == (2, "ok", ((1, "one.example:8001"),))
    async with one_server(client_advertise="[::1]:8001") as (_, address), raw_client(address) as client:
        assert await client.ask(1, "servers", None) == (1, "ok", ((1, "[::1]:8001"),))


async def test_port_zero_takes_any_free_port() -> None:
    """The server tells which."""
    async with one_server() as (server, _):
        (bound,) = server.client_addresses
        assert bound.host == "127.0.0.1"
        assert bound.port > 0
