"""One server of the store: craft's server, and the ports for clients, in one nursery.

Knows: what is started in which order. Must not know: what any of it does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import trio

import craft
from examples.kv.machine import KeyValue
from examples.kv.resp.client import House
from examples.kv.resp.door import Door
from examples.kv.settings import Settings
from examples.kv.store import Store
from examples.kv.users import Users


@dataclass(frozen=True, slots=True)
class Running:
    """A store that runs."""

    store: Store
    house: House
    stopped: trio.Event
    """Set when a client asks the server to stop."""


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """The server and its ports, until the block ends. Raises craft.ConfigError for a port that is taken."""
    stopped = trio.Event()
    machine = KeyValue(history_bytes_max=settings.history_bytes_max)
    tls = None if settings.tls is None else settings.tls.context()
    async with craft.open_server(settings.craft, machine) as server:
        house = House(
            Store(server),
            Users(settings.users),
            replace(settings.limits),
            stop=stopped.set,
            clock=trio.current_time,
        )
        async with trio.open_nursery() as nursery:
            if settings.redis_listen is not None:
                try:
                    await nursery.start(Door(house, tls=tls).run, *settings.redis_listen)
                except OSError as error:
                    raise craft.ConfigError(
                        f"redis_listen: cannot listen on {settings.redis_listen}: {error}"
                    ) from error
            yield Running(house.store, house, stopped)
            nursery.cancel_scope.cancel()
