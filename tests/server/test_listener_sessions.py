"""What a client's session is told by a server, request by request, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from craft import limits
from craft.server.listener_requests import REPLY_BYTES_MAX, Placed, reply
from craft.types import TIMESTAMP_MAX
from craft.wire import PREFIX_BYTES, decode_message, encode_message
from tests.server.listening import RawClient, Register, one_server, raw_client

ID, OTHER = b"s" * 16, b"t" * 16
TTL_MS = 60_000


async def opened(client: RawClient, session: bytes = ID) -> int:
    """Open a session; the position that names it."""
    _, outcome, (position, _, at, known) = await client.ask(0, "open", [session, TTL_MS, 0])
    assert outcome == "ok" and at <= position and known
    return int(at)


async def test_a_repeated_request_is_answered_as_the_first_time() -> None:
    """Its place is the repetition's: by then all of it is applied here."""
    machine = Register()
    async with one_server(machine) as (_, address), raw_client(address) as client:
        at = await opened(client)
        first = await client.ask(1, "request", [ID, at, 1, 1, 0, [b"a", b"b"]])
        again = await client.ask(2, "request", [ID, at, 1, 1, 0, [b"a", b"b"]])
        assert first[1] == again[1] == "ok"
        assert first[2][2:] == again[2][2:] == ((2, 2), True)
        assert again[2][0] > first[2][0] and again[2][1] > first[2][1]
        assert machine.commands == [b"a", b"b"]
        assert await opened(client) == at


async def test_results_of_every_kind_are_repeated() -> None:
    """As they could be packed."""
    async with one_server() as (_, address), raw_client(address) as client:
        at = await opened(client)
        replies = [
            await client.ask(n, "request", [ID, at, 1, 1, 0, [b"object", b"nested", b"huge"]]) for n in (1, 2)
        ]
        results = ["{1, 2}", (1, {"a": "{3}"}), str(2**70)]
        assert [list(one[2][2]) for one in replies] == [results, results]


async def test_a_closed_session_takes_nothing() -> None:
    """*ended*: this attempt has no effect."""
    machine = Register()
    async with one_server(machine) as (_, address), raw_client(address) as client:
        at = await opened(client)
        assert (await client.ask(1, "touch", [ID, at]))[1] == "ok"
        assert (await client.ask(2, "close", [ID, at]))[1] == "ok"
        for request in (["touch", [ID, at]], ["request", [ID, at, 1, 1, 0, [b"a"]]], ["close", [ID, at]]):
            assert (await client.ask(3, *request))[1] == "ended"
        assert machine.commands == []


async def test_a_query_tells_how_far_the_answer_goes() -> None:
    """So that a client can ask another server for at least that."""
    async with one_server() as (_, address), raw_client(address) as client:
        at = await opened(client)
        place = (await client.ask(1, "request", [ID, at, 1, 1, 0, [b"a"]]))[2]
        assert (await client.ask(2, "query", [b"q", place[0]]))[2] == (place[0], place[1], (1, b"q"), True)


async def test_a_floor_beyond_all_clocks_is_refused() -> None:
    """After a bounded wait, as having no effect; the server goes on."""
    async with one_server() as (server, address), raw_client(address) as client:
        _, outcome, text = await client.ask(1, "open", [ID, TTL_MS, TIMESTAMP_MAX])
        assert outcome == "rejected" and f"Rejected: answered at {TIMESTAMP_MAX}" in text
        assert not server.engine.state.pending
        assert await opened(client)


async def test_a_floor_of_the_near_future_is_waited_for() -> None:
    """Clocks differ a little; the request is stamped beyond it."""
    async with one_server() as (server, address), raw_client(address) as client:
        floor = server.status()["clock_ns"] + 50_000_000
        _, outcome, place = await client.ask(1, "open", [ID, TTL_MS, floor])
        assert outcome == "ok" and place[1] > floor


async def test_a_request_too_far_ahead_is_refused() -> None:
    """So is one that the client said was answered, as nobody knows any more."""
    async with one_server() as (_, address), raw_client(address) as client:
        at = await opened(client)
        width = limits.CLIENT_WINDOW_REQUESTS_MAX
        assert (await client.ask(1, "request", [ID, at, width + 1, 1, 0, [b"a"]]))[1] == "rejected"
        assert (await client.ask(2, "request", [ID, at, width + 1, 9, 0, [b"a"]]))[1] == "ok"
        assert (await client.ask(3, "request", [ID, at, 3, 1, 0, [b"a"]]))[1] == "unknown"


async def test_a_full_house_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Overloaded: no effect, try later."""
    monkeypatch.setattr("craft.client_sessions.CLIENT_SESSIONS_MAX", 1)
    async with one_server() as (_, address), raw_client(address) as client:
        await opened(client)
        _, outcome, text = await client.ask(1, "open", [OTHER, TTL_MS, 0])
        assert outcome == "rejected" and text.startswith("Overloaded: ")


async def test_without_a_majority_nobody_knows() -> None:
    """It may still take effect, when the others come back."""
    from craft import ClientLimits

    limited = ClientLimits(request_timeout_ms=20)
    async with one_server(quorum=False, clients=limited) as (_, address), raw_client(address) as client:
        assert (await client.ask(1, "open", [ID, TTL_MS, 0]))[1] == "unknown"


BAD_ARGUMENTS: list[tuple[str, Any]] = [
    ("open", None),
    ("open", [ID, TTL_MS]),
    ("open", [ID[:-1], TTL_MS, 0]),
    ("open", ["s" * 16, TTL_MS, 0]),
    ("open", [ID, 1, 0]),
    ("open", [ID, 2**62, 0]),
    ("open", [ID, TTL_MS, -1]),
    ("open", [ID, TTL_MS, 2**63]),
    ("open", [ID, True, 0]),
    ("open", [[ID], {}, 0.5]),
    ("request", [ID, 1, 1, 1, 0]),
    ("request", [ID, 1, 1, 1, 0, []]),
    ("request", [ID, 1, 1, 1, 0, ["text"]]),
    ("request", [ID, 1, 1, 1, 0, b"bytes"]),
    ("request", [ID, 1, -1, 1, 0, [b"a"]]),
    ("request", [ID, None, 1, 1, 0, [b"a"]]),
    ("touch", [ID]),
    ("touch", b"x"),
    ("close", [ID, 2**64 - 1]),
    ("query", b"q"),
    ("query", [7, 0]),
    ("query", [b"q", "now"]),
]


async def test_what_makes_no_sense_is_told_so() -> None:
    """One answer each, the connection goes on, and nothing has an effect."""
    machine = Register()
    async with one_server(machine) as (server, address), raw_client(address) as client:
        for number, (operation, argument) in enumerate(BAD_ARGUMENTS):
            told = await client.ask(number, operation, argument)
            assert told[:2] == (number, "failed"), (operation, argument, told)
            assert "allowed" in told[2], told
        assert machine.commands == [] and len(server.engine.state.clients) == 0


def test_a_place_stays_where_its_value_is_too_long() -> None:
    """The client learns where it took effect, and that the results were not sent."""
    framed = reply(1, "ok", Placed(5, 6, [bytes(REPLY_BYTES_MAX), 7]))
    _, outcome, (position, timestamp, results, known) = decode_message(framed[PREFIX_BYTES:])
    assert (outcome, position, timestamp, known) == ("ok", 5, 6, True)
    assert len(results) == 2 and "not sent" in results[0]


async def test_a_connection_that_ends_takes_no_session_along() -> None:
    """The next connection goes on with it."""
    async with one_server() as (_, address):
        async with raw_client(address) as client:
            at = await opened(client)
            await client.stream.send_all(encode_message([1, "request", [ID, at, 1, 1, 0, [b"a"]]]))
        async with raw_client(address) as client:
            assert (await client.ask(1, "request", [ID, at, 1, 1, 0, [b"a"]]))[2][2:] == ((1,), True)
