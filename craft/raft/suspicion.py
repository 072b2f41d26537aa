"""Suspects: replicas that may have lost a synced tail of their log, and how they come to be trusted again.

Knows: one replica's state. Must not know: disks, and why a tail is thought to be missing.

Invariants
- A suspect vouches for nothing: its vote counts only where every voter grants, its acknowledgements have a
  type of their own that no leader counts, it infers no commit, and no leader hands over to it.
- A suspicion ends only in, or after, the write that makes an entry durable which vouches for the whole log:
  one that the leader appended after it heard this very incarnation, or the farthest that a former leader of
  the suspect's own term ever counted on it, at or past its no-op. By log matching all before it is there.
- Terms and votes are not in doubt: their second, synced place proves them, or the directory is refused. So a
  suspect is in no lower term than any that it has ever voted or acknowledged in, and what it acknowledged in
  its own term was said to that term's one leader.

Reference: PROTOCOL 10 (†, torn or damaged); attacks 13 and 20 on it.
"""

from __future__ import annotations

from craft.marks import mark
from craft.messages import AppendRejected, Cleared, Doubted, Suspected
from craft.raft.progress import ProgressState
from craft.raft.state import FormerLead, RaftState
from craft.types import NOWHERE, Index, Place, ServerId

# -- the suspect's side ---------------------------------------------------------------------------


def ask(r: RaftState) -> None:
    """Ask what ends the suspicion: the leader; where none is known, whoever may have been the last one."""
    if r.suspect and not r.leads:
        for peer in r.peers() if r.leader_id is None else [r.leader_id]:
            r.send(peer, Suspected(r.group, r.term, r.incarnation))


def handle_cleared(r: RaftState, _sender: ServerId, m: Cleared, _now: int) -> None:
    """This incarnation is trusted again once it holds that entry."""
    if not r.suspect or m.incarnation != r.incarnation or m.term != r.term:
        mark("clearing of another incarnation or term ignored")
        return
    r.clears_at = Place(m.term, m.index)


def trust(r: RaftState) -> None:
    """The operator knows that nothing is missing: the next write ends the suspicion."""
    if r.suspect:
        mark("suspect cleared by hand")
        r.clears_at = NOWHERE


def take_end(r: RaftState, write: int) -> bool:
    """Does write number `write`, which carries all of the log that is not durable yet, end the suspicion?

    A log that ends in a later term was taken from a later leader, who holds all that was committed before.
    """
    if not r.suspect or r.clears_at is None or r.clearing_write:
        return False
    if Place(r.log.last_term, r.log.last_index) < r.clears_at:
        return False
    r.clearing_write = write
    return True


def written(r: RaftState, write: int) -> bool:
    """Everything up to that write is durable: has it ended the suspicion?"""
    if not 0 < r.clearing_write <= write:
        return False
    mark("suspicion ended")
    r.suspicion, r.clears_at, r.clearing_write = "", None, 0
    r.ack_due = r.leader_id is not None  # what was said as a suspect counts for nothing: say it again
    return True


def handle_doubted(r: RaftState, sender: ServerId, m: Doubted, _now: int) -> None:
    """The leader has counted an entry here, and we have just refused what follows it. Is it missing?

    What this term's leader was told stays in the log for as long as the term lasts. So where it is not there,
    it was lost, and nobody noticed: from now on, and before anything else is said, this replica is suspect.
    """
    if m.term != r.term or r.leader_id != sender or r.suspect or _holds(r, m):
        return
    mark("suspect by a leader's word")
    r.suspicion = (
        f"server {sender}, the leader of term {m.term}, had counted entry {m.index}, which is missing"
    )
    # `hard_dirty` holds back all that this group says until the write is durable.
    r.suspicion_due = r.hard_dirty = True


def _holds(r: RaftState, m: Doubted) -> bool:
    term = r.log.term_at(m.index)
    known = term == m.index_term or not m.index_term or m.index <= r.commit_index
    return r.log.persisted >= m.index and known


# -- the leader's side ----------------------------------------------------------------------------


def lead(r: RaftState) -> None:
    """This replica leads a new term. Its own no-op clears it: whoever led has all that was committed."""
    r.noop_index, r.told_durable, r.clearing_due = r.log.last_index + 1, 0, False
    if r.suspect:
        r.clears_at = Place(r.term, r.noop_index)


def resign(r: RaftState) -> None:
    """It leads no longer: remember how far the others' logs may have counted in this term.

    By their acknowledgements; and a follower that is a quorum with us counts by itself what it holds of that
    which it was told to be durable here, acknowledged or not.
    """
    counted = {peer: max(progress.vouched, r.told_durable) for peer, progress in r.progress.items()}
    r.former = FormerLead(r.term, r.noop_index, counted)


def handle_suspected(r: RaftState, sender: ServerId, m: Suspected, _now: int) -> None:
    """A suspect asks what clears it."""
    if r.leads and sender in r.progress and m.term <= r.term:
        heard_suspect(r, sender, m.incarnation)
    elif r.former is not None and not r.leads and m.term == r.former.term and not r.suspect:
        index = r.former.counted.get(sender, 0)
        if index >= r.former.noop_index:
            mark("suspect cleared by a former leader")
            r.send(sender, Cleared(r.group, m.incarnation, m.term, index))


def heard_suspect(r: RaftState, sender: ServerId, incarnation: int) -> None:
    """A follower is suspect. What it answered for before counts no more; the next entry clears it."""
    progress = r.progress[sender]
    if not progress.suspect or progress.incarnation != incarnation:
        progress.doubt(r.log.last_index + 1, incarnation)
    r.clearing_due = r.clearing_due or progress.clears_at > r.log.last_index
    r.send(sender, Cleared(r.group, incarnation, r.term, progress.clears_at))


def note_rejected(r: RaftState, sender: ServerId, m: AppendRejected) -> None:
    """Does a follower refuse what it has acknowledged? Then it has lost it, as far as it tells.

    Only the answer to a probe at that very place says so: an older refusal may come late.
    """
    progress = r.progress[sender]
    if not (0 < progress.match == m.rejected_index == progress.next - 1) or (
        progress.state is not ProgressState.PROBE
    ):
        return
    mark("follower lost what it acknowledged")
    acknowledged: Index = progress.match
    if not progress.suspect:
        progress.doubt(r.log.last_index + 1, 0)
        r.clearing_due = True
        term = r.log.term_at(acknowledged) or 0
        r.send(sender, Doubted(r.group, r.term, acknowledged, term))
    progress.match = 0
