"""Stores in this process, with their Redis ports, and connections that show replies byte for byte."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio

import craft
from examples.kv.machine import KeyValue
from examples.kv.resp.client import House, RespLimits
from examples.kv.resp.door import Door
from examples.kv.store import Store
from examples.kv.users import User, Users
from tests.kv.redis import packed


class Wire:
    """A client's connection without a client library."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._held = b""

    async def ask(self, *args: bytes | str) -> bytes:
        """One command's reply."""
        await self.say(*args)
        return await self.reply()

    async def say(self, *args: bytes | str) -> None:
        """Send a command."""
        await self.stream.send_all(packed([arg.encode() if isinstance(arg, str) else arg for arg in args]))

    async def reply(self) -> bytes:
        """One whole reply; nothing where the connection has ended."""
        line = await self._upto(b"\r\n")
        kind, rest = line[:1], line[1:-2]
        if kind == b"$" and rest != b"-1":
            return line + await self._bytes(int(rest) + 2)
        if line and kind in b"*%>" and rest != b"-1":
            items = [await self.reply() for _ in range(int(rest) * (2 if kind == b"%" else 1))]
            return line + b"".join(items)
        return line

    async def _more(self) -> bool:
        try:
            data = await self.stream.receive_some()
        except trio.BrokenResourceError:
            data = b""
        self._held += data
        return bool(data)

    async def _upto(self, end: bytes) -> bytes:
        while end not in self._held:
            if not await self._more():
                return b""
        at = self._held.index(end) + len(end)
        return await self._bytes(at)

    async def _bytes(self, count: int) -> bytes:
        while len(self._held) < count:
            if not await self._more():
                return b""
        found, self._held = self._held[:count], self._held[count:]
        return found


class Shop:
    """One store and its port."""

    def __init__(self, server: craft.Server[KeyValue], house: House, door: Door) -> None:
        self.server = server
        self.door = door
        self.house = house
        self._wires: list[Wire] = []

    async def wire(self) -> Wire:
        """A new connection."""
        wire = Wire(await trio.open_tcp_stream("127.0.0.1", self.house.port))
        self._wires.append(wire)
        return wire

    async def hang_up(self) -> None:
        """End all connections."""
        for wire in self._wires:
            await trio.aclose_forcefully(wire.stream)


@asynccontextmanager
async def shops(
    count: int = 1,
    *,
    users: Sequence[User] = (),
    limits: RespLimits | None = None,
    tls: ssl.SSLContext | None = None,
    **settings: Any,
) -> AsyncIterator[list[Shop]]:
    """So many servers of one cluster in memory, ready."""
    network = craft.MemoryNetwork()
    servers = {number: f"127.0.0.1:{7400 + number}" for number in range(1, count + 1)}
    async with AsyncExitStack() as stack:
        found = []
        for number in servers:
            config = craft.Config(cluster="kv", server_id=number, servers=servers, **settings)
            server = await stack.enter_async_context(
                craft.open_server(
                    config, KeyValue(history_bytes_max=100_000), transport=network.transport(number)
                )
            )
            house = House(
                Store(server),
                Users(users),
                RespLimits() if limits is None else limits,
                stop=lambda: None,
                clock=trio.current_time,
            )
            nursery = await stack.enter_async_context(trio.open_nursery())
            door = Door(house, tls=tls)
            await nursery.start(door.run, "127.0.0.1", 0)
            stack.callback(nursery.cancel_scope.cancel)
            found.append(Shop(server, house, door))
        for shop in found:
            await shop.server.wait_ready()
        try:
            yield found
        finally:
            for shop in found:
                await shop.hang_up()
