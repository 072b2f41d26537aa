"""How a new server learns of its cluster: it asks a server that it was told of, at its door for clients.

Knows: the one question. Must not know: what comes of it (`roll`, and the operator, who lets it in).

Nothing is proved by the answer: it names whom to connect to, and those check who we are (PROTOCOL 11).
"""

from __future__ import annotations

import logging
import secrets
import ssl
from typing import Any

import trio

from craft import logs
from craft.config import Address, Config, parse_address
from craft.errors import RemoteError
from craft.server.roll import Roll, unpack_roll
from craft.transport.tcp.common import LOST, read_handshake, reason
from craft.transport.tcp.tls import connecting_context
from craft.wire import (
    MAGIC,
    NONCE_BYTES,
    PROTOCOL_VERSION,
    Decoder,
    Hello,
    Refusal,
    decode_answer,
    decode_message,
    encode_hello,
    encode_message,
)

ROLL_BYTES_MAX = 256 * 1024
"""Of an answer: 64 servers, each with the longest of addresses."""

RENEW_S = 2.0
"""So long a start may wait for news of the members; mostly it is answered, or refused, at once."""

RETRY_S = 1.0
"""Nobody answers: the cluster may be starting too."""

log = logging.getLogger("craft.server")


async def ask_for_roll(config: Config) -> Roll:
    """Ask the servers of `join` in turn, until one answers."""
    while (roll := await _ask_each(config)) is None:  # noqa: ASYNC110  # other machines
        await trio.sleep(RETRY_S)
    return roll._replace(joined=True)


async def renewed(config: Config, roll: Roll) -> Roll:
    """The roll we have, with the newer set of members that the servers of `join` know, if one answers soon.

    Everybody whom it names may have been replaced while we were away. Nobody would ever let us in then, for
    none of the others knows where we ask.
    """
    told = None
    with trio.move_on_after(RENEW_S):
        told = await _ask_each(config)
    if told is None or told.members.version <= roll.members.version:
        return roll
    if (told.founders, told.groups) != (roll.founders, roll.groups):
        logs.event(log, logging.WARNING, "another cluster", founders=told.founders, groups=told.groups)
        return roll
    return roll._replace(members=told.members, addresses={**roll.addresses, **told.addresses})


async def _ask_each(config: Config) -> Roll | None:
    """Once each, until one answers."""
    tls = None
    if config.tls is not None and config.clients.tls:
        tls = connecting_context((config.tls.cert_file, config.tls.key_file), config.tls.ca_file)
    for text in config.join:
        where = parse_address("join", text)
        try:
            with trio.fail_after(config.clients.request_timeout_ms / 1000):
                return await _ask(where, config, tls)
        except (*LOST, ValueError) as error:
            logs.event(log, logging.WARNING, "cannot join", address=str(where), reason=reason(error))
    return None


async def _ask(where: Address, config: Config, tls: ssl.SSLContext | None) -> Roll:
    stream: trio.abc.Stream = await trio.open_tcp_stream(where.host, where.port)
    try:
        if tls is not None:
            assert isinstance(stream, trio.SocketStream)
            stream = trio.SSLStream(stream, tls, server_hostname=where.host)
        nonce = secrets.token_bytes(NONCE_BYTES)
        hello = Hello(MAGIC, PROTOCOL_VERSION, "client", config.cluster, 0, "", 0, nonce)
        await stream.send_all(encode_hello(hello))
        answer = decode_answer(await read_handshake(stream))
        if isinstance(answer, Refusal):
            raise RemoteError(f"it refused us: {answer.reason}")
        await stream.send_all(encode_message([1, "roll", None]))
        return unpack_roll(_value(await _reply(stream)))
    finally:
        await trio.aclose_forcefully(stream)


async def _reply(stream: trio.abc.Stream) -> Any:
    decoder = Decoder(ROLL_BYTES_MAX)
    while (payload := decoder.next_payload()) is None:
        data = await stream.receive_some(ROLL_BYTES_MAX)
        if not data:
            raise RemoteError("it closed the connection")
        decoder.feed(data)
    return decode_message(payload)


def _value(reply: Any) -> bytes:
    whole = type(reply) is tuple and len(reply) == 3
    if not whole or reply[1] != "ok" or type(reply[2]) is not bytes:
        raise RemoteError(f"it does not tell who the members are: {reply!r:.200}")
    packed: bytes = reply[2]
    return packed
