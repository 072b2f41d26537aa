"""The merge: committed entries of all groups, put into one order by `(timestamp, group)`.

Knows: per group the entries that are committed and durable here, in the group's own order. Must not know:
roles, terms, clocks, sessions.

Invariants
- `closed[g]` is the timestamp of the last entry of `g` that was extended, or of an installed snapshot's cut,
  and nothing else raises it (PROTOCOL 3): no uncommitted entry, no silence, no clock.
- What has been drained is never preceded by what is drained later: whatever the order of `extend` calls
  across groups, the sequences that two mergers drain are prefixes of one another.

Reference: PROTOCOL 3. Concatenating runs in group order and one stable sort beats a heap: the runs are found,
and stability is the tie-break by group.
"""

from __future__ import annotations

from collections import deque
from operator import itemgetter

from craft.types import Entry, GroupId, Index, Timestamp, is_command

_by_timestamp = itemgetter(0)

UNBOUNDED = 2**63


class Merger:
    """Holds what is committed and not yet safe."""

    __slots__ = ("_first", "_queues", "bytes", "closed")

    def __init__(self, groups: int) -> None:
        assert groups > 0
        self.closed: list[Timestamp] = [0] * groups
        self.bytes = 0  # command entries held back
        self._queues: list[deque[Entry]] = [deque() for _ in range(groups)]
        self._first: Timestamp | None = None  # the least timestamp held back

    def extend(self, group: GroupId, entries: tuple[Entry, ...]) -> None:
        """The next entries of a group, committed and durable here.

        Entries that are no commands only close.
        """
        queue = self._queues[group]
        closed = self.closed[group]
        for entry in entries:
            # PROTOCOL 2: stamps rise strictly within a group, so this closes everything before it.
            assert entry.timestamp > closed or closed == 0, f"group {group} closed {closed}, then {entry[:4]}"
            closed = entry.timestamp
            if is_command(entry.kind):
                if not queue and (self._first is None or entry.timestamp < self._first):
                    self._first = entry.timestamp
                queue.append(entry)
                self.bytes += len(entry.record)
        self.closed[group] = closed

    def install(self, group: GroupId, index: Index, closed: Timestamp) -> None:
        """A snapshot holds everything of a group up to `index`, which closes it: go on behind that.

        What of it is held back here is dropped.
        """
        queue = self._queues[group]
        while queue and queue[0].index <= index:
            self.bytes -= len(queue.popleft().record)
        self.closed[group] = max(self.closed[group], closed)
        self._first = min((queue[0].timestamp for queue in self._queues if queue), default=None)

    @property
    def safe(self) -> Timestamp:
        """No entry that is merged later will be stamped at or below this."""
        return min(self.closed)

    @property
    def blocking(self) -> GroupId:
        """The group for which everyone waits."""
        return self.closed.index(min(self.closed))

    @property
    def drainable(self) -> bool:
        """Would `drain` hand out anything?"""
        return self._first is not None and self._first <= min(self.closed)

    def held(self, group: GroupId) -> int:
        """How many command entries of a group are held back."""
        return len(self._queues[group])

    def first_held(self, group: GroupId) -> Index | None:
        """The index of the first command entry of a group that is held back."""
        queue = self._queues[group]
        return queue[0].index if queue else None

    def drain(self, bytes_max: int = UNBOUNDED) -> list[tuple[Timestamp, GroupId, Entry]]:
        """Command entries at or below the safe timestamp, in `(timestamp, group)` order.

        Stops after about `bytes_max` (at least one entry); what is left comes with the next call.
        """
        safe = min(self.closed)
        if not self.drainable:
            return []
        run: list[tuple[Timestamp, GroupId, Entry]] = []
        for group, queue in enumerate(self._queues):
            # No group gives more than all may: behind that its entries come after more than `bytes_max`. A
            # restart that is far behind would else take out and put back all that it has read, every time.
            taken = 0
            while queue and queue[0].timestamp <= safe and taken <= bytes_max:
                entry = queue.popleft()
                taken += len(entry.record)
                run.append((entry.timestamp, group, entry))
            self.bytes -= taken
        run.sort(key=_by_timestamp)
        self._put_back(run, bytes_max)
        self._first = min((queue[0].timestamp for queue in self._queues if queue), default=None)
        return run

    def _put_back(self, run: list[tuple[Timestamp, GroupId, Entry]], bytes_max: int) -> None:
        """Cut a run behind its first `bytes_max`, and hold the rest back again, each group's in its order."""
        taken = 0
        for count, (_, _, entry) in enumerate(run):
            taken += len(entry.record)
            if taken > bytes_max and count:
                break
        else:
            return
        for _, group, entry in reversed(run[count:]):
            self._queues[group].appendleft(entry)
            self.bytes += len(entry.record)
        del run[count:]
