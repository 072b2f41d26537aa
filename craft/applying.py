"""The state machine at work: merged entries in, results out.

Knows: the entries and the machine; the server and the simulator run the same code. Must not know: who waits
for an answer (a token is passed through).

Invariants
- Entries are applied whole and in order; an `apply_batch` that raises ends the server before its position
  advances.
- What a request's body holds is judged alike on every server: a body that is no array of bytes has no
  commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack

from craft.errors import ApplyFailed
from craft.ready import Merged
from craft.state_machine import Batch, StateMachine

Answer = tuple[Any, Sequence[Any] | None]
"""The token of a request of this server, and its results."""


def unpack(body: bytes) -> list[bytes]:
    """The commands of a request."""
    try:
        commands = msgpack.unpackb(body, use_list=True, max_array_len=len(body), max_bin_len=len(body))
    except (ValueError, msgpack.UnpackException):
        return []
    return commands if isinstance(commands, list) else []


class Applier:
    """Runs the user's state machine, on the event loop or in a worker thread; never twice at once."""

    def __init__(self, machine: StateMachine) -> None:
        self.machine = machine
        self.commands_total = 0
        self.entries_total = 0

    def run(self, entries: list[Merged]) -> list[Answer]:
        """Apply merged entries; returns the calls of this server that are answered by it."""
        answers: list[Answer] = []
        for merged in entries:
            if merged.requests:
                self._apply(merged, answers)
        self.entries_total += len(entries)
        return answers

    def _apply(self, merged: Merged, answers: list[Answer]) -> None:
        parts = [unpack(request.body) for request in merged.requests]
        commands = parts[0] if len(parts) == 1 else [command for part in parts for command in part]
        batch = Batch(merged.position, merged.timestamp, commands)
        self.commands_total += len(commands)
        results = self._call(batch)
        start = 0
        for request, part in zip(merged.requests, parts, strict=True):
            if request.token is not None:
                answers.append(
                    (request.token, None if results is None else results[start : start + len(part)])
                )
            start += len(part)

    def _call(self, batch: Batch) -> Sequence[Any] | None:
        try:
            results = self.machine.apply_batch(batch)
        except Exception as error:
            raise ApplyFailed(_blame(batch, error)) from error
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


def _blame(batch: Batch, error: Exception) -> str:
    reached = batch.reached()
    if reached is None or reached < 0:
        where = f"one of {len(batch)} commands"
    else:
        where = f"command {reached + 1} of {len(batch)}, {batch.commands[reached]!r:.120},"
    return f"apply_batch raised at {where} at position {batch.position}: {error!r}"
