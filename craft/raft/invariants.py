"""What must hold of a replica at any moment, apart from the code that makes it hold.

For tests and the simulator: `check` is too dear for every turn of a server. A violation is a bug, never a
peer's fault.

Reference: LogCabin's RaftConsensusInvariants; PROTOCOL 1, 2.
"""

from __future__ import annotations

from itertools import islice
from operator import attrgetter, lt

from craft.errors import InvariantViolation
from craft.raft.log import ENTRY_OVERHEAD_BYTES
from craft.raft.progress import ProgressState
from craft.raft.state import RaftState, Role


def check(r: RaftState) -> None:
    """Raise InvariantViolation naming the first property that does not hold."""
    for holds, what in [*_basic(r), *_leader(r)]:
        if not holds:
            raise InvariantViolation(f"group {r.group} on server {r.me}: {what}")


def _basic(r: RaftState) -> list[tuple[bool, str]]:
    log = r.log
    stamps = [log.offset_timestamp, *map(attrgetter("timestamp"), log.entries)]
    rising = all(map(lt, stamps, islice(stamps, 1, None))) or log.offset.index == 0
    size = sum(map(len, map(attrgetter("record"), log.entries))) + ENTRY_OVERHEAD_BYTES * len(log.entries)
    return [
        (log.last_term <= r.term, "the log's last term is beyond the current term"),
        (r.commit_index <= log.last_index, "the commit index is beyond the log"),
        (log.offset.index <= r.commit_index, "an uncommitted entry left memory"),
        (log.persisted <= log.last_index and log.handed <= log.last_index, "durable beyond the log"),
        (rising, "timestamps do not rise along the log"),
        (log.bytes == size, "the log's bytes are miscounted"),
        (log.last_index == log.offset.index + len(log.entries), "the log's entries are miscounted"),
        (r.role is not Role.FOLLOWER or not r.votes, "a follower counts votes"),
        (r.leader_id != r.me or r.leads, "a replica follows itself"),
    ]


def _leader(r: RaftState) -> list[tuple[bool, str]]:
    checks = [(r.leads or not r.progress, "progress without leadership")]
    for peer, progress in r.progress.items():
        checks += [
            (progress.match < progress.next, f"match >= next for server {peer}"),
            (progress.match <= r.log.last_index, f"match beyond the log for server {peer}"),
            (
                progress.inflight_bytes == sum(size for _, size in progress.inflight),
                f"bytes in flight miscounted for server {peer}",
            ),
            (
                progress.state is ProgressState.REPLICATE or not progress.inflight,
                f"probing with entries in flight for server {peer}",
            ),
        ]
    return checks
