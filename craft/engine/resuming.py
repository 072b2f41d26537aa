"""Merging once more from a snapshot on.

Knows: a snapshot's head and the engine's parts of it. Must not know: files.
"""

from __future__ import annotations

from collections.abc import Iterable

from craft.engine import capturing
from craft.folding import Fold
from craft.remerging import Remerger
from craft.types import Head, SnapshotKind, SnapshotPart


def resume(head: Head, parts: Iterable[SnapshotPart]) -> Remerger:
    """What merges the logs behind a snapshot; of its parts those of the engine are read, which stand first.

    Raises DamagedSnapshot.
    """
    own: list[SnapshotPart] = []
    for part in parts:
        if part.kind is not SnapshotKind.ENGINE:
            break
        own.append(part)
    state = Fold()
    state.merged_position, state.digest = head.position, head.digest
    state.members, state.sessions, state.clients = capturing.unpack(own)
    return Remerger(state, head.cuts)
