"""The NTP clock against time servers on loopback that lie in every way."""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any

import pytest
import trio

from craft.clock import RunningClock, TellingClock
from craft.clock.discipline import UNSYNCHRONISED_S_MAX
from craft.clock.ntp import (
    ASLEEP,
    COASTING,
    FALLING_BACK,
    NO_MAJORITY,
    NOT_YET,
    SYNCHRONISED,
    NtpClock,
    exchange,
    question,
    read_reply,
)
from craft.clock.samples import SECOND_NS, Refused, Sample, unix_ns
from craft.clock.timeline import Timeline
from tests.clock.responder import Lie, Responder, answer, responding

MS = 1_000_000
SHORT_S = 0.05
"""How long a test waits for an answer that does not come."""

HOST = "127.0.0.1"


def ask(responder: Responder, timeout_s: float = 5) -> Sample | Refused:
    """One question, as the worker thread asks it."""
    return exchange((socket.AF_INET, (HOST, responder.port)), timeout_s, time.monotonic_ns)


# -- one question ----------------------------------------------------------------------------------


def test_an_honest_answer_holds_true_time() -> None:
    """The offset of the monotonic clock to real time is within the stated error, which is small here."""
    with responding() as responder:
        before = time.time_ns() - time.monotonic_ns()
        sample = ask(responder)
        after = time.time_ns() - time.monotonic_ns()
    assert isinstance(sample, Sample)
    low, high = sample.interval(sample.at_ns)
    assert low <= max(before, after) and min(before, after) <= high
    assert sample.error_ns < SECOND_NS


def test_a_question_says_nothing_about_us() -> None:
    """48 bytes, version 4, client, and 64 random bits that differ each time."""
    with responding() as responder:
        ask(responder)
        ask(responder)
    first, second = responder.questions
    assert len(first) == 48
    assert (first[0], first[1:40]) == (4 << 3 | 3, bytes(39))
    assert first[40:] != second[40:]


REFUSED: dict[str, tuple[Lie, str]] = {
    "client_mode": (Lie(mode=3), "mode is 3"),
    "version": (Lie(version=2), "version is 2"),
    "unsynchronised": (Lie(leap=3), "leap indicator 3"),
    "rate": (Lie(stratum=0, reference=b"RATE"), "kiss-o'-death 'RATE'"),
    "deny": (Lie(stratum=0, reference=b"DENY"), "kiss-o'-death 'DENY'"),
    "unknown_kiss": (Lie(stratum=0, reference=b"\xff\0\0\0"), "kiss-o'-death"),
    "stratum_16": (Lie(stratum=16), "stratum is 16"),
    "dispersion": (Lie(root_dispersion=0xFFFF_FFFF), "ms of root dispersion"),
    "turned": (Lie(turned=True), "before the question arrived"),
}


@pytest.mark.parametrize(("lie", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_lie_is_refused_at_once(lie: Lie, reason: str) -> None:
    """Its reason is named, and no other answer is waited for."""
    with responding(lie) as responder:
        said = ask(responder)
    assert isinstance(said, Refused)
    assert said.answers and reason in said.reason


NO_ANSWERS: dict[str, tuple[Lie, str]] = {
    "silent": (Lie(times=0), "no answer within 0.05 s"),
    "wrong_echo": (Lie(echo=1), "echoes another question"),
    "truncated": (Lie(cut=47), "47 bytes are no NTP packet"),
    "empty": (Lie(cut=0), "0 bytes are no NTP packet"),
    "garbage": (Lie(times=0, before=(b"x" * 1000,)), "echoes another question"),
    "flood": (Lie(times=0, before=(b"\xff" * 48,) * 100), "echoes another question"),
}


@pytest.mark.parametrize(("lie", "reason"), NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_what_answers_something_else_is_no_answer(lie: Lie, reason: str) -> None:
    """Nothing that comes without our 64 bits ends the wait, however much of it there is."""
    with responding(lie) as responder:
        said = ask(responder, SHORT_S)
    assert isinstance(said, Refused)
    assert not said.answers and reason in said.reason


def test_the_answer_is_found_behind_garbage_and_late_answers() -> None:
    """Forged and late packets arrive first; the right one is still believed."""
    late = answer(question(12345), Lie(ahead_ns=10 * SECOND_NS), time.time_ns())
    with responding(Lie(before=(b"", b"junk", late, late), times=3)) as responder:
        sample = ask(responder)
    assert isinstance(sample, Sample)
    assert abs(sample.offset_ns - (time.time_ns() - time.monotonic_ns())) < SECOND_NS


def test_a_duplicate_is_not_believed_for_the_next_question() -> None:
    """An answer is good for the question that it echoes, and for none after."""
    with responding() as responder:
        assert isinstance(ask(responder), Sample)
        old = answer(responder.questions[0], Lie(), time.time_ns())
        responder.lie = Lie(times=0, before=(old,))
        said = ask(responder, SHORT_S)
    assert isinstance(said, Refused) and "echoes another question" in said.reason


def test_nobody_at_the_address_is_an_os_error() -> None:
    """Loopback says at once that nobody listens; the caller names it."""
    with responding() as responder:
        port = responder.port
    with pytest.raises(OSError, match="refused"):
        exchange((socket.AF_INET, (HOST, port)), 5, time.monotonic_ns)


def test_ntplibs_reading_of_a_packet_and_ours_agree() -> None:
    """Header fields come from ntplib; timestamps are read raw, to the last bit."""
    now = 1_700_000_000_123_456_789
    reply = read_reply(answer(question(2**64 - 1), Lie(root_delay=0x8000), now))
    assert reply is not None
    assert (reply.leap, reply.version, reply.mode, reply.stratum, reply.precision) == (0, 4, 4, 1, -20)
    assert (reply.root_delay_ns, reply.reference) == (SECOND_NS // 2, b"TEST")
    assert reply.originate == 2**64 - 1
    assert 0 <= now - unix_ns(reply.receive) <= 1


# -- the clock -------------------------------------------------------------------------------------


class Machine:
    """The clocks of a machine: real ones, plus what a test adds."""

    def __init__(self) -> None:
        self.system_ahead_ns = 0
        self.passed_ns = 0
        self.asleep_ns = 0

    def system(self) -> int:
        return time.time_ns() + self.system_ahead_ns

    def timeline(self) -> Timeline:
        return Timeline(
            lambda: time.monotonic_ns() + self.passed_ns,
            monotonic=time.monotonic_ns,
            since_boot=lambda: time.monotonic_ns() + self.asleep_ns,
        )


async def until(holds: Callable[[], bool]) -> None:
    """Let real time pass until it holds."""
    with trio.fail_after(60):
        while not holds():  # noqa: ASYNC110  # the other end is a thread: there is no event
            await trio.sleep(0.005)


@contextlib.asynccontextmanager
async def running(
    machine: Machine, *lies: Lie, timeout_s: float = 5
) -> AsyncIterator[tuple[NtpClock, list[Responder]]]:
    """A clock that asks time servers which answer so."""
    with contextlib.ExitStack() as stack:
        responders = [stack.enter_context(responding(lie)) for lie in lies]
        clock = NtpClock(
            [(HOST, responder.port) for responder in responders],
            timeout_s=timeout_s,
            rng=Random(1),
            timeline=machine.timeline(),
            system=machine.system,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clock.run)
            yield clock, responders
            nursery.cancel_scope.cancel()


def server(clock: NtpClock, number: int) -> dict[str, Any]:
    """What the clock says of one of its servers."""
    status: dict[str, Any] = clock.status()["servers"][number]
    return status


async def test_it_finds_the_time_though_the_systems_clock_is_wrong() -> None:
    """An hour off at the start, and right within the stated error after the first answers."""
    machine = Machine()
    machine.system_ahead_ns = 3600 * SECOND_NS
    async with running(machine, Lie(), Lie(), Lie()) as (clock, _):
        before = clock.status()
        assert (before["state"], clock.error()) == (NOT_YET, None)
        assert abs(clock.now() - machine.system()) < SECOND_NS
        await until(lambda: clock.status()["state"] == SYNCHRONISED)
        error = clock.error()
        assert error is not None and error < SECOND_NS
        earliest = time.time_ns()
        reading = clock.now()
        assert earliest - error <= reading <= time.time_ns() + error
        assert clock.status()["falsetickers"] == []


async def test_a_step_of_the_systems_clock_is_none_of_ours() -> None:
    """Between two answers the system's clock is stepped by an hour; this one does not move."""
    machine = Machine()
    async with running(machine, Lie()) as (clock, _):
        await until(lambda: clock.status()["state"] == SYNCHRONISED)
        machine.system_ahead_ns = 3600 * SECOND_NS
        assert abs(clock.now() - time.time_ns()) < SECOND_NS


@pytest.mark.parametrize(
    "lie",
    [Lie(ahead_ns=10 * SECOND_NS), Lie(ahead_ns=-10 * SECOND_NS), Lie(leap=3), Lie(times=0), Lie(echo=7)],
    ids=["ahead", "behind", "unsynchronised", "silent", "wrong_echo"],
)
async def test_one_bad_server_of_three_moves_nothing(lie: Lie) -> None:
    """It is outvoted and named, or not believed and the reason given."""
    async with running(Machine(), Lie(), Lie(), lie, timeout_s=0.5) as (clock, _):
        liar = server(clock, 2)["server"]
        await until(lambda: bool(clock.status()["falsetickers"] or server(clock, 2)["refused"]))
        await until(lambda: clock.status()["state"] == SYNCHRONISED)
        assert clock.status()["falsetickers"] in ([liar], [])
        assert (clock.status()["falsetickers"] == [liar]) == bool(lie.ahead_ns)
        error = clock.error()
        assert error is not None and abs(clock.now() - time.time_ns()) <= error + SECOND_NS


async def test_two_servers_that_contradict_each_other_say_nothing() -> None:
    """Without a majority there is no error bound, and the system's clock counts."""
    async with running(Machine(), Lie(), Lie(ahead_ns=10 * SECOND_NS)) as (clock, _):
        await until(lambda: server(clock, 0)["answers"] and server(clock, 1)["answers"])
        assert (clock.status()["state"], clock.error()) == (NOT_YET, None)


async def test_lost_servers_are_survived_and_then_said() -> None:
    """It goes on with a growing error, and after an hour falls back to the system clock, slowly."""
    machine = Machine()
    async with running(machine, Lie(), timeout_s=SHORT_S) as (clock, [responder]):
        await until(lambda: clock.status()["state"] == SYNCHRONISED)
        responder.lie = Lie(times=0)
        await until(lambda: bool(server(clock, 0)["refused"]))
        assert clock.status()["state"] == COASTING
        assert clock.error() is not None
        machine.passed_ns = (UNSYNCHRONISED_S_MAX + 60) * SECOND_NS
        assert (clock.status()["state"], clock.error()) == (FALLING_BACK, None)
        await until(lambda: clock.status()["slewing_ns"] < -1000 * SECOND_NS)
        assert clock.now() > time.time_ns() + 3600 * SECOND_NS, "slewed, not stepped"


async def test_servers_that_part_later_leave_the_clock_as_it_was() -> None:
    """Once right, it is not moved by a quarrel."""
    machine = Machine()
    async with running(machine, Lie(), Lie()) as (clock, [_, other]):
        await until(lambda: clock.status()["state"] == SYNCHRONISED)
        other.lie = Lie(ahead_ns=10 * SECOND_NS, root_dispersion=1)
        machine.passed_ns = 3000 * SECOND_NS
        await until(lambda: server(clock, 1)["offset_ns"] is not None and server(clock, 1)["asked"] > 1)
        assert clock.status()["state"] in (NO_MAJORITY, SYNCHRONISED)
        assert clock.error() is not None


async def test_after_a_suspend_it_asks_anew() -> None:
    """A machine that slept an hour knows nothing until its servers have answered again."""
    machine = Machine()
    async with running(machine, Lie()) as (clock, [responder]):
        await until(lambda: clock.status()["state"] == SYNCHRONISED)
        asked = len(responder.questions)
        responder.lie = Lie(ahead_ns=3600 * SECOND_NS)
        machine.asleep_ns += 3600 * SECOND_NS
        assert (clock.error(), clock.status()["state"]) == (None, ASLEEP)
        assert abs(clock.now() - time.time_ns() - 3600 * SECOND_NS) < 10 * SECOND_NS
        await until(lambda: clock.status()["state"] == SYNCHRONISED)
        assert len(responder.questions) > asked


async def test_a_server_that_denies_us_is_not_asked_again() -> None:
    """After kiss-o'-death DENY its task has ended; the others go on."""
    async with running(Machine(), Lie(stratum=0, reference=b"DENY"), Lie()) as (clock, [denying, good]):
        await until(lambda: len(good.questions) >= 2)
        assert len(denying.questions) == 1
        assert "DENY" in server(clock, 0)["refused"]


async def test_a_name_that_does_not_resolve_is_a_server_that_is_lost() -> None:
    """No exception leaves the clock, whatever a name or network does."""
    clock = NtpClock([("no such host.invalid", 123), ("x" * 300, 123)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        await until(lambda: all(one["refused"] for one in clock.status()["servers"]))
        nursery.cancel_scope.cancel()
    assert clock.error() is None


async def test_stopping_does_not_wait_for_an_answer() -> None:
    """A server that is silent for a minute does not hold up who stops."""
    async with running(Machine(), Lie(times=0), timeout_s=30) as (_, [responder]):
        await until(lambda: bool(responder.questions))


def test_readings_never_go_back() -> None:
    """Whatever was set or slewed, each reading is at least the one before."""
    clock = NtpClock([(HOST, 1)])
    readings = [clock.now() for _ in range(1000)]
    assert all(earlier <= later for earlier, later in itertools.pairwise(readings))


@pytest.mark.parametrize("servers", [[], [(HOST, 1), (HOST, 1)]])
def test_a_server_has_one_vote(servers: list[tuple[str, int]]) -> None:
    """No servers at all, or one twice, is refused."""
    with pytest.raises(ValueError, match="allowed: at least one, each once"):
        NtpClock(servers)


def test_it_is_a_clock_that_runs_and_tells() -> None:
    """The server finds out by the methods alone."""
    clock = NtpClock([(HOST, 1)])
    assert [isinstance(clock, kind) for kind in (RunningClock, TellingClock)] == [True, True]
