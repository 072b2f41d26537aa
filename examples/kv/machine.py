"""The store as craft's state machine: commands from the merged log, reads from what has been applied.

Knows: craft's port (`Batch`, snapshots), how commands are packed. Must not know: connections, clocks.

Invariants:
- A command is a msgpack array: of a Redis command's arguments, or of two lists for a transaction (watched
  keys with their versions, and commands). What is neither gets an error as its answer: nothing in the log
  can stop a server.
- Time is the batch's merged timestamp in ms, a change's version is its position: equal on all servers.
- Every answer is a plain value (`replies.py`).
- The answers of a batch are bounded: a few bytes of the log can ask for many GiB, and would, of all servers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgpack

import craft
from examples.kv import fates, snapshots
from examples.kv.commands import Args, answer, execute, transact
from examples.kv.commands.arguments import WRONG_TYPE
from examples.kv.history import History
from examples.kv.keyspace import Editor, Keyspace, View
from examples.kv.replies import REPLIES_BYTES_MAX, Refused, Reply, error, size
from examples.kv.values import Hash

NS_PER_MS = 1_000_000
MALFORMED = "ERR malformed command"
BYTES = frozenset({bytes})

REPLY_BYTES_KEPT = 1024
"""A reply that takes no more is never lost to make room, whatever others of its batch have asked for."""
LOST = error(f"{fates.APPLIED}: the replies have more than {REPLIES_BYTES_MAX} bytes")

S = TypeVar("S", bound=Keyspace)


def pack_command(args: Sequence[bytes]) -> bytes:
    """A command for the log."""
    packed: bytes = msgpack.packb(args)
    return packed


def pack_transaction(commands: Sequence[Args], watched: Sequence[tuple[bytes, int]] = ()) -> bytes:
    """Commands executed as one, unless a watched key has another version by then (`KeyValue.version`)."""
    packed: bytes = msgpack.packb((watched, commands))
    return packed


class KeyValue:
    """The replicated key-value store."""

    def __init__(self, *, history_bytes_max: int = 0) -> None:
        self._history_bytes_max = history_bytes_max
        self.now = 0
        """Of the last batch, in ms."""
        self.position = self.timestamp = 0
        """Of the last batch; the timestamp in ns."""
        self.space = self._remembering(Keyspace())
        self.publish: Callable[[bytes, bytes], int] = nobody
        """Who is told what PUBLISH says, on this server: called with a channel and a message."""

    # -- changes -----------------------------------------------------------------------------------

    def apply_batch(self, batch: craft.Batch) -> list[Reply]:
        """Execute a batch's commands; one reply each."""
        self.position, self.timestamp = batch.position, batch.timestamp
        self.now = batch.timestamp // NS_PER_MS
        editor = Editor(self.space, self.now, self.position, self.publish)
        editor.sweep()
        replies: list[Reply] = []
        room = REPLIES_BYTES_MAX
        for command in batch:
            most = max(room, REPLY_BYTES_KEPT)
            reply = apply(editor, command, most)
            if reply.__class__ is not str:  # "OK", mostly
                taken = size(reply)
                reply = LOST if taken > most else reply
                room -= min(taken, most)
            replies.append(reply)
        return replies

    # -- reads -------------------------------------------------------------------------------------

    def read(self, args: Args, now: int) -> Reply:
        """What a command that changes nothing answers at a time (ms; the last batch's, if that is later)."""
        return answer(self.view(now), args)

    def version(self, key: bytes, now: int) -> int:
        """The position of a key's last change, for WATCH and ETags; also of one that is not there."""
        return self.view(now).version(key)

    def at(self, key: bytes, time: int) -> Reply:
        """The string that a key held at a time (ms) that is over; Refused where it is not known any more."""
        history = self.space.history
        if history is None or time < history.since:
            since = "nothing" if history is None else f"what changed since {history.since}"
            raise Refused(f"ERR timestamp {time} is too early; retained here is {since}")
        record = history.at(key, time)
        value = self.space.values.get(key) if record is None else record.value
        deadline = self.space.deadlines.get(key) if record is None else record.deadline
        if deadline is not None and deadline < time:
            return None
        if isinstance(value, Hash):
            raise Refused(WRONG_TYPE)
        return value

    def next_deadline(self) -> int | None:
        """No key expires before this; None: none ever does."""
        return self.view(self.now).next_deadline()

    def view(self, now: int) -> View:
        """The data at a time: expired keys may have been removed up to the last batch's, never earlier."""
        return View(self.space, max(now, self.now))

    def query(self, query: bytes) -> Reply:
        """A packed command, answered at the last batch's time."""
        try:
            return answer(self.view(self.now), checked(unpack(query)))
        except Refused as refused:
            return refused.reply

    # -- snapshots ---------------------------------------------------------------------------------

    def snapshot(self) -> Callable[[], Iterable[bytes]]:
        """Fork the data; the chunks are made later, from the fork."""
        fork, moment = self.space.fork(), snapshots.Moment(self.now, self.position, self.timestamp)
        return lambda: snapshots.write(fork, moment)

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Take over a snapshot; what was there stays if it is not complete."""
        space = Keyspace()
        self.now, self.position, self.timestamp = snapshots.read(chunks, space)
        space.rebuild_heap()
        self.space = self._remembering(space)

    def _remembering(self, space: S) -> S:
        """A keyspace with a history that begins now, where one is wanted."""
        if self._history_bytes_max:
            space.history = History(self._history_bytes_max, self.now)
        return space


def nobody(_channel: bytes, _message: bytes) -> int:
    """There are no subscribers."""
    return 0


def apply(editor: Editor, command: bytes, most: int) -> Reply:
    """One command of the log, or a transaction; it is read to its end before any of it is executed.

    A transaction whose replies have more bytes than allowed has run, and its answer is lost.
    """
    try:
        content = unpack(command)
        if isinstance(content[0], bytes):
            return execute(editor, checked(content))
        watched, commands = checked_transaction(content)
    except Refused as refused:
        return refused.reply
    replies = transact(editor, watched, commands, most)
    return LOST if replies is None else replies


def unpack(command: bytes) -> Any:
    """The array of a command; text counts as its bytes."""
    try:
        content = msgpack.unpackb(command, raw=True)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException):
        raise Refused(MALFORMED) from None
    if not isinstance(content, list) or not content:
        raise Refused(MALFORMED)
    return content


def checked(args: Any) -> Args:
    """The arguments of a command: some, and all bytes."""
    if not isinstance(args, list) or not args or not BYTES.issuperset(map(type, args)):
        raise Refused(MALFORMED)
    return args


def checked_transaction(content: list[Any]) -> tuple[list[tuple[bytes, int]], list[Args]]:
    """The watched keys with their versions, and the commands."""
    try:
        watched, commands = content
        versions = [(key, version) for key, version in watched]
        well_formed = all(isinstance(key, bytes) and isinstance(version, int) for key, version in versions)
        transaction = versions, [checked(args) for args in commands]
    except (ValueError, TypeError):
        raise Refused(MALFORMED) from None
    if not well_formed:
        raise Refused(MALFORMED)
    return transaction
