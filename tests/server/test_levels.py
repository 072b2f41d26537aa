"""What a caller may wait for: a result, or only that nothing can be lost; and reads that ask nobody."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import trio
import trio.testing

import craft
from craft.engine.state import MS
from tests.server.cluster import Cluster, Ledger, three_servers

# Each test asks for the `clock` that jumps: pytest-trio uses it as the time of the test.
Clock = trio.testing.MockClock

BOUND = craft.ClockConfig(error_ms_max=50)


def isolate(cluster: Cluster, server_id: int) -> None:
    """Nobody hears it, and it hears nobody; its group cannot close until others lead it."""
    for other in {1, 2, 3} - {server_id}:
        cluster.network.cut(server_id, other)


async def both(server: craft.Server[Any]) -> tuple[list[str], craft.Committed]:
    """The order in which two writes of one server are answered, and what the committed one was told."""
    order: list[str] = []
    told: list[craft.Committed] = []

    async def applied() -> None:
        await server.propose(b"applied")
        order.append("applied")

    async def committed() -> None:
        told.append(await server.propose(b"committed", level="committed"))
        order.append("committed")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(applied)
        nursery.start_soon(committed)
    return order, told[0]


async def test_who_wants_no_result_does_not_wait_for_the_other_groups(clock: Clock) -> None:
    """While the merge stands still, what is committed is answered, and it is merged where the answer said."""
    async with three_servers() as cluster:
        isolate(cluster, 3)
        server = cluster.servers[1]
        order, told = await both(server)
        assert order == ["committed", "applied"]
        ledger = server.state_machine
        await server.read(lambda m: m)
        [place] = [
            place
            for command, place in zip(ledger.commands, ledger.places, strict=True)
            if command == b"committed"
        ]
        assert place[1] == told.timestamp


async def test_any_later_read_sees_what_was_answered_as_committed(clock: Clock) -> None:
    """From every server, at once, with no bound on the clocks at all."""
    async with three_servers() as cluster:
        for number in range(5):
            command = b"%d" % number
            await cluster.servers[1 + number % 3].propose(command, level="committed")
            reader = cluster.servers[1 + (number + 1) % 3]
            assert command in await reader.read(lambda m: list(m.commands))


async def test_a_stated_bound_is_waited_out_twice(clock: Clock) -> None:
    """Of two clocks one may be ahead and one behind: only then no server stamps below the answered one."""
    async with three_servers(clock=BOUND) as cluster:
        isolate(cluster, 3)  # the merge would be faster
        told = await cluster.servers[1].propose(b"x", level="committed")
        assert cluster.clocks[1].now() > told.timestamp + 2 * 50 * MS


async def test_the_merge_may_be_faster_than_the_clocks(clock: Clock) -> None:
    """Then it answers, with the timestamp at which it found the commands."""
    async with three_servers(clock=BOUND) as cluster:
        server = cluster.servers[2]
        told = await server.propose_many([b"x", b"y"], level="committed")
        assert told is not None and cluster.clocks[2].now() <= told.timestamp + 2 * 50 * MS
        assert [timestamp for _, timestamp in server.state_machine.places] == [told.timestamp] * 2


async def test_a_clock_that_breaks_its_promise_answers_nobody(clock: Clock) -> None:
    """It says itself that it is farther off than was stated: then only the merge answers."""
    async with three_servers(clock=BOUND) as cluster:
        server = cluster.servers[1]
        cluster.clocks[1].error_ns = 51 * MS
        await trio.sleep(1)  # a tick
        isolate(cluster, 3)
        await server.propose(b"x", level="committed")
        assert server.state_machine.commands == [b"x"]


async def test_no_commands_are_committed_without_a_place(clock: Clock) -> None:
    """Nothing was proposed, so there is no timestamp to tell."""
    async with three_servers() as cluster:
        assert await cluster.servers[1].propose_many([], level="committed") is None


@pytest.mark.parametrize("level", ["merged", "", None, 1])
async def test_another_level_is_an_error_that_names_it(clock: Clock, level: Any) -> None:
    """Before anything is proposed."""
    async with three_servers() as cluster:
        with pytest.raises(ValueError, match=r"level is .*; allowed are 'applied', 'committed'"):
            await cluster.servers[1].propose(b"x", level=level)
        with pytest.raises(ValueError, match=r"level is .*; allowed are 'applied', 'committed'"):
            await cluster.servers[1].propose_many([b"x"], level=level)
        assert await cluster.servers[1].propose(b"fine") == 1


# -- reads that ask nobody -------------------------------------------------------------------------


async def test_a_read_at_least_as_new_as_a_position_sees_what_was_answered_there(clock: Clock) -> None:
    """A position is taken from one server to another, which may be behind."""
    async with three_servers() as cluster:
        await cluster.servers[1].propose(b"mine")
        position = cluster.servers[1].position
        seen = await cluster.servers[2].read(lambda m: list(m.commands), at_least=position)
        assert b"mine" in seen and cluster.servers[2].position >= position


async def test_it_needs_no_majority(clock: Clock) -> None:
    """What is known here is enough, and what is not is waited for."""
    async with three_servers() as cluster:
        server = cluster.servers[3]
        await server.propose(b"before")
        isolate(cluster, 3)
        assert await server.read(lambda m: len(m.commands), at_least=server.position) == 1
        with trio.move_on_after(1) as patience:
            await server.read(lambda m: m, at_least=server.position + 1)
        assert patience.cancelled_caught and not server.engine.state.session_reads


async def test_positions_far_ahead_are_waited_for_in_their_order(clock: Clock) -> None:
    """However many wait, each is served as soon as its own position is applied."""
    async with three_servers() as cluster:
        server = cluster.servers[1]
        begin, served = server.position, []

        async def reader(ahead: int) -> None:
            at = await server.read(lambda _: server.position, at_least=begin + ahead)
            served.append((ahead, at))

        async with trio.open_nursery() as nursery:
            for ahead in (3, 1, 2, 3):
                nursery.start_soon(reader, ahead)
            await trio.testing.wait_all_tasks_blocked()
            for number in range(3):
                await server.propose(b"%d" % number)
        assert [ahead for ahead, _ in served] == [1, 2, 3, 3]
        assert all(at >= begin + ahead for ahead, at in served)


async def test_a_position_that_is_none_is_an_error(clock: Clock) -> None:
    """ValueError names it."""
    async with three_servers() as cluster:
        with pytest.raises(ValueError, match="at_least is -1; allowed is a position, 0 or greater"):
            await cluster.servers[1].read(lambda m: m, at_least=-1)


async def test_a_stale_read_asks_nobody_and_says_how_old_it_may_be(clock: Clock) -> None:
    """Cut off for a while, a server still answers, and its answer grows old."""
    async with three_servers() as cluster:
        server = cluster.servers[3]
        await server.propose(b"seen")
        isolate(cluster, 3)
        fresh = await server.read_stale(lambda m: list(m.commands))
        await trio.sleep(2)
        await cluster.servers[1].propose(b"unseen")
        old = await server.read_stale(lambda m: list(m.commands))
        assert fresh.value == old.value == [b"seen"] and old.position == server.position
        assert old.age_ns > 1900 * MS > fresh.age_ns
        assert old.timestamp < cluster.servers[1].state_machine.places[-1][1]


async def test_stale_reads_are_bounded_too(clock: Clock) -> None:
    """While `apply_batch` runs in its thread they wait, and only so many may."""
    began, gate = trio.Event(), threading.Event()

    class Slow(Ledger):
        def apply_batch(self, batch: craft.Batch) -> Any:
            trio.from_thread.run_sync(began.set)
            gate.wait(20)
            return super().apply_batch(batch)

    async with three_servers(apply_in_thread=True, engine=craft.EngineLimits(reads_max=1)) as cluster:
        server = cluster.servers[1]
        server._applier.machine = Slow()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.propose, b"x")
            await began.wait()
            nursery.start_soon(server.read_stale, lambda m: m)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(craft.Overloaded, match="reads_max = 1"):
                await server.read_stale(lambda m: m)
            gate.set()


async def test_reads_end_with_the_server(clock: Clock) -> None:
    """Who waits for a position is told that it will not come."""
    async with three_servers() as cluster:
        server = cluster.servers[1]
        async with trio.open_nursery() as nursery:

            async def reader() -> None:
                with pytest.raises(craft.NotReady):
                    await server.read(lambda m: m, at_least=10**9)

            nursery.start_soon(reader)
            await trio.testing.wait_all_tasks_blocked()
            server._end()
