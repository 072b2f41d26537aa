"""What servers say to each other: one class a message, one `Frame` a peer and turn.

Floor 0. Every class is a tuple, so that it packs as a msgpack array as it is (`craft/wire.py` has the table
of types). A message names its group where it concerns one; messages without one concern all groups.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from craft.types import (
    Configuration,
    Entry,
    GroupId,
    Index,
    Place,
    Position,
    Proposal,
    ServerId,
    SnapshotId,
    Term,
    Timestamp,
)


class RequestVote(NamedTuple):
    """Raft 5.2. `pre` asks without raising any term (dissertation 9.6); `transfer` follows a TimeoutNow."""

    group: GroupId
    term: Term
    last_index: Index
    last_term: Term
    pre: bool
    transfer: bool


class RequestVoteResult(NamedTuple):
    """The answer. For a granted pre-vote, `term` repeats the term asked for.

    What a `suspect` grants counts only where every voter grants (PROTOCOL 10).
    """

    group: GroupId
    term: Term
    granted: bool
    pre: bool
    suspect: bool = False


class AppendEntries(NamedTuple):
    """Raft 5.3. An empty `entries` is a probe. Entries follow `prev_index` without a gap."""

    group: GroupId
    term: Term
    prev_index: Index
    prev_term: Term
    commit_index: Index
    entries: tuple[Entry, ...]


class AppendAccepted(NamedTuple):
    """Durable here and equal to the leader's log up to `match_index`; received up to `verified_index`."""

    group: GroupId
    term: Term
    match_index: Index
    verified_index: Index


class SuspectAccepted(NamedTuple):
    """As AppendAccepted, from a suspect: it says what to send next, and counts for nothing (PROTOCOL 10).

    `incarnation` as in Suspected, which this is as well.
    """

    group: GroupId
    term: Term
    match_index: Index
    verified_index: Index
    incarnation: int


class AppendRejected(NamedTuple):
    """No match at `rejected_index`. The leader may go on at the hint (fast back-up)."""

    group: GroupId
    term: Term
    rejected_index: Index
    hint_index: Index
    hint_term: Term


class LeaderPersisted(NamedTuple):
    """The sender's log, by which it leads in `term`, is durable up to `index`.

    Where the leader and one follower are a quorum, the follower needs nobody else to know what is committed.
    """

    group: GroupId
    term: Term
    index: Index  # type: ignore[assignment]  # as in Entry


class Suspected(NamedTuple):
    """The sender may have lost a synced tail of this log, and asks what it must hold to be trusted again.

    `incarnation` is a random number of this start: an answer to an earlier one clears nobody.
    """

    group: GroupId
    term: Term
    incarnation: int


class Cleared(NamedTuple):
    """That incarnation is trusted again with the write that makes this entry durable (PROTOCOL 10).

    The leader of `term` appended it, or will, after it heard that incarnation; or the sender led `term` and
    counted nothing beyond it there.
    """

    group: GroupId
    incarnation: int
    term: Term
    index: Index  # type: ignore[assignment]  # as in Entry


class Doubted(NamedTuple):
    """The leader of `term` counted the entry at `index` on the receiver, which now says that it has it not.

    `index_term` is that entry's term; 0 where the leader does not know it any more.
    """

    group: GroupId
    term: Term
    index: Index  # type: ignore[assignment]  # as in Entry
    index_term: Term


class TimeoutNow(NamedTuple):
    """Campaign at once (dissertation 3.10): the sender hands its leadership over.

    For `hold_ms` the group then stays there, though it be preferred elsewhere: an operator wants it so.
    """

    group: GroupId
    term: Term
    hold_ms: int = 0


class Heartbeats(NamedTuple):
    """All that a server has to say for its groups when it has nothing to say.

    `leads` lists `(group, term)` that the sender leads; None repeats the list known as `version`.
    `ack_version` is the last list taken from the receiver, less those in `refused`, whose higher `(group,
    term)` is named.
    """

    version: int
    leads: tuple[tuple[GroupId, Term], ...] | None
    ack_version: int
    refused: tuple[tuple[GroupId, Term], ...]


class Fetch(NamedTuple):
    """PROTOCOL 9: send me committed entries from `next_index`, now or as soon as you have one."""

    group: GroupId
    next_index: Index


class FetchResult(NamedTuple):
    """Entries that the sender knows committed, contiguous from the fetch's `next_index`."""

    group: GroupId
    entries: tuple[Entry, ...]


class Forward(NamedTuple):
    """Proposals of a server that leads no group, for the leader of `group`."""

    group: GroupId
    proposals: tuple[Proposal, ...]


class ForwardRefused(NamedTuple):
    """These requests of the receiver's session `counter` were not appended in `group`."""

    group: GroupId
    counter: int
    requests: tuple[int, ...]


class ReadQuery(NamedTuple):
    """PROTOCOL 6: one round for all waiting reads."""

    round: int


class GroupReport(NamedTuple):
    """One group in a report. `configuration_at` orders configurations, term first.

    A `suspect` may raise the target and name a configuration, and fills no majority (PROTOCOL 10).
    """

    last_command: Place
    commit: Place
    configuration_at: Place
    configuration: Configuration
    suspect: bool = False


class ReadReport(NamedTuple):
    """The answer to a ReadQuery: one report a group, in the order of groups."""

    round: int
    groups: tuple[GroupReport, ...]


class CaughtUp(NamedTuple):
    """PROTOCOL 8: of the groups that the sender leads, `(group, servers)` live and caught up in each."""

    groups: tuple[tuple[GroupId, tuple[ServerId, ...]], ...]


class SnapshotWanted(NamedTuple):
    """PROTOCOL 7: send me a snapshot at or beyond `position`; if you have none, take one.

    But none with the random number `damaged`: what arrived of that one does not hold, or would not help.
    """

    position: Position
    damaged: int


class SnapshotOffer(NamedTuple):
    """You lack entries that are compacted here: take this snapshot instead.

    `indexes` are its cuts', by group: who has all that committed does not need it.
    """

    snapshot: SnapshotId
    size: int
    indexes: tuple[Index, ...]


class SnapshotFetch(NamedTuple):
    """Send me up to `bytes_max` bytes of a snapshot's file from `offset`: the receiver sets the pace."""

    snapshot: SnapshotId
    offset: int
    bytes_max: int


class SnapshotChunk(NamedTuple):
    """Bytes of a snapshot's file, with their crc32; none: it is kept no more."""

    snapshot: SnapshotId
    offset: int
    checksum: int
    data: bytes


class SnapshotInstalled(NamedTuple):
    """I lack nothing of what was offered up to there: by `position`, or because it came by other ways."""

    position: Position


Message: TypeAlias = (
    RequestVote
    | RequestVoteResult
    | AppendEntries
    | AppendAccepted
    | SuspectAccepted
    | AppendRejected
    | LeaderPersisted
    | Suspected
    | Cleared
    | Doubted
    | TimeoutNow
    | Heartbeats
    | Fetch
    | FetchResult
    | Forward
    | ForwardRefused
    | ReadQuery
    | ReadReport
    | CaughtUp
    | SnapshotWanted
    | SnapshotOffer
    | SnapshotFetch
    | SnapshotChunk
    | SnapshotInstalled
)


class Frame(NamedTuple):
    """Everything that one server sends to one peer in one turn.

    `clock` is the sender's clock, `sent` its monotonic time, both in ns, at sending; `echo` is the newest
    `sent` that it has from the receiver (0: none yet), so the receiver can carry `clock` forward from its own
    send time (PROTOCOL 2). `held` is how long ago it took the frame with that `sent`, in ns: so the receiver
    can tell how long the way takes. `demand` is PROTOCOL 3; `links` are the peers that the sender hears
    directly; `commits` are `(group, index, term)` known committed (PROTOCOL 9).
    """

    clock: Timestamp
    sent: int
    echo: int
    held: int
    demand: Timestamp
    links: tuple[ServerId, ...]
    commits: tuple[tuple[GroupId, Index, Term], ...]
    messages: tuple[Message, ...]
