"""The engine's limits and timeouts: every bound has a name with its unit, a default and a reason.

Floor 0. `Config` contains one of these and validates it (`craft/config.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Bounds of the pure engine. Times are milliseconds, sizes bytes."""

    heartbeat_interval_ms: int = 150
    """One heartbeat frame a peer and interval carries all groups; a quarter of the least election timeout."""

    election_timeout_ms_min: int = 600
    """A leader silent for this long is asked about; until then voters honour it (PreVote, CheckQuorum)."""

    election_timeout_ms_max: int = 1200
    """Timeouts are drawn between the two, so that candidates seldom collide."""

    election_stagger_ms: int = 15
    """After a refused reconnect, candidates wait their rank times this: a busy round trip."""

    entry_bytes_max: int = 1 * MIB
    """One entry's commands, and so one call of `propose_many`.

    A turn copies and hashes at most this at a time.
    """

    append_bytes_max: int = 2 * MIB
    """Entries in one AppendEntries or FetchResult (at least one entry is always sent)."""

    inflight_bytes_max: int = 8 * MIB
    """Sent to a peer and not acknowledged, a group: the window of the pipeline."""

    uncommitted_entries_max: int = 8
    """Command entries appended and not committed, a group: few in flight make batches large."""

    proposals_bytes_max: int = 16 * MIB
    """Proposals taken and not answered here; beyond it `propose` raises Overloaded."""

    proposals_max: int = 100_000
    """Requests taken and not answered here; beyond it `propose` raises Overloaded."""

    reads_max: int = 100_000
    """Reads that wait here; beyond it `read` raises Overloaded."""

    forwarded_bytes_max: int = 16 * MIB
    """Proposals of other servers that wait here for a leader's turn; beyond it they are refused."""

    unmerged_bytes_max: int = 64 * MIB
    """Committed here and not yet merged; beyond it this server's leaders append no commands."""

    apply_bytes_max: int = 1 * MIB
    """Merged entries given to the state machine at a time (at least one): heartbeats go out between two."""

    log_memory_bytes_max: int = 32 * MIB
    """Memory for committed entries, all groups together; older ones are read back from disk."""

    load_bytes_max: int = 1 * MIB
    """One read of older entries from disk."""

    clock_offset_ms_max: int = 250
    """A leader's clock may lead a majority's by at most this; at least twice the clocks' error."""

    fetch_after_ms: int = 150
    """A commit that a peer knows and that does not arrive from the leader is fetched after this."""

    read_retry_ms: int = 200
    """A read round that has not completed is begun afresh after this."""

    proposal_retry_ms: int = 1000
    """A request not yet merged is proposed again after this (exactly once all the same); not while the merge
    has yet to come to where it may be."""

    floor_wait_ms_max: int = 1000
    """A proposal whose session was answered beyond this cluster's time waits at most this."""

    disk_stall_ms: int = 1200
    """A write under way for this long: the disk has stalled. The server stands for nothing, and gives its
    groups to others that look well. Far more than a busy disk's sync; about the longest election timeout."""

    disk_stall_ms_max: int = 3000
    """For this long: it leads no more, whoever looks well. Before, it tries to hand over: that is better."""

    leader_return_ms: int = 2000
    """A preferred server must look well for this long before it gets its group back."""

    leader_return_ms_max: int = 60_000
    """The bound of that wait, which doubles after each involuntary loss."""

    snapshot_log_bytes: int = 256 * MIB
    """A snapshot is taken when so much was merged since the last, by all groups: what a restart reads."""

    snapshot_interval_ms: int = 3_600_000
    """Or after this long, where anything was merged since: an idle cluster takes none."""

    log_trailing_bytes: int = 64 * MIB
    """Log kept below the older snapshot, all groups together: who lags by less needs no snapshot."""

    log_held_bytes_max: int = 1024 * MIB
    """Log kept beyond that for followers that catch up and for transfers under way, all groups together."""

    snapshot_chunk_bytes: int = 1 * MIB
    """One piece of a snapshot on its way to another server; two are under way at most."""

    snapshot_bytes_per_second_max: int = 64 * MIB
    """Sent of snapshots, to all servers together: the rest of the network and the disk serves clients."""

    snapshot_stall_ms: int = 30_000
    """A transfer without progress for this long is given up; what has arrived is kept, to go on with it."""

    leader_hold_ms: int = 600_000
    """A group that an operator puts somewhere, and a server that is drained, stays so unless told how long:
    time to look at a machine, and not for ever where it is forgotten."""

    leader_hold_ms_max: int = 86_400_000
    """The longest: then placement decides again."""


@dataclass(frozen=True, slots=True)
class TransportLimits:
    """Bounds of the connections between servers. Times are milliseconds, sizes bytes.

    The same on every server of a cluster. `frame_bytes_max` must exceed `EngineLimits.append_bytes_max` plus
    `entry_bytes_max` plus 64 KiB, and neither queue may be smaller than one frame.
    """

    frame_bytes_max: int = 4 * MIB
    """One frame's payload. A longer claim is refused before it is buffered; a turn with more sends several
    frames. An urgent frame waits for at most one such frame that is already on its way."""

    burst_bytes_max: int = 1 * MIB
    """What the writer hands to the socket at once, at least one frame; then urgent frames may overtake."""

    send_queue_bytes_max: int = 64 * MIB
    """Queued for one peer and not sent. Beyond it the link is dropped: the peer does not keep up."""

    receive_queue_bytes_max: int = 64 * MIB
    """Arrived and not yet handled, all peers together; beyond it the server's inbox lets readers wait."""

    receive_bytes: int = 256 * KIB
    """One read of a socket."""

    connect_timeout_ms: int = 1000
    """Resolving a name and connecting; a busy but living server accepts much faster."""

    handshake_timeout_ms: int = 3000
    """TLS and the exchange of Hello and Welcome; a half-open connection costs no more than this."""

    handshakes_max: int = 64
    """Incoming connections that have not yet said who they are; more are closed at once. Behind the handshake
    each peer has one connection."""

    silence_timeout_ms: int = 5000
    """Sent and unacknowledged by the peer's kernel for this long, or nothing heard, probes included: the
    connection is dead. The engine misses heartbeats long before; this one makes way for a new connection."""

    reconnect_delay_ms_min: int = 20
    """The first wait between attempts to connect; it doubles after each failure, and is jittered by half."""

    reconnect_delay_ms_max: int = 1000
    """The longest wait between attempts, and how long a connection must live to count as a stable one."""

    complaint_interval_ms: int = 5000
    """At most one warning of each kind is logged in this time; it says how many were not."""


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Bounds of the listener for clients and administration. Times are milliseconds, sizes bytes."""

    tls: bool = False
    """Speak TLS 1.3 with clients, with the certificate in `[tls]`, and demand one of them."""

    connections_max: int = 1024
    """Connections at once; more are closed at once, with a reason. Each costs a task and a read buffer."""

    requests_max: int = 1024
    """Requests of one connection that are not yet answered.

    Beyond it no more is read from that connection.
    """

    request_bytes_max: int = 1 * MIB + 64 * KIB
    """One request's payload, refused before it is buffered.

    The commands of a full entry and their envelope.
    """

    request_timeout_ms: int = 10_000
    """A request without an answer for this long is answered Unknown: it may or may not take effect."""


@dataclass(frozen=True, slots=True)
class TailLimits:
    """Bounds of the tail of the merged log (`Server.subscribe`). Sizes are bytes."""

    memory_bytes_max: int = 32 * MIB
    """The last applied entries kept in memory. A subscriber that follows and falls behind them is dropped."""

    batch_bytes_max: int = 1 * MIB
    """One batch of entries (at least one entry): what a subscriber holds at a time. As much as is applied in
    a turn, so that who keeps up with turns keeps up."""

    reread_bytes: int = 64 * KIB
    """What is read from the logs at a time for a subscriber that begins before what memory holds: a fraction
    of a millisecond of the event loop."""

    subscribers_max: int = 64
    """Subscribers at once; beyond it `subscribe` raises Overloaded. Each costs a wake-up a turn."""


MEMBERS_MAX = 64
"""Servers of one cluster: more than any quorum is good for, and all of them fit into one handshake."""

ADDRESS_CHARS_MAX = 262
"""An address as people write it, in a handshake: the longest name that DNS knows, brackets and a port."""

# -- sessions of remote clients --------------------------------------------------------------------
# What is judged in the merged log must be judged alike on every server: constants, never configuration.

CLIENT_SESSIONS_MAX = 10_000
"""Sessions of clients open at once, in the whole cluster; beyond it none is opened. Each costs a KiB."""

CLIENT_WINDOW_REQUESTS_MAX = 1024
"""How far a client's requests may run ahead of the first that is not answered; beyond it they are refused."""

CLIENT_RESULTS_BYTES_MAX = 64 * MIB
"""Results kept for requests that are repeated, all sessions together; the oldest are forgotten first."""

CLIENT_RESULT_BYTES_MAX = 1 * MIB
"""A request's results beyond this are not kept at all: it would cost many others theirs."""

CLIENT_RESULT_OVERHEAD_BYTES = 256
"""What keeping a result costs beside its bytes."""

CLIENT_SESSION_TTL_MS_MIN = 1_000
"""A session's least time to live. Shorter, an election would end it."""

CLIENT_SESSION_TTL_MS = 60_000
"""What a client asks for unless told otherwise: it survives any election, and a short loss of the network."""

CLIENT_SESSION_TTL_MS_MAX = 24 * 60 * 60 * 1000
"""Its greatest: what a client leaves behind is gone after a day."""

CLIENT_FLOOR_POLL_MS = 10
"""How often a floor ahead of a server's time is looked at: clocks differ by little more."""


@dataclass(frozen=True, slots=True)
class RemoteLimits:
    """Bounds of a remote client (`craft.connect`). Times are milliseconds."""

    requests_max: int = CLIENT_WINDOW_REQUESTS_MAX
    """Calls at once; more wait. A server takes as many of one connection; a session's window is as wide."""

    request_bytes_max: int = 1 * MIB + 64 * KIB
    """One call's bytes; more is refused here. At most the servers' `clients.request_bytes_max`: they end the
    connection of whoever sends more, with all calls on it."""

    attempt_timeout_ms: int = 15_000
    """A request without any answer for this long is asked of another server: more than a server takes to say
    that it does not know (`clients.request_timeout_ms`)."""

    reach_timeout_ms: int = 10_000
    """A call gives up where no server could be reached for this long."""

    retry_delay_ms_min: int = 20
    """The first wait when every server was tried in vain; it doubles each time, and is jittered by half."""

    retry_delay_ms_max: int = 1000
    """The longest; a connection that lived for longer was a good one, and the waits begin anew."""

    close_timeout_ms: int = 1000
    """How long leaving takes at most to close the session; else the session ends by its time to live."""

    tail_wait_ms: int = 3000
    """How long a server may wait for something new before it answers a subscriber that there is nothing."""

    servers_max: int = 64
    """Servers' addresses learned from servers, beside those that were given: as many as a cluster has."""

    servers_interval_ms: int = 60_000
    """How often the server that we stay connected to is asked for the others' addresses again."""

    calls_max: int = 100_000
    """Calls of `craft.blocking` that are not answered; beyond it they are refused as Overloaded."""
