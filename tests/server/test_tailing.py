"""Following the merged log of a server: every entry once, in order; and nobody waits for who follows."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

import craft
from craft.server import working
from craft.types import Append, Cut, Entry, Place, Start
from tests.server.cluster import Cluster, FailingStorage, Ledger, three_servers

Clock = trio.testing.MockClock

SMALL: dict[str, Any] = {
    "tail": craft.TailLimits(memory_bytes_max=8000, batch_bytes_max=4000, reread_bytes=500),
    "engine": craft.EngineLimits(apply_bytes_max=500),
}


async def entries_upto(
    server: craft.Server[Ledger], after: int, upto: int, *, batches_max: int = 10_000
) -> list[craft.TailEntry]:
    """What a subscriber is given."""
    found: list[craft.TailEntry] = []
    if after >= upto:
        return found
    async with server.subscribe(after=after) as batches:
        async for batch in batches:
            assert batch
            found += batch
            batches_max -= 1
            if found[-1].position >= upto or not batches_max:
                break
    return found


def said(entries: list[craft.TailEntry]) -> list[tuple[int, int, bytes]]:
    """Entries as the ledger remembers them."""
    return [(entry.position, entry.timestamp, command) for entry in entries for command in entry.commands]


def remembered(server: craft.Server[Ledger]) -> list[tuple[int, int, bytes]]:
    ledger = server.state_machine
    return [(*place, command) for place, command in zip(ledger.places, ledger.commands, strict=True)]


async def write(server: craft.Server[Ledger], count: int) -> None:
    for number in range(count):
        await server.propose_many([b"%d" % number, b"again"])


async def test_a_subscriber_sees_exactly_what_the_state_machine_was_given(clock: Clock) -> None:
    """From the beginning on, on every server, without a gap, each entry once."""
    async with three_servers() as cluster:
        await write(cluster.servers[1], 20)
        for server in cluster.servers.values():
            await server.read(lambda machine: None)
            found = await entries_upto(server, 0, server.position)
            assert [entry.position for entry in found] == list(range(1, server.position + 1))
            assert said(found) == remembered(server)


async def test_a_subscriber_is_told_while_it_waits(clock: Clock) -> None:
    """From now on, by default; the batch comes with the command's own apply."""
    async with three_servers() as cluster:
        await cluster.servers[2].read(lambda machine: None)  # what others opened is applied here
        await follow_five(cluster)


async def follow_five(cluster: Cluster) -> None:
    async with cluster.servers[2].subscribe() as batches:
        for number in range(5):
            await cluster.servers[1].propose(b"%d" % number)
            batch = await batches.receive()
            assert [entry.commands for entry in batch] == [(b"%d" % number,)]


async def test_what_memory_no_longer_holds_is_merged_once_more(clock: Clock) -> None:
    """From any position: the same entries with the same positions, and then on without a seam."""
    async with three_servers(**SMALL) as cluster:
        server = cluster.servers[1]
        await write(server, 40)
        whole = await entries_upto(server, 0, server.position)
        assert said(whole) == remembered(server)
        for after in (
            1,
            7,
            20,
            server.tails.recent.start - 1,
            server.tails.recent.start,
            server.position - 1,
        ):
            assert await entries_upto(server, after, server.position) == whole[after:]
        assert server.tails.reread_bytes.value > 0


async def test_a_subscriber_that_begins_far_back_catches_up_while_others_write(clock: Clock) -> None:
    """It is no slow one: memory moves on before it gets there, and nothing is left out."""
    async with three_servers(**SMALL) as cluster:
        server = cluster.servers[1]
        await write(server, 60)
        assert server.tails.recent.start > 20
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, cluster.servers[2], 30)
            found = await entries_upto(server, 0, 90)
            nursery.cancel_scope.cancel()
        assert [entry.position for entry in found] == list(range(1, found[-1].position + 1))
        assert said(found) == remembered(server)[: len(said(found))]


class Held(Ledger):
    """Applies nothing more, once it is told so, until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.go.set()

    def apply_batch(self, batch: craft.Batch) -> Sequence[Any] | None:
        self.go.wait()
        return super().apply_batch(batch)


async def test_what_the_logs_hold_and_is_not_applied_yet_is_not_left_out(clock: Clock) -> None:
    """A subscriber that reads the logs meets it there too early, and is given it once it is applied."""
    tail = craft.TailLimits(memory_bytes_max=8000, batch_bytes_max=4000, reread_bytes=20_000)
    async with three_servers(Held, **{**SMALL, "tail": tail}, apply_in_thread=True) as cluster:
        behind, other = cluster.servers[1], cluster.servers[2]
        await write(other, 60)
        await behind.read(lambda machine: None)
        behind.state_machine.go.clear()
        await write(other, 60)
        await trio.sleep(1)
        found: list[craft.TailEntry] = []
        async with behind.subscribe(after=0) as batches:
            while not found or found[-1].position < behind.position:
                found += await batches.receive()
            behind.state_machine.go.set()
            await behind.read(lambda machine: None)
            assert behind.tails.recent.start > found[-1].position
            while found[-1].position < behind.position:
                found += await batches.receive()
        assert [entry.position for entry in found] == list(range(1, behind.position + 1))
        assert said(found) == remembered(behind)


async def test_a_slow_subscriber_is_dropped_and_told_where_it_was(clock: Clock) -> None:
    """Nobody waits for it. From its position it goes on, without a gap."""
    async with three_servers(**SMALL) as cluster, trio.open_nursery() as nursery:
        server = cluster.servers[1]
        with pytest.raises(craft.TooSlow, match="allowed: to subscribe again, after") as caught:
            async with server.subscribe() as batches:
                nursery.start_soon(write, server, 1)
                seen: list[craft.TailEntry] = []
                async for batch in batches:
                    seen += batch
                    await write(server, 60)
        assert caught.value.position == seen[-1].position
        assert server.tails.dropped.value == 1
        rest = await entries_upto(server, caught.value.position, server.position)
        assert said(seen + rest) == remembered(server)[-len(said(seen + rest)) :]


async def test_a_restarted_server_has_the_same_tail(clock: Clock) -> None:
    """Positions survive: another server, or the same one after a restart, goes on where one was."""
    async with AsyncExitStack() as stack:
        cluster = Cluster(stack, **SMALL)
        for server_id in (1, 2):
            await cluster.start(server_id)
        async with cluster.opening(3) as third:
            await write(third, 20)
            before = await entries_upto(third, 0, third.position)
            await cluster.servers[1].read(lambda machine: None)
            assert await entries_upto(cluster.servers[1], 0, before[-1].position) == before
        cluster.disks[3] = cluster.disks[3].reopen()
        async with cluster.opening(3) as again:
            assert (await entries_upto(again, 0, before[-1].position))[: len(before)] == before


async def test_a_position_that_is_not_reached_yet_is_waited_for(clock: Clock) -> None:
    """Who comes from a server that was ahead gets nothing twice."""
    async with three_servers() as cluster:
        server = cluster.servers[1]
        after = server.position + 2
        async with server.subscribe(after=after) as batches:
            await write(server, 4)
            assert (await batches.receive())[0].position == after + 1


async def test_what_is_compacted_is_said_with_where_one_may_begin(clock: Clock) -> None:
    """The error has the first position that one may subscribe after."""
    async with three_servers(**SMALL) as cluster:
        server = cluster.servers[1]
        await write(server, 40)
        log = server.engine.state.raft(0).log
        entry = server._storage.entries(0, first_index=1, last_index=1, bytes_max=1)[0]
        log.start = Cut(Place(entry.term, 1), entry.timestamp, *log.start[2:])
        with pytest.raises(craft.Compacted, match="position 3 is compacted here; allowed: after") as caught:
            await entries_upto(server, 3, server.position)
        assert caught.value.position == 3
        found = await entries_upto(server, caught.value.retained, server.position)
        assert found[0].position == caught.value.retained + 1


class Changing(FailingStorage):
    """A disk on which something happens while a thread reads entries."""

    meanwhile: Callable[[], None] | None = None

    def entries(self, *args: Any, **kwargs: Any) -> tuple[Entry, ...]:
        happens, self.meanwhile = self.meanwhile, None
        if happens is not None:
            trio.from_thread.run_sync(happens)
        return super().entries(*args, **kwargs)


@asynccontextmanager
async def one_changing(**settings: Any) -> AsyncIterator[tuple[Cluster, craft.Server[Ledger], Changing]]:
    """Three servers with some entries; the first has such a disk."""
    async with AsyncExitStack() as stack:
        cluster = Cluster(stack, **settings)
        disk = cluster.disks[1] = Changing(cluster.disks[1].identity)
        await cluster.start_all()
        await write(cluster.servers[1], 10)
        yield cluster, cluster.servers[1], disk


async def test_what_is_compacted_while_a_log_is_read_from_outside_ends_nobody(clock: Clock) -> None:
    """A backup may be about to read what the server drops: it is told where the log begins now."""
    async with one_changing() as (_, server, disk):
        log = server.engine.state.raft(0).log
        entry = (await server.tails.read_log(0, 1)).entries[1]
        cut = Cut(Place(entry.term, 2), entry.timestamp, *log.start[2:])

        def compact() -> None:
            log.compact(cut)
            disk._written.logs[0].begin(Start(0, cut, keep=True))

        disk.meanwhile = compact
        piece = await server.tails.read_log(0, 1)
        assert (piece.start, piece.entries) == (2, ())
        assert (await server.tails.read_log(0, 3)).entries[0].index == 3


async def test_what_is_cut_off_while_a_log_is_read_from_outside_ends_nobody(clock: Clock) -> None:
    """Another leader has other entries; those that are committed come first, for they stay."""
    async with one_changing() as (cluster, server, disk), trio.open_nursery() as nursery:
        cluster.network.cut(1, 2)
        cluster.network.cut(1, 3)
        nursery.start_soon(write, server, 1)
        await trio.sleep(10)  # it is no leader any more
        rafts = [replica.state for replica in server.engine.state.replicas]
        raft = next(raft for raft in rafts if raft.log.persisted > raft.commit_index)
        group, log, commit = raft.group, raft.log, raft.commit_index
        assert (await server.tails.read_log(group, commit)).entries[-1].index == commit
        assert (await server.tails.read_log(group, commit + 1)).entries[0].index == commit + 1

        def cut_off() -> None:
            log.truncate_from(commit + 1)
            disk._written.logs[group].append(Append(group, commit + 1, ()))

        disk.meanwhile = cut_off
        piece = await server.tails.read_log(group, commit + 1)
        assert (piece.last, piece.entries) == (commit, ())
        nursery.cancel_scope.cancel()


async def test_one_slow_read_does_not_stop_those_who_ask_again_and_again(clock: Clock) -> None:
    """The logs rest for as long as it took, which is longer than any of their questions waits."""
    async with one_changing(**SMALL) as (_, server, disk):
        await write(server, 30)
        disk.meanwhile = lambda: clock.jump(5)
        found: list[craft.TailEntry] = []
        for _ in range(40):
            found += await server.tails.poll(found[-1].position if found else 0, 500)
        assert [entry.position for entry in found] == list(range(1, server.position + 1))


async def test_what_a_read_from_outside_finds_damaged_is_said(clock: Clock) -> None:
    """Nothing has changed meanwhile, so it is the disk."""
    async with one_changing() as (_, server, disk):
        entry = disk._written.logs[0].entries[0]
        disk._written.logs[0].replace(entry._replace(record=entry.record[:-1]), index=1)
        with pytest.raises(craft.errors.CraftError):
            await server.tails.read_log(0, 1)


async def test_a_read_that_hangs_for_ever_does_not_keep_the_process(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader is told at once; the disk is closed when it is there again, if ever."""
    monkeypatch.setattr(working, "STOP_WAIT_S", 0.1)
    come_back, closed = threading.Event(), threading.Event()

    async def read(server: craft.Server[Ledger]) -> None:
        with pytest.raises(craft.NotReady, match="the server has ended"):
            await server.tails.read_log(0, 1)

    async with trio.open_nursery() as nursery, one_changing(close_timeout_ms=100) as (_, server, disk):
        monkeypatch.setattr(disk, "close", closed.set)
        monkeypatch.setattr(disk, "entries", lambda *_, **__: come_back.wait(60))
        nursery.start_soon(read, server)
        await trio.testing.wait_all_tasks_blocked()
    assert not closed.is_set()
    come_back.set()
    assert closed.wait(60)
    del clock


async def test_subscribers_are_bounded(clock: Clock) -> None:
    """One more than allowed is refused, and one that leaves makes room."""
    async with three_servers(tail=craft.TailLimits(subscribers_max=1)) as cluster:
        server = cluster.servers[1]
        await write(server, 1)
        async with server.subscribe(after=0) as batches:
            await batches.receive()
            with pytest.raises(craft.Overloaded, match="subscribers_max = 1"):
                await entries_upto(server, 0, 1)
        assert await entries_upto(server, 0, 1)


async def test_a_position_below_zero_is_refused(clock: Clock) -> None:
    """The value is named, and what is allowed."""
    async with three_servers() as cluster:
        with pytest.raises(ValueError, match="after is -1; allowed is a position, 0 or greater"):
            await entries_upto(cluster.servers[1], -1, 1)


async def test_whoever_follows_is_told_when_the_server_ends(clock: Clock) -> None:
    """NotReady, where it waits."""
    async with three_servers() as cluster, trio.open_nursery() as nursery:
        ended = trio.Event()

        async def follow(server: craft.Server[Ledger]) -> None:
            with pytest.raises(craft.NotReady, match="the server has ended"):
                await entries_upto(server, server.position, 10**9)
            ended.set()

        server = cluster.servers[1]
        nursery.start_soon(follow, server)
        await trio.testing.wait_all_tasks_blocked()
        server._end()
        await ended.wait()
