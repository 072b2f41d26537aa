"""`Raft`: one replica behind a facade, with one dispatch table from message type to function.

Knows: one group. Must not know: other groups, sessions, the merge, I/O.

Reference: the Raft paper and dissertation, section by section in the modules beside this one; PROTOCOL 1.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from typing import Any

from craft import quorum
from craft.limits import EngineLimits
from craft.messages import (
    AppendAccepted,
    AppendEntries,
    AppendRejected,
    Cleared,
    Doubted,
    FetchResult,
    LeaderPersisted,
    Message,
    RequestVote,
    RequestVoteResult,
    SuspectAccepted,
    Suspected,
    TimeoutNow,
)
from craft.raft import election, membership, replication, suspicion
from craft.raft.log import Log
from craft.raft.state import RaftState
from craft.types import Append, Configuration, GroupId, Index, RecoveredGroup, ServerId

if typing.TYPE_CHECKING:
    from random import Random

_HANDLERS: dict[type, Callable[[RaftState, ServerId, Any, int], None]] = {
    RequestVote: election.handle_request_vote,
    RequestVoteResult: election.handle_request_vote_result,
    AppendEntries: replication.handle_append_entries,
    AppendAccepted: replication.handle_append_accepted,
    SuspectAccepted: replication.handle_suspect_accepted,
    Suspected: suspicion.handle_suspected,
    Cleared: suspicion.handle_cleared,
    Doubted: suspicion.handle_doubted,
    AppendRejected: replication.handle_append_rejected,
    LeaderPersisted: replication.handle_leader_persisted,
    TimeoutNow: election.handle_timeout_now,
    FetchResult: replication.handle_fetch_result,
}


class Raft:
    """One replica. Feed it messages and time; drain `state.outbox`; make durable what `take_append` gives."""

    __slots__ = ("_handed", "state")

    def __init__(
        self,
        group: GroupId,
        me: ServerId,
        configuration: Configuration,
        recovered: RecoveredGroup,
        *,
        limits: EngineLimits,
        rng: Random,
        gone: set[ServerId],
        now: int,
        disks: Mapping[ServerId, str] | None = None,
    ) -> None:
        hard = recovered.hard_state
        log = Log(recovered)
        assert hard.term >= log.last_term, "a log cannot be ahead of its term"
        assert hard.commit <= log.last_index
        self.state = RaftState(
            group,
            me,
            limits,
            rng,
            gone,
            disks or {},
            log,
            term=hard.term,
            vote=hard.vote,
            created=configuration,
        )
        self.state.configuration, self.state.bound = configuration, dict(configuration.disks)
        membership.follow_log(self.state)
        self.state.commit_index = hard.commit
        self.state.suspicion = recovered.suspicion
        self._handed: tuple[int, Index] | None = None
        election.set_deadline(self.state, now)

    def step(self, sender: ServerId, message: Message, now: int) -> None:
        """Take one message from a peer."""
        _HANDLERS[type(message)](self.state, sender, message, now)

    def tick(self, now: int) -> bool:
        """Let time pass. Did anything change?"""
        r = self.state
        role = r.role
        election.tick(r, now)
        stalled = r.leads and replication.retry_stalled(r, now)
        return stalled or r.role is not role or bool(r.outbox)

    def take_append(self, write: int) -> Append | None:
        """What write number `write` must carry for this log, if anything."""
        log = self.state.log
        append = log.take_append(self.state.group)
        if append is not None:
            self._handed = (write, log.last_index)
        return append

    def take_suspicion(self, write: int) -> str | None:
        """What write number `write` must say of this log's suspicion, after `take_append`.

        Its reason, "" that it ends, or None: nothing has changed.
        """
        r = self.state
        if r.suspicion_due:
            r.suspicion_due = False
            return r.suspicion
        return "" if r.suspicion and suspicion.take_end(r, write) else None

    def persisted(self, write: int, now: int) -> None:
        """Everything up to write number `write` is durable: now it is counted and answered (PROTOCOL 1)."""
        r = self.state
        handed = self._handed is not None and self._handed[0] <= write
        if self._handed is not None and handed:
            r.log.mark_persisted(self._handed[1])
            self._handed = None
        if (r.clearing_write and suspicion.written(r, write)) or handed:
            if r.leads:
                replication.maybe_commit(r)
            else:
                replication.infer_commit(r)
                replication.acknowledge(r)
        if not r.hard_dirty and r.hard_write <= write:
            election.own_vote_durable(r, now)

    def leader_refused(self, rank: int, now: int) -> None:
        """The leader's host refuses connections (PROTOCOL 9); stand as number `rank` of the survivors."""
        election.leader_refused(self.state, rank, now)

    def stand_soon(self, heard: set[ServerId], now: int) -> None:
        """Stand at the next tick if a quorum is in touch.

        At a fresh start, where this server is preferred.
        """
        if quorum.is_quorum(self.state.configuration, heard) and not self.state.leads:
            self.state.election_deadline = now
