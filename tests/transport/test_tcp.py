"""TCP's own matters: who may connect, where one may listen, and what strangers can do (nothing)."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from craft.config.checks import MILLISECONDS_MAX
from craft.errors import ConfigError
from craft.limits import TransportLimits
from craft.messages import Frame, ReadQuery
from craft.transport.tcp import Address, TcpTransport, tls_contexts
from craft.wire import (
    MAGIC,
    PROTOCOL_VERSION,
    Decoder,
    Hello,
    Refusal,
    Welcome,
    decode_answer,
    encode_frame,
    encode_hello,
    encode_message,
)
from tests.transport.clusters import DISKS, Facts, free_addresses
from tests.transport.inboxes import RecordingInbox

HELLO = Hello(MAGIC, PROTOCOL_VERSION, "peer", "shop", 2, DISKS[2], 21, b"n" * 16)
WELCOME = Welcome(MAGIC, PROTOCOL_VERSION, "shop", 1, DISKS[1], 21, b"n" * 16)
QUERY = Frame(1, 0, 0, 0, 0, (), (), (ReadQuery(1),))
LIMITS = TransportLimits(reconnect_delay_ms_min=1, reconnect_delay_ms_max=20, connect_timeout_ms=20_000)
NOWHERE: Address = ("127.0.0.1", 9)


def facts(server_id: int = 1, **changes: object) -> Facts:
    """Server 1, which knows servers 2 and 3 by id and cannot reach them."""
    peers = {peer: NOWHERE for peer in (1, 2, 3) if peer != server_id}
    return replace(Facts(server_id, peers, limits=LIMITS), **changes)  # type: ignore[arg-type]


@asynccontextmanager
async def running(made_of: Facts) -> AsyncIterator[tuple[TcpTransport, RecordingInbox, Address]]:
    """A transport that listens, its inbox and its address; a fault of its own ends the test."""
    transport, inbox = made_of.transport(), RecordingInbox()
    async with trio.open_nursery() as nursery:
        await nursery.start(transport.run, inbox)
        assert transport.bound is not None
        with trio.fail_after(60):
            yield transport, inbox, transport.bound
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def dial(address: Address, data: bytes = b"") -> AsyncIterator[trio.SocketStream]:
    """Connect as a stranger and say something; afterwards nothing is left open."""
    stream = await trio.open_tcp_stream(*address)
    try:
        await stream.send_all(data)
        yield stream
    finally:
        await trio.aclose_forcefully(stream)


async def read_answer(stream: trio.abc.Stream) -> Welcome | Refusal | None:
    """The other side's answer, or None where it closed the connection without one."""
    decoder = Decoder(4096)
    while (payload := decoder.next_payload()) is None:
        data = await stream.receive_some()
        if not data:
            return None
        decoder.feed(data)
    return decode_answer(payload)


async def say(address: Address, data: bytes) -> Welcome | Refusal | None:
    """Connect as a stranger, say something, and hear the answer."""
    async with dial(address, data) as stream:
        return await read_answer(stream)


async def ends(stream: trio.abc.Stream) -> bool:
    """Does the other side end the connection without another word?"""
    try:
        return await stream.receive_some() == b""
    except trio.BrokenResourceError:
        return True


class LogLines(logging.Handler):
    """The transport's log, to be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []
        self._changed = trio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())
        self._changed.set()

    async def until(self, text: str) -> None:
        while not any(text in line for line in self._lines):
            self._changed = trio.Event()
            await self._changed.wait()

    def count(self, text: str) -> int:
        return sum(text in line for line in self._lines)


@pytest.fixture
def log_lines() -> Iterator[LogLines]:
    lines, logger = LogLines(), logging.getLogger("craft.transport")
    logger.addHandler(lines)
    yield lines
    logger.removeHandler(lines)


# -- handshake ------------------------------------------------------------------------------------


async def test_a_peer_is_welcomed_and_heard() -> None:
    """After the Welcome, which echoes the nonce, frames are delivered under the peer's id."""
    async with running(facts()) as (_, inbox, address), dial(address, encode_hello(HELLO)) as stream:
        assert await read_answer(stream) == WELCOME
        await stream.send_all(encode_frame(QUERY))
        await inbox.until(lambda inbox: inbox.arrived)
        assert (inbox.arrived[0].sender, inbox.arrived[0].frame) == (2, QUERY)


@pytest.mark.parametrize(
    ("hello", "expected"),
    [
        (HELLO._replace(cluster_id="bank"), "another cluster: theirs is 'bank', ours is 'shop'"),
        (HELLO._replace(protocol_version=9), "another protocol version: theirs is 9, ours is 1"),
        (HELLO._replace(groups=3), "another number of groups: theirs is 3, ours is 21"),
        (HELLO._replace(server_id=1), "own id: both say that they are server 1"),
        (
            HELLO._replace(server_id=7),
            "unknown server id: theirs is 7, known are [2, 3]; to let it come: craft members add 7 ADDRESS",
        ),
        (HELLO._replace(disk_id="f" * 32), f"server 2 has disk {DISKS[2]}, not {'f' * 32}"),
        (
            HELLO._replace(role="client", cluster_id="*"),
            "this address is for servers; clients have one of their own",
        ),
        (HELLO._replace(nonce=b"short"), "Hello.nonce is b'short'; allowed is 16 bytes"),
    ],
    ids=["cluster", "version", "groups", "own id", "unknown id", "disk", "client", "malformed"],
)
async def test_a_wrong_hello_is_refused_with_its_reason(
    hello: Hello, expected: str, log_lines: LogLines
) -> None:
    """Both ends learn what differs: the other in the Refusal, this one in its log; nothing else happens."""

    def known_disk(server_id: int, disk_id: str) -> str | None:
        known = DISKS[server_id]
        return None if disk_id == known else f"server {server_id} has disk {known}, not {disk_id}"

    async with running(facts(known_disk=known_disk)) as (_, inbox, address):
        assert await say(address, encode_hello(hello)) == Refusal(expected)
        assert (inbox.links, inbox.arrived) == ([], [])
        await log_lines.until("incoming connection dropped")


@pytest.mark.parametrize(
    ("garbage", "expected"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "a frame claims 1195725856 bytes; allowed are 4096"),
        (b"\x00\x00\x00\x04ABCDxxxx", "checksum mismatch in a frame of 4 bytes"),
        (encode_message({"hello": 1}), "a handshake is not msgpack within its limits"),
        (encode_message([1, 2]), "Hello is (1, 2); allowed is an array of 9"),
        (encode_hello(HELLO) + b"x", "1 bytes follow the handshake before it is answered; allowed are none"),
    ],
    ids=["http", "checksum", "map", "array", "early"],
)
async def test_garbage_is_refused(garbage: bytes, expected: str) -> None:
    """Whatever connects, it gets a reason and no more, and a peer is served as before."""
    async with running(facts()) as (_, _, address):
        answer = await say(address, garbage)
        assert isinstance(answer, Refusal)
        assert answer.reason.startswith(expected)
        assert await say(address, encode_hello(HELLO)) == WELCOME


@pytest.mark.parametrize("group", [21, 4095])
async def test_a_peer_that_breaks_the_protocol_is_disconnected(group: int) -> None:
    """Behind a good handshake too: its connection ends, what came before it stands, and it may come again."""
    wrong = QUERY._replace(commits=((group, 1, 1),))
    async with running(facts()) as (_, inbox, address), dial(address, encode_hello(HELLO)) as stream:
        await read_answer(stream)
        await stream.send_all(encode_frame(QUERY) + encode_frame(wrong) + encode_frame(QUERY))
        assert await ends(stream)
        assert [arrived.frame for arrived in inbox.arrived] == [QUERY]
        assert await say(address, encode_hello(HELLO)) == WELCOME


async def test_a_disconnected_peer_may_come_again() -> None:
    """The engine may find a fault that the codec cannot see."""
    async with running(facts()) as (transport, inbox, address), dial(address, encode_hello(HELLO)) as stream:
        await read_answer(stream)
        await stream.send_all(encode_frame(QUERY))
        await inbox.until(lambda inbox: inbox.arrived)
        transport.disconnect(2, "it voted twice")
        assert await ends(stream)
        assert await say(address, encode_hello(HELLO)) == WELCOME


async def test_a_peer_that_is_removed_while_it_connects_is_disconnected() -> None:
    """Between the check of its Hello and its first frame: whoever removed it saw no connection to end."""
    transports: list[TcpTransport] = []

    def removed_meanwhile(_server_id: int, _disk_id: str) -> None:
        transports[0].set_peers({3: NOWHERE})

    async with running(facts(known_disk=removed_meanwhile)) as (transport, inbox, address):
        transports.append(transport)
        async with dial(address, encode_hello(HELLO)) as stream:
            assert await read_answer(stream) == WELCOME
            await stream.send_all(encode_frame(QUERY))
            assert await ends(stream)
        assert inbox.arrived == []


async def test_a_second_connection_replaces_the_first() -> None:
    """A peer that connects again has lost its first connection, whether or not we have noticed."""
    async with running(facts()) as (_, inbox, address), dial(address, encode_hello(HELLO)) as first:
        assert await read_answer(first) == WELCOME
        async with dial(address, encode_hello(HELLO)) as second:
            assert await read_answer(second) == WELCOME
            assert await ends(first)
            await second.send_all(encode_frame(QUERY))
            await inbox.until(lambda inbox: inbox.arrived)


async def test_a_connection_that_goes_as_soon_as_it_has_replaced_another_does_no_harm() -> None:
    """Whichever of the two ends first. Who looks for another server at our address does that."""
    async with running(facts()) as (_, _, address):
        for _ in range(20):  # each time one of the two is first, by chance
            async with dial(address, encode_hello(HELLO)) as first:
                assert await read_answer(first) == WELCOME
                async with dial(address, encode_hello(HELLO)) as second:
                    await second.send_eof()
                    assert await ends(first)
        assert await say(address, encode_hello(HELLO)) == WELCOME


async def test_strangers_are_limited_and_peers_are_not_disturbed() -> None:
    """Half-open connections beyond the limit are closed at once; connected peers go on."""
    limits = replace(LIMITS, handshakes_max=2, handshake_timeout_ms=60_000)
    async with (
        running(facts(limits=limits)) as (_, inbox, address),
        dial(address, encode_hello(HELLO)) as peer,
    ):
        await read_answer(peer)
        async with dial(address), dial(address), dial(address) as third:
            assert await ends(third)
            await peer.send_all(encode_frame(QUERY))
            await inbox.until(lambda inbox: inbox.arrived)


async def test_a_half_open_handshake_times_out(autojump_clock: trio.testing.MockClock) -> None:
    """Who connects and says nothing, or only half of it, is told so and closed after the time allowed."""
    async with running(facts()) as (_, _, address):
        for beginning in (b"", encode_hello(HELLO)[:20]):
            async with dial(address, beginning) as stream:
                assert await ends(stream)
    assert autojump_clock.current_time() >= 2 * LIMITS.handshake_timeout_ms / 1000


async def test_warnings_about_strangers_are_bounded(log_lines: LogLines) -> None:
    """A flood of bad connections does not become a flood of log lines."""
    async with running(facts()) as (_, _, address):
        for _ in range(20):
            await say(address, b"\xff" * 8)
    assert log_lines.count("incoming connection dropped") == 1


# -- our own connection ---------------------------------------------------------------------------


async def serve(nursery: trio.Nursery, *answers: bytes) -> tuple[Address, trio.Event]:
    """A stranger's listener, which answers one connection with each of `answers`; the event says: all."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    served = trio.Event()

    async def answer_all() -> None:
        async with listener:
            for answer in answers:
                async with await listener.accept() as stream:
                    await stream.receive_some()
                    await stream.send_all(answer)
        served.set()

    nursery.start_soon(answer_all)
    return listener.socket.getsockname()[:2], served


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (encode_message(["you are not wanted"]), "it refused us: you are not wanted"),
        (encode_message(WELCOME._replace(server_id=3)), "its Welcome answers another Hello"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "a frame claims"),
    ],
    ids=["refused", "another nonce", "garbage"],
)
async def test_a_wrong_answer_makes_no_link(
    answer: bytes, expected: str, nursery: trio.Nursery, log_lines: LogLines
) -> None:
    """What is not the peer we meant is not connected to; the log says why, and we go on trying."""
    address, served = await serve(nursery, answer, answer)
    async with running(facts(peers={2: address})) as (_, inbox, _):
        await served.wait()
        await log_lines.until(expected)
        assert inbox.links == []


async def test_another_server_at_the_address_is_refused(log_lines: LogLines) -> None:
    """Addresses may be mixed up; ids decide."""
    async with running(facts(3)) as (_, _, address):
        mixed_up = facts(1, peers={2: address, 3: NOWHERE})
        async with running(mixed_up) as (_, inbox, _):
            await log_lines.until("another server lives there: server 3")
            assert inbox.links == []


async def test_an_address_may_change() -> None:
    """The next connection goes to the new address, as names are resolved anew each time."""
    async with (
        running(facts(2)) as (_, _, address),
        running(facts(1)) as (transport, inbox, _),
    ):
        transport.set_address(2, address)
        await inbox.until_links("up 2")
        with pytest.raises(ValueError, match=r"peer is 9; allowed are \[2, 3\]"):
            transport.set_address(9, address)


async def test_a_peer_that_comes_back_is_connected_to_at_once(log_lines: LogLines) -> None:
    """Its own connection says that it is there: nobody waits any longer for the next attempt."""
    patient = TransportLimits(reconnect_delay_ms_min=3_600_000, reconnect_delay_ms_max=3_600_000)
    [there] = free_addresses(1)
    async with running(facts(1, peers={2: there}, limits=patient)) as (_, inbox, address):
        await log_lines.until("no connection")
        async with running(facts(2, listen=there, peers={1: address})):
            await inbox.until_links("up 2")


async def test_a_peer_may_come_back_at_the_moment_of_its_removal(log_lines: LogLines) -> None:
    """What was to connect to it at once finds it removed, and ends; the others are not disturbed."""
    [there] = free_addresses(1)
    async with running(facts(1, peers={2: NOWHERE})) as (transport, inbox, _):
        await log_lines.until("no connection")
        transport._peer_connected(2)
        transport.set_peers({3: there})
        async with running(facts(3, listen=there, peers={1: NOWHERE})):
            await inbox.until_links("up 3")


async def test_a_peer_that_talks_back_is_dropped(nursery: trio.Nursery) -> None:
    """Frames flow one way on a connection; anything else is another protocol."""
    async with running(facts(2)) as (_, _, address):
        middle, reached = await trio.open_tcp_listeners(0, host="127.0.0.1"), trio.Event()

        async def relay(stream: trio.SocketStream) -> None:
            """Pass the handshake on, then say something of our own."""
            async with dial(address, bytes(await stream.receive_some())) as behind:
                await stream.send_all(await behind.receive_some())
                await reached.wait()
                await stream.send_all(b"!")
                await trio.sleep_forever()

        nursery.start_soon(trio.serve_listeners, relay, middle)
        there = middle[0].socket.getsockname()[:2]
        async with running(facts(1, peers={2: there})) as (_, inbox, _):
            await inbox.until_links("up 2")
            reached.set()
            await inbox.until(lambda inbox: "down 2" in inbox.links)


async def test_two_servers_under_one_id_do_not_spin(autojump_clock: trio.testing.MockClock) -> None:
    """They replace each other's connection; each waits longer and longer instead of reconnecting at once."""
    async with running(facts(1, limits=TransportLimits())) as (_, _, address):
        rival = facts(2, peers={1: address}, limits=TransportLimits())
        async with running(rival) as (_, one, _), running(rival) as (_, two, _):
            await trio.sleep(20)
            assert len(one.links) + len(two.links) < 400
    del autojump_clock


# -- listening ------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
async def test_without_tls_only_loopback_is_listened_on(host: str) -> None:
    """Anyone could pose as a peer there, so it takes TLS or an explicit word."""
    with pytest.raises(ConfigError, match=r"without TLS; allowed is loopback .* or TLS, or insecure_ok"):
        await facts(listen=(host, 0)).transport().run(RecordingInbox())


async def test_insecure_ok_listens_anywhere() -> None:
    """Told so, it does."""
    async with running(facts(listen=("0.0.0.0", 0), insecure_ok=True)) as (_, _, (_, port)):
        assert await say(("127.0.0.1", port), encode_hello(HELLO)) == WELCOME


async def test_an_address_in_use_is_a_clear_error() -> None:
    """It names the address, and comes bare, not in a group of exceptions."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()[:2]
        with pytest.raises(ConfigError, match=rf"'127.0.0.1' port {address[1]}, which is in use"):
            await facts(listen=address).transport().run(RecordingInbox())


async def test_an_address_of_another_machine_is_a_clear_error() -> None:
    """192.0.2.0/24 belongs to nobody."""
    with pytest.raises(ConfigError, match="listen address is '192.0.2.1' port 7000"):
        await facts(listen=("192.0.2.1", 7000), insecure_ok=True).transport().run(RecordingInbox())


@pytest.mark.parametrize("insecure_ok", [True, False])
async def test_a_name_that_cannot_be_one_is_a_clear_error(insecure_ok: bool) -> None:
    """Python says so in another way than the system would."""
    with pytest.raises(ConfigError, match=r"listen address is 'a\.\.b' port 7000"):
        await facts(listen=("a..b", 7000), insecure_ok=insecure_ok).transport().run(RecordingInbox())


async def test_a_transport_that_has_started_listens() -> None:
    """Whoever waits for its start may tell others to connect."""
    transport = facts().transport()
    async with trio.open_nursery() as nursery:
        await nursery.start(transport.run, RecordingInbox())
        assert transport.bound is not None
        assert await say(transport.bound, encode_hello(HELLO)) == WELCOME
        nursery.cancel_scope.cancel()


async def test_the_longest_silence_that_may_be_configured_can_be_set() -> None:
    """The kernel's own limit is lower, and its error would name nothing."""
    patient = replace(LIMITS, silence_timeout_ms=MILLISECONDS_MAX)
    async with running(facts(limits=patient)) as (_, _, address):
        assert await say(address, encode_hello(HELLO)) == WELCOME


# -- TLS ------------------------------------------------------------------------------------------


class Files:
    """One authority and certificates of it, as files."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.authority = trustme.CA()
        self.ca_file = folder / f"{name}.pem"
        self.authority.cert_pem.write_to_path(str(self.ca_file))
        self._folder = folder

    def contexts(self, name: str, *, trust: Path | None = None) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        issued = self.authority.issue_cert("127.0.0.1", "localhost")
        cert_file, key_file = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        cert_file.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(key_file))
        return tls_contexts(cert_file, key_file, trust or self.ca_file)


def tls_facts(
    server_id: int, contexts: tuple[ssl.SSLContext, ssl.SSLContext], peers: dict[int, Address]
) -> Facts:
    return facts(server_id, server_tls=contexts[0], client_tls=contexts[1], peers=peers)


async def test_servers_of_one_authority_talk(tmp_path: Path) -> None:
    """With contexts made from files, over TLS 1.3, frames flow."""
    files = Files(tmp_path)
    first, second = free_addresses(2)
    one = replace(tls_facts(1, files.contexts("one"), {2: second}), listen=first)
    two = replace(tls_facts(2, files.contexts("two"), {1: first}), listen=second)
    async with running(one) as (transport, inbox, _), running(two) as (_, there, _):
        await inbox.until(lambda inbox: inbox.links)
        transport.send(2, QUERY)
        await there.until(lambda inbox: inbox.arrived)
        assert there.arrived[0].frame == QUERY


async def test_a_client_without_certificate_is_refused(tmp_path: Path) -> None:
    """The right words are not enough; nothing that it says is read."""
    files = Files(tmp_path)
    async with running(tls_facts(1, files.contexts("one"), {2: NOWHERE})) as (_, inbox, address):
        anonymous = ssl.create_default_context(cafile=str(files.ca_file))
        async with dial(address) as plain:
            stream = trio.SSLStream(plain, anonymous, server_hostname="127.0.0.1")
            await stream.send_all(encode_hello(HELLO))
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        assert inbox.arrived == []


async def test_plain_text_gets_no_further_than_tls(tmp_path: Path) -> None:
    """A Hello without TLS is garbage to a TLS listener."""
    files = Files(tmp_path)
    server = tls_facts(1, files.contexts("one"), {2: NOWHERE})
    async with running(server) as (_, _, address), dial(address, encode_hello(HELLO)) as stream:
        answer = await stream.receive_some()
        assert not answer or answer[0] == 21  # a TLS alert


async def test_another_authoritys_server_is_not_trusted(tmp_path: Path, log_lines: LogLines) -> None:
    """Certificates are checked against our own authority alone, in both directions."""
    ours, theirs = Files(tmp_path), Files(tmp_path, "other")
    there = tls_facts(2, theirs.contexts("two"), {1: NOWHERE})
    here = tls_facts(1, ours.contexts("one"), {2: NOWHERE, 3: NOWHERE})
    async with running(there) as (_, _, address), running(here) as (transport, inbox, _):
        transport.set_address(2, address)
        await log_lines.until("CERTIFICATE_VERIFY_FAILED")
        assert inbox.links == []


def test_tls_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    """A missing or wrong file is a mistake in the configuration."""
    with pytest.raises(ConfigError, match="nowhere.crt.*cannot be used.*in PEM"):
        tls_contexts(tmp_path / "nowhere.crt", tmp_path / "nowhere.key", tmp_path / "ca.pem")


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(tmp_path: Path) -> None:
    """A server that starts at night must not wait at a prompt; under pytest asking would fail otherwise."""
    files = Files(tmp_path)
    files.contexts("one")
    key = tmp_path / "one.key"
    private = load_pem_private_key(key.read_bytes(), None)
    locked = BestAvailableEncryption(b"secret")
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
    with pytest.raises(ConfigError, match=r"PEM lib.*allowed are a certificate, its unencrypted key"):
        tls_contexts(tmp_path / "one.crt", key, files.ca_file)


def test_tls_in_one_direction_only_is_refused(tmp_path: Path) -> None:
    """Half a configuration is a mistake, not a choice."""
    server, _ = Files(tmp_path).contexts("one")
    with pytest.raises(ConfigError, match="TLS is given for one direction only; allowed is both or neither"):
        facts(server_tls=server).transport()
