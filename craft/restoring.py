"""The state machine in snapshots: forked between two applies, written later, restored at once.

Knows: the state machine, what clients' requests were answered, the parts of a snapshot. Must not know: files,
tasks, threads. The server and the simulator run the same code.

Invariants
- The fork and the results are of the moment of the capture; what is yielded later is only what was forked.
- A restore replaces everything, or raises: a state machine that was restored half-way is never used.

Reference: PROTOCOL 7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import msgpack

from craft.applying import Applier, foreign
from craft.client_sessions import ClientResults
from craft.errors import DamagedSnapshot, RestoreFailed
from craft.ready import Capture
from craft.snapshots import PART_BYTES_MAX
from craft.state_machine import LastApplied, Snapshots
from craft.types import Head, SnapshotInfo, SnapshotKind, SnapshotPart

RESULTS_A_PART = 1024
"""Results of clients' requests in one part."""


class Forked(NamedTuple):
    """A snapshot that only has to be written. `parts` may run in a worker thread, once."""

    head: Head
    parts: Iterator[SnapshotPart]


def fork(capture: Capture, applier: Applier) -> Forked:
    """Fork the state, between two applies; what that costs, the state machine decides."""
    assert isinstance(applier.machine, Snapshots)
    results = list(applier.client_results.items())
    chunks = applier.machine.snapshot()
    return Forked(capture.head, _parts(capture, results, chunks))


def _parts(capture: Capture, results: list[Any], chunks: Any) -> Iterator[SnapshotPart]:
    yield from capture.parts
    rest = iter(results)
    while batch := list(islice(rest, RESULTS_A_PART)):
        yield SnapshotPart(SnapshotKind.RESULTS, msgpack.packb(batch))
    for chunk in chunks():
        yield SnapshotPart(SnapshotKind.MACHINE, checked_chunk(chunk))


def checked_chunk(chunk: Any) -> bytes:
    """A piece of the state machine's, as bytes. Raises TypeError and ValueError."""
    if not isinstance(chunk, bytes | bytearray | memoryview):
        raise TypeError(f"snapshot() yielded an object of {type(chunk).__name__}; allowed are bytes")
    if len(chunk) > PART_BYTES_MAX:
        raise ValueError(
            f"snapshot() yielded {len(chunk)} bytes at once; PART_BYTES_MAX allows {PART_BYTES_MAX}"
        )
    return bytes(chunk)


def restore(parts: Iterable[SnapshotPart], applier: Applier) -> None:
    """Let the state machine, and what clients were answered, be those of a snapshot.

    Raises RestoreFailed where the state machine raises, DamagedSnapshot where the snapshot is at fault.
    """
    assert isinstance(applier.machine, Snapshots)
    results = applier.client_results.emptied()
    chunks = _chunks(parts, results)
    try:
        applier.machine.restore(chunks)
        for _ in chunks:
            pass  # what it did not ask for: the results are read all the same
    except DamagedSnapshot:
        raise
    except Exception as error:
        raise RestoreFailed(f"restore raised: {error!r}") from error
    applier.client_results = results
    applier.ahead = LastApplied()


def begin(info: SnapshotInfo, parts: Callable[[], Iterable[SnapshotPart]], applier: Applier) -> None:
    """Bring the state machine to a snapshot at a start, or leave its own data be where they go further.

    Raises as `restore` does; ForeignState where both are at one position, of two histories.
    """
    head, own = info.head, applier.ahead
    if own.position < head.position:
        restore(parts(), applier)
        return
    if own.position == head.position and own.timestamp != head.timestamp:
        raise foreign(own, f"the snapshot there is stamped {head.timestamp}")
    results = applier.client_results.emptied()
    next(_chunks(parts(), results), None)  # they stand before the machine's first piece
    applier.client_results = results


def _chunks(parts: Iterable[SnapshotPart], results: ClientResults) -> Iterator[bytes]:
    """The state machine's pieces; the results are taken on the way, which stand before them."""
    for part in parts:
        if part.kind is SnapshotKind.MACHINE:
            yield part.data
        elif part.kind is SnapshotKind.RESULTS:
            for (session, request), packed in msgpack.unpackb(part.data, use_list=False):
                results.keep(session, request, packed)


def engines(parts: Iterable[SnapshotPart]) -> tuple[SnapshotPart, ...]:
    """The engine's parts, which stand before all others."""
    found: list[SnapshotPart] = []
    for part in parts:
        if part.kind is not SnapshotKind.ENGINE:
            break
        found.append(part)
    return tuple(found)
