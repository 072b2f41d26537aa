"""One server's store: commands go through the merged log, reads beside it; both protocols stand on this.

Knows: craft's server, the machine. Must not know: connections, protocols.

Invariants:
- What is answered is what the merged log says: a reply of a write comes from applying it here, a reply of a
  linearizable read from a state that has all that was answered anywhere before.
- An error says what became of the command (`fates.py`).
- Whether a key has expired is decided by merged timestamps alone. Where the clock says that one is due, a
  read first lets the log say what time it is: no reader sees a key go and another, later, see it again.
  Reads that ask nobody (SESSION, STALE) go by this server's clock as well: in a silent cluster, whose log
  tells no time, a key would else never go for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from enum import Enum
from typing import TypeAlias, TypeVar

import trio

import craft
from examples.kv import fates
from examples.kv.commands import Args
from examples.kv.machine import NS_PER_MS, KeyValue, pack_command, pack_transaction
from examples.kv.publishing import Hub
from examples.kv.replies import TOO_LARGE, Refused, Reply, error, size

T = TypeVar("T")
Query: TypeAlias = Callable[[KeyValue, int], T]
"""What is asked of the machine, at a time in ms."""

CALL_OVERHEAD_BYTES = 64
"""Of `entry_bytes_max`, what a call takes for itself."""

COMMAND_OVERHEAD_BYTES = 5
"""And what each command does."""

TICKS_MAX = 3
"""So often the log is asked what time it is: clocks differ, and a millisecond may not be over."""

TICK = pack_transaction([])
"""It does nothing, and nobody hears it: its place in the log says what time it is."""


class Mode(Enum):
    """How fresh a read is."""

    LINEARIZABLE = "linearizable"
    """It sees all that was answered to anybody, on any server, before it began."""
    SESSION = "session"
    """It sees all that was answered on its own connection."""
    STALE = "stale"
    """It sees what is here."""


class Store:
    """The store on one server."""

    def __init__(self, server: craft.Server[KeyValue]) -> None:
        self.server = server
        self.machine = server.state_machine
        self.hub = Hub()
        self.machine.publish = self.hub.publish
        self.reads = 0
        self.writes = 0
        self._room = server.config.engine.entry_bytes_max - CALL_OVERHEAD_BYTES

    @property
    def command_bytes_max(self) -> int:
        """What one command may take, packed."""
        return self._room - COMMAND_OVERHEAD_BYTES

    # -- writes ------------------------------------------------------------------------------------

    async def write(self, *pipelines: Sequence[Args]) -> list[Reply]:
        """Run commands in their order, each pipeline in one entry of the log if it fits; a reply each."""
        packed = [[pack_command(args) for args in commands] for commands in pipelines]
        self.writes += sum(map(len, packed))
        replies: list[Reply] = []
        for call in self._calls(packed):
            replies += [await self._one(call[0])] if len(call) == 1 else await self._many(call)
        return replies

    async def transact(self, commands: Sequence[Args], watched: Sequence[tuple[bytes, int]] = ()) -> Reply:
        """Run commands as one, unless a watched key has another version by then."""
        try:
            return await self.carry_out(commands, watched)
        except craft.CraftError as error:
            return fates.told(error)

    async def carry_out(self, commands: Sequence[Args], watched: Sequence[tuple[bytes, int]] = ()) -> Reply:
        """As `transact`; what becomes of a command without an answer is raised as CraftError."""
        self.writes += 1
        reply: Reply = await self.server.propose(pack_transaction(commands, watched))
        return reply

    async def _one(self, command: bytes) -> Reply:
        try:
            reply: Reply = await self.server.propose(command)
        except craft.CraftError as error:
            return fates.told(error)
        return reply

    async def _many(self, call: list[bytes]) -> Sequence[Reply]:
        try:
            return await self.server.propose_many(call) or ()
        except craft.CraftError as error:
            return [fates.told(error)] * len(call)

    def _calls(self, pipelines: list[list[bytes]]) -> Iterator[list[bytes]]:
        """The commands in few calls: none ends within a pipeline that fits into one."""
        call: list[bytes] = []
        size = 0
        for part in self._parts(pipelines):
            cost = packed_size(part)
            if call and size + cost > self._room:
                yield call
                call, size = [], 0
            call += part
            size += cost
        if call:
            yield call

    def _parts(self, pipelines: list[list[bytes]]) -> Iterator[list[bytes]]:
        """Pipelines; of what does not fit into a call, its commands."""
        for commands in pipelines:
            if packed_size(commands) <= self._room:
                yield commands
            else:
                yield from ([command] for command in commands)

    # -- reads -------------------------------------------------------------------------------------

    async def read(
        self, commands: Sequence[Args], most: int, mode: Mode = Mode.LINEARIZABLE, at_least: int = 0
    ) -> list[Reply]:
        """Answer commands that change nothing, all from one state; in a session, from `at_least` on.

        Replies have at most so many bytes together: those to the first commands, where all have more.
        """

        def answers(machine: KeyValue, now: int) -> list[Reply]:
            return list(bounded((machine.read(args, now) for args in commands), most))

        try:
            found = await self.see(answers, mode, at_least)
        except craft.CraftError as outcome:
            found = [fates.unseen(outcome)] * len(commands)
        self.reads += len(found)
        return found

    async def see(self, query: Query[T], mode: Mode = Mode.LINEARIZABLE, at_least: int = 0) -> T:
        """What a query of the machine answers, as fresh as asked for. Raises CraftError."""
        if mode is Mode.LINEARIZABLE:
            return await self.look(query)
        if mode is Mode.SESSION:
            return await self.server.read(lambda machine: query(machine, wall_ms()), at_least=at_least)
        return (await self.server.read_stale(lambda machine: query(machine, wall_ms()))).value

    async def look(self, query: Query[T]) -> T:
        """A linearizable read of the machine at a time. Raises CraftError."""

        def at_this_time(machine: KeyValue) -> tuple[T] | None:
            now = wall_ms()
            deadline = machine.next_deadline()
            # One that the log has passed already may stand before others that it has not: a sweep is bounded.
            return None if deadline is not None and deadline < now else (query(machine, now),)

        found = await self.server.read(at_this_time)
        if found is not None:
            return found[0]
        # A server that takes no commands now, for want of room on its disk, say, is read on: by the time of
        # the log, which is everybody's. What the log has not let expire by then stays.
        with suppress(craft.Overloaded):
            await self.server.propose(TICK)
        return await self.server.read(lambda machine: query(machine, machine.now))

    async def versions(self, keys: Sequence[bytes]) -> list[int]:
        """The positions at which keys have last changed. Raises CraftError."""
        return await self.look(lambda machine, now: [machine.version(key, now) for key in keys])

    async def at(self, key: bytes, time: int) -> Reply:
        """The string that a key held at a time (ms).

        Raises Refused for a time that is not over, or too long ago; CraftError.
        """
        for _ in range(TICKS_MAX):
            # Behind an entry of a later time nothing is merged at an earlier one.
            found = await self.server.read(
                lambda machine: (machine.at(key, time),) if machine.now > time else None
            )
            if found is not None:
                return found[0]
            if time > wall_ms():
                break
            await self.server.propose(TICK)
        raise Refused(f"ERR timestamp {time} is not over yet: the merged log has reached {self.machine.now}")

    async def wait_for(self, position: int, seconds: float) -> int:
        """Wait until the log is applied here up to a position; returns how far it is. Raises CraftError."""
        with trio.move_on_after(seconds):
            await self.server.read(lambda _: None, at_least=position)
        return self.position

    @property
    def position(self) -> int:
        """How far the log is applied here: a client that was answered sees all of its own up to here."""
        return self.server.position


def bounded(replies: Iterable[Reply], most: int) -> Iterator[Reply]:
    """The first of them, as many as have no more bytes; one that has more by itself is refused."""
    left = most
    for reply in replies:
        left -= size(reply)
        if left >= 0:
            yield reply
            continue
        if left + size(reply) == most:
            yield error(f"{TOO_LARGE}: the reply has more than {most} bytes")
        return


def packed_size(commands: Sequence[bytes]) -> int:
    """What packed commands take of a call."""
    return sum(map(len, commands)) + COMMAND_OVERHEAD_BYTES * len(commands)


def wall_ms() -> int:
    """This server's clock: for times to live, and for whether to ask the log what time it is."""
    return time.time_ns() // NS_PER_MS
