"""Older entries, read back from disk: for the merge, for a follower that lags, for a peer that fetches.

Invariants
- Only entries at or below a log's `offset` are loaded: they are committed and durable, so no truncation can
  make a load stale.
- At most one load a purpose, group and peer is under way.
"""

from __future__ import annotations

from craft.engine import capturing, committing
from craft.engine.state import EngineState, Loading, LoadPurpose
from craft.marks import mark
from craft.messages import FetchResult
from craft.raft import replication
from craft.ready import Load
from craft.types import Entry, GroupId, Index, ServerId, Term, is_command


def begin_load(
    e: EngineState,
    purpose: LoadPurpose,
    group: GroupId,
    *,
    peer: ServerId,
    next_index: Index,
    first_index: Index,
    prev_term: Term | None = None,
) -> None:
    """Ask the driver for entries from `first_index` to the end of what is on disk only."""
    assert first_index <= e.raft(group).log.offset.index
    e.loads[e.next_load] = Loading(purpose, group, peer, next_index, prev_term)
    last_index = min(e.raft(group).log.offset.index, first_index + replication.ENTRIES_MAX - 1)
    e.load_requests.append(Load(e.next_load, group, first_index, last_index, e.limits.load_bytes_max))
    e.next_load += 1


def loaded(e: EngineState, number: int, entries: tuple[Entry, ...]) -> None:
    """The driver has read what was asked for."""
    loading = e.loads.pop(number)
    assert entries, "storage returns at least one entry"
    group = loading.group
    e.dirty.add(group)
    if loading.purpose is LoadPurpose.MERGE:
        if entries[0].index != e.cursor[group] + 1:
            return  # a snapshot was installed meanwhile
        mark("entries read back for the merge")
        e.merging_load.discard(group)
        deliver_entries(e, group, entries)
    elif loading.purpose is LoadPurpose.APPEND:
        mark("entries read back for a follower")
        _send_loaded(e, loading, entries)
    elif (peer := e.peers.get(loading.peer)) is not None:
        peer.out.append(FetchResult(group, entries))


def _send_loaded(e: EngineState, loading: Loading, entries: tuple[Entry, ...]) -> None:
    r = e.raft(loading.group)
    progress = r.progress.get(loading.peer)
    if progress is None or not progress.loading:
        return  # no longer the leader, or the follower was reset meanwhile
    progress.loading = False
    if progress.next != loading.next_index:
        return
    prev_term, following = loading.prev_term, entries
    if prev_term is None:
        prev_term, following = entries[0].term, entries[1:]
    if following:
        replication.send_entries(r, loading.peer, prev_term, following, e.now.monotonic_ns)
    else:
        mark("a read filled by the entry before")
        # The entry before filled the whole read: read on behind it, or nothing would ever be sent.
        progress.loading = True
        load_append(e, loading.group, loading.peer, loading.next_index, prev_term=prev_term)


def load_append(
    e: EngineState, group: GroupId, peer: ServerId, next_index: Index, *, prev_term: Term | None = None
) -> None:
    """Read for a follower that lags. The entry before is read too: its term goes into the append."""
    start = e.raft(group).log.start.place
    if next_index == start.index + 1:
        prev_term = start.term
    first_index = next_index - 1 if prev_term is None else next_index
    begin_load(
        e,
        LoadPurpose.APPEND,
        group,
        peer=peer,
        next_index=next_index,
        first_index=first_index,
        prev_term=prev_term,
    )


def deliver_entries(e: EngineState, group: GroupId, entries: tuple[Entry, ...]) -> None:
    """Hand committed, durable entries to the merge."""
    before = e.merger.held(group)
    e.merger.extend(group, entries)
    if e.merger.held(group) > before:
        e.outstanding[group].extend(entry.index for entry in entries if is_command(entry.kind))
    e.cursor[group] = entries[-1].index
    capturing.note_delivered(e, group, entries)
    if e.awaiting_commit:
        committing.note_delivered(e, group, entries)
