"""What a leader knows about one follower's log.

Knows: indexes and bytes in flight. Must not know: messages, terms, time beyond the instants it is told.

Invariants
- `match < next`: so `next >= 1`.
- PROBE sends one message and waits for its answer; REPLICATE sends ahead of the answers, within a window of
  bytes; SNAPSHOT sends nothing, for what the follower needs next is compacted.
- `match` falls only where the follower itself says that it has lost what it held (PROTOCOL 10).
- `counted <= match`, and 0 while the follower is suspect.

Reference: etcd-io/raft `tracker`; Raft dissertation 10.2.1 (pipelining).
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from craft.types import Index


class ProgressState(Enum):
    """How a leader sends to one follower."""

    PROBE = 0
    REPLICATE = 1
    SNAPSHOT = 2


PROBE, REPLICATE, SNAPSHOT = ProgressState
"""Looking a member up costs more than comparing it, and these are asked for with every message."""


class Progress:
    """One follower, as its leader sees it."""

    __slots__ = (
        "active_at",
        "clears_at",
        "incarnation",
        "inflight",
        "inflight_bytes",
        "loading",
        "match",
        "moved_at",
        "next",
        "probed",
        "state",
        "suspect",
        "vouched",
    )

    def __init__(self, *, next_index: Index, now: int) -> None:
        self.state = PROBE
        self.match: Index = 0
        self.next: Index = next_index
        self.inflight: deque[tuple[Index, int]] = deque()
        self.inflight_bytes = 0
        self.probed = False
        self.loading = False  # older entries are being read back from disk for this follower
        self.active_at = now  # when it last answered in this term (CheckQuorum)
        self.moved_at = now  # when it last made progress, or was last sent something with nothing in flight
        self.suspect = False  # it may have lost what it held: what it says counts for nothing
        self.clears_at: Index = 0  # appended after it was heard: who holds this is trusted again
        self.incarnation = 0  # the suspect's; 0: it has not named itself
        self.vouched: Index = 0  # the most that it ever answered for while it was trusted

    @property
    def counted(self) -> Index:
        """What it holds durably, as far as that counts towards a quorum."""
        return 0 if self.suspect else self.match

    def doubt(self, clears_at: Index, incarnation: int) -> None:
        """It may have lost what it held, until it answers for an entry that was not appended before."""
        self.suspect, self.clears_at, self.incarnation = True, clears_at, incarnation

    def trusted_again(self, match: Index) -> bool:
        """It answers for everything up to `match`, and says that it is no suspect. Is that news?

        What an earlier incarnation said, or it itself before it knew of its loss, ends below `clears_at`.
        """
        news = self.suspect and match >= self.clears_at
        self.suspect = self.suspect and not news
        if not self.suspect:
            self.vouched = max(self.vouched, match)
        return news

    def become_probe(self) -> None:
        """Forget what is in flight and ask again: from the last match, or where it was probed before.

        A probe without an answer says nothing about `next`; going back to a match that is not known yet would
        send the whole log, and from a compacted one a snapshot.
        """
        if self.state is REPLICATE:
            self.next = self.match + 1
        self.state = PROBE
        self._forget_inflight()

    def become_replicate(self) -> None:
        """The follower's log agrees up to `match`: send ahead."""
        self.state = REPLICATE
        self.next = max(self.next, self.match + 1)
        self._forget_inflight()

    def become_snapshot(self) -> None:
        """What comes next is compacted here: only a snapshot helps (PROTOCOL 7)."""
        self.state = SNAPSHOT
        self._forget_inflight()

    def leave_snapshot(self, next_index: Index) -> None:
        """The follower has what it lacked, from a snapshot or from a peer: ask how far it is."""
        self.state = PROBE
        self.next = max(next_index, self.match + 1)

    def _forget_inflight(self) -> None:
        self.inflight.clear()
        self.inflight_bytes = 0
        self.probed = self.loading = False

    def sent(self, last_index: Index, size: int, now: int) -> None:
        """An append that ends at `last_index` has been sent."""
        if self.state is PROBE:
            self.probed = True
            self.moved_at = now
            return
        if not size:
            return
        if not self.inflight:
            self.moved_at = now
        self.next = last_index + 1
        self.inflight.append((last_index, size))
        self.inflight_bytes += size

    def accepted(self, match: Index, verified: Index, now: int) -> bool:
        """The follower holds everything up to `match` durably, and received up to `verified`. Did it move?"""
        moved = match > self.match
        self.active_at = now
        if moved:
            self.match, self.moved_at = match, now
        if self.state is not REPLICATE:
            self.become_replicate()
            self.next = max(verified, self.match) + 1
            return moved
        if self.next <= self.match:
            self.next = self.match + 1
        inflight = self.inflight
        while inflight and inflight[0][0] <= self.match:
            self.inflight_bytes -= inflight.popleft()[1]
        return moved

    def rejected(self, rejected_index: Index, hint: Index, now: int) -> bool:
        """The follower has no match at `rejected_index`; go back to after `hint`. Was it news?"""
        self.active_at = now
        if self.state is REPLICATE:
            if rejected_index <= self.match:
                return False
            self.become_probe()
            return True
        if self.state is SNAPSHOT or rejected_index != self.next - 1:
            return False
        self.next = max(min(rejected_index, hint + 1), self.match + 1)
        self.probed = False
        return True

    def waiting(self) -> bool:
        """Is an answer outstanding?

        While sending ahead: for whatever is not matched, be it in flight, or received and not yet durable.
        """
        if self.state is REPLICATE:
            return self.match < self.next - 1
        return self.probed
