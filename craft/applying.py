"""The state machine at work: merged entries in, results out.

Knows: the entries and the machine; the server and the simulator run the same code. Must not know: who waits
for an answer (a token is passed through).

Invariants
- Entries are applied whole and in order; an `apply_batch` that raises ends the server before its position
  advances.
- What a request's body holds is judged alike on every server: a body that is no array of bytes has no
  commands.
- What a durable state machine has in its data is not given to it again; that these are the same commands
  is checked where its data end.
- What a remote client's request was answered is kept, for its repetitions, until the client has it: the same
  on every server, and a plain value, so that it can be part of a snapshot. (But for requests that a durable
  state machine has executed before a restart: what it answered then is not known any more.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgpack

from craft.client_sessions import ClientResults
from craft.errors import ApplyFailed, ForeignState, Overloaded, Rejected, SessionEnded, Unknown
from craft.limits import CLIENT_SESSIONS_MAX, CLIENT_WINDOW_REQUESTS_MAX
from craft.ready import Judged, Merged, Verdict
from craft.state_machine import Batch, LastApplied, StateMachine
from craft.types import Position, Timestamp
from craft.wire.plain import plain

Results = Sequence[Any] | None


class Told(NamedTuple):
    """What a remote client is told of its request. `results`: of its commands; None where there are none."""

    verdict: Verdict
    opened: Position
    position: Position
    timestamp: Timestamp
    results: Results = None
    known: bool = True  # False: it took effect, and its results are no longer kept


def effective(told: Told) -> None:
    """Raise the error that a verdict without effect means, of this attempt: another may have had one."""
    if told.verdict is Verdict.ENDED:
        raise SessionEnded("the session is not open: this attempt has no effect")
    if told.verdict is Verdict.FULL:
        raise Overloaded(f"{CLIENT_SESSIONS_MAX} sessions of clients are open, which is CLIENT_SESSIONS_MAX")
    if told.verdict is Verdict.BEYOND:
        raise Rejected(
            f"the request is {CLIENT_WINDOW_REQUESTS_MAX} or more (CLIENT_WINDOW_REQUESTS_MAX) ahead of the"
            " first that was not answered"
        )
    if told.verdict is Verdict.ANSWERED:
        raise Unknown("the client said that the request was answered")


Answer = tuple[Any, Any]
"""The token of a request of this server, and its results (`Results`), or what a client is told (`Told`)."""


def unpack(body: bytes) -> list[bytes]:
    """The commands of a request."""
    try:
        commands = msgpack.unpackb(body, use_list=True, max_array_len=len(body), max_bin_len=len(body))
    except (ValueError, msgpack.UnpackException):
        return []
    return commands if isinstance(commands, list) else []


def foreign(own: LastApplied, instead: str) -> ForeignState:
    """The error for a state machine whose own data do not go with what is here."""
    return ForeignState(
        f"the state machine says that its last batch was at position {own.position}, stamped {own.timestamp};"
        f" {instead}: its data are of another cluster, or of commands that this one has lost. Put them aside,"
        " and start the server with none"
    )


class Applier:
    """Runs the user's state machine, on the event loop or in a worker thread; never twice at once."""

    def __init__(self, machine: StateMachine) -> None:
        self.machine = machine
        self.commands_total = 0
        self.entries_total = 0
        self.client_results = ClientResults()
        self.ahead = LastApplied()
        """What the machine has applied already, where that is beyond what it was given since the start."""

    def run(self, entries: list[Merged]) -> list[Answer]:
        """Apply merged entries; returns the calls of this server that are answered by it."""
        answers: list[Answer] = []
        for merged in entries:
            shares: list[Results] | None = []
            if merged.position <= self.ahead.position:
                self._pass_over(merged)
                shares = None
            elif merged.requests:
                shares = self._apply(merged, answers)
            answers += [(told.token, told) for told in merged.members if told.token is not None]
            if merged.clients:
                self._tell(merged, shares, answers)
        self.entries_total += len(entries)
        return answers

    def _apply(self, merged: Merged, answers: list[Answer]) -> list[Results]:
        """Returns each request's share of the results, where a client's is among them."""
        parts = [unpack(request.body) for request in merged.requests]
        commands = parts[0] if len(parts) == 1 else [command for part in parts for command in part]
        batch = Batch(merged.position, merged.timestamp, commands)
        self.commands_total += len(commands)
        results = self._call(batch)
        shares: list[Results] = []
        start = 0
        for request, part in zip(merged.requests, parts, strict=True):
            if request.token is not None or merged.clients:
                share = None if results is None else results[start : start + len(part)]
                shares.append(share)
                if request.token is not None:
                    answers.append((request.token, share))
            start += len(part)
        return shares

    def _pass_over(self, merged: Merged) -> None:
        """The machine's own data have it. Nobody who asked for it is here any more."""
        position, timestamp = self.ahead
        ours = any(request.token is not None for request in merged.requests)
        if ours or (merged.position == position and (merged.timestamp != timestamp or not merged.requests)):
            what = "a new command" if ours else "another"
            raise foreign(
                self.ahead,
                f"the merged log has {what} at position {merged.position}, stamped {merged.timestamp}",
            )

    def _tell(self, merged: Merged, shares: list[Results] | None, answers: list[Answer]) -> None:
        """Keep what clients' requests came to, in their order, and answer those of this server."""
        for judged in merged.clients:
            told = Told(judged.verdict, judged.opened, merged.position, merged.timestamp)
            if judged.verdict in {Verdict.EXECUTED, Verdict.REPEATED}:
                self.client_results.prune(judged.session, judged.answered_below)
            if judged.verdict is Verdict.EXECUTED and shares is None:
                told = told._replace(known=False)
            elif judged.verdict is Verdict.EXECUTED:
                assert shares is not None
                told = told._replace(results=shares[judged.part])
                self.client_results.keep(judged.session, judged.request, _packed(shares[judged.part]))
            elif judged.verdict is Verdict.REPEATED:
                told = self._again(judged, told)
            elif judged.verdict in {Verdict.CLOSED, Verdict.EXPIRED}:
                self.client_results.drop(judged.session)
            if judged.token is not None:
                answers.append((judged.token, told))

    def _again(self, judged: Judged, told: Told) -> Told:
        """The answer of the first time, as far as it is kept."""
        packed = self.client_results.find(judged.session, judged.request)
        if packed is None:
            return told._replace(known=False)
        return told._replace(results=msgpack.unpackb(packed, strict_map_key=False))

    def _call(self, batch: Batch) -> Sequence[Any] | None:
        count = len(batch.commands)
        try:
            results = self.machine.apply_batch(batch)
        except Exception as error:
            raise ApplyFailed(_blame(batch, error)) from error
        if len(batch.commands) != count:  # whose result is whose is told by them
            raise ApplyFailed(
                f"apply_batch changed batch.commands at position {batch.position}: {count} before,"
                f" {len(batch)} behind; allowed is to read them"
            )
        if results is None:
            return None
        if not isinstance(results, Sequence):
            raise ApplyFailed(
                f"apply_batch returned an object of {type(results).__name__} at position {batch.position};"
                " allowed are a sequence of one result a command, or None"
            )
        if len(results) != len(batch):
            raise ApplyFailed(
                f"apply_batch returned {len(results)} results for {len(batch)} commands"
                f" at position {batch.position}"
            )
        return results


def _packed(results: Results) -> bytes:
    packed: bytes = msgpack.packb(None if results is None else plain(list(results)))
    return packed


def _blame(batch: Batch, error: Exception) -> str:
    reached = batch.reached()
    if reached is None or reached < 0:
        where = f"one of {len(batch)} commands"
    else:
        where = f"command {reached + 1} of {len(batch)}, {batch.commands[reached]!r:.120},"
    return f"apply_batch raised at {where} at position {batch.position}: {error!r}"
