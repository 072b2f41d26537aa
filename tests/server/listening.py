"""One server with a real client port, and a client that says exactly the bytes it is told to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

import craft
from craft.wire import (
    MAGIC,
    NONCE_BYTES,
    PROTOCOL_VERSION,
    Decoder,
    Hello,
    Refusal,
    Welcome,
    decode_answer,
    decode_message,
    encode_hello,
    encode_message,
)

QUICK = craft.EngineLimits(heartbeat_interval_ms=10, election_timeout_ms_min=30, election_timeout_ms_max=60)
HELLO = Hello(MAGIC, PROTOCOL_VERSION, "client", "*", 0, "", 0, bytes(NONCE_BYTES))


class Register:
    """Results and answers of every kind, by the command's or query's text."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []

    def apply_batch(self, batch: craft.Batch) -> list[Any]:
        self.commands += batch
        return [self._result(command) for command in batch]

    def _result(self, command: bytes) -> Any:
        odd: dict[bytes, Any] = {b"object": {1, 2}, b"huge": 2**70, b"nested": [1, {"a": {3}}]}
        return odd.get(command, len(self.commands))

    def query(self, query: bytes) -> Any:
        if query == b"wrong":
            raise ValueError("no such thing")
        if query.startswith(b"bytes "):
            return bytes(int(query[6:]))
        return [len(self.commands), query]


@asynccontextmanager
async def one_server(
    machine: Any = None, *, quorum: bool = True, **changes: Any
) -> AsyncIterator[tuple[craft.Server[Any], str]]:
    """A server, ready, and its clients' address. Without a quorum it waits for two that never come."""
    servers = {1: "127.0.0.1:7001"} if quorum else {n: f"127.0.0.1:700{n}" for n in (1, 2, 3)}
    settings: dict[str, Any] = {"client_listen": "127.0.0.1:0", "engine": QUICK, "close_timeout_ms": 100}
    config = craft.Config(cluster="test", server_id=1, servers=servers, **(settings | changes))
    transport = craft.MemoryNetwork().transport(1)
    async with craft.open_server(config, machine or Register(), transport=transport) as server:
        if quorum:
            await server.wait_ready()
        yield server, str(server.client_addresses[0])


class RawClient:
    """Sends bytes, takes replies."""

    def __init__(self, stream: trio.abc.HalfCloseableStream | trio.SSLStream[trio.SocketStream]) -> None:
        self.stream = stream
        self._decoder = Decoder(2**24)

    async def payload(self) -> memoryview | None:
        """The next frame; None where the server closed the connection."""
        while (payload := self._decoder.next_payload()) is None:
            data = await self.stream.receive_some()
            if not data:
                return None
            self._decoder.feed(data)
        return payload

    async def greet(self, hello: Hello = HELLO) -> Welcome | Refusal:
        await self.stream.send_all(encode_hello(hello))
        return await self.answer()

    async def answer(self) -> Welcome | Refusal:
        payload = await self.payload()
        assert payload is not None
        return decode_answer(payload)

    async def ask(self, *request: Any) -> Any:
        await self.stream.send_all(encode_message(request))
        return await self.reply()

    async def reply(self) -> Any:
        payload = await self.payload()
        return None if payload is None else decode_message(payload)


@asynccontextmanager
async def raw_client(address: str, *, greet: bool = True) -> AsyncIterator[RawClient]:
    """A connection of our own, greeted unless the test does that."""
    host, port = address.rsplit(":", 1)
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        client = RawClient(stream)
        if greet:
            assert isinstance(await client.greet(), Welcome)
        yield client
