"""What a server knows of its connections: each one's state, and what they share.

Knows: the state that commands change. Must not know: sockets, how commands run.

Invariants:
- A client has a queue (between MULTI and EXEC) or has not; what is spoiled in it ends at EXEC.
- What is queued, watched or subscribed to takes no more than a command may: else many large ones would fill
  the memory, and a transaction of that size would be rejected anyway.
- What a client is told beside its replies waits for it, and no more of it than `output_bytes_max`: who does
  not read is disconnected, and harms nobody else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import trio

from examples.kv.commands import Args
from examples.kv.passwords import Passwords
from examples.kv.replies import TOO_LARGE, Refused, Reply, encode
from examples.kv.store import Mode, Store
from examples.kv.users import User, Users

MIB = 1024 * 1024

SPELLING = re.compile(rb"[A-Za-z.]{1,32}")
"""Of what may be a command: anything else in a list of clients would be whatever a client wants it to say."""


@dataclass(slots=True)
class RespLimits:
    """Bounds of the Redis port. Those that CONFIG SET changes hold until the server ends."""

    clients_max: int = 10_000

    output_bytes_max: int = 32 * MIB
    """Messages of channels that wait for a slow subscriber. (Replies wait too; no more is read then.)"""

    replies_bytes_max: int = 64 * MIB
    """Of one command or transaction, and of commands that are read together. A short request can ask for many
    GiB."""

    idle_timeout_s: int = 0
    """A client that says nothing for so long is disconnected; 0: never. Subscribers never are."""

    send_timeout_s: int = 60
    """A client that takes nothing for so long is disconnected."""

    queue_max: int = 100_000
    """Commands between MULTI and EXEC."""

    watched_max: int = 10_000
    """Keys that one client watches."""

    subscriptions_max: int = 10_000
    """Channels and patterns of one client."""

    passwords_max: int = 32
    """Passwords that wait to be checked, of all clients; one address may have half of them."""


@dataclass(slots=True)
class House:
    """What the clients of one server share."""

    store: Store
    users: Users
    limits: RespLimits
    stop: Callable[[], None]
    """Ends the server as SIGTERM does."""
    clock: Callable[[], float]
    """Seconds that never go back."""
    port: int = 0
    clients: dict[int, Client] = field(default_factory=dict)
    connections: int = 0
    """Accepted so far."""
    refused: int = 0
    """Because there were too many."""
    commands: int = 0
    """Of all clients so far."""
    bytes_in: int = 0
    bytes_out: int = 0
    started: float = 0.0
    passwords: Passwords = field(init=False)

    def __post_init__(self) -> None:
        """Time counts from here."""
        self.started = self.clock()
        self.passwords = Passwords(self.users, waiting_max=self.limits.passwords_max, clock=self.clock)


class Queued(NamedTuple):
    """A command between MULTI and EXEC."""

    args: Args
    local: Callable[[Client, Args], Reply] | None
    """What runs it here; None: it goes into the log."""


class Client:
    """One connection."""

    def __init__(self, house: House, *, id: int, address: str, local: str) -> None:
        self.house = house
        self.id = id
        self.address = address
        self.local = local
        self.since = self.active_at = house.clock()
        self.name = b""
        self.library: dict[bytes, bytes] = {}
        self.last_command = b"NULL"
        self.commands = 0
        self.protocol = 2
        self.user: User | None = house.users.everybody
        self.mode = Mode.LINEARIZABLE
        self.seen = 0
        """A read in a session sees the log at least so far."""
        self.queue: list[Queued] | None = None
        self.queue_bytes = 0
        """What the transaction takes of the log so far."""
        self.spoiled = False
        self.watched: dict[bytes, int] = {}
        self.channels: dict[bytes, None] = {}
        self.patterns: dict[bytes, None] = {}
        self.send: Callable[[bytes], int] = lambda _: 0
        """Sends bytes behind all that was sent before; returns how many wait for the client to take them."""
        self.end: Callable[[], None] = lambda: None
        """Ends the connection at once."""
        self.waiting: trio.CancelScope | None = None
        """Cancelled with its connection: what it waits for might never come."""
        self.leaving = False
        """Its connection ends as soon as it is answered."""

    @property
    def store(self) -> Store:
        """What it talks to."""
        return self.house.store

    @property
    def subscribed(self) -> bool:
        """Is it in the mode in which RESP2 allows few commands?"""
        return bool(self.channels or self.patterns) and self.protocol == 2

    @property
    def ordinary(self) -> bool:
        """May its commands run as they come?"""
        return self.queue is None and not self.subscribed and self.user is not None and self.user.unlimited

    def tell(self, message: Reply) -> None:
        """Send it something beside its replies; end its connection if too much waits already."""
        if self.send(encode(message, self.protocol)) > self.house.limits.output_bytes_max:
            self.end()

    def check_size(self, size: int, what: str) -> None:
        """Raise Refused for what takes more bytes than one command may."""
        most = self.store.command_bytes_max
        if size > most:
            raise Refused(f"{TOO_LARGE}: {what} may take {most} bytes")

    def forget_transaction(self) -> None:
        """Nothing is queued or watched any more."""
        self.queue, self.queue_bytes, self.spoiled = None, 0, False
        self.watched.clear()

    def unsubscribe_all(self) -> None:
        """It listens to nothing."""
        for channel in self.channels:
            self.store.hub.unsubscribe(self, channel)
        for pattern in self.patterns:
            self.store.hub.unsubscribe_pattern(self, pattern)
        self.channels.clear()
        self.patterns.clear()

    def reset(self) -> None:
        """As it was when it came."""
        self.forget_transaction()
        self.unsubscribe_all()
        self.protocol, self.name, self.mode = 2, b"", Mode.LINEARIZABLE
        self.user = self.house.users.everybody

    def line(self) -> bytes:
        """What CLIENT LIST says of it."""
        now = self.house.clock()
        command = self.last_command if SPELLING.fullmatch(self.last_command) else b"NULL"
        fields: dict[str, Any] = {
            "id": self.id,
            "addr": self.address,
            "laddr": self.local,
            "name": self.name.decode("latin-1"),
            "age": int(now - self.since),
            "idle": int(now - self.active_at),
            "flags": "P" if self.channels or self.patterns else "x" if self.queue is not None else "N",
            "db": 0,
            "sub": len(self.channels),
            "psub": len(self.patterns),
            "multi": -1 if self.queue is None else len(self.queue),
            "watch": len(self.watched),
            "omem": self.send(b""),
            "tot-cmds": self.commands,
            "cmd": command.decode().lower(),
            "user": "(none)" if self.user is None else self.user.name,
            "resp": self.protocol,
            "lib-name": self.library.get(b"LIB-NAME", b"").decode("latin-1"),
            "lib-ver": self.library.get(b"LIB-VER", b"").decode("latin-1"),
            "readmode": self.mode.value,
        }
        return " ".join(f"{key}={value}" for key, value in fields.items()).encode()
