"""What a leader knows about one follower: probing, sending ahead, and coming back from what went wrong."""

from __future__ import annotations

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from craft.raft.progress import Progress, ProgressState

PROBE, REPLICATE = ProgressState.PROBE, ProgressState.REPLICATE


def probing(next_index: int = 10) -> Progress:
    return Progress(next_index=next_index, now=0)


def replicating(match: int = 9) -> Progress:
    progress = probing()
    progress.sent(match, 1, now=0)
    assert progress.accepted(match, match, now=0)
    return progress


def test_a_new_leader_probes() -> None:
    """Nothing is known of the follower, so nothing is sent ahead."""
    progress = probing()
    assert (progress.state, progress.match, progress.next) == (PROBE, 0, 10)
    assert not progress.waiting()


def test_a_probe_waits_for_its_answer() -> None:
    """One message, with or without entries; `next` stays until the follower said where it is."""
    progress = probing()
    progress.sent(12, 100, now=5)
    assert (progress.next, progress.probed, progress.waiting(), progress.moved_at) == (10, True, True, 5)
    assert not progress.inflight


def test_an_accepted_probe_begins_to_send_ahead() -> None:
    """From behind what the follower has received, durable or not."""
    progress = probing()
    progress.sent(12, 100, now=0)
    assert progress.accepted(9, 12, now=5)
    assert (progress.state, progress.match, progress.next) == (REPLICATE, 9, 13)


def test_what_was_received_and_is_not_yet_durable_is_still_owed() -> None:
    """Its acknowledgement may get lost like any other; nothing is in flight then that would tell."""
    progress = probing()
    progress.sent(12, 100, now=0)
    progress.accepted(9, 12, now=5)
    assert progress.waiting()
    progress.accepted(12, 12, now=6)
    assert not progress.waiting()


def test_sending_ahead_counts_the_bytes_in_flight() -> None:
    """An acknowledgement takes everything up to it out of the window."""
    progress = replicating()
    for last, size in ((11, 20), (12, 30), (15, 50)):
        progress.sent(last, size, now=0)
    assert (progress.next, progress.inflight_bytes) == (16, 100)
    progress.accepted(12, 15, now=1)
    assert (progress.match, progress.next, progress.inflight) == (12, 16, deque([(15, 50)]))
    assert progress.inflight_bytes == 50


def test_an_empty_append_takes_no_room() -> None:
    """A probe of a follower that is served is nothing in flight."""
    progress = replicating()
    progress.sent(9, 0, now=7)
    assert not progress.waiting()
    assert progress.moved_at == 0


def test_a_match_never_falls() -> None:
    """Late and reordered acknowledgements are contact, but no news."""
    progress = replicating(9)
    assert not progress.accepted(5, 5, now=3)
    assert (progress.match, progress.next, progress.active_at, progress.moved_at) == (9, 10, 3, 0)


def test_a_rejected_probe_goes_back_to_the_hint() -> None:
    """Once: its duplicate is stale."""
    progress = probing()
    progress.sent(9, 0, now=0)
    assert progress.rejected(9, 4, now=1)
    assert (progress.next, progress.probed) == (5, False)
    assert not progress.rejected(9, 2, now=1)
    assert progress.next == 5


def test_a_rejection_never_goes_back_behind_the_match() -> None:
    """What was durable and equal stays so; a hint below it is of a time before."""
    progress = replicating(9)
    progress.sent(20, 1, now=0)
    assert progress.rejected(20, 3, now=1)
    assert (progress.state, progress.next) == (PROBE, 10)
    progress.sent(9, 0, now=1)
    progress.rejected(9, 0, now=1)
    assert progress.next == 10


def test_a_stale_rejection_while_sending_ahead_is_ignored() -> None:
    """It speaks of a place that has matched since."""
    progress = replicating(9)
    assert not progress.rejected(8, 2, now=1)
    assert (progress.state, progress.next) == (REPLICATE, 10)


def test_probing_anew_forgets_what_was_in_flight() -> None:
    """A new connection, or silence: it begins again behind the match."""
    progress = replicating(9)
    progress.sent(12, 5, now=0)
    progress.loading = True
    progress.become_probe()
    assert (progress.state, progress.next, progress.inflight_bytes) == (PROBE, 10, 0)
    assert not progress.waiting()
    assert not progress.loading


def test_a_probe_without_an_answer_is_repeated_at_its_place() -> None:
    """Silence says nothing about the follower's log; from the first index on would be all of it."""
    progress = probing(next_index=1000)
    progress.sent(999, 0, now=0)
    progress.become_probe()
    assert (progress.next, progress.probed) == (1000, False)


def test_silence_counts_from_when_something_was_due() -> None:
    """A follower that had nothing to answer is not silent: the wait begins with the first append sent."""
    progress = replicating()
    progress.sent(12, 5, now=100)
    progress.sent(14, 5, now=150)
    assert progress.moved_at == 100
    progress.accepted(12, 12, now=180)
    assert progress.moved_at == 180


class AnyOrderOfAnswers(RuleBasedStateMachine):
    """Sends, and answers to any of them in any order, twice or never: it holds, and it recovers."""

    def __init__(self) -> None:
        super().__init__()
        self.progress = probing(next_index=8)
        self.last, self.now, self.highest_match = 7, 0, 0

    @rule(entries=st.integers(0, 3))
    def send(self, entries: int) -> None:
        p = self.progress
        if p.state is PROBE and p.probed:
            return
        self.now += 1
        last = p.next - 1 + entries
        self.last = max(self.last, last)
        p.sent(last, 10 * entries, self.now)

    @rule(data=st.data())
    def accept(self, data: st.DataObject) -> None:
        self.now += 1
        match = data.draw(st.integers(0, self.last))
        moved = self.progress.accepted(match, data.draw(st.integers(match, self.last)), self.now)
        assert moved == (match > self.highest_match)
        self.highest_match = max(self.highest_match, match)

    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        self.now += 1
        rejected = data.draw(st.integers(0, self.last))
        self.progress.rejected(rejected, data.draw(st.integers(-1, self.last)), self.now)

    @rule()
    def reconnect(self) -> None:
        self.progress.become_probe()

    @precondition(lambda self: self.progress.state is PROBE)
    @rule()
    def a_probe_that_is_answered_leads_on(self) -> None:
        """Liveness: a rejection moves `next` down, an acceptance begins to send ahead."""
        p = self.progress
        if not p.probed:
            p.sent(p.next - 1, 0, self.now)
        before = p.next
        assert p.rejected(p.next - 1, p.match, self.now)
        assert not p.probed
        assert p.next == min(before, p.match + 1)

    @invariant()
    def match_is_below_next(self) -> None:
        assert self.progress.match == self.highest_match < self.progress.next

    @invariant()
    def flight_is_counted_and_ordered(self) -> None:
        p = self.progress
        assert p.inflight_bytes == sum(size for _, size in p.inflight)
        ends = [last for last, _ in p.inflight]
        assert ends == sorted(ends)
        assert all(p.match < last < p.next for last in ends)
        assert p.state is REPLICATE or not p.inflight


AnyOrderOfAnswers.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestAnyOrderOfAnswers = AnyOrderOfAnswers.TestCase
