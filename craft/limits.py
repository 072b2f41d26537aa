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

    heartbeat_interval_ms: int = 75
    """One heartbeat frame a peer and interval carries all groups; a fifth of the least election timeout."""

    election_timeout_ms_min: int = 400
    """A leader silent for this long is asked about; until then voters honour it (PreVote, CheckQuorum)."""

    election_timeout_ms_max: int = 800
    """Timeouts are drawn between the two, so that candidates seldom collide."""

    election_stagger_ms: int = 15
    """After a refused reconnect, candidates wait their rank times this: a busy round trip."""

    entry_bytes_max: int = 1 * MIB
    """One entry's commands, and so one call of `propose_many`: a turn copies and hashes at most this at a time."""

    append_bytes_max: int = 2 * MIB
    """Entries in one AppendEntries or FetchResult (at least one entry is always sent)."""

    inflight_bytes_max: int = 8 * MIB
    """Sent to a peer and not acknowledged, a group: the window of the pipeline."""

    uncommitted_entries_max: int = 8
    """Command entries appended and not committed, a group: few in flight make batches large."""

    proposals_bytes_max: int = 64 * MIB
    """Proposals taken and not answered here; beyond it `propose` raises Overloaded."""

    proposals_max: int = 100_000
    """Requests taken and not answered here; beyond it `propose` raises Overloaded."""

    forwarded_bytes_max: int = 16 * MIB
    """Proposals of other servers that wait here for a leader's turn; beyond it they are refused."""

    unmerged_bytes_max: int = 64 * MIB
    """Committed here and not yet merged; beyond it this server's leaders append no commands."""

    log_memory_bytes_max: int = 32 * MIB
    """Committed entries kept in memory, all groups together; older ones are read back from disk."""

    load_bytes_max: int = 1 * MIB
    """One read of older entries from disk."""

    clock_offset_ms_max: int = 250
    """A leader's clock may lead a majority's by at most this; at least twice the clocks' error."""

    fetch_after_ms: int = 150
    """A commit that a peer knows and that does not arrive from the leader is fetched after this."""

    read_retry_ms: int = 200
    """A read round that has not completed is begun afresh after this."""

    proposal_retry_ms: int = 1000
    """A request not yet merged is proposed again after this (exactly once all the same)."""

    floor_wait_ms_max: int = 1000
    """A proposal whose session was answered beyond this cluster's time waits at most this."""

    leader_return_ms: int = 2000
    """A preferred server must look well for this long before it gets its group back."""

    leader_return_ms_max: int = 60_000
    """The bound of that wait, which doubles after each involuntary loss."""
