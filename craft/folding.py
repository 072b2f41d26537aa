"""What a merged entry comes to: its position, and for each of its requests an effect or none.

The engine folds what it merges, and a reader of the logs folds it once more (`craft.remerging`): the same
code, so the same positions, the same digests and the same duplicates dropped.

Knows: the merged log, entry by entry, and the sessions as of its last one. Must not know: who merges, roles,
storage, who waits.

Invariants
- A position counts command entries in merged order; equal positions mean equal histories, which `digest`
  shows.
- Sessions change here and nowhere else, in merged order (PROTOCOL 5).
- What an entry comes to depends on the entries before it alone.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Protocol, TypeAlias

from craft.client_sessions import TAGGED, ClientSessions
from craft.membership import TAG as MEMBERS
from craft.membership import Members
from craft.ready import Judged, MembersTold, Merged, Request, Verdict
from craft.sessions import NONCE_BYTES, OPEN, Opened, Sessions, decode_payload
from craft.types import RECORD_HEADER_BYTES, Entry, GroupId, Position, Proposal, Timestamp

DIGEST_BYTES = 16


class Folded(Protocol):
    """The merged log up to `merged_position`, as far as it decides what comes next."""

    merged_position: Position
    digest: bytes
    sessions: Sessions
    clients: ClientSessions
    members: Members


Settle: TypeAlias = Callable[[Proposal], Any]
"""A request that is merged for the first time: whose it was, or None."""

NoteOpened: TypeAlias = Callable[[Proposal, Opened], None]
"""What a server's `open` came to."""


class Fold:
    """A `Folded` of its own: from the beginning, or from what a snapshot says."""

    __slots__ = ("clients", "digest", "members", "merged_position", "sessions")

    def __init__(self) -> None:
        self.merged_position: Position = 0
        self.digest = bytes(DIGEST_BYTES)
        self.sessions = Sessions()
        self.clients = ClientSessions()
        self.members = Members()


def nobodys(_: Proposal) -> None:
    """Nobody waits for a request that is read once more."""


def unnoted(_: Proposal, __: Opened) -> None:
    """Nor for a session that was opened then."""


def fold(
    state: Folded,
    group: GroupId,
    entry: Entry,
    settle: Settle = nobodys,
    note_opened: NoteOpened = unnoted,
) -> Merged:
    """Give the next entry of the merged log its position, and its requests their effect or none."""
    timestamp = entry.timestamp
    state.merged_position += 1
    header = entry.record[:RECORD_HEADER_BYTES]  # it carries the checksum of the whole record
    state.digest = blake2b(header, digest_size=DIGEST_BYTES, key=state.digest).digest()
    requests: list[Request] = []
    members: list[MembersTold] = []
    clients = state.clients.expire(timestamp) if timestamp > state.clients.expires else []
    for proposal in decode_payload(entry.payload):
        if proposal.request == OPEN:
            note_opened(proposal, _open(state, proposal))
        elif state.sessions.admit(proposal):
            token = settle(proposal)
            if proposal.body.startswith(MEMBERS):
                error = state.members.apply(proposal.body)
                members.append(MembersTold(token, state.members.version, error))
            elif proposal.body.startswith(TAGGED):
                clients.append(_judge(state, token, proposal.body, timestamp, requests))
            else:
                requests.append(Request(token, proposal.body))
    return Merged(
        state.merged_position,
        timestamp,
        group,
        entry.index,
        entry.kind,
        tuple(requests),
        tuple(clients),
        tuple(members),
        entry.term,
    )


def _open(state: Folded, proposal: Proposal) -> Opened:
    """A server's session; it tells the disk that lives under the id, if none is known yet (PROTOCOL 8).

    Told again it counts too: who is wanted anew while it runs has opened its session long ago.
    """
    opened = state.sessions.open(proposal.server_id, proposal.counter, proposal.body)
    if opened is not Opened.REFUSED and len(proposal.body) > NONCE_BYTES:
        state.members.bind(proposal.server_id, proposal.body[NONCE_BYTES:].decode("ascii", "replace"))
    return opened


def _judge(state: Folded, token: Any, tagged: bytes, timestamp: Timestamp, requests: list[Request]) -> Judged:
    """A remote client's request, admitted in its server's session, in its own."""
    judged, body = state.clients.judge(token, tagged, position=state.merged_position, timestamp=timestamp)
    if judged.verdict is Verdict.EXECUTED:
        judged = judged._replace(part=len(requests))
        requests.append(Request(None, body))
    return judged
