"""Hypothesis strategies for everything that travels: each draws what a correct server could have sent."""

from __future__ import annotations

from hypothesis import strategies as st

from craft.messages import (
    AppendAccepted,
    AppendEntries,
    AppendRejected,
    CaughtUp,
    Cleared,
    Doubted,
    Fetch,
    FetchResult,
    Forward,
    ForwardRefused,
    Frame,
    GroupReport,
    Heartbeats,
    LeaderPersisted,
    Message,
    ReadQuery,
    ReadReport,
    RequestVote,
    RequestVoteResult,
    SnapshotChunk,
    SnapshotFetch,
    SnapshotInstalled,
    SnapshotOffer,
    SnapshotWanted,
    SuspectAccepted,
    Suspected,
    TimeoutNow,
)
from craft.types import (
    GROUPS_MAX,
    SERVER_ID_MAX,
    Configuration,
    Entry,
    EntryKind,
    Place,
    Proposal,
    SnapshotId,
    make_entry,
    pack_configuration,
)

NUMBER_MAX = 2**63 - 1

numbers = st.integers(0, NUMBER_MAX) | st.integers(0, 300)
groups = st.integers(0, GROUPS_MAX - 1)
server_ids = st.integers(0, SERVER_ID_MAX)
places = st.builds(Place, numbers, numbers)
bodies = st.binary(max_size=40)
snapshot_ids = st.builds(SnapshotId, numbers, numbers)
server_sets = st.frozensets(server_ids, max_size=5)
disk_ids = st.text("0123456789abcdef", max_size=32)
bound_disks = st.dictionaries(server_ids, disk_ids, max_size=5).map(
    lambda disks: tuple(sorted(disks.items()))
)
configurations = st.builds(Configuration, server_sets, server_sets, server_sets, numbers, bound_disks)
proposals = st.builds(Proposal, server_ids, numbers, numbers, numbers, numbers, bodies)
group_terms = st.lists(st.tuples(groups, numbers), max_size=5).map(tuple)


@st.composite
def entry_runs(draw: st.DrawFn, group: int, before: Place) -> tuple[Entry, ...]:
    """Entries of one log behind `before`: contiguous, terms not falling, stamps rising."""
    term, timestamp = max(before.term, 1), 0
    entries = []
    for offset in range(draw(st.integers(0, 4))):
        term += draw(st.integers(0, 2))
        timestamp += draw(st.integers(1, 2**40))
        kind = draw(st.sampled_from(EntryKind))
        packed = configurations.map(pack_configuration)
        entries.append(
            make_entry(
                group,
                index=before.index + 1 + offset,
                term=term,
                timestamp=timestamp,
                kind=kind,
                payload=draw(packed if kind is EntryKind.CONFIGURATION else bodies),
            )
        )
    return tuple(entries)


@st.composite
def append_entries(draw: st.DrawFn) -> AppendEntries:
    group = draw(groups)
    before = Place(draw(st.integers(0, 2**40)), draw(st.integers(0, 2**40)))
    entries = draw(entry_runs(group, before))
    term = (entries[-1].term if entries else before.term) + draw(st.integers(0, 3))
    return AppendEntries(group, term, before.index, before.term, draw(numbers), entries)


@st.composite
def fetch_results(draw: st.DrawFn) -> FetchResult:
    group = draw(groups)
    return FetchResult(group, draw(entry_runs(group, Place(0, draw(st.integers(0, 2**40))))))


BY_TYPE: dict[type[Message], st.SearchStrategy[Message]] = {
    RequestVote: st.builds(RequestVote, groups, numbers, numbers, numbers, st.booleans(), st.booleans()),
    RequestVoteResult: st.builds(
        RequestVoteResult, groups, numbers, st.booleans(), st.booleans(), st.booleans()
    ),
    AppendEntries: append_entries(),
    AppendAccepted: st.builds(AppendAccepted, groups, numbers, numbers, numbers),
    LeaderPersisted: st.builds(LeaderPersisted, groups, numbers, numbers),
    SuspectAccepted: st.builds(SuspectAccepted, groups, numbers, numbers, numbers, numbers),
    Suspected: st.builds(Suspected, groups, numbers, numbers),
    Cleared: st.builds(Cleared, groups, numbers, numbers, numbers),
    Doubted: st.builds(Doubted, groups, numbers, numbers, numbers),
    AppendRejected: st.builds(AppendRejected, groups, numbers, numbers, numbers, numbers),
    TimeoutNow: st.builds(TimeoutNow, groups, numbers, numbers),
    Heartbeats: st.builds(Heartbeats, numbers, st.none() | group_terms, numbers, group_terms),
    Fetch: st.builds(Fetch, groups, numbers),
    FetchResult: fetch_results(),
    Forward: st.builds(Forward, groups, st.lists(proposals, max_size=3).map(tuple)),
    ForwardRefused: st.builds(ForwardRefused, groups, numbers, st.lists(numbers, max_size=4).map(tuple)),
    CaughtUp: st.builds(
        CaughtUp, st.lists(st.tuples(groups, st.lists(server_ids).map(tuple)), max_size=4).map(tuple)
    ),
    ReadQuery: st.builds(ReadQuery, numbers),
    ReadReport: st.builds(
        ReadReport,
        numbers,
        st.lists(
            st.builds(GroupReport, places, places, places, configurations, st.booleans()), max_size=3
        ).map(tuple),
    ),
    SnapshotWanted: st.builds(SnapshotWanted, numbers, numbers),
    SnapshotOffer: st.builds(SnapshotOffer, snapshot_ids, numbers, st.lists(numbers, max_size=3).map(tuple)),
    SnapshotFetch: st.builds(SnapshotFetch, snapshot_ids, numbers, numbers),
    SnapshotChunk: st.builds(SnapshotChunk, snapshot_ids, numbers, numbers, bodies),
    SnapshotInstalled: st.builds(SnapshotInstalled, numbers),
}
messages = st.one_of(*BY_TYPE.values())
frames = st.builds(
    Frame,
    numbers,
    numbers,
    numbers,
    numbers,
    numbers,
    st.lists(server_ids, max_size=4).map(tuple),
    st.lists(st.tuples(groups, numbers, numbers), max_size=4).map(tuple),
    st.lists(messages, max_size=4).map(tuple),
)
plain_values: st.SearchStrategy[object] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(max_size=10)
    | st.binary(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4).map(tuple) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=10,
)
