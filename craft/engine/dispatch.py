"""Whose a message is: one table from message type to function.

Knows: every message. Must not know: what they mean to those who take them.

Reference: `craft/messages.py`.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

from craft.engine import (
    closing,
    hearing,
    holding,
    linking,
    membership,
    moving,
    proposing,
    reading,
    transferring,
)
from craft.engine.state import EngineState
from craft.messages import (
    AppendAccepted,
    AppendEntries,
    AppendRejected,
    CaughtUp,
    Cleared,
    Doubted,
    Fetch,
    FetchResult,
    Forward,
    ForwardRefused,
    Heartbeats,
    LeaderPersisted,
    ReadQuery,
    ReadReport,
    RequestVote,
    RequestVoteResult,
    SnapshotChunk,
    SnapshotFetch,
    SnapshotInstalled,
    SnapshotOffer,
    SnapshotWanted,
    SuspectAccepted,
    Suspected,
    TimeoutNow,
)
from craft.types import ServerId

_RAFT_MESSAGES = (
    RequestVote,
    RequestVoteResult,
    AppendEntries,
    AppendAccepted,
    AppendRejected,
    LeaderPersisted,
    SuspectAccepted,
    Suspected,
    Cleared,
    Doubted,
    TimeoutNow,
    FetchResult,
)


def _step(e: EngineState, sender: ServerId, message: Any) -> None:
    group = message.group
    linking.check_group(e, sender, group)
    e.dirty.add(group)  # first: a message that is refused half way may have changed the term
    e.replicas[group].step(sender, message, e.now.monotonic_ns)


def _step_timeout_now(e: EngineState, sender: ServerId, message: TimeoutNow) -> None:
    if hearing.declines(e) or hearing.disk_stalled(e):
        linking.check_group(e, sender, message.group)
    else:
        _step(e, sender, message)
        moving.note_taken_over(e, message)


def _step_append(e: EngineState, sender: ServerId, message: AppendEntries) -> None:
    _step(e, sender, message)
    closing.note_appended(e, e.replicas[message.group].state)
    holding.note_commands(e, sender, message.entries)


def _step_fetch_result(e: EngineState, sender: ServerId, message: FetchResult) -> None:
    linking.check_group(e, sender, message.group)
    before = e.raft(message.group).commit_index
    _step_append(e, sender, typing.cast(AppendEntries, message))
    linking.after_fetch_result(e, sender, message.group, before)


def _grouped(
    handler: Callable[[EngineState, ServerId, Any], None],
) -> Callable[[EngineState, ServerId, Any], None]:
    def checked(e: EngineState, sender: ServerId, message: Any) -> None:
        linking.check_group(e, sender, message.group)
        handler(e, sender, message)

    return checked


def _caught_up(e: EngineState, sender: ServerId, message: CaughtUp) -> None:
    for group, _ in message.groups:
        linking.check_group(e, sender, group)
    membership.handle_caught_up(e, sender, message)


def _heartbeats(e: EngineState, sender: ServerId, message: Heartbeats) -> None:
    for group, _ in (*(message.leads or ()), *message.refused):
        linking.check_group(e, sender, group)
    linking.handle_heartbeats(e, sender, message)


HANDLERS: dict[type, Callable[[EngineState, ServerId, Any], None]] = {
    **dict.fromkeys(_RAFT_MESSAGES, _step),
    TimeoutNow: _step_timeout_now,
    AppendEntries: _step_append,
    FetchResult: _step_fetch_result,
    Heartbeats: _heartbeats,
    CaughtUp: _caught_up,
    Fetch: _grouped(linking.handle_fetch),
    Forward: _grouped(proposing.handle_forward),
    ForwardRefused: _grouped(proposing.handle_forward_refused),
    ReadQuery: reading.handle_query,
    ReadReport: reading.handle_report,
    SnapshotWanted: transferring.handle_wanted,
    SnapshotOffer: transferring.handle_offer,
    SnapshotFetch: transferring.handle_fetch,
    SnapshotChunk: transferring.handle_chunk,
    SnapshotInstalled: transferring.handle_installed,
}
