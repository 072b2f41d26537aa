"""One group's part in installing a snapshot: its log goes on behind the snapshot's cut.

Knows: one replica's state and the cut. Must not know: what the snapshot holds, other groups, I/O.

Invariants
- What lies at or below a cut is committed, so a log that reaches it and agrees there is kept, and so is one
  whose commit is beyond it; any other is discarded whole (Raft 7).
- The snapshot is durable before it is installed: a crash before the logs' own write finds it, and installs
  it again. So what is at the cut counts as persisted.
- A term in a cut above ours is adopted first, as that of a fetched entry is (PROTOCOL 9).

Reference: Raft 7; PROTOCOL 7.
"""

from __future__ import annotations

from craft.marks import mark
from craft.raft import election, membership
from craft.raft.state import RaftState
from craft.types import Cut, Start


def reaches(r: RaftState, cut: Cut) -> bool:
    """Does this log hold everything up to the cut, known to be committed?"""
    return r.commit_index >= cut.place.index


def install(r: RaftState, cut: Cut, now: int) -> Start | None:
    """Go on behind a snapshot's cut. Returns what storage must do, where the log is discarded."""
    term, index = cut.place
    if reaches(r, cut):
        return None
    if term > r.term:
        mark("term adopted from a snapshot")
        election.become_follower(r, term, None, now)
    start = None
    if r.log.term_at(index) == term:
        mark("log kept behind a snapshot")
    else:
        if r.leads:
            # Raft 5.4.3, as with fetched entries: who lacks what was committed was deposed unheard.
            mark("leader deposed by a snapshot")
            election.become_follower(r, r.term, None, now)
        mark("log discarded for a snapshot")
        r.log.reset(cut)
        r.verified = min(r.verified, index)
        membership.follow_log(r)
        start = Start(r.group, cut, keep=False)
    r.commit_index = index
    r.lacking_since = None
    return start
