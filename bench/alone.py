"""Two parts of the engine by themselves: Raft's replication of one group, and the merge of several.

Pure but for the clock that times them. Entries carry as many bytes as calls of that size make.
"""

from __future__ import annotations

import random
from time import perf_counter_ns

from craft.limits import EngineLimits
from craft.merge import Merger
from craft.messages import Message
from craft.raft import Raft, replication
from craft.types import (
    Configuration,
    Entry,
    EntryKind,
    GroupId,
    Index,
    Place,
    ServerId,
    empty_recovered,
    make_entry,
)

SECOND_NS = 1_000_000_000
RUN = 8
"""Entries of a group that are committed at a time: `uncommitted_entries_max`, when it is busy."""

SERVERS = (1, 2, 3)


class Replica:
    """One replica with a disk that is always done, as in `examples/04_sans_io.py`."""

    def __init__(self, server_id: ServerId) -> None:
        voters = Configuration(voters=frozenset(SERVERS))
        blank, rng = empty_recovered(1).groups[0], random.Random(server_id)
        self.raft = Raft(0, server_id, voters, blank, limits=EngineLimits(), rng=rng, gone=set(), now=0)
        self.writes = self.announced = 0

    def turn(self, now: int) -> list[tuple[ServerId, Message | Place]]:
        """Replicate, make durable, and say what is to be said: messages, and what is committed."""
        state = self.raft.state
        if state.leads:
            replication.replicate(state, now)
        append = self.raft.take_append(self.writes + 1)
        if append is not None or state.hard_dirty:
            self.writes += 1
            state.hard_dirty, state.hard_write = False, self.writes
            self.raft.persisted(self.writes, now)
        said: list[tuple[ServerId, Message | Place]] = list(state.outbox)
        state.outbox = []
        if state.leads and state.commit_index > self.announced:
            said += [(peer, state.commit_place) for peer in state.peers()]
            self.announced = state.commit_index
        return said


def deliver(replicas: dict[ServerId, Replica], now: int) -> None:
    """Until nobody has more to say."""
    due = list(replicas)
    while due:
        said = [(one, to, content) for one in due for to, content in replicas[one].turn(now)]
        for sender, to, content in said:
            raft = replicas[to].raft
            if isinstance(content, Place):
                replication.learn_commit(raft.state, sender, content.index, content.term, now)
            else:
                raft.step(sender, content, now)
        due = sorted({to for _, to, _ in said})


def raft_alone(payload: bytes, entries: int) -> tuple[float, int]:
    """Nanoseconds an entry from its append to its commit on three replicas, all their work together.

    And how many are committed everywhere, that of the election among them.
    """
    now = SECOND_NS
    replicas = {one: Replica(one) for one in SERVERS}
    leader = replicas[1].raft
    leader.tick(now)
    deliver(replicas, now)
    assert leader.state.leads and leader.state.noop_due
    leader.state.noop_due = False
    replication.append(leader.state, EntryKind.EMPTY, now, b"")
    deliver(replicas, now)
    started = perf_counter_ns()
    for number in range(1, entries + 1):
        replication.append(leader.state, EntryKind.COMMAND, now + number, payload)
        deliver(replicas, now)
    took = perf_counter_ns() - started
    return took / entries, min(one.raft.state.commit_index for one in replicas.values())


def merge_alone(payload: bytes, entries: int, groups: int = 3) -> tuple[float, int]:
    """Nanoseconds an entry, from its commit to its place in the merged order; and how many got one.

    Every group's stamps lie between the others', so that each run has to be sorted in. An empty entry of each
    group closes the last of them.
    """
    each = entries // groups
    runs = [
        [
            tuple(_entry(group, index, groups, EntryKind.COMMAND, payload) for index in indexes)
            for group in range(groups)
        ]
        for indexes in (range(first, min(first + RUN, each + 1)) for first in range(1, each + 1, RUN))
    ]
    runs.append([(_entry(group, each + 1, groups, EntryKind.EMPTY, b""),) for group in range(groups)])
    merger = Merger(groups)
    merged = 0
    started = perf_counter_ns()
    for run in runs:
        for group, some in enumerate(run):
            merger.extend(group, some)
        merged += len(merger.drain())
    took = perf_counter_ns() - started
    return took / max(merged, 1), merged


def _entry(group: GroupId, index: Index, groups: int, kind: EntryKind, payload: bytes) -> Entry:
    timestamp = index * groups + group
    return make_entry(group, index=index, term=1, timestamp=timestamp, kind=kind, payload=payload)
