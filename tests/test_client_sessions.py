"""Sessions of remote clients: opened in the merged log, ended by its time, and exactly once in between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from craft import client_sessions, limits
from craft.applying import Applier, Told
from craft.client_sessions import (
    NEVER,
    NO_COMMANDS,
    SESSION_ID_BYTES,
    TAGGED,
    ClientResults,
    ClientSessions,
    CloseTag,
    OpenTag,
    RequestTag,
    Tag,
    TouchTag,
    decode_tagged,
    encode_tagged,
)
from craft.ready import Judged, Merged, Request, Verdict
from craft.state_machine import Batch
from craft.types import EntryKind

ID, OTHER = b"a" * SESSION_ID_BYTES, b"b" * SESSION_ID_BYTES
MS = 1_000_000
TTL_MS = 5_000


class Log:
    """A merged log of tagged requests, one an entry, at positions and stamps that rise."""

    def __init__(self) -> None:
        self.sessions = ClientSessions()
        self.position, self.timestamp = 0, 10**18

    def merge(self, tag: Tag, *, after_ms: int = 1) -> Judged:
        """Merge a request, some merged time after the last."""
        self.pass_time(after_ms)
        tagged = encode_tagged(tag)
        return self.sessions.judge(None, tagged, position=self.position, timestamp=self.timestamp)[0]

    def pass_time(self, after_ms: int) -> list[bytes]:
        """Merge an entry that holds nothing of clients; returns the sessions that end there."""
        self.position += 1
        self.timestamp += after_ms * MS
        if self.timestamp <= self.sessions.expires:
            return []
        return [judged.session for judged in self.sessions.expire(self.timestamp)]

    def open(self, session: bytes = ID, ttl_ms: int = TTL_MS) -> int:
        judged = self.merge(OpenTag(session, ttl_ms))
        assert judged.verdict is Verdict.OPENED
        return judged.opened

    def ask(self, opened: int, request: int, *, below: int = 1, session: bytes = ID) -> Verdict:
        return self.merge(RequestTag(session, opened, request, below)).verdict


# -- opening and ending ------------------------------------------------------------------------------


def test_a_session_is_never_created_implicitly() -> None:
    """(†) What belongs to no open session has no effect, whatever it is."""
    log = Log()
    assert log.ask(1, 1) is Verdict.ENDED
    assert log.merge(TouchTag(ID, 1)).verdict is Verdict.ENDED
    assert log.merge(CloseTag(ID, 1)).verdict is Verdict.ENDED
    assert len(log.sessions) == 0


def test_an_open_whose_answer_was_lost_is_repeated() -> None:
    """It tells the same position, and forgets nothing."""
    log = Log()
    opened = log.open()
    assert log.ask(opened, 1) is Verdict.EXECUTED
    assert log.open() == opened
    assert log.ask(opened, 1) is Verdict.REPEATED


def test_a_late_copy_of_an_open_lets_nothing_happen_twice() -> None:
    """A session lived and ended; copies of its `open` and of a request come later, from another server."""
    log = Log()
    opened = log.open()
    assert log.ask(opened, 7) is Verdict.EXECUTED
    assert log.pass_time(TTL_MS + 1) == [ID]
    again = log.open()
    assert again != opened
    assert log.ask(opened, 7) is Verdict.ENDED


def test_a_session_ends_by_merged_time_alone() -> None:
    """At the first entry stamped *beyond* its last activity + ttl; an entry at that very stamp is in time."""
    log = Log()
    opened = log.open()
    assert log.ask(opened, 1) is Verdict.EXECUTED
    assert log.pass_time(TTL_MS) == []
    assert log.ask(opened, 2) is Verdict.ENDED
    assert len(log.sessions) == 0 and log.sessions.expires == NEVER


@pytest.mark.parametrize("activity", ["touch", "request", "repetition", "open"])
def test_every_sign_of_life_counts(activity: str) -> None:
    """Whatever a client has merged keeps its session for another ttl."""
    log = Log()
    opened = log.open()
    log.ask(opened, 1)
    tags: dict[str, Tag] = {
        "touch": TouchTag(ID, opened),
        "request": RequestTag(ID, opened, 2, 1),
        "repetition": RequestTag(ID, opened, 1, 1),
        "open": OpenTag(ID, TTL_MS),
    }
    for _ in range(5):
        log.merge(tags[activity], after_ms=TTL_MS)
    assert log.sessions.get(ID) is not None
    assert log.pass_time(TTL_MS + 1) == [ID]


def test_a_client_that_closes_leaves_nothing_behind() -> None:
    """And what it still had under way has no effect."""
    log = Log()
    opened = log.open()
    assert log.merge(CloseTag(ID, opened)).verdict is Verdict.CLOSED
    assert log.ask(opened, 1) is Verdict.ENDED
    assert log.pass_time(TTL_MS + 1) == []


def test_who_opens_and_closes_all_day_fills_nothing() -> None:
    """The heap of deadlines stays in proportion to the sessions that are open."""
    log = Log()
    log.open(OTHER, limits.CLIENT_SESSION_TTL_MS_MAX)
    for _ in range(1000):
        log.merge(CloseTag(ID, log.open()))
    assert len(log.sessions) == 1 and len(log.sessions._due) < 100


def test_times_to_live_are_bounded() -> None:
    """By constants: every server must end a session at the same place."""
    log = Log()
    log.open(ID, 1)
    log.open(OTHER, 2**62)
    assert log.pass_time(limits.CLIENT_SESSION_TTL_MS_MIN - 1) == []
    assert log.pass_time(2) == [ID]
    assert log.pass_time(limits.CLIENT_SESSION_TTL_MS_MAX) == [OTHER]


def test_so_many_sessions_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes too late is told; when one ends there is room again."""
    monkeypatch.setattr(client_sessions, "CLIENT_SESSIONS_MAX", 1)
    log = Log()
    log.open(ID)
    assert log.merge(OpenTag(OTHER, TTL_MS)).verdict is Verdict.FULL
    log.pass_time(TTL_MS + 1)
    log.open(OTHER)


# -- the window --------------------------------------------------------------------------------------


def test_requests_may_overtake_each_other() -> None:
    """A window, not a last number."""
    log = Log()
    opened = log.open()
    verdicts = [log.ask(opened, request) for request in (6, 5, 6, 5, 7)]
    executed, repeated = Verdict.EXECUTED, Verdict.REPEATED
    assert verdicts == [executed, executed, repeated, repeated, executed]


def test_what_was_answered_is_forgotten_and_stays_without_effect() -> None:
    """The client's line prunes the window; a late copy below it does nothing."""
    log = Log()
    opened = log.open()
    for request in range(1, 6):
        log.ask(opened, request)
    assert log.ask(opened, 6, below=6) is Verdict.EXECUTED
    session = log.sessions.get(ID)
    assert session is not None and session.executed == {6}
    assert log.ask(opened, 3) is Verdict.ANSWERED


@pytest.mark.parametrize("jump", [10**6, 2**62])
def test_a_line_that_jumps_costs_nothing(jump: int) -> None:
    """However far a client says it is, only what is known is looked at."""
    log = Log()
    opened = log.open()
    log.ask(opened, 3)
    assert log.ask(opened, jump, below=jump) is Verdict.EXECUTED
    assert log.ask(opened, jump, below=2**63 - 1) is Verdict.REPEATED


def test_a_client_that_runs_ahead_is_refused() -> None:
    """The window is bounded by numbers, so that every server bounds it alike."""
    log = Log()
    opened = log.open()
    width = limits.CLIENT_WINDOW_REQUESTS_MAX
    assert log.ask(opened, width) is Verdict.EXECUTED
    assert log.ask(opened, width + 1) is Verdict.BEYOND
    assert log.ask(opened, width + 1, below=2) is Verdict.EXECUTED


@given(st.data())
def test_each_request_takes_effect_at_most_once_and_is_answered_once_it_did(data: st.DataObject) -> None:
    """Any duplication, reordering and delay of everything a client sends, opens and closes included."""
    log, copies, effects = Log(), list[Tag](), set[tuple[int, int]]()
    opened, unanswered, next_number = 0, list[int](), 1
    for _ in range(data.draw(st.integers(1, 60))):
        step = data.draw(
            st.sampled_from(["open", "new", "retry", "merge", "merge", "merge", "sleep", "close"])
        )
        if step == "open":
            copies.append(OpenTag(ID, TTL_MS))
        elif step == "close" and opened:
            copies.append(CloseTag(ID, opened))
        elif step == "new" and opened:
            unanswered.append(next_number)
            next_number += 1
        elif step == "sleep":
            log.pass_time(data.draw(st.sampled_from([1000, 6000])))
        if step in {"new", "retry"} and opened and unanswered:
            number = unanswered[-1] if step == "new" else data.draw(st.sampled_from(unanswered))
            copies.append(RequestTag(ID, opened, number, unanswered[0]))
        if step == "merge" and copies:
            copy = data.draw(st.sampled_from(copies))  # it stays: every copy may merge again
            judged = log.merge(copy)
            if judged.verdict is Verdict.OPENED and judged.opened != opened:
                opened, unanswered, next_number = judged.opened, [], 1
            if isinstance(copy, RequestTag) and judged.verdict is Verdict.EXECUTED:
                assert (copy.opened, copy.request) not in effects
                effects.add((copy.opened, copy.request))
            if isinstance(copy, RequestTag) and judged.verdict in {Verdict.EXECUTED, Verdict.REPEATED}:
                assert (copy.opened, copy.request) in effects
                if copy.opened == opened and copy.request in unanswered:
                    unanswered.remove(copy.request)


# -- tags --------------------------------------------------------------------------------------------

numbers = st.integers(0, 2**63 - 1)
ids = st.binary(min_size=SESSION_ID_BYTES, max_size=SESSION_ID_BYTES)
tags: st.SearchStrategy[Tag] = st.one_of(
    st.builds(OpenTag, ids, numbers),
    st.builds(RequestTag, ids, numbers, numbers, numbers),
    st.builds(TouchTag, ids, numbers),
    st.builds(CloseTag, ids, numbers),
)


@given(tags, st.lists(st.binary(max_size=9)).map(msgpack.packb))
def test_a_tagged_body_gives_back_what_went_in(tag: Tag, body: bytes) -> None:
    """And is known by how it begins."""
    tagged = encode_tagged(tag, body)
    assert tagged.startswith(TAGGED)
    assert decode_tagged(tagged) == (tag, body)


@given(st.lists(st.binary(max_size=300), max_size=40))
def test_no_library_body_looks_like_a_tagged_one(commands: list[bytes]) -> None:
    """A byte string comes first in it, or nothing."""
    assert not msgpack.packb(commands).startswith(TAGGED)


@pytest.mark.parametrize(
    "tagged",
    [
        b"\x92\x93",
        b"\x92\x95\xc1",
        msgpack.packb([[9, ID, 1], NO_COMMANDS]),
        msgpack.packb([[0, ID[:-1], 1], NO_COMMANDS]),
        msgpack.packb([[0, ID, -1], NO_COMMANDS]),
        msgpack.packb([[0, ID, True], NO_COMMANDS]),
        msgpack.packb([[0, ID, 2**63], NO_COMMANDS]),
        msgpack.packb([[0, "text", 1], NO_COMMANDS]),
        msgpack.packb([[1, ID, 1], NO_COMMANDS]),
        msgpack.packb([[-1, ID, 1], NO_COMMANDS]),
        msgpack.packb([[None, ID, 1], NO_COMMANDS]),
        msgpack.packb([[0, ID, 1], ["not packed"]]),
        msgpack.packb([[0, ID, 1], NO_COMMANDS]) + b"\x00",
    ],
)
def test_what_only_looks_like_a_tag_has_no_effect(tagged: bytes) -> None:
    """A wrong peer cannot make servers differ, or fail."""
    sessions = ClientSessions()
    judged, body = sessions.judge("token", tagged, position=1, timestamp=1)
    assert (judged.verdict, judged.token, body) == (Verdict.ENDED, "token", NO_COMMANDS)
    assert len(sessions) == 0


# -- results -----------------------------------------------------------------------------------------


class Counting:
    """Answers with how many commands there were; counts them."""

    def __init__(self) -> None:
        self.count = 0

    def apply_batch(self, batch: Batch) -> list[Any]:
        results = []
        for command in batch:
            self.count += 1
            results.append(
                {1, 2} if command == b"odd" else bytes(10**7) if command == b"huge" else self.count
            )
        return results


class Silent:
    """Has no results."""

    def apply_batch(self, batch: Batch) -> None:
        return None


def entries(*bodies: bytes) -> Iterator[Merged]:
    """Merged entries of one request each, as the engine makes them; tokens are positions."""
    sessions = ClientSessions()
    for position, body in enumerate(bodies, start=1):
        judged, commands = sessions.judge(position, body, position=position, timestamp=position)
        requests = (Request(None, commands),) if judged.verdict is Verdict.EXECUTED else ()
        yield Merged(position, position, 0, position, EntryKind.COMMAND, requests, (judged,))


def call(number: int, *commands: bytes, below: int = 1) -> bytes:
    return encode_tagged(RequestTag(ID, 1, number, below), msgpack.packb(commands))


OPENING = encode_tagged(OpenTag(ID, TTL_MS))


def answers(applier: Applier, *bodies: bytes) -> dict[int, Told]:
    return dict(applier.run(list(entries(OPENING, *bodies))))


def test_a_repetition_is_answered_as_the_first_time() -> None:
    """With its results; nothing is applied again."""
    applier = Applier(Counting())
    told = answers(applier, call(1, b"a", b"b"), call(2, b"c"), call(1, b"a", b"b"))
    assert told[2].results == [1, 2] and told[2].verdict is Verdict.EXECUTED
    assert told[4].results == [1, 2] and told[4].verdict is Verdict.REPEATED and told[4].known
    assert applier.commands_total == 3


def test_a_machine_without_results_has_none_for_repetitions_either() -> None:
    """That is known, not forgotten."""
    told = answers(Applier(Silent()), call(1, b"a"), call(1, b"a"))
    assert (told[3].results, told[3].known) == (None, True)


def test_results_are_kept_as_plain_values() -> None:
    """What msgpack cannot carry is kept as its repr."""
    told = answers(Applier(Counting()), call(1, b"odd"), call(1, b"odd"))
    assert told[2].results == [{1, 2}]
    assert told[3].results == ["{1, 2}"]


def test_too_great_a_result_is_not_kept() -> None:
    """Its repetition is told that it took effect, and no more."""
    told = answers(Applier(Counting()), call(1, b"huge"), call(1, b"huge"))
    assert (told[3].verdict, told[3].results, told[3].known) == (Verdict.REPEATED, None, False)


def test_what_was_answered_is_no_longer_kept() -> None:
    """The client's line prunes, and a session that ends takes everything along."""
    applier = Applier(Counting())
    answers(applier, call(1, b"a"), call(2, b"b"), call(3, b"c", below=3))
    assert applier.client_results.find(ID, 2) is None
    assert applier.client_results.find(ID, 3) is not None
    applier.run([Merged(9, 9, 0, 9, EntryKind.COMMAND, (), (Judged(Verdict.EXPIRED, None, ID, 1),))])
    assert applier.client_results.bytes == 0


def test_the_oldest_results_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """All sessions share one bound."""
    monkeypatch.setattr(client_sessions, "CLIENT_RESULTS_BYTES_MAX", 3000)
    results = ClientResults()
    for request in range(1, 100):
        results.keep(ID if request % 2 else OTHER, request, bytes(100))
        assert results.bytes <= 3000
    assert results.find(ID, 99) is not None and results.find(ID, 1) is None
    results.drop(ID)
    results.drop(OTHER)
    assert results.bytes == 0


@given(st.data())
def test_what_is_kept_does_not_depend_on_how_the_log_was_cut(data: st.DataObject) -> None:
    """Servers apply lists of different lengths; each must answer a repetition alike."""
    bodies = [OPENING]
    for _ in range(data.draw(st.integers(1, 20))):
        number = data.draw(st.integers(1, 8))
        below = data.draw(st.integers(1, number))
        bodies.append(call(number, *data.draw(st.lists(st.just(b"a"), max_size=3)), below=below))
    log = list(entries(*bodies))
    whole, cut = Applier(Counting()), Applier(Counting())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client_sessions, "CLIENT_RESULTS_BYTES_MAX", 800)
        told = whole.run(log)
        told_in_parts = [answer for merged in log for answer in cut.run([merged])]
    assert told == told_in_parts
    assert whole.client_results._kept == cut.client_results._kept
