"""Sessions: every request takes effect exactly once, however often and in whatever order it is merged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craft.sessions import NONCE_BYTES, OPEN, Opened, Sessions, decode_payload, encode_payload
from craft.types import Proposal

SERVER = 4
A, B = b"a" * NONCE_BYTES, b"b" * NONCE_BYTES


def request(number: int, *, counter: int = 7, below: int = 1, server: int = SERVER) -> Proposal:
    return Proposal(server, counter, number, below, 0, b"")


def opened(counter: int = 7) -> Sessions:
    sessions = Sessions()
    assert sessions.open(SERVER, counter, A) is Opened.OPENED
    return sessions


# -- opening -------------------------------------------------------------------------------------------


def test_a_session_is_never_created_implicitly() -> None:
    """(†) A request of a session that was never opened has no effect (protocol attack 3)."""
    sessions = Sessions()
    assert not sessions.admit(request(1))
    assert sessions.current(SERVER) is None
    assert sessions.highest(SERVER) == 0


def test_a_higher_counter_ends_the_lower_session() -> None:
    """A delayed copy of the predecessor's request, merged after the successor opened, has no effect."""
    sessions = opened(7)
    assert sessions.admit(request(1, counter=7))
    assert sessions.open(SERVER, 8, B) is Opened.OPENED
    assert not sessions.admit(request(1, counter=7))
    assert not sessions.admit(request(2, counter=7))
    assert sessions.admit(request(1, counter=8))


def test_requests_of_a_session_that_is_not_yet_open_have_no_effect() -> None:
    """A higher counter takes effect at its own place, not before."""
    sessions = opened(7)
    assert not sessions.admit(request(1, counter=8))
    assert sessions.admit(request(1, counter=7))


@pytest.mark.parametrize(
    ("counter", "nonce", "result"),
    [
        (6, A, Opened.REFUSED),
        (7, B, Opened.REFUSED),
        (7, A, Opened.REPEATED),
        (8, A, Opened.OPENED),
    ],
    ids=["a lower counter", "another process under the number", "the same open again", "a successor"],
)
def test_an_open_has_one_of_three_outcomes(counter: int, nonce: bytes, result: Opened) -> None:
    """A lower counter never opens again, nor an equal one with another nonce: that process ends."""
    sessions = opened(7)
    assert sessions.open(SERVER, counter, nonce) is result
    assert sessions.highest(SERVER) == max(7, counter)


def test_a_repeated_open_forgets_nothing() -> None:
    """A duplicate of an open must not empty the window: its requests would take effect again."""
    sessions = opened()
    assert sessions.admit(request(1))
    assert sessions.open(SERVER, 7, A) is Opened.REPEATED
    assert not sessions.admit(request(1))


def test_servers_sessions_are_their_own() -> None:
    """The same numbers of two servers are two requests."""
    sessions = opened()
    sessions.open(5, 7, B)
    assert sessions.admit(request(1))
    assert sessions.admit(request(1, server=5))


# -- the window -----------------------------------------------------------------------------------------


def test_requests_may_overtake_each_other() -> None:
    """A window, not a last number: request 6 merges before 5, and both take effect (once)."""
    sessions = opened()
    effects = [n for n in (6, 5, 6, 5, 7) if sessions.admit(request(n))]
    assert effects == [6, 5, 7]


def test_what_was_answered_is_forgotten_and_stays_without_effect() -> None:
    """The answered-below line prunes the window; what lies below it never takes effect again."""
    sessions = opened()
    for number in range(1, 6):
        sessions.admit(request(number))
    sessions.admit(request(6, below=5))
    session = sessions.current(SERVER)
    assert session is not None and session.executed == {5, 6}
    assert not any(sessions.admit(request(number)) for number in range(1, 6))


def test_an_older_line_restores_nothing() -> None:
    """Lines arrive out of order as well; the window only moves on."""
    sessions = opened()
    sessions.admit(request(5, below=5))
    assert not sessions.admit(request(4, below=2))


def test_an_open_is_no_request() -> None:
    """Number 0 opens; it is never admitted as a command."""
    assert not opened().admit(request(OPEN))


@given(st.data())
def test_each_request_takes_effect_exactly_once(data: st.DataObject) -> None:
    """Any duplication and reordering of requests whose lines cover answered requests only.

    The model of an origin: it numbers requests, several in flight, each copy carrying the line as of its
    sending; a request is
    answered when it took effect. Copies merge in any order, also long after.
    """
    sessions, copies, effects = opened(), list[Proposal](), list[int]()
    unanswered, next_number = list[int](), 1
    for _ in range(data.draw(st.integers(1, 40))):
        step = data.draw(st.sampled_from(["new", "retry", "merge", "merge"]))
        if step == "new":
            unanswered.append(next_number)
            next_number += 1
        if step != "merge" and unanswered:
            number = unanswered[-1] if step == "new" else data.draw(st.sampled_from(unanswered))
            copies.append(request(number, below=unanswered[0]))
        elif copies:
            copy = data.draw(st.sampled_from(copies))  # it stays: every copy may merge again
            if sessions.admit(copy):
                effects.append(copy.request)
                unanswered.remove(copy.request)
    effects += [copy.request for copy in copies if sessions.admit(copy)]
    assert sorted(effects) == list(range(1, next_number))


@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from([A, B]))))
def test_the_highest_counter_is_kept_for_ever(opens: list[tuple[int, bytes]]) -> None:
    """Counters rise with every session that opens, and the open one is the first with the highest."""
    sessions, model = Sessions(), list[tuple[int, bytes]]()
    for counter, nonce in opens:
        result = sessions.open(SERVER, counter, nonce)
        highest = model[-1][0] if model else 0
        assert (result is Opened.OPENED) == (counter > highest)
        assert (result is Opened.REPEATED) == ((counter, nonce) in model[-1:])
        if result is Opened.OPENED:
            model.append((counter, nonce))
        assert sessions.highest(SERVER) == max(highest, counter)


# -- packing ----------------------------------------------------------------------------------------------

proposals = st.builds(
    Proposal,
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**63),
    st.integers(0, 2**63),
    st.integers(0, 2**63),
    st.integers(0, 2**63 - 1),
    st.binary(max_size=60),
)


@given(st.lists(proposals, max_size=5))
def test_a_payload_gives_back_its_proposals(packed: list[Proposal]) -> None:
    """A command entry's proposals come out as they went in, bodies untouched."""
    assert decode_payload(encode_payload(packed)) == packed
