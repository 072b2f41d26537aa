"""The server as its users meet it: proposals, reads, status, cancellation, overload, failure, close."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
import trio.testing

import craft
from craft.server import syncing
from craft.storage import Identity
from tests.server.cluster import Cluster, FailingStorage, Ledger, three_servers

# Each test asks for the `clock` that jumps: pytest-trio uses it as the time of the test.
Clock = trio.testing.MockClock


async def test_every_server_takes_writes_and_all_apply_them_in_one_order(clock: Clock) -> None:
    """Thirty commands through three servers give three equal histories, and each caller its own result."""
    async with three_servers() as cluster:
        results: list[int] = []

        async def write(server: craft.Server[Ledger], command: bytes) -> None:
            results.append(await server.propose(command))

        async with trio.open_nursery() as nursery:
            for server_id, server in cluster.servers.items():
                for number in range(10):
                    nursery.start_soon(write, server, b"%d:%d" % (server_id, number))
        histories = [await server.read(lambda m: list(m.commands)) for server in cluster.servers.values()]
        assert histories[0] == histories[1] == histories[2]
        assert sorted(results) == list(range(1, 31))


async def test_propose_many_is_one_place_in_the_merged_log(clock: Clock) -> None:
    """Commands of one call are applied together, in order, at one position and timestamp."""
    async with three_servers() as cluster:
        server = cluster.servers[2]
        assert await server.propose_many([b"a", b"b", b"c"]) == [1, 2, 3]
        assert await server.propose_many([]) == []
        ledger = server.state_machine
        assert ledger.commands == [b"a", b"b", b"c"]
        assert len(set(ledger.places)) == 1


async def test_a_state_machine_without_results_answers_none(clock: Clock) -> None:
    """Where apply_batch returns None, propose and propose_many return None."""

    class Silent:
        def apply_batch(self, batch: craft.Batch) -> Sequence[Any] | None:
            return None

    async with three_servers(Silent) as cluster:
        assert await cluster.servers[1].propose(b"x") is None
        assert await cluster.servers[1].propose_many([b"x", b"y"]) is None


async def test_single_proposals_of_one_turn_travel_as_one_request(clock: Clock) -> None:
    """A hundred tasks that propose at once cost a handful of entries, not a hundred."""
    async with three_servers() as cluster:
        server = cluster.servers[1]
        before = server.status()["merged_position"]
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(server.propose, b"%d" % number)
        assert len(server.state_machine.commands) == 100
        assert server.status()["merged_position"] - before < 10


@pytest.mark.parametrize("bad", ["text", 7, None, bytearray(b"x")])
async def test_a_command_that_is_not_bytes_is_refused_and_nothing_else_is_disturbed(
    clock: Clock, bad: Any
) -> None:
    """TypeError names the type; the next command works."""
    async with three_servers() as cluster:
        server = cluster.servers[1]
        with pytest.raises(TypeError, match="bytes"):
            await server.propose(bad)
        assert await server.propose(b"fine") == 1


@pytest.mark.parametrize("machine", [Ledger, object(), None])
async def test_what_is_no_state_machine_opens_no_server(machine: Any) -> None:
    """A class neither, though it has the method: the first command would be committed, and end the server."""
    config = craft.Config(cluster="test", server_id=1, servers={1: "127.0.0.1:7001"})
    with pytest.raises(TypeError, match="state_machine is .*; allowed: an object with a method apply_batch"):
        async with craft.open_server(config, machine):
            pytest.fail("it has opened")


async def test_a_files_name_is_no_configuration() -> None:
    """The error says what makes one of it."""
    name: Any = "server-1.toml"
    with pytest.raises(TypeError, match=r"config is 'server-1.toml'; allowed: a Config, as Config.load"):
        async with craft.open_server(name, Ledger()):
            pytest.fail("it has opened")


async def test_commands_that_are_not_bytes_are_refused_as_a_whole(clock: Clock) -> None:
    """One wrong command in a call refuses the call before anything is taken."""
    async with three_servers() as cluster:
        server = cluster.servers[1]
        with pytest.raises(TypeError, match="bytes"):
            await server.propose_many([b"a", "b"])  # type: ignore[list-item]
        assert await server.read(lambda m: m.commands) == []


async def test_an_oversized_command_names_its_size_and_the_limit(clock: Clock) -> None:
    """CommandTooLarge is a Rejected: no effect; the server goes on."""
    async with three_servers() as cluster:
        server = cluster.servers[1]
        limit = cluster.config(1).engine.entry_bytes_max
        with pytest.raises(craft.CommandTooLarge, match=f"entry_bytes_max allows {limit}"):
            await server.propose(bytes(limit + 1))
        with pytest.raises(craft.CommandTooLarge, match="entry_bytes_max"):
            await server.propose_many([bytes(limit // 2 + 1)] * 2)
        assert await server.propose(b"fine") == 1


async def test_overload_is_told_at_once_and_takes_nothing(clock: Clock) -> None:
    """Beyond proposals_bytes_max a call is Overloaded; what was taken before is answered all the same."""
    limits = craft.EngineLimits(
        entry_bytes_max=65536, proposals_bytes_max=200_000, forwarded_bytes_max=200_000
    )
    async with three_servers(engine=limits) as cluster:
        server = cluster.servers[1]
        answered: list[int] = []
        refused = 0

        async def write() -> None:
            nonlocal refused
            try:
                answered.append(await server.propose(bytes(50_000)))
            except craft.Overloaded as error:
                assert "proposals_bytes_max = 200000" in str(error)
                refused += 1

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(write)
        assert refused > 0 and len(answered) == 10 - refused
        assert len(await server.read(lambda m: list(m.commands))) == len(answered)


async def test_who_tries_again_at_once_is_served_in_the_end() -> None:
    """An overloaded server becomes less so only if the loop around `propose` lets it run.

    By the real clock: a virtual one stands still as long as anybody is busy, as these loops are.
    """
    limits = craft.EngineLimits(
        entry_bytes_max=65536, proposals_bytes_max=100_000, forwarded_bytes_max=100_000
    )
    passes = 0
    async with three_servers(engine=limits) as cluster:
        server = cluster.servers[1]

        async def insist(propose: Callable[[Any], Awaitable[Any]], commands: Any) -> None:
            while True:
                before = passes
                for _ in range(1000):
                    with contextlib.suppress(craft.Overloaded):
                        await propose(commands)
                        return
                assert passes > before, "refused a thousand times, and nobody else ran"

        async def others() -> None:
            nonlocal passes
            while True:
                await trio.lowlevel.checkpoint()
                passes += 1

        async with trio.open_nursery() as everything:
            everything.start_soon(others)
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(insist, server.propose, bytes(60_000))
                    nursery.start_soon(insist, server.propose_many, [bytes(60_000)])
            everything.cancel_scope.cancel()
        assert len(await server.read(lambda m: list(m.commands))) == 6
        metrics = {metric["name"]: metric for metric in server.metrics()}
        assert metrics["craft_requests_rejected_total"]["value"] >= 5


async def test_a_cancelled_propose_leaves_nothing_behind(clock: Clock) -> None:
    """The caller is gone; its command may take effect; later commands and the close are undisturbed."""
    async with three_servers() as cluster:
        server = cluster.servers[1]
        for _ in range(20):
            with trio.move_on_after(0):
                await server.propose(b"never sent: cancelled at the checkpoint")
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(server.propose, b"cancelled in flight")
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
        assert await server.propose(b"last") is not None
        assert server.status()["pending_requests"] == 0


async def test_a_cancelled_read_leaves_nothing_behind(clock: Clock) -> None:
    """Its query never runs, and later reads are served."""
    async with three_servers() as cluster:
        server = cluster.servers[1]
        ran: list[str] = []
        cluster.network.cut(1, 2)
        cluster.network.cut(1, 3)
        with trio.move_on_after(0.1):
            await server.read(lambda _: ran.append("cancelled"))
        cluster.network.heal()
        await server.read(lambda _: ran.append("served"))
        assert ran == ["served"]
        assert server.status()["pending_reads"] == 0


async def test_a_read_sees_every_write_that_was_answered_before_it_on_any_server(clock: Clock) -> None:
    """Write through one server, read from another, over and over."""
    async with three_servers() as cluster:
        for number in range(30):
            writer = cluster.servers[1 + number % 3]
            reader = cluster.servers[1 + (number + 1) % 3]
            await writer.propose(b"%d" % number)
            assert await reader.read(lambda m: len(m.commands)) == number + 1


async def test_a_query_that_raises_harms_only_its_reader(clock: Clock) -> None:
    """The error arrives where the read waits."""

    def wrong(_: Ledger) -> None:
        raise KeyError("no such key")

    async with three_servers() as cluster:
        with pytest.raises(KeyError, match="no such key"):
            await cluster.servers[1].read(wrong)
        assert await cluster.servers[1].propose(b"fine") == 1


async def test_an_apply_that_raises_stops_the_server_and_names_the_command(clock: Clock) -> None:
    """ApplyFailed names command and position; the position does not advance; waiting callers get Unknown."""

    class Brittle(Ledger):
        def apply_batch(self, batch: craft.Batch) -> Sequence[Any] | None:
            for command in batch:
                if command == b"poison":
                    raise ValueError("cannot digest this")
            return super().apply_batch(batch)

    fates: list[str] = []

    async def write(server: craft.Server[Any]) -> None:
        try:
            await server.propose_many([b"fine", b"poison"])
        except craft.Unknown:
            fates.append("unknown")

    with pytest.raises(craft.ApplyFailed, match=r"command 2 of 2, b'poison', at position \d+.*cannot digest"):
        async with three_servers(Brittle) as cluster:
            server = cluster.servers[1]
            position = server.status()["applied_position"]
            with trio.CancelScope(shield=True):
                await write(server)
            assert server.status()["applied_position"] == position
            with pytest.raises(craft.NotReady, match="ended"):
                await server.propose(b"later")
            await trio.sleep_forever()
    assert fates == ["unknown"]


async def test_results_of_the_wrong_number_stop_the_server(clock: Clock) -> None:
    """A state machine that returns too few results would answer callers wrongly."""

    class Short:
        def apply_batch(self, batch: craft.Batch) -> Sequence[Any] | None:
            return []

    with pytest.raises(craft.ApplyFailed, match="returned 0 results for 1 commands"):
        async with three_servers(Short) as cluster:
            await cluster.servers[1].propose(b"x")


async def test_a_batch_whose_commands_were_taken_out_stops_the_server(clock: Clock) -> None:
    """As many results as commands, none of each: nobody could be answered by that."""

    class Consuming:
        def apply_batch(self, batch: craft.Batch) -> Sequence[Any] | None:
            batch.commands.clear()
            return []

    with pytest.raises(craft.ApplyFailed, match=r"batch.commands at position \d+: 1 before, 0 behind"):
        async with three_servers(Consuming) as cluster:
            await cluster.servers[1].propose(b"x")


async def test_results_that_are_no_sequence_stop_the_server_by_name(clock: Clock) -> None:
    """A generator forgotten in an `apply_batch` is told as what it is."""

    class Lazy:
        def apply_batch(self, batch: craft.Batch) -> Any:
            return (len(command) for command in batch)

    with pytest.raises(craft.ApplyFailed, match=r"returned an object of generator at position \d+; allowed"):
        async with three_servers(Lazy) as cluster:
            await cluster.servers[1].propose(b"x")


async def test_an_apply_that_raises_shows_where(clock: Clock) -> None:
    """Who wrote the state machine finds its own traceback as the cause, not only a group of errors."""

    class Brittle:
        def apply_batch(self, batch: craft.Batch) -> Sequence[Any] | None:
            raise KeyError("no such account")

    with pytest.raises(craft.ApplyFailed) as failed:
        async with three_servers(Brittle) as cluster:
            await cluster.servers[1].propose(b"x")
    assert repr(failed.value.__cause__) == "KeyError('no such account')"


async def test_an_apply_in_a_thread_does_not_stop_heartbeats(clock: Clock) -> None:
    """While one server's state machine blocks, leaders stay, and the others answer."""
    gate = threading.Event()

    class Slow(Ledger):
        def apply_batch(self, batch: craft.Batch) -> Sequence[Any] | None:
            if b"slow" in batch.commands:
                gate.wait(20)
            return super().apply_batch(batch)

    async with three_servers(Ledger, apply_in_thread=True) as cluster:
        slow = cluster.servers[3]
        slow._applier.machine = Slow()
        leaders = cluster.leaders()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow.propose, b"slow")
            for number in range(5):
                await cluster.servers[1].propose(b"%d" % number)
                await trio.sleep(1)
            assert cluster.leaders() == leaders
            gate.set()
        assert await slow.propose(b"after") is not None


async def test_callers_are_told_before_a_thread_that_hangs(clock: Clock) -> None:
    """A server that ends must wait for its state machine's thread; those who wait for an answer need not."""
    gate, opened = threading.Event(), []

    class Stuck(Ledger):
        def apply_batch(self, batch: craft.Batch) -> Sequence[Any] | None:
            opened.append(gate.wait(5))
            return super().apply_batch(batch)

    async def write(server: craft.Server[Any]) -> None:
        with pytest.raises(craft.Unknown):
            await server.propose(b"x")
        gate.set()

    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        cluster = Cluster(stack, apply_in_thread=True, close_timeout_ms=100)
        await cluster.start_all(Stuck)
        nursery.start_soon(write, cluster.servers[3])
        await trio.sleep(1)
    assert opened and all(opened)


async def test_a_disk_that_hangs_for_ever_does_not_keep_the_process(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To close it would be to wait for the sync: it is closed when the disk is there again, if ever."""
    monkeypatch.setattr(syncing, "STOP_WAIT_S", 1)
    come_back, hanging, closed = threading.Event(), threading.Event(), threading.Event()

    class Hanging(FailingStorage):
        def __init__(self) -> None:
            super().__init__(Identity("test", 1, "d" * 32, 3))
            self._syncing = threading.Lock()

        def sync(self) -> None:
            with self._syncing:
                if hanging.is_set():
                    come_back.wait(60)
                super().sync()

        def close(self) -> None:
            with self._syncing:
                super().close()
                closed.set()

    async with AsyncExitStack() as stack:
        cluster = Cluster(stack)
        cluster.disks[1] = Hanging()
        await cluster.start(2)
        await cluster.start(3)
        with trio.move_on_after(5):
            async with cluster.opening(1) as server:
                await server.wait_ready()
                hanging.set()
                await server.propose(b"x")
        assert not closed.is_set()
        come_back.set()
        assert closed.wait(60)


@pytest.mark.parametrize("apply_in_thread", [False, True])
async def test_threads_of_the_users_own_hold_up_nothing(clock: Clock, apply_in_thread: bool) -> None:
    """Trio's threads are shared; a program that keeps them all busy must not stall its disk or its end."""
    shared = trio.to_thread.current_default_thread_limiter()
    shared.total_tokens = 1
    await shared.acquire_on_behalf_of("the user")
    with trio.fail_after(60):
        async with three_servers(apply_in_thread=apply_in_thread) as cluster:
            assert await cluster.servers[1].propose(b"x") == 1


@pytest.mark.parametrize("where", ["fail_sync", "fail_write"])
async def test_a_disk_that_fails_ends_the_server_and_answers_nothing(clock: Clock, where: str) -> None:
    """StorageFailed is raised where the server was opened; the caller learns that the fate is unknown."""
    fates: list[str] = []
    with pytest.raises(craft.StorageFailed, match="no space left"):
        async with three_servers() as cluster:
            disk = cluster.disks[1]
            assert isinstance(disk, FailingStorage)
            setattr(disk, where, "no space left on device")
            with trio.CancelScope(shield=True):
                try:
                    await cluster.servers[1].propose(b"x")
                except craft.Unknown:
                    fates.append("unknown")
            syncs = disk.syncs
            with trio.CancelScope(shield=True):
                await trio.sleep(5)
            assert disk.syncs == syncs, "a failed sync is never retried"
            await trio.sleep_forever()
    assert fates == ["unknown"]


async def test_a_panic_of_the_disks_library_ends_the_server(clock: Clock) -> None:
    """RocksDB's binding raises no mere Exception then; a sync whose end nobody hears of would hang all."""

    class Panic(BaseException):
        pass

    class Panicking(FailingStorage):
        def sync(self) -> None:
            if self.fail_sync is not None:
                raise Panic(self.fail_sync)
            super().sync()

    with pytest.raises(Panic, match="unreachable code"), trio.fail_after(60):
        async with AsyncExitStack() as stack:
            cluster = Cluster(stack)
            disk = cluster.disks[1] = Panicking(cluster.disks[1].identity)
            await cluster.start_all()
            disk.fail_sync = "unreachable code"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cluster.servers[2].propose, b"x")
                await trio.sleep_forever()


async def test_closing_hands_the_groups_over_first(clock: Clock) -> None:
    """A server that leaves answers what it took, and the others lead its groups."""
    async with three_servers() as cluster:
        await cluster.servers[3].close()
        await cluster.servers[1].propose(b"x")
        assert 3 not in cluster.leaders()
        with pytest.raises(craft.NotReady, match="stopping"):
            await cluster.servers[3].propose(b"too late")


async def test_closing_serves_the_reads_under_way(clock: Clock) -> None:
    """They cost a round trip: no reason to send them away, even where no group must be handed over first."""
    lengths: list[int] = []

    async def look(server: craft.Server[Ledger]) -> None:
        lengths.append(await server.read(lambda m: len(m.commands)))

    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        cluster = Cluster(stack)
        await cluster.start(1)
        await cluster.start(2)
        await cluster.servers[1].propose(b"x")
        async with cluster.opening(3) as server:
            await server.wait_ready()
            assert 3 not in cluster.leaders()
            nursery.start_soon(look, server)
            await trio.testing.wait_all_tasks_blocked()
    assert lengths == [1]


async def test_a_server_that_stops_lets_others_run_when_it_refuses(clock: Clock) -> None:
    """Whoever asks again and again until it works must not keep the loop for itself."""
    async with three_servers() as cluster:
        server = cluster.servers[3]
        await server.close()
        for ask in (server.propose(b"x"), server.propose_many([b"x"]), server.read(lambda _: None)):
            with trio.testing.assert_checkpoints(), pytest.raises(craft.NotReady, match="stopping"):
                await ask


async def test_without_a_majority_a_proposal_waits_and_the_end_tells_its_fate(clock: Clock) -> None:
    """Nothing was ever appended: Rejected, not Unknown."""
    fates: list[type] = []

    async def write(server: craft.Server[Ledger]) -> None:
        try:
            await server.propose(b"x")
        except craft.CraftError as error:
            fates.append(type(error))

    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        cluster = Cluster(stack, close_timeout_ms=500)
        server = await cluster.start(1)
        nursery.start_soon(write, server)
        await trio.sleep(10)
        assert fates == []
    assert fates == [craft.NotReady]


async def test_a_restarted_server_replays_its_disk_and_goes_on(clock: Clock) -> None:
    """State in memory is rebuilt from the log, commands take effect once, and new ones follow."""
    async with three_servers() as cluster:
        for number in range(20):
            await cluster.servers[1 + number % 3].propose(b"%d" % number)
    async with AsyncExitStack() as stack:
        again = Cluster(stack)
        again.disks = {i: disk.crash() for i, disk in cluster.disks.items()}
        await again.start_all()
        assert await again.servers[2].propose(b"20") == 21
        assert await again.servers[3].read(lambda m: sorted(map(int, m.commands))) == list(range(21))


async def test_a_cut_link_between_two_servers_stalls_nobody(clock: Clock) -> None:
    """Both directions dropped between two of three: writes through all three go on being answered."""
    async with three_servers() as cluster:
        cluster.network.cut(1, 2)
        for number in range(12):
            with trio.fail_after(5):
                await cluster.servers[1 + number % 3].propose(b"%d" % number)
        cluster.network.heal()
        await trio.sleep(2)
        histories = [await server.read(lambda m: list(m.commands)) for server in cluster.servers.values()]
        assert histories[0] == histories[1] == histories[2]


async def test_clocks_hours_apart_change_neither_order_nor_answers(clock: Clock) -> None:
    """One an hour ahead, one an hour behind, one stepping back each second: all is answered, in one order."""
    async with three_servers() as cluster:
        hour = 3600 * 10**9
        cluster.clocks[1].offset_ns, cluster.clocks[2].offset_ns = hour, -hour
        for number in range(30):
            if number % 10 == 0:
                cluster.clocks[3].offset_ns -= 50_000_000
                await trio.sleep(1)
            with trio.fail_after(5):
                await cluster.servers[1 + number % 3].propose(b"%d" % number)
        ledger = await cluster.servers[1].read(lambda machine: machine)
        assert ledger.commands == [b"%d" % number for number in range(30)], "answered one after the other"
        timestamps = [timestamp for _, timestamp in ledger.places]
        assert timestamps == sorted(timestamps)
        bound = cluster.config(1).engine.clock_offset_ms_max * 10**6
        assert timestamps[-1] - cluster.clocks[3].now() < bound + 10**9
        assert cluster.servers[1].status()["clock_clamped"] or cluster.leaders()[0] != 1


async def test_status_and_metrics_are_plain_values(clock: Clock) -> None:
    """Everything in them can be packed and printed, and the rungs are in order."""
    async with three_servers() as cluster:
        await cluster.servers[1].propose(b"x")
        status = cluster.servers[1].status()
        json.dumps(status)
        for group in status["groups"]:
            assert group["appended"] >= group["persisted"] >= group["applied"]
            assert group["committed"] >= group["merged"] >= group["applied"]
        metrics = {metric["name"]: metric for metric in cluster.servers[1].metrics()}
        json.dumps(list(metrics.values()))
        assert metrics["craft_commands_answered_total"]["value"] == 1
        assert all(metric["help"] and metric["unit"] for metric in metrics.values())
