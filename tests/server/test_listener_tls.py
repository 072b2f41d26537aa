"""TLS on the clients' port: certificates both ways, and clear words for whoever has none."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

import craft
from craft.client import connect
from craft.config import TlsConfig
from craft.errors import HandshakeRefused
from craft.server.listener_requests import FAILED
from craft.wire import Refusal, encode_message
from tests.server.certificates import Authority
from tests.server.listening import RawClient, one_server, raw_client

TLS = craft.ClientLimits(tls=True)


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "theirs")


@asynccontextmanager
async def served(tls: TlsConfig, good: ssl.SSLContext) -> AsyncIterator[str]:
    """A server with TLS for clients, and a good client that must be served all the while."""
    async with one_server(tls=tls, clients=TLS) as (_, address):
        async with connect(address, ssl_context=good) as other:
            yield address
            assert (await other.status())["ready"]
        async with connect(address, ssl_context=good) as another:
            assert (await another.status())["ready"]


async def test_clients_of_the_clusters_authority_are_served(ours: Authority) -> None:
    """Over TLS 1.3, with a session and without; nothing else changes."""
    async with served(ours.server(), ours.client()) as address:
        async with craft.connect(address, ssl_context=ours.client()) as client:
            assert await client.propose(b"a") == 1
            assert await client.read(b"q") == (1, b"q")
        async with craft.connect(address, ssl_context=ours.client()) as client:
            results = await client.propose_many([b"%d" % n for n in range(2000)])
            assert len(results) == 2000


async def test_clients_may_have_an_authority_of_their_own(ours: Authority, theirs: Authority) -> None:
    """Then their certificates are no servers' certificates; a server's own is good here all the same."""
    async with (
        served(ours.server(clients=theirs), ours.client(of=theirs)) as address,
        connect(address, ssl_context=ours.client()) as client,
    ):
        assert await client.propose([b"a"]) == (1,)


async def test_who_shows_no_certificate_is_not_served(ours: Authority) -> None:
    """The client is told what it may be."""
    async with served(ours.server(), ours.client()) as address:
        with pytest.raises(craft.Unreachable, match="does it take our certificate"):
            async with craft.connect(address, ssl_context=ours.anonymous()):
                pytest.fail("anybody could")


async def test_another_authoritys_client_is_not_served(ours: Authority, theirs: Authority) -> None:
    """It trusts the server, and the server does not trust it."""
    async with served(ours.server(), ours.client()) as address:
        with pytest.raises(craft.Unreachable, match="does it take our certificate"):
            async with craft.connect(address, ssl_context=ours.client(of=theirs)):
                pytest.fail("anybody could")


async def test_a_server_that_cannot_prove_itself_is_not_talked_to(ours: Authority, theirs: Authority) -> None:
    """Another authority's, or a certificate for another name."""
    async with served(ours.server(), ours.client()) as address:
        with pytest.raises(craft.Unreachable, match="certificate verify failed"):
            async with craft.connect(address, ssl_context=theirs.client(of=ours)):
                pytest.fail("that may be anybody")
        with pytest.raises(craft.Unreachable, match="certificate is not valid for 'localhost'"):
            async with craft.connect(address.replace("127.0.0.1", "localhost"), ssl_context=ours.client()):
                pytest.fail("that may be anybody")


async def test_a_plain_client_is_told_that_tls_is_spoken_here(ours: Authority) -> None:
    """In plain words, and nothing that it says is read."""
    async with served(ours.server(), ours.client()) as address:
        with pytest.raises(HandshakeRefused, match="this address speaks TLS, and was spoken to in plain TCP"):
            async with craft.connect(address):
                pytest.fail("nothing here is plain")
        async with raw_client(address, greet=False) as client:
            await client.stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
            assert await client.answer() == Refusal("this address speaks TLS, and was spoken to in plain TCP")
            assert await client.payload() is None


async def test_a_client_with_tls_is_told_that_none_is_spoken_here(ours: Authority) -> None:
    """As far as it can be told, who waits for TLS."""
    async with one_server() as (_, address), connect(address) as other:
        with pytest.raises(craft.Unreachable, match="it does not speak TLS"):
            async with craft.connect(address, ssl_context=ours.client()):
                pytest.fail("nothing here is encrypted")
        assert (await other.status())["ready"]


@pytest.mark.parametrize("beginning", [b"", b"\x16", b"\x16\x03\x01\x00\x05hello", b"\x16" + bytes(5000)])
async def test_a_broken_beginning_of_tls_disturbs_nobody(ours: Authority, beginning: bytes) -> None:
    """Somebody who goes away in the middle, or says something else."""
    async with served(ours.server(), ours.client()) as address:
        host, port = address.rsplit(":", 1)
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(beginning)
            await stream.send_eof()
            assert await stream.receive_some() == b""


async def test_who_begins_tls_and_says_nothing_more_is_not_waited_for(ours: Authority) -> None:
    """A handshake has its time, TLS included."""
    limits = craft.TransportLimits(handshake_timeout_ms=50)
    async with (
        one_server(tls=ours.server(), clients=TLS, transport=limits) as (_, address),
        raw_client(address, greet=False) as client,
    ):
        await client.stream.send_all(b"\x16\x03\x01")
        assert await client.payload() is None


async def test_a_fault_inside_tls_is_told_inside_it(ours: Authority) -> None:
    """The reason arrives before the end does."""
    async with served(ours.server(), ours.client()) as address:
        host, port = address.rsplit(":", 1)
        plain = await trio.open_tcp_stream(host, int(port))
        async with trio.SSLStream(
            plain, ours.client(), server_hostname=host, https_compatible=True
        ) as stream:
            client = RawClient(stream)
            await client.greet()
            await stream.send_all(encode_message(["a", "status", None]))
            number, outcome, text = await client.reply()
            assert (number, outcome) == (None, FAILED)
            assert "a request's number is 'a'" in text


async def test_files_that_cannot_be_used_end_the_start(ours: Authority, tmp_path: Path) -> None:
    """Named, with what is allowed, before anything listens."""
    files = ours.server()
    gone = TlsConfig(files.cert_file, files.key_file, files.ca_file, tmp_path / "nowhere.pem")
    with pytest.raises(craft.ConfigError, match="nowhere.pem.* cannot be used"):
        async with one_server(tls=gone, clients=TLS):
            pytest.fail("it must not start")


async def test_with_tls_it_may_listen_anywhere(ours: Authority) -> None:
    """No other word is needed."""
    async with one_server(client_listen="0.0.0.0:0", tls=ours.server(), clients=TLS) as (_, address):
        _, port = address.rsplit(":", 1)
        async with connect(f"127.0.0.1:{port}", ssl_context=ours.client()) as client:
            assert (await client.status())["ready"]
