"""One server of the store: craft's server, and the ports for clients, in one nursery.

Knows: what is started in which order. Must not know: what any of it does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

import trio

import craft
from examples.kv.disk import DurableKeyValue
from examples.kv.http.door import Door as HttpDoor
from examples.kv.http.guard import Guard
from examples.kv.http.house import House as HttpHouse
from examples.kv.machine import KeyValue
from examples.kv.resp.client import House
from examples.kv.resp.door import Door
from examples.kv.settings import Address, Settings
from examples.kv.store import Store
from examples.kv.users import Users

DRAIN_S = 5.0
"""What was asked before a stop has so long to be answered; then the server hands its groups over."""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True)
class Running:
    """A store that runs."""

    store: Store
    house: House
    """Of the Redis port."""
    http: HttpHouse
    stopped: trio.Event
    """Set when a client asks the server to stop."""


async def drained(drains: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Let every door answer what it was asked, all at the same time, for `DRAIN_S` at most."""
    with trio.move_on_after(DRAIN_S):
        async with trio.open_nursery() as nursery:
            for drain in drains:
                nursery.start_soon(drain)


@asynccontextmanager
async def running(settings: Settings, stopped: trio.Event | None = None) -> AsyncIterator[Running]:
    """The server and its ports, until the block ends. Raises craft.ConfigError for a port that is taken.

    `stopped` is set when a client asks for the end.
    """
    stopped = trio.Event() if stopped is None else stopped
    tls = None if settings.tls is None else settings.tls.context()
    async with opened_machine(settings) as machine, craft.open_server(settings.craft, machine) as server:
        store, users = Store(server), Users(settings.users)
        house = House(store, users, replace(settings.limits), stop=stopped.set, clock=trio.current_time)
        http = http_house(settings, store, users)
        async with trio.open_nursery() as nursery, AsyncExitStack() as closing:
            closing.callback(nursery.cancel_scope.cancel)
            drains: list[Callable[[], Awaitable[None]]] = []
            closing.push_async_callback(drained, drains)
            if settings.redis_listen is not None:
                redis = Door(house, tls=tls)
                await opened(nursery, "redis_listen", redis.run, settings.redis_listen)
                drains.append(redis.drain)
            if settings.http_listen is not None:
                # Each door has its context: the protocols that TLS negotiates are HTTP's alone.
                own = None if settings.tls is None else settings.tls.context()
                web = HttpDoor(http, tls=own)
                await opened(nursery, "http_listen", web.run, settings.http_listen)
                drains.append(web.drain)
            yield Running(store, house, http, stopped)


@asynccontextmanager
async def opened_machine(settings: Settings) -> AsyncIterator[KeyValue]:
    """The state machine, with its data. Raises craft.StorageFailed."""
    remembered = settings.history_bytes_max
    if settings.directory is None:
        yield KeyValue(history_bytes_max=remembered)
        return
    machine = await trio.to_thread.run_sync(
        partial(DurableKeyValue, settings.directory, history_bytes_max=remembered)
    )
    try:
        yield machine
    finally:
        machine.close()


def http_house(settings: Settings, store: Store, users: Users) -> HttpHouse:
    """What the requests of the HTTP port share."""
    limits, address = settings.http_limits, settings.http_listen
    own = address is not None and address.loopback and users.everybody is not None
    return HttpHouse(
        store,
        Guard(users, waiting_max=limits.passwords_max, clock=trio.current_time),
        limits,
        hosts=LOOPBACK if own else None,
    )


async def opened(
    nursery: trio.Nursery, key: str, door: Callable[..., Awaitable[object]], address: Address
) -> None:
    """Start a door. Raises craft.ConfigError for an address that is taken, or a name that cannot be one."""
    try:
        await nursery.start(door, *address)
    except (OSError, UnicodeError) as error:
        raise craft.ConfigError(f"{key}: cannot listen on {address}: {error}") from error
