"""Replication: both sides of AppendEntries, the commit rule, and entries fetched from any peer.

Knows: one replica's state. Must not know: other groups, stamps' origin, I/O.

Invariants
- Nothing at or below `commit_index` is ever truncated; asserted before every cut.
- A follower acknowledges what is durable *and* known to agree with the leader of this term, never more.
- A leader commits by counting entries of its own term only (Raft 5.4.2, Figure 8).
- A suspect is sent entries as anybody, and counts for nothing (PROTOCOL 10, `suspicion`).
- Where the leader and one follower are a quorum, that follower infers the commit by the same rule, from what
  both hold durably in the leader's term; it needs no word from the leader (PROTOCOL 1).
- A commit learnt from a peer is a place: it counts only where our own entry at that index has that term
  (PROTOCOL 9).

Reference: Raft 5.3, 5.4.2; dissertation 10.2.1; PROTOCOL 1, 3, 9.
"""

from __future__ import annotations

from craft import quorum
from craft.errors import WireError
from craft.marks import mark
from craft.messages import (
    AppendAccepted,
    AppendEntries,
    AppendRejected,
    FetchResult,
    LeaderPersisted,
    SuspectAccepted,
)
from craft.raft import election, membership, suspicion
from craft.raft.progress import PROBE, REPLICATE, SNAPSHOT, Progress
from craft.raft.state import MS, RaftState
from craft.types import Entry, EntryKind, Index, ServerId, Term, Timestamp, make_entry, size_of

ENTRIES_MAX = 2**14
"""In one message, however small they are: a wire's arrays are bounded."""

# -- the leader's side ----------------------------------------------------------------------------


def append(r: RaftState, kind: EntryKind, timestamp: Timestamp, payload: bytes = b"") -> Entry:
    """Append one entry as the leader, with the stamp that was just taken (PROTOCOL 2)."""
    assert r.leads
    entry = make_entry(
        r.group, index=r.log.last_index + 1, term=r.term, timestamp=timestamp, kind=kind, payload=payload
    )
    r.log.append((entry,))
    if kind is EntryKind.CONFIGURATION:
        membership.follow_log(r)
    return entry


def replicate(r: RaftState, now: int) -> list[tuple[ServerId, Index]]:
    """Send every follower what its window allows.

    Returns `(peer, first index)` to be read from disk first.
    """
    loads: list[tuple[ServerId, Index]] = []
    for peer, progress in r.progress.items():  # in rising order
        while _may_send(r, progress):
            if progress.next <= r.log.start.place.index:
                mark("follower needs a snapshot")
                progress.become_snapshot()
            elif progress.next <= r.log.offset.index:
                progress.loading = True
                loads.append((peer, progress.next))
            elif not _send_from_memory(r, peer, progress, now):
                break
    return loads


def _may_send(r: RaftState, progress: Progress) -> bool:
    if progress.loading:
        return False
    if progress.state is REPLICATE:
        return progress.next <= r.log.last_index and progress.inflight_bytes < r.limits.inflight_bytes_max
    return progress.state is PROBE and not progress.probed


def _send_from_memory(r: RaftState, peer: ServerId, progress: Progress, now: int) -> bool:
    """Send one append. Returns whether another may follow in this turn."""
    log, first = r.log, progress.next
    prev_term = log.term_at(first - 1)
    assert prev_term is not None, "the entry before is in memory or is the offset"
    entries: tuple[Entry, ...] = ()
    if first <= log.last_index:
        last_index = min(log.last_index, first + ENTRIES_MAX - 1)
        entries = log.slice(first, last_index=last_index, bytes_max=r.limits.append_bytes_max)
    send_entries(r, peer, prev_term, entries, now)
    return progress.state is REPLICATE and bool(entries)


def send_entries(r: RaftState, peer: ServerId, prev_term: Term, entries: tuple[Entry, ...], now: int) -> None:
    """Send entries (none: a probe) that follow the follower's `next - 1`, whose term is `prev_term`."""
    progress = r.progress[peer]
    prev_index = progress.next - 1
    assert not entries or entries[0].index == progress.next
    r.send(peer, AppendEntries(r.group, r.term, prev_index, prev_term, r.commit_index, entries))
    last_index = entries[-1].index if entries else prev_index
    progress.sent(last_index, size_of(entries), now)


def handle_append_accepted(r: RaftState, sender: ServerId, m: AppendAccepted, now: int) -> None:
    """A follower holds our log up to a place."""
    if not _takes_acknowledgement(r, sender, m, now):
        return
    progress = r.progress[sender]
    cleared = progress.trusted_again(m.match_index)
    if progress.accepted(m.match_index, m.verified_index, now) or cleared:
        if m.match_index > r.commit_index:  # else it comes after a quorum's
            maybe_commit(r)
        election.maybe_time_out_now(r)


def handle_suspect_accepted(r: RaftState, sender: ServerId, m: SuspectAccepted, now: int) -> None:
    """A suspect holds our log up to a place: it may be sent what follows, and that is all."""
    if _takes_acknowledgement(r, sender, m, now):
        suspicion.heard_suspect(r, sender, m.incarnation)
        r.progress[sender].accepted(m.match_index, m.verified_index, now)


def _takes_acknowledgement(
    r: RaftState, sender: ServerId, m: AppendAccepted | SuspectAccepted, now: int
) -> bool:
    """Is this an answer to us as the leader of this term? Raises WireError if it cannot be one."""
    if not _from_follower(r, sender, m.term, now):
        return False
    if m.match_index > r.log.last_index or m.verified_index > r.log.last_index:
        raise WireError(
            f"server {sender} acknowledges index {max(m.match_index, m.verified_index)} of group {r.group},"
            f" whose log ends at {r.log.last_index}"
        )
    return True


def handle_append_rejected(r: RaftState, sender: ServerId, m: AppendRejected, now: int) -> None:
    """A follower's log differs: go back, past whole terms at a time (Raft 5.3, fast back-up)."""
    if not _from_follower(r, sender, m.term, now):
        return
    mark("follower's log conflicts")
    suspicion.note_rejected(r, sender, m)
    hint = m.hint_index
    while hint > r.log.offset.index and (r.log.term_at(hint) or 0) > m.hint_term:
        hint -= 1
    r.progress[sender].rejected(m.rejected_index, hint, now)


def _from_follower(r: RaftState, sender: ServerId, term: Term, now: int) -> bool:
    """Is this an answer to us as the leader of this term? Those of other terms are no contact."""
    if term > r.term:
        election.become_follower(r, term, None, now)
    if r.leads and term == r.term and sender in r.progress:
        if membership.counts(r, sender):
            return True
        mark("answer of another disk not counted")
    return False


def maybe_commit(r: RaftState) -> bool:
    """Raft 5.4.2: commit what a quorum holds durably, if it is of our own term."""
    assert r.leads
    match = {peer: 0 if progress.suspect else progress.match for peer, progress in r.progress.items()}
    match[r.me] = 0 if r.suspicion else r.log.persisted
    index = quorum.reached(r.configuration, match)
    if index > r.commit_index and r.log.term_at(index) == r.term:
        _commit_to(r, index)
        return True
    return False


def retry_stalled(r: RaftState, now: int) -> bool:
    """What was sent and not answered for an election timeout is taken for lost: probe again. Was any?"""
    patience = r.limits.election_timeout_ms_min * MS
    stalled = [p for p in r.progress.values() if _owes_answer(p) and now - p.moved_at >= patience]
    for progress in stalled:
        mark("append taken for lost")
        progress.become_probe()
    return bool(stalled)


def _owes_answer(progress: Progress) -> bool:
    """Is an answer outstanding? So is that of a suspect that holds what clears it and has not said so yet."""
    return progress.waiting() or (progress.suspect and progress.match >= progress.clears_at)


def snapshot_installed(r: RaftState, peer: ServerId) -> bool:
    """By its own word the peer lacks nothing any more that is compacted here. Did we wait for that?"""
    progress = r.progress.get(peer)
    if progress is None or progress.state is not SNAPSHOT:
        return False
    progress.leave_snapshot(r.log.start.place.index + 1)
    return True


def link_restored(r: RaftState, peer: ServerId) -> None:
    """A new connection: what was in flight on the old one is lost, either way."""
    if r.leads and peer in r.progress:
        r.progress[peer].become_probe()
    elif r.leader_id == peer:
        r.probed = True
        if r.verified:  # what it probed with may have been answered when it could not be told
            r.ack_due = True
            acknowledge(r)


# -- the follower's side --------------------------------------------------------------------------


def handle_append_entries(r: RaftState, sender: ServerId, m: AppendEntries, now: int) -> None:
    """Raft 5.3, receiver's side."""
    if m.term < r.term:
        mark("deposed leader refused")
        # A deposed leader must hear of the term that deposed it (PreVote and CheckQuorum together need this).
        r.send(sender, AppendRejected(r.group, r.term, m.prev_index, 0, 0))
        return
    check_contiguous(r, sender, m.prev_index + 1, m.entries)
    if m.entries and m.entries[-1].term > m.term:
        raise WireError(
            f"server {sender} sent entry {m.entries[-1][:4]} of group {r.group}, beyond its own term {m.term}"
        )
    follow(r, sender, m.term, now)
    entries = m.entries[max(0, r.commit_index - m.prev_index) :]
    if _differs_below_commit(r, m):
        mark("deposed leader contradicts a commit")
        return
    if m.prev_index > r.commit_index and r.log.term_at(m.prev_index) != m.prev_term:
        _reject(r, sender, m)
        return
    accept_entries(r, sender, entries)
    _note_verified(r, m)
    infer_commit(r)
    r.ack_due = True
    if r.log.persisted >= r.verified:
        acknowledge(r)  # else with the sync that is due: one acknowledgement a sync


def _note_verified(r: RaftState, m: AppendEntries) -> None:
    """The log agrees with the leader's up to the end of what it sent, and to what it has committed."""
    last_index, commit_index = m.prev_index + len(m.entries), m.commit_index
    if last_index <= r.verified:
        r.probed = True  # who repeats itself lacks our answer
    else:
        r.verified = last_index
    if commit_index >= r.commit_index > r.verified:
        r.verified = r.commit_index  # the leader has committed that too, so it agrees
    r.leader_commit = max(r.leader_commit, commit_index)
    advance_commit(r, min(commit_index, r.verified))


def _differs_below_commit(r: RaftState, m: AppendEntries) -> bool:
    """Does this leader hold something else where ours is committed?

    Then a later leader deposed it, of whose commit a peer told us, and whose term we have not met (9).
    What it sends is not ours to keep nor to acknowledge. One place is enough (Raft 5.3, log matching); it has
    left memory only where nothing beyond it is to be kept.
    """
    if r.commit_index < m.prev_index:
        return False
    last = min(r.commit_index, m.prev_index + len(m.entries))
    term = m.prev_term if last == m.prev_index else m.entries[last - m.prev_index - 1].term
    return r.log.term_at(last) not in (None, term)


def follow(r: RaftState, leader: ServerId, term: Term, now: int) -> None:
    """Hear the leader of a term that is not below ours."""
    if term == r.term and r.leader_id not in (None, leader):
        # Raft 5.2: a term has one leader. Whoever is wrong, hearing of it must not end this server.
        raise WireError(
            f"server {leader} claims to lead group {r.group} in term {term}, which server {r.leader_id} leads"
        )
    if term > r.term or r.leader_id != leader:
        election.become_follower(r, term, leader, now)
    else:
        election.heard_leader(r, now)


def check_contiguous(r: RaftState, sender: ServerId, index: Index, entries: tuple[Entry, ...]) -> None:
    """Entries on the wire have no gaps and rising stamps; a peer that sends others is at fault, not we."""
    stamp, term = -1, 0
    for entry in entries:
        if entry.index != index or entry.timestamp <= stamp or not term <= entry.term:
            raise WireError(
                f"server {sender} sent entry {entry[:4]} of group {r.group} out of line at {index}"
            )
        index, stamp, term = index + 1, entry.timestamp, entry.term


def _reject(r: RaftState, sender: ServerId, m: AppendEntries) -> None:
    hint = min(m.prev_index - 1, r.log.last_index)
    while hint > r.commit_index and (r.log.term_at(hint) or 0) > m.prev_term:
        hint -= 1
    hint = max(hint, r.commit_index)
    hint_term = r.log.term_at(hint) or 0
    r.probed = True
    r.send(sender, AppendRejected(r.group, r.term, m.prev_index, hint, hint_term))


def accept_entries(r: RaftState, sender: ServerId, entries: tuple[Entry, ...]) -> None:
    """Keep entries that agree, cut from the first that differs, append the rest (Raft 5.3, rule 3 and 4)."""
    for position, entry in enumerate(entries):
        term = r.log.term_at(entry.index)
        if term == entry.term:
            continue
        if not r.log.may_follow(entry):  # looked at before anything is cut for it
            raise WireError(
                f"server {sender} sent entry {entry[:4]} of group {r.group}, which cannot follow its log"
            )
        if term is not None:
            assert entry.index > r.commit_index, f"group {r.group}: truncating committed {entry.index}"
            mark("log cut")
            r.log.truncate_from(entry.index)
            r.verified = min(r.verified, entry.index - 1)
        r.log.append(entries[position:])
        membership.follow_log(r)
        break
    recheck_known_commit(r)


def acknowledge(r: RaftState) -> None:
    """Tell the leader what is durable and agrees; what is not durable yet stays due."""
    if not r.ack_due or r.leader_id is None or r.leads:
        return
    match = min(r.verified, r.log.persisted)
    if r.suspect:
        r.send(r.leader_id, SuspectAccepted(r.group, r.term, match, r.verified, r.incarnation))
    else:
        r.send(r.leader_id, AppendAccepted(r.group, r.term, match, r.verified))
    r.ack_due = r.log.persisted < r.verified


def handle_leader_persisted(r: RaftState, sender: ServerId, m: LeaderPersisted, now: int) -> None:
    """The leader's log is durable up to a place. Of another term it says nothing about the log we follow."""
    if m.term == r.term and r.leader_id == sender and not r.leads:
        election.heard_leader(r, now)
        r.leader_persisted = max(r.leader_persisted, m.index)
        infer_commit(r)


def infers_commits(r: RaftState, leader: ServerId, follower: ServerId) -> bool:
    """Are the two of them a quorum, and neither suspect? Among three servers they are."""
    progress = r.progress.get(follower)
    if r.suspicion or (progress is not None and progress.suspect):
        return False  # of the other's a follower need not know: a suspect leader vouches for nothing
    if not quorum.is_pair_quorum(r.configuration, leader, follower):
        return False
    if membership.counts(r, leader) and membership.counts(r, follower):
        return True
    counted = [server for server in (leader, follower) if membership.counts(r, server)]
    return quorum.is_quorum(r.configuration, counted)  # where one decides alone


def infer_commit(r: RaftState) -> None:
    """Raft 5.4.2, counted by a follower: an entry of this term that its leader and we hold durably.

    It is on a quorum's disks, each of which took it in this term. The leader would commit it at our
    acknowledgement, and by Raft's proof that nobody hears of it changes nothing. `verified` makes ours the
    leader's entry; `persisted` was written with or after the term, which is therefore durable too.
    """
    if r.leader_persisted <= r.commit_index or r.leads or r.leader_id is None or r.suspicion:
        return
    index = min(r.leader_persisted, r.verified, r.log.persisted)
    if index > r.commit_index and r.log.term_at(index) == r.term and infers_commits(r, r.leader_id, r.me):
        mark("commit inferred")
        _commit_to(r, index)


# -- commits, wherever they are learnt ------------------------------------------------------------


def _commit_to(r: RaftState, index: Index) -> None:
    assert r.commit_index < index <= r.log.last_index
    r.commit_index = index
    r.lacking_since = None


def advance_commit(r: RaftState, index: Index) -> None:
    """Everything up to `index` is committed and agrees with our log."""
    if index > r.commit_index:
        _commit_to(r, index)


def learn_commit(r: RaftState, sender: ServerId, index: Index, term: Term, now: int) -> None:
    """PROTOCOL 9: a peer knows the entry at `index` with `term` committed."""
    if index <= r.commit_index:
        return
    if r.log.term_at(index) == term:
        _commit_to(r, index)
        return
    mark("commit known and entry lacking")
    if index >= r.known_commit[0]:
        r.known_commit = (index, term, sender)
    if r.lacking_since is None:
        r.lacking_since = now


def recheck_known_commit(r: RaftState) -> None:
    """Entries have arrived: perhaps the one that a peer knows committed."""
    index, term, _ = r.known_commit
    if index > r.commit_index and r.log.term_at(index) == term:
        _commit_to(r, index)


def handle_fetch_result(r: RaftState, sender: ServerId, m: FetchResult, now: int) -> None:
    """PROTOCOL 9: a peer's committed entries, judged by the log as it is now, not as it was when asked."""
    if not m.entries or m.entries[0].index > r.commit_index + 1 or m.entries[-1].index <= r.commit_index:
        return
    check_contiguous(r, sender, m.entries[0].index, m.entries)
    if m.entries[-1].term > r.term:
        mark("term adopted from a fetched entry")
        # (†) An entry's term above ours is adopted first; the same write makes both durable.
        election.become_follower(r, m.entries[-1].term, None, now)
    elif r.leads and r.log.term_at(m.entries[-1].index) != m.entries[-1].term:
        mark("leader deposed by a fetched entry")
        # Raft 5.4.3: a leader has all that was committed before its term. Who lacks this was deposed unheard,
        # and must not cut the log that it leads by: it would write other entries at the places it has named.
        election.become_follower(r, r.term, None, now)
    mark("entries fetched from a peer")
    accept_entries(r, sender, tuple(entry for entry in m.entries if entry.index > r.commit_index))
    advance_commit(r, m.entries[-1].index)
