"""One example of everything that servers say to each other, with values that tell fields apart."""

from __future__ import annotations

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
from craft.types import Configuration, EntryKind, Place, Proposal, SnapshotId, make_entry
from craft.wire import MAGIC, Hello, Refusal, Welcome

STAMP = 1_700_000_000_000_000_000
DISK, NONCE = "477b435f5ca352ff89e48278e1b5259b", bytes(range(16))
ENTRIES = (
    make_entry(1, index=12, term=3, timestamp=STAMP, kind=EntryKind.COMMAND, payload=b"commands"),
    make_entry(1, index=13, term=4, timestamp=STAMP + 1, kind=EntryKind.EMPTY),
)
CONFIGURATION = Configuration(
    frozenset({1, 2}), frozenset({2, 3}), frozenset({4}), version=9, disks=((1, DISK), (2, "a" * 32))
)
PROPOSAL = Proposal(
    server_id=2, counter=5, request=300, answered_below=298, answered_timestamp=STAMP, body=b"\x91\xc4\x01x"
)
REPORT = GroupReport(Place(3, 12), Place(4, 13), Place(2, 7), CONFIGURATION, suspect=True)

MESSAGES: tuple[Message, ...] = (
    RequestVote(1, 4, 13, 3, pre=True, transfer=False),
    RequestVoteResult(1, 4, granted=True, pre=False, suspect=True),
    AppendEntries(1, 4, 11, 3, 10, ENTRIES),
    AppendAccepted(1, 4, 13, 14),
    SuspectAccepted(1, 4, 13, 14, 77),
    AppendRejected(1, 4, 11, 9, 2),
    LeaderPersisted(1, 4, 13),
    Suspected(1, 4, 77),
    Cleared(1, 77, 4, 15),
    Doubted(1, 4, 13, 3),
    TimeoutNow(1, 4, 600_000),
    Heartbeats(8, ((0, 3), (1, 4)), 7, ((2, 5),)),
    Fetch(1, 12),
    FetchResult(1, ENTRIES),
    Forward(1, (PROPOSAL,)),
    ForwardRefused(1, 5, (300, 301)),
    ReadQuery(21),
    SnapshotWanted(22, 33),
    SnapshotOffer(SnapshotId(23, 24), 25, (26, 27, 28)),
    SnapshotFetch(SnapshotId(23, 24), 29, 30),
    SnapshotChunk(SnapshotId(23, 24), 29, 31, b"piece"),
    SnapshotInstalled(32),
    ReadReport(21, (REPORT,)),
    CaughtUp(((0, (1, 2)), (1, (3,)))),
)

FRAMES = {
    type(message).__name__: Frame(STAMP, 101, 99, 2, STAMP - 5, (1, 3), ((0, 9, 2), (1, 13, 4)), (message,))
    for message in MESSAGES
}
HANDSHAKES: dict[str, Hello | Welcome | Refusal] = {
    "Hello": Hello(MAGIC, 1, "peer", "orders", 2, DISK, 4, NONCE, "127.0.0.1:8002"),
    "Welcome": Welcome(MAGIC, 1, "orders", 1, DISK, 4, NONCE),
    "Refusal": Refusal("the cluster is another"),
}
