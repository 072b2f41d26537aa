"""A request takes effect exactly once, or never, and its caller is told which (PROTOCOL 5)."""

from __future__ import annotations

import msgpack
import pytest

from craft.engine.state import SessionState
from craft.errors import NotReady, SessionTaken
from craft.messages import Forward, ForwardRefused, Frame, ReadReport
from craft.sessions import OPEN
from craft.types import Proposal
from tests.driver import MS, SECOND, Cluster


def body(*commands: bytes) -> bytes:
    packed: bytes = msgpack.packb(list(commands))
    return packed


def opened(server_id: int, counter: int, nonce: bytes = b"n" * 16) -> Proposal:
    return Proposal(server_id, counter, OPEN, 0, 0, nonce)


def test_a_session_opens_only_after_the_first_read() -> None:
    """A starting server learns all that its predecessors were answered before it proposes anything (†)."""
    c = Cluster()
    c.settle()
    c.write_and_wait(2, b"of the predecessor")
    c.crash(2)
    c.drop(ReadReport, to=2)
    c.start(2)
    token = c.propose(2, b"early")
    c.run(5 * SECOND)
    state = c.servers[2].engine.state
    assert state.session_state is SessionState.READING and state.counter == 1
    assert not c.answered(2, token)
    c.pass_all()
    c.run_until(lambda: c.answered(2, token))
    assert c.commands(2) == [b"of the predecessor", b"early"]
    assert state.counter == 2


def test_what_a_predecessor_proposed_answers_no_new_caller() -> None:
    """Requests of every incarnation are numbered from 1: replaying the old ones settles none of the new."""
    c = Cluster()
    c.settle()
    for number in range(5):
        c.write_and_wait(0, b"old %d" % number)
    c.restart(0)
    token = c.propose(0, b"new")
    c.run_until(lambda: c.answered(0, token))
    assert c.commands(0)[-1] == b"new"
    c.quiesce()
    c.check_answers()


def test_a_request_of_an_ended_session_has_no_effect() -> None:
    """A forward that was under way while its server restarted arrives when the next session is open."""
    c = Cluster(3, 2)
    c.settle_evenly()
    late: list[tuple[int, Forward]] = []

    def hold(sender: int, receiver: int, frame: Frame) -> Frame:
        forwards = [m for m in frame.messages if isinstance(m, Forward)]
        late.extend((receiver, m) for m in forwards if sender == 2)
        return frame._replace(messages=tuple(m for m in frame.messages if not isinstance(m, Forward)))

    c.intercept = hold
    c.propose(2, b"late")
    c.run(100 * MS)
    c.crash(2)
    c.pass_all()
    c.start(2)
    c.settle()
    assert late
    for receiver, forward in late:
        c.inject(2, receiver, forward)
    c.run(5 * SECOND)
    assert all(b"late" not in c.commands(i) for i in c.ids)


def test_a_disk_restored_from_a_backup_ends_the_process() -> None:
    """Its counter was used since: its `open` has no effect, and it says so (PROTOCOL 5, attack 11)."""
    c = Cluster()
    c.settle()
    c.crash(2)
    c.disks[2], backup = c.disks[2].reopen(), c.disks[2].reopen()
    c.start(2)
    c.settle()
    c.quiesce()
    c.crash(2)
    c.disks[2] = backup
    c.start(2)
    c.run_until(lambda: 2 in c.ended)
    assert isinstance(c.ended[2], SessionTaken)
    c.write_and_wait(0, b"the others go on")


def test_another_process_under_our_id_ends_us() -> None:
    """A higher counter was opened under this server's id: one of the two must go."""
    c = Cluster()
    c.settle_evenly()
    c.inject(2, 1, Forward(1, (opened(2, 99),)))
    c.run_until(lambda: 2 in c.ended)
    assert isinstance(c.ended[2], SessionTaken) and "99" in str(c.ended[2])
    assert set(c.servers) == {0, 1}
    c.write_and_wait(0, b"the others go on")


def test_an_open_that_is_refused_does_not_end_the_one_it_collides_with() -> None:
    """An equal counter with another nonce has no effect; it is the other process that ends."""
    c = Cluster()
    c.settle_evenly()
    c.inject(2, 1, Forward(1, (opened(2, 1),)))
    c.run(SECOND)
    assert not c.ended
    c.write_and_wait(2, b"still here")


def test_a_disk_that_was_never_used_counts_on_from_the_highest() -> None:
    """(†) An id whose disk was replaced takes a number above all that it ever had."""
    c = Cluster()
    c.settle()
    c.restart(2)
    c.settle()
    c.restart(2)
    c.settle()
    c.quiesce()
    assert c.servers[2].engine.state.counter == 3
    c.crash(2)
    c.disks[2] = Cluster(start=False).disks[2]
    c.start(2)
    c.settle()
    assert c.servers[2].engine.state.counter == 4
    c.write_and_wait(2, b"welcome")


def test_requests_are_rejected_or_unknown_when_a_server_ends() -> None:
    """What never left is certainly without effect; what was appended or forwarded may have one."""
    c = Cluster()
    c.settle_evenly()
    others = [1, 2]
    for other in others:
        c.cut(0, other)
    appended = c.propose(0, b"appended")
    c.run(10 * MS)
    for group in range(3):
        c.servers[0].engine.state.queues[group].uncommitted.extend([10**6] * 8)  # no room for more
    waiting = c.propose(0, b"waiting")
    c.run(10 * MS)
    rejected, unknown = c.stop(0)
    assert rejected == [waiting] and unknown == [appended]


def test_what_was_forwarded_is_unknown_even_if_it_was_refused() -> None:
    """The network may repeat a Forward: one copy refused, the other taken. (An own `open` is nobody's.)"""
    c = Cluster(3, 2)
    c.settle_evenly()
    c.drop(Forward, sender=2)
    token = c.propose(2, b"a")
    c.run(MS)
    state = c.servers[2].engine.state
    never_sent = object()
    (pending,) = state.pending.values()
    c.inject(pending.group, 2, ForwardRefused(pending.group, state.counter, (pending.request,)))
    c.servers[2].engine.propose(never_sent, b"\x90")
    assert c.servers[2].engine.abandon() == ([never_sent], [token])
    starting = Cluster(start=False)
    starting.start(0)
    starting.run(SECOND)
    assert starting.servers[0].engine.abandon() == ([], [])


def test_a_refusal_of_an_earlier_incarnation_settles_nothing() -> None:
    """Its request numbers are not ours: what we forwarded may well take effect."""
    c = Cluster(3, 2)
    c.settle_evenly()
    c.restart(2)
    c.settle()
    c.drop(Forward, sender=2)
    token = c.propose(2, b"a")
    c.run(MS)
    state = c.servers[2].engine.state
    (pending,) = state.pending.values()
    c.inject(pending.group, 2, ForwardRefused(pending.group, state.counter - 1, (pending.request,)))
    assert c.servers[2].engine.abandon() == ([], [token])


def test_a_stopping_server_takes_no_requests() -> None:
    """It says so, and nothing was taken."""
    c = Cluster()
    c.settle()
    server = c.servers[0]
    server.engine.hand_over(server.now())
    with pytest.raises(NotReady, match="stopping"):
        server.engine.propose("token", body(b"a"))
    assert not server.engine.state.pending
