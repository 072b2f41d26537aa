"""The HTTP port with real sockets: HTTP/1.1, HTTP/2, TLS, and clients that misbehave."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h2.connection
import h2.settings
import httpx
import pytest
import trio
import trio.testing

import craft
from examples.kv import serving, settings
from examples.kv.http import door
from examples.kv.http.door import Line
from examples.kv.http.limits import PIECE_BYTES, HttpLimits
from examples.kv.users import User
from tests.kv.http import problem
from tests.server.certificates import Authority


def alone() -> craft.Config:
    """A server without peers, which keeps everything in memory."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return craft.Config(cluster="kv", server_id=1, servers={1: f"127.0.0.1:{port}"})


@asynccontextmanager
async def running(
    limits: HttpLimits | None = None,
    users: Sequence[User] = (),
    tls: settings.Certificates | None = None,
) -> AsyncIterator[serving.Running]:
    """A server of one with an HTTP port, as `serve` runs it."""
    found = settings.Settings(
        craft=alone(),
        http_listen=settings.Address("127.0.0.1", 0),
        users=tuple(users),
        tls=tls,
        http_limits=limits or HttpLimits(),
    )
    async with serving.running(found) as store:
        await store.store.server.wait_ready()
        yield store


def client_of(store: serving.Running, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{store.http.port}", **options)


async def connect(store: serving.Running) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", store.http.port)


async def everything(stream: trio.abc.ReceiveStream) -> bytes:
    """Until the server closes it."""
    data = b""
    try:
        async for part in stream:
            data += part
    except trio.BrokenResourceError:
        pass
    return data


async def test_a_client_is_served_over_a_kept_connection() -> None:
    """Writes, reads, answers without a body, and problems."""
    async with running() as store, client_of(store) as client:
        assert (await client.put("/keys/a%2Fb%FF", content=b"v" * 100_000)).status_code == 201
        assert (await client.get("/keys/a/b%ff")).content == b"v" * 100_000
        head = await client.head("/keys/a/b%ff")
        assert (head.content, head.headers["content-length"]) == (b"", "100000")
        assert (await client.put("/keys/a/b%ff", content=b"")).status_code == 204
        problem(await client.get("/keys/none"), "no-such-key")
        assert (await client.get("/health")).json() == {"ready": True}
        assert store.http.connections == 1


async def test_a_target_may_name_the_host() -> None:
    """As one asks a proxy; what the header Host says counts for nothing then."""
    async with running() as store:
        for target, host, status in (
            (b"http://localhost:1/keys/a/http://b?ttl_ms=60000", b"elsewhere", b"201"),
            (b"HTTP://127.0.0.1/keys/a%2Fhttp:%2F/b?ttl_ms=60000", b"elsewhere", b"204"),
            (b"/keys/a/http://b", b"localhost", b"204"),
            (b"http://elsewhere/keys/a", b"localhost", b"421"),
            (b"http://localhost", b"localhost", b"405"),
            (b"http:///keys/a", b"localhost", b"404"),
        ):
            head = b"PUT %b HTTP/1.1\r\nhost: %b\r\ncontent-length: 1\r\nconnection: close\r\n\r\n"
            async with await connect(store) as stream:
                await stream.send_all(head % (target, host) + b"v")
                assert (await everything(stream)).split()[1] == status, target


async def test_a_body_that_is_too_large_is_answered_and_the_next_client_is_served() -> None:
    """Nothing waits for a body that nobody reads."""
    async with running() as store, client_of(store) as client:
        most = store.store.command_bytes_max
        problem(await client.put("/keys/k", content=bytes(2 * most)), "too-large")
        problem(await client.request("GET", "/keys/k", content=bytes(2 * most)), "no-such-key")
        problem(await client.put("/nothing", content=bytes(2 * most)), "no-such-page")
        # An endless one is cut off.
        async with await connect(store) as stream:
            await stream.send_all(
                b"PUT /keys/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999\r\n\r\n"
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_for_ever, stream)
                await everything(stream)
                nursery.cancel_scope.cancel()
        assert (await client.get("/health")).status_code == 200


async def send_for_ever(stream: trio.SocketStream) -> None:
    """Until nobody takes it."""
    try:
        while True:
            await stream.send_all(bytes(65536))
    except trio.BrokenResourceError:
        pass


async def test_changes_come_while_they_happen() -> None:
    """Through the port: the stream begins at once, and ends when its client leaves."""
    async with running() as store, client_of(store) as client, await connect(store) as stream:
        await stream.send_all(b"GET /changes HTTP/1.1\r\nhost: localhost\r\n\r\n")
        await read_until(stream, b"retry: 1000")
        await client.put("/keys/k", content=b"v")
        await read_until(stream, b'["SET", "k", "v"]')
        assert store.http.followers == 1
        await stream.aclose()
        while store.http.followers:
            await trio.testing.wait_all_tasks_blocked()


async def read_until(stream: trio.SocketStream, wanted: bytes) -> None:
    """It comes, however it is cut."""
    data = b""
    while wanted not in data:
        data += await stream.receive_some()
        assert data, "the stream has ended"


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0\xff" * 100,
        b"GET /" + b"a" * 20_000,
        b"GET /keys HTTP/1.1\r\nhost: localhost\r\n" + b"x: y\r\n" * 10_000,
        b"GET /keys/\xff HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"PUT /keys/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"PUT /keys/k HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(1000),
        b"GET /keys HTTP/1.1\r\nhost: localhost\r\nupgrade: h2c\r\nhttp2-settings: !\r\n\r\n",
        b"GET /keys HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    ],
    ids=range(9),
)
async def test_garbage_ends_its_own_connection_only(garbage: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the library makes of it."""
    monkeypatch.setattr(door, "LINGER_S", 0.1)
    async with running(HttpLimits(idle_timeout_s=1, body_timeout_s=1)) as store, client_of(store) as client:
        assert (await client.get("/health")).status_code == 200
        async with await connect(store) as stream:
            try:
                await stream.send_all(garbage)
                await stream.send_eof()
            except trio.BrokenResourceError:
                pass
            assert not (await everything(stream)).startswith(b"HTTP/1.1 2")
        assert (await client.get("/health")).status_code == 200


async def test_too_many_connections_are_turned_away() -> None:
    """At once, and those who are here are served."""
    async with running(HttpLimits(connections_max=1)) as store, client_of(store) as client:
        assert (await client.get("/health")).status_code == 200
        async with await connect(store) as stream:
            assert b"503" in (await everything(stream)).splitlines()[0]
        assert store.http.turned_away == 1
        assert (await client.get("/health")).status_code == 200


async def test_who_says_nothing_is_disconnected() -> None:
    """Also one that stops in the middle of its headers."""
    async with running(HttpLimits(idle_timeout_s=1)) as store:
        async with await connect(store) as silent, await connect(store) as slow:
            await slow.send_all(b"GET /health HTTP/1.1\r\nhost: ")
            assert await everything(silent) == b""
            assert b" 200 " not in await everything(slow)
        while store.http.connections:
            await trio.testing.wait_all_tasks_blocked()


async def test_what_was_asked_before_a_stop_is_answered() -> None:
    """The write under way is answered, the change stream says where to go on, and idle connections end."""
    received: list[bytes] = []
    async with trio.open_nursery() as nursery, running() as store:
        idle, asking, following = [await connect(store) for _ in range(3)]
        await following.send_all(b"GET /changes HTTP/1.1\r\nhost: localhost\r\n\r\n")
        await read_until(following, b"retry: 1000")
        server, stuck = store.store.server, trio.Event()
        write = store.http.store.carry_out

        async def slowly(*arguments: Any) -> Any:
            stuck.set()
            await store.http.stopping.wait()
            return await write(*arguments)

        store.http.store.carry_out = slowly  # type: ignore[assignment,method-assign]
        await asking.send_all(b"PUT /keys/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\nv")
        await stuck.wait()
        for stream in (idle, asking, following):
            nursery.start_soon(read_all, stream, received)
        before = server.position
    answered = next(one for one in received if one.startswith(b"HTTP/1.1 2"))
    ended = next(one for one in received if b"event: ended" in one)
    assert answered.startswith(b"HTTP/1.1 201")
    assert b'"after": %d' % before in ended or b'"after":%d' % before in ended
    assert b"" in received


async def read_all(stream: trio.SocketStream, received: list[bytes]) -> None:
    """Until it ends."""
    data = b""
    async with stream:
        while more := await stream.receive_some():
            data += more
    received.append(data)


async def test_a_client_that_takes_nothing_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer is stuck in its socket when the server stops."""
    monkeypatch.setattr(serving, "DRAIN_S", 0.1)
    async with running() as store, client_of(store) as client:
        await client.put("/keys/k", content=bytes(1_000_000))
        stream = await connect(store)
        for _ in range(20):
            await stream.send_all(b"GET /keys/k HTTP/1.1\r\nhost: localhost\r\n\r\n")
        await stream.receive_some(1)
    await stream.aclose()


async def test_a_client_that_takes_too_long_is_disconnected(mock_clock: trio.testing.MockClock) -> None:
    """A piece at a time, each in its time."""
    mock_clock.autojump_threshold = 0.01
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with listeners[0], await trio.open_tcp_stream("127.0.0.1", port) as client:
        closed: list[Line] = []
        line = Line(await listeners[0].accept(), send_timeout_s=5, closed=closed.append)
        with pytest.raises(trio.BrokenResourceError, match="takes nothing"):
            await line.send_all(bytes(1000 * PIECE_BYTES))
        assert closed == [line]
        assert len(await everything(client)) < 1000 * PIECE_BYTES


async def test_streams_that_take_nothing_do_not_keep_others_out() -> None:
    """With HTTP/2 a client can refuse the answer of each of its requests and take everything else."""
    limits = HttpLimits(requests_max=3, send_timeout_s=1)
    async with running(limits) as store, client_of(store) as client:
        deaf = h2.connection.H2Connection()
        deaf.initiate_connection()
        deaf.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
        asked = [(":method", "GET"), (":scheme", "http"), (":authority", "localhost")]
        for path in ["/health", "/nowhere", "/health"]:
            deaf.send_headers(deaf.get_next_available_stream_id(), [*asked, (":path", path)], end_stream=True)
        async with await connect(store) as stream:
            await stream.send_all(deaf.data_to_send())
            while store.http.requests < limits.requests_max:
                await trio.testing.wait_all_tasks_blocked(0.01)
            problem(await client.get("/health"), "overloaded")
            with trio.fail_after(10):
                while store.http.requests:
                    await trio.testing.wait_all_tasks_blocked(0.01)
            assert (await client.get("/health")).status_code == 200


async def test_a_port_that_is_taken_is_named() -> None:
    """With its key and address."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        address = settings.Address("127.0.0.1", listener.socket.getsockname()[1])
        with pytest.raises(craft.ConfigError, match=f"http_listen: cannot listen on {address}"):
            async with serving.running(settings.Settings(craft=alone(), http_listen=address)):
                raise AssertionError("it listens")


async def test_a_name_that_cannot_be_one_is_named() -> None:
    """Python says so in another way than the system would."""
    address = settings.Address("a..b", 1)
    found = settings.Settings(craft=alone(), redis_listen=address, insecure_listen=True)
    with pytest.raises(craft.ConfigError, match=r"redis_listen: cannot listen on a\.\.b:1"):
        async with serving.running(found):
            raise AssertionError("it listens")


async def test_tls_speaks_both_versions_of_http(tmp_path: Path) -> None:
    """As the client prefers; what is no TLS is disconnected."""
    authority = Authority(tmp_path, "http")
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    async with running(tls=settings.Certificates(*map(Path, authority.issue("server")))) as store:
        url = f"https://127.0.0.1:{store.http.port}"
        async with httpx.AsyncClient(base_url=url, verify=context) as client:
            assert (await client.put("/keys/k", content=bytes(200_000))).status_code == 201
        context.set_alpn_protocols(["h2"])
        async with await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", store.http.port, ssl_context=context
        ) as two:
            await two.do_handshake()
            assert two.selected_alpn_protocol() == "h2"
        async with await connect(store) as plain:
            await plain.send_all(b"GET /health HTTP/1.1\r\n\r\n")
            assert b"HTTP" not in await everything(plain)
