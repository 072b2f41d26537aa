"""The fold: what merged entries come to, whoever folds them."""

from __future__ import annotations

from craft.client_sessions import OpenTag, RequestTag, encode_tagged
from craft.folding import Fold, fold
from craft.membership import Add, Members, Remove, encode_changes
from craft.ready import Merged, Verdict
from craft.sessions import OPEN, encode_payload
from craft.types import EntryKind, Proposal, make_entry

SESSION = bytes(16)


def merged(state: Fold, *proposals: Proposal, index: int = 1) -> Merged:
    """The next entry of the merged log, with these proposals."""
    payload = encode_payload(list(proposals))
    entry = make_entry(0, index=index, term=1, timestamp=index, kind=EntryKind.COMMAND, payload=payload)
    return fold(state, 0, entry)


def request(number: int, body: bytes = b"\x91\xc4\x01a", *, counter: int = 1) -> Proposal:
    """A request of server 1."""
    return Proposal(1, counter, number, 1, 0, body)


def test_a_request_takes_effect_once_and_only_in_an_open_session() -> None:
    """Positions go on over entries without any effect."""
    state = Fold()
    assert merged(state, request(1)).requests == ()
    assert merged(state, request(OPEN, b"n" * 16), request(1), index=2).requests[0].body == b"\x91\xc4\x01a"
    again = merged(state, request(1), request(2), index=3)
    assert [one.token for one in again.requests] == [None]
    assert (again.position, state.merged_position) == (3, 3)


def test_two_folds_of_one_log_agree_and_two_logs_show_it() -> None:
    """The digest is of everything before: one other entry changes all that follow."""
    one, two, three = Fold(), Fold(), Fold()
    for state, body in ((one, b"\x90"), (two, b"\x90"), (three, b"\x91\xc4\x01b")):
        merged(state, request(OPEN, b"n" * 16), request(1, body))
        merged(state, request(2), index=2)
    assert one.digest == two.digest != three.digest


def test_a_clients_request_is_judged_in_its_own_session() -> None:
    """It is repeated through another request of the server, and takes effect once."""
    state = Fold()
    opened = merged(
        state, request(OPEN, b"n" * 16), request(1, encode_tagged(OpenTag(SESSION, 1000)))
    ).clients[0]
    tagged = encode_tagged(RequestTag(SESSION, opened.opened, 1, 1), b"\x91\xc4\x01c")
    entry = merged(state, request(2, tagged), request(3, tagged), index=2)
    assert [judged.verdict for judged in entry.clients] == [Verdict.EXECUTED, Verdict.REPEATED]
    assert [one.body for one in entry.requests] == [b"\x91\xc4\x01c"]


def test_a_session_that_is_told_again_binds_its_disk_and_keeps_its_requests() -> None:
    """Who was removed and is wanted again while it runs opens no session; a former disk's binds nothing."""
    state = Fold()
    state.members = Members([1])
    first, later = b"n" * 16 + b"disk1", b"m" * 16 + b"disk2"
    wanted = encode_changes([Remove(1), Add(2, "two:1")]), encode_changes([Add(1, "one:1")])
    merged(state, request(OPEN, first), request(1, wanted[0]), request(2, wanted[1]))
    assert state.members.disks() == {1: "", 2: ""}
    merged(state, request(OPEN, later, counter=0), request(OPEN, later), index=2)
    assert state.members.disks()[1] == ""
    merged(state, request(OPEN, first), request(2), index=3)
    assert state.members.disks()[1] == "disk1"
    assert merged(state, request(3), index=4).requests
