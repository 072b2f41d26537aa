"""What a client may ask, and how it is answered: one function an operation, and results as plain values.

A request is `[id, operation, argument]`, a reply `[id, outcome, value]`:

- `propose` `[command, …]` → results, one a command. All commands take effect at one position, or none
  does. Without a session: a client that asks again asks for a second effect.
- `read` `query` → what `Queryable.query` answers, linearizable.
- `status`, `metrics` `nil` → the server's own plain values.
- `merged` `position` → the last merged entries after that position.
- `tail` `[after, wait_ms]` → `[retained, batch]`: what was applied after a position, as soon as there is
  something, or nothing after `wait_ms`; each entry is `[position, timestamp, group, index, kind, [command,
  …]]`. The batch is nil where that is compacted; one may ask after `retained`, or later.
- `log` `[group, first_index]` → `[start, commit, last, [record, …]]`: a group's log as it is on this server's
  disk: up to where it is compacted, known committed, and there at all, and some entries from an index on.
- `snapshots` `nil` → `[[position, nonce, size], …]`: those that this server keeps, the oldest first.
- `snapshot` `[position, nonce, offset]` → bytes of one's file, from there on; nil where it is kept no more.
- `trust` `server id` → the groups in which this server was suspect, and is not any more (PROTOCOL 10).
- `members` `[[kind, id, …], …, wait_ms]` → the version that holds these changes of the members, made
  together; the one that every group has followed, waited for at most so long; and the members.
- `roll` `nil` → what a server that joins must know (`craft.server.roll`).
- `take_snapshot` `nil` or a position → `[wanted, taken]`: see to it that there is one at `wanted` (nil: what
  is applied now) or beyond; `taken` is its position, or nil where that takes longer: ask again, with
  `wanted`.
- `servers` `nil` → `[[server, "host:port"], …]`: where clients reach the servers of whom that is known here.
- `transfer` `[group, to, hold_ms or nil]` → nil once it is done, or the server that must be asked instead.
- `drain` `[hold_ms or nil]` → nil: this server leads nothing for a while. `home` `nil` → nil: it does again.
- those of sessions are in `craft.server.listener_sessions`.

Invariants
- *ok*: it was done. *rejected*: it certainly has no effect. *unknown*: it may or may not take effect, now or
  later. *failed*: the request makes no sense to this server; it has no effect. *ended*: the session is not
  open, and this attempt has no effect.
- A value that msgpack cannot carry is replaced by its repr, never left out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import trio

from craft.errors import (
    Compacted,
    NotLeader,
    NotReady,
    Refused,
    Rejected,
    ResultLost,
    SessionEnded,
    SnapshotFailed,
    TransferFailed,
    Unknown,
    WireError,
)
from craft.membership import decode_changes, encode_items
from craft.server.moving import NotYet
from craft.state_machine import Queryable
from craft.tailing import pack_rows
from craft.types import Position, SnapshotId, Timestamp
from craft.wire import PREFIX_BYTES, decode_message, encode_message
from craft.wire.fields import shown
from craft.wire.plain import plain

if TYPE_CHECKING:
    from craft.server.core import Server

REPLY_BYTES_MAX = 16 * 1024 * 1024
"""One reply's payload. A greater answer is replaced by a text that says so."""

OK, REJECTED, UNKNOWN, FAILED, ENDED = "ok", "rejected", "unknown", "failed", "ended"


Operations: TypeAlias = "dict[str, Callable[[Server[Any], Any], Awaitable[Any]]]"
"""By name, what answers an argument."""


class Request(NamedTuple):
    """One request of a client, checked as far as every operation needs it."""

    number: int
    operation: str
    argument: Any


class Placed(NamedTuple):
    """An answer with its place in the merged log. `known`: False where the value is no longer kept."""

    position: Position
    timestamp: Timestamp
    value: Any
    known: bool = True


class BadRequest(Exception):
    """The request makes no sense to this server, but the stream can be trusted: it is answered *failed*."""


def decode_request(payload: memoryview) -> Request:
    """A request. Raises WireError where it cannot even be answered, for it has no number."""
    value = decode_message(payload)
    if type(value) is not tuple or len(value) != 3:
        raise WireError(f"a request is {shown(value)}; allowed is [number, operation, argument]")
    number, operation, argument = value
    if type(number) is not int or not 0 <= number < 2**63:
        raise WireError(f"a request's number is {shown(number)}; allowed is an integer 0 … 2**63-1")
    return Request(number, operation, argument)


async def answer(server: Server[Any], request: Request, operations: Operations) -> bytes:
    """Do what a client asks; the reply, framed."""
    try:
        # A map or an array from the wire is no key of the table.
        serve = operations.get(request.operation) if type(request.operation) is str else None
        if serve is None:
            raise BadRequest(f"operation is {shown(request.operation)}; allowed are {', '.join(operations)}")
        return reply(request.number, OK, await serve(server, request.argument))
    except BadRequest as error:
        return reply(request.number, FAILED, str(error))
    except SessionEnded as error:
        return reply(request.number, ENDED, str(error))
    except Rejected as error:
        return reply(request.number, REJECTED, f"{type(error).__name__}: {error}")
    except (Unknown, ResultLost) as error:  # who asks again in a session is given the results that are kept
        return reply(request.number, UNKNOWN, str(error))
    except SnapshotFailed as error:
        return reply(request.number, FAILED, str(error))


# -- the operations --------------------------------------------------------------------------------


async def _propose(server: Server[Any], argument: Any) -> Any:
    commands = checked_commands(argument)
    timeout_ms = server.config.clients.request_timeout_ms
    with trio.move_on_after(timeout_ms / 1000):
        if len(commands) == 1:  # then it shares a request with other clients' commands
            return [await server.propose(commands[0])]
        results = await server.propose_many(commands)
        return [None] * len(commands) if results is None else results
    raise Unknown(f"not applied within request_timeout_ms = {timeout_ms}; it may still take effect")


def checked_commands(argument: Any) -> Sequence[bytes]:
    """At least one command, or BadRequest."""
    if type(argument) is not tuple or not argument:
        raise BadRequest(f"propose takes {shown(argument)}; allowed is an array of at least one command")
    for number, command in enumerate(argument):
        if type(command) is not bytes:
            raise BadRequest(f"command {number} is {shown(command)}; allowed are bytes")
    return argument


async def _read(server: Server[Any], argument: Any) -> Any:
    return (await read(server, argument)).value


async def read(server: Server[Any], argument: Any) -> Placed:
    """What the state machine answers to a query, linearizable, and how far it was then."""
    if type(argument) is not bytes:
        raise BadRequest(f"read takes {shown(argument)}; allowed are bytes")
    machine = server.state_machine
    if not isinstance(machine, Queryable):
        raise BadRequest(f"{type(machine).__name__} cannot be read from outside: it has no method query")
    timeout_ms = server.config.clients.request_timeout_ms
    e = server.engine.state
    with trio.move_on_after(timeout_ms / 1000):
        return await server.read(
            lambda state: Placed(e.applied_position, e.applied_timestamp, _ask(state, argument))
        )
    raise Rejected(f"not served within request_timeout_ms = {timeout_ms}: no majority answers")


def _ask(machine: Queryable, query: bytes) -> Any:
    try:
        return machine.query(query)
    except Exception as error:  # a query that raises is the reader's fault, and told to it alone
        raise BadRequest(f"query raised {type(error).__name__}: {error}") from error


async def _status(server: Server[Any], argument: Any) -> Any:
    _no_argument("status", argument)
    return server.status()


async def _metrics(server: Server[Any], argument: Any) -> Any:
    _no_argument("metrics", argument)
    return server.metrics()


async def _merged(server: Server[Any], argument: Any) -> Any:
    if type(argument) is not int or not 0 <= argument < 2**63:
        raise BadRequest(f"merged takes {shown(argument)}; allowed is a position, 0 or greater")
    return server.recent_merged(argument)


async def _tail(server: Server[Any], argument: Any) -> Any:
    whole = type(argument) is tuple and len(argument) == 2 and all(type(one) is int for one in argument)
    if not whole or not all(0 <= one < 2**63 for one in argument):
        raise BadRequest(f"tail takes {shown(argument)}; allowed is [after, wait_ms], integers 0 … 2**63-1")
    after, wait_ms = argument
    # What is asked must be answered in a request's time.
    wait_ms = min(wait_ms, server.config.clients.request_timeout_ms // 2)
    try:
        return [server.tails.retained, pack_rows(await server.tails.poll(after, wait_ms))]
    except Compacted as error:
        return [error.retained, None]


async def _log(server: Server[Any], argument: Any) -> Any:
    groups = len(server.engine.state.replicas)
    whole = type(argument) is tuple and len(argument) == 2 and all(type(one) is int for one in argument)
    if not whole or not (0 <= argument[0] < groups and 1 <= argument[1] < 2**63):
        raise BadRequest(
            f"log takes {shown(argument)}; allowed is [group, first_index], 0 … {groups - 1} and 1 … 2**63-1"
        )
    piece = await server.tails.read_log(*argument)
    return [piece.start, piece.commit, piece.last, [entry.record for entry in piece.entries]]


async def _snapshots(server: Server[Any], argument: Any) -> Any:
    _no_argument("snapshots", argument)
    return [[*info.id, info.size] for info in await server.tails.snapshots()]


async def _snapshot(server: Server[Any], argument: Any) -> Any:
    whole = type(argument) is tuple and len(argument) == 3 and all(type(one) is int for one in argument)
    if not whole or not all(0 <= one < 2**64 for one in argument):
        raise BadRequest(f"snapshot takes {shown(argument)}; allowed is [position, nonce, offset]")
    position, nonce, offset = argument
    return await server.tails.read_snapshot(SnapshotId(position, nonce), offset)


async def _members(server: Server[Any], argument: Any) -> Any:
    """`[change, …, wait_ms]`: changes of the members, made together; none: only who they are."""
    whole = type(argument) is tuple and argument and type(argument[-1]) is int
    if not whole or not 0 <= argument[-1] < 2**63:
        raise BadRequest(
            f"members takes {shown(argument)}; allowed is [[kind, id, …], …, wait_ms], which waits 0 …"
            " 2**63-1 ms"
        )
    *asked, wait_ms = argument
    try:
        changes = decode_changes(encode_items(asked)) if asked else []
    except Refused as error:
        raise BadRequest(str(error)) from error
    version = await server.members.change(changes, wait=False) if changes else server.members.version
    try:
        with trio.move_on_after(wait_ms / 1000):
            await server.members.wait(version)
    except NotReady:
        if not changes:
            raise
        # The server ends. The change was taken all the same: the reply says how far it is.
    return {
        "version": version,
        "reached_version": server.members.reached_version,
        "servers": [info._asdict() for info in server.members.list()],
    }


async def _roll(server: Server[Any], argument: Any) -> Any:
    _no_argument("roll", argument)
    return server.members.roll().pack()


async def _take_snapshot(server: Server[Any], argument: Any) -> Any:
    wanted = server.position if argument is None else argument
    if type(wanted) is not int or not 0 <= wanted < 2**63:
        raise BadRequest(
            f"take_snapshot takes {shown(argument)}; allowed is nil, or a position, 0 or greater"
        )
    # What is asked must be answered in a request's time.
    with trio.move_on_after(server.config.clients.request_timeout_ms / 2000):
        return [wanted, await server.snapshots.take(wanted)]
    return [wanted, None]


async def _servers(server: Server[Any], argument: Any) -> Any:
    _no_argument("servers", argument)
    return [list(one) for one in server.transport.client_addresses().items()]


async def _trust(server: Server[Any], argument: Any) -> Any:
    if type(argument) is not int or argument != server.config.server_id:
        raise BadRequest(
            f"trust takes {shown(argument)}; allowed is the id of this server, {server.config.server_id}"
        )
    return server.trust()


async def _transfer(server: Server[Any], argument: Any) -> Any:
    group, to, hold_ms = _numbers("transfer", argument, "group", "to", "hold_ms or nil")
    if group is None or to is None:
        raise BadRequest(f"transfer takes {shown(argument)}; allowed is [group, to, hold_ms or nil]")
    try:
        await server.leaders.transfer(group, to=to, hold_ms=hold_ms)
    except NotLeader as error:
        if error.leader is None:
            raise Rejected(str(error)) from error
        return error.leader
    except NotYet as error:
        raise Unknown(str(error)) from error
    except TransferFailed as error:
        raise Rejected(str(error)) from error
    except ValueError as error:
        raise BadRequest(str(error)) from error
    return None


async def _drain(server: Server[Any], argument: Any) -> Any:
    (hold_ms,) = _numbers("drain", argument, "hold_ms or nil")
    try:
        await server.leaders.drain(hold_ms=hold_ms)
    except NotYet as error:
        raise Unknown(str(error)) from error
    except ValueError as error:
        raise BadRequest(str(error)) from error


async def _home(server: Server[Any], argument: Any) -> Any:
    _no_argument("home", argument)
    server.leaders.bring_home()


def _numbers(operation: str, argument: Any, *names: str) -> tuple[int | None, ...]:
    whole = type(argument) is tuple and len(argument) == len(names)
    if not whole or any(one is not None and (type(one) is not int or one < 0) for one in argument):
        raise BadRequest(f"{operation} takes {shown(argument)}; allowed is [{', '.join(names)}]")
    numbers: tuple[int | None, ...] = argument
    return numbers


def _no_argument(operation: str, argument: Any) -> None:
    if argument is not None:
        raise BadRequest(f"{operation} takes {shown(argument)}; allowed is nil")


OPERATIONS: Operations = {
    "propose": _propose,
    "read": _read,
    "status": _status,
    "metrics": _metrics,
    "merged": _merged,
    "tail": _tail,
    "log": _log,
    "snapshots": _snapshots,
    "snapshot": _snapshot,
    "take_snapshot": _take_snapshot,
    "servers": _servers,
    "trust": _trust,
    "members": _members,
    "roll": _roll,
    "transfer": _transfer,
    "drain": _drain,
    "home": _home,
}
"""What a client may ask without a session."""


# -- replies ---------------------------------------------------------------------------------------


def reply(number: int | None, outcome: str, value: Any) -> bytes:
    """A reply, framed; `number` is None where it is about the whole connection."""
    framed = encode_message([number, outcome, plain(value)])
    if len(framed) <= REPLY_BYTES_MAX:
        return framed
    size = len(framed) - PREFIX_BYTES
    instead = f"an answer of {size} bytes, not sent; allowed are {REPLY_BYTES_MAX}"
    return encode_message([number, outcome, _shortened(value, instead)])


def _shortened(value: Any, instead: str) -> Any:
    """An array keeps its length, so that each command still has its result."""
    if isinstance(value, Placed):
        return value._replace(value=_shortened(value.value, instead))
    return [instead] * len(value) if isinstance(value, list) else instead
