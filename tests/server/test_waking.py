"""When a turn is due, and who has run before it."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from craft.server.waking import SECOND_NS, Waker, set_alarm


async def test_a_turn_follows_however_often_it_was_asked_for() -> None:
    """Ten requests between two turns make one turn, and none makes none."""
    waker, turns = Waker(), 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await waker.until_due(answered=False)
            waker.begin()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_turns)
        await wait_all_tasks_blocked()
        assert turns == 0
        for expected in (1, 2):
            for _ in range(10):
                waker.wake()
            await wait_all_tasks_blocked()
            assert turns == expected
        nursery.cancel_scope.cancel()


async def test_what_is_asked_for_within_a_turn_is_for_the_next() -> None:
    """A turn that begins takes only what was asked for before it."""
    waker = Waker()
    waker.wake()
    await waker.until_due(answered=False)
    waker.begin()
    waker.wake()
    with trio.fail_after(1):
        await waker.until_due(answered=False)


async def test_whom_a_turn_answered_runs_before_the_next() -> None:
    """Callers that were just woken propose again in time, though another turn is due already."""
    for _ in range(20):  # Trio's order within one pass is random
        waker, again = Waker(), 0
        answered = [trio.Event() for _ in range(10)]

        async def caller(event: trio.Event) -> None:
            nonlocal again
            await event.wait()
            again += 1

        async with trio.open_nursery() as nursery:
            for event in answered:
                nursery.start_soon(caller, event)
            await wait_all_tasks_blocked()
            for event in answered:
                event.set()
            waker.wake()
            await waker.until_due(answered=True)
            assert again == len(answered)


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    """Who no longer waits is not woken: the alarm went off, and then a frame arrives."""
    waker = Waker()
    with trio.move_on_after(0):
        await waker.until_due(answered=False)
    waker.wake()
    with trio.fail_after(1):
        await waker.until_due(answered=False)


async def test_the_alarm_goes_off_when_the_engine_wants_to_be_ticked(autojump_clock: MockClock) -> None:
    """It may be put off and brought forward, and never goes off early."""
    waker = Waker()
    start = trio.current_time()
    with trio.CancelScope() as alarm:
        set_alarm(alarm, int((start + 5) * SECOND_NS))
        set_alarm(alarm, int((start + 2) * SECOND_NS))
        await waker.until_due(answered=False)
    assert alarm.cancelled_caught
    assert start + 2 <= trio.current_time() < start + 2.001
