"""The shell's part of snapshots: forked on time, written in a thread, restored before anything else."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import craft
from craft.cli.demo.machine import Ledger as Demo
from craft.server import working
from craft.server.snapshots import lacking
from craft.storage import Identity
from craft.storage.memory import MemoryStorage
from craft.storage.snapshots import file_name
from tests.server.cluster import Cluster, Ledger, three_servers

KIB = 1024
SMALL = craft.EngineLimits(
    snapshot_log_bytes=64 * KIB,
    log_trailing_bytes=1,
    log_held_bytes_max=1,
)

FURTHER = 20
"""Entries."""


class Notes:
    """Keeps what it is told, and can be captured; a test may look at where, and make it fail."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []
        self.fail = ""
        self.threads: dict[str, threading.Thread] = {}
        self.restored = 0

    def apply_batch(self, batch: craft.Batch) -> Sequence[Any] | None:
        self.threads["apply"] = threading.current_thread()
        results = []
        for command in batch:
            self.commands.append(command)
            results.append(len(self.commands))
        return results

    def snapshot(self) -> Callable[[], Iterable[bytes]]:
        self.threads["snapshot"] = threading.current_thread()
        if self.fail == "snapshot":
            raise ValueError("no fork today")
        return partial(self._chunks, list(self.commands))

    def _chunks(self, forked: list[bytes]) -> Iterator[bytes]:
        self.threads["chunks"] = threading.current_thread()
        for command in forked:
            if self.fail == "chunks":
                raise ValueError("no chunk today")
            yield command

    def restore(self, chunks: Iterable[bytes]) -> None:
        self.threads["restore"] = threading.current_thread()
        if self.fail == "restore":
            raise ValueError("no state today")
        self.commands = list(chunks)
        self.restored += 1


def disk() -> MemoryStorage:
    return MemoryStorage(Identity("notes", 1, secrets.token_hex(16), 2))


def opening(storage: MemoryStorage, machine: Any, **settings: Any) -> Any:
    config = craft.Config(
        cluster="notes",
        server_id=1,
        servers={1: "127.0.0.1:7401"},
        groups=2,
        engine=settings.pop("engine", craft.EngineLimits()),
        **settings,
    )
    transport = craft.MemoryNetwork().transport(1)
    return craft.open_server(config, machine, storage=storage, transport=transport)


@pytest.mark.parametrize("in_thread", [False, True])
async def test_a_restart_restores_the_snapshot_and_applies_what_came_after(in_thread: bool) -> None:
    """Every command once; the fork is made where commands are applied, the chunks elsewhere."""
    storage, machine = disk(), Notes()
    async with opening(storage, machine, apply_in_thread=in_thread) as server:
        await server.propose_many([b"one", b"two"])
        position = await server.take_snapshot()
        assert position == server.position
        await server.propose(b"three")
    main = threading.current_thread()
    assert (machine.threads["snapshot"] is main) == (machine.threads["apply"] is main) == (not in_thread)
    assert machine.threads["chunks"] is not main
    again = Notes()
    async with opening(storage.reopen(), again) as server:
        assert await server.read(lambda notes: notes.commands) == [b"one", b"two", b"three"]
        assert again.restored == 1
        assert server.status()["snapshots"]["kept"][0]["position"] == position


async def test_what_is_applied_while_a_snapshot_is_written_is_not_in_it() -> None:
    """The fork is of one moment; whoever asks twice at one position is given the same."""
    storage, machine = disk(), Notes()
    async with opening(storage, machine) as server:
        await server.propose(b"before")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.take_snapshot)
            await trio.testing.wait_all_tasks_blocked()
            await server.propose(b"behind")
        first = server.status()["snapshots"]["kept"]
        assert await server.take_snapshot() == await server.take_snapshot() == server.position
        assert len(first) == 1 and server.status()["snapshots"]["taken"] == 2
    parts = [part.data for part in storage.snapshots.parts(storage.snapshots.kept()[0].id)]
    assert b"before" in parts and b"behind" not in parts


@pytest.mark.parametrize("what", ["snapshot", "chunks"])
async def test_what_the_state_machine_raises_costs_that_snapshot_alone(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told to who asked, logged, counted and shown; the server goes on, and the next may succeed."""
    storage, machine = disk(), Notes()
    async with opening(storage, machine) as server:
        await server.propose(b"one")
        machine.fail = what
        with pytest.raises(craft.SnapshotFailed, match="today.*the server goes on"):
            await server.take_snapshot()
        shown = server.status()["snapshots"]
        assert (shown["failed"], shown["taken"], shown["kept"]) == (1, 0, []) and "today" in shown[
            "last_error"
        ]
        assert [record.levelno for record in caplog.records if "snapshot failed" in record.message] == [
            logging.ERROR
        ]
        machine.fail = ""
        assert await server.propose(b"two") == 2
        assert await server.take_snapshot() == server.position
        assert server.status()["snapshots"]["last_error"] == ""


async def test_a_disk_that_refuses_a_snapshot_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """As any other failure of the disk does; who asked is told."""
    storage = disk()

    def refuse(*_: object) -> None:
        raise craft.StorageFailed("no room")

    monkeypatch.setattr(storage.snapshots, "write", refuse)
    with pytest.raises(craft.StorageFailed, match="no room"):
        async with opening(storage, Notes()) as server:
            await server.propose(b"one")
            with pytest.raises(craft.NotReady):
                await server.take_snapshot()
            await trio.sleep_forever()


async def test_a_snapshot_whose_writing_hangs_for_ever_does_not_keep_the_process(
    clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it holds is closed when the disk is there again, if ever."""
    monkeypatch.setattr(working, "STOP_WAIT_S", 0.1)
    come_back, closed, storage = threading.Event(), threading.Event(), disk()
    monkeypatch.setattr(storage.snapshots, "write", lambda *_: come_back.wait(60))
    monkeypatch.setattr(storage, "close", closed.set)
    async with trio.open_nursery() as nursery, opening(storage, Notes()) as server:
        await server.propose(b"a")

        async def take() -> None:
            with pytest.raises(craft.NotReady):
                await server.take_snapshot()

        nursery.start_soon(take)
        await trio.sleep(1)
    assert not closed.is_set()
    come_back.set()
    assert closed.wait(60)
    del clock


async def test_a_state_machine_without_the_hooks_is_told_so() -> None:
    """When one is asked for; and its server takes none by itself."""
    async with opening(disk(), Ledger()) as server:
        await server.propose(b"one")
        with pytest.raises(craft.SnapshotFailed, match="Ledger has no methods snapshot and restore"):
            await server.take_snapshot()
        assert not server.status()["snapshots"]["supported"]


async def test_compacted_logs_need_a_state_machine_that_can_be_restored(clock: MockClock) -> None:
    """The server refuses to start without one, and says what is allowed."""
    storage = disk()
    async with opening(storage, Notes(), engine=SMALL) as server:
        await _compact(server)
    with pytest.raises(craft.ConfigError, match="Ledger has no methods snapshot and restore"):
        async with opening(storage.reopen(), Ledger()):
            pass
    assert "restore" in lacking(Ledger())


async def _compact(*servers: craft.Server[Any]) -> None:
    """Write until each has compacted a log further than a server that has just started knows it."""
    while not all(_compacted(server) > FURTHER for server in servers):
        await servers[0].propose_many([secrets.token_bytes(KIB)] * 32)
        await trio.sleep(0.1)
    metrics = {metric["name"]: metric["value"] for metric in servers[0].metrics() if "value" in metric}
    assert metrics["craft_compactions_total"] and metrics["craft_snapshots_taken_total"] >= 2


def _compacted(server: craft.Server[Any]) -> int:
    return max(replica.state.log.start.place.index for replica in server.engine.state.replicas)


async def test_a_damaged_newest_snapshot_costs_time_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The older one and the longer log give the same state; the damaged file is named and put aside."""
    storage, machine = disk(), Notes()
    async with opening(storage, machine) as server:
        for command in (b"one", b"two"):
            await server.propose(command)
            await server.take_snapshot()
        await server.propose(b"three")
    contents = storage.snapshots._files.contents  # type: ignore[attr-defined]  # a disk's bit flips
    newest = max(name for name in contents if name.endswith(".snapshot"))
    contents[newest][-30] ^= 1
    again = Notes()
    async with opening(storage.reopen(), again) as server:
        assert await server.read(lambda notes: notes.commands) == [b"one", b"two", b"three"]
        assert len(server.status()["snapshots"]["kept"]) == 1
    assert any(newest in record.message for record in caplog.records)


async def test_a_restore_that_raises_ends_the_start() -> None:
    """With the state machine's own error behind it."""
    storage, machine = disk(), Notes()
    async with opening(storage, machine) as server:
        await server.propose(b"one")
        await server.take_snapshot()
    broken = Notes()
    broken.fail = "restore"
    with pytest.raises(craft.RestoreFailed, match="no state today"):
        async with opening(storage.reopen(), broken):
            pass


@asynccontextmanager
async def two_and_one_away(**settings: Any) -> AsyncIterator[Cluster]:
    """Three servers, of which the third has been stopped, and whose logs the others have compacted since."""
    async with AsyncExitStack() as stack:
        cluster = Cluster(stack, engine=SMALL, **settings)
        for server_id in (1, 2):
            await cluster.start(server_id, Notes())
        async with cluster.opening(3, Notes()) as third:
            await third.wait_ready()
            await third.propose(b"early")
        cluster.disks[3] = cluster.disks[3].reopen()
        await _compact(cluster.servers[1], cluster.servers[2])
        yield cluster


async def test_who_was_away_for_too_long_catches_up_by_snapshot(clock: MockClock) -> None:
    """Its state is that of the others, reads there wait for it, and it goes on from there."""
    async with two_and_one_away() as cluster:
        late = Notes()
        third = await cluster.start(3, late)
        await third.wait_ready()
        count = await third.propose(b"behind it")
        assert late.restored == 1 and count == len(late.commands)
        assert late.commands == await cluster.servers[1].read(lambda notes: list(notes.commands))
        shown = third.status()["snapshots"]
        assert (shown["installed"], shown["restoring"], shown["unfounded"]) == (1, False, False)


async def test_a_subscriber_that_meets_a_damaged_snapshot_is_served_from_another(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It costs time, not the server; that is said once, and nothing is read from it any more."""
    storage = disk()
    async with opening(storage, Notes()) as server:
        for command in (b"one", b"two", b"three"):
            await server.propose(command)
            await server.take_snapshot()
        _, newest = server.engine.state.snapshots.kept
        await server.propose(b"four")
        server.tails.jump(server.position)  # memory has nothing of it any more
        contents = storage.snapshots._files.contents  # type: ignore[attr-defined]  # a disk's bit flips
        contents[file_name(newest.id)][40] ^= 1
        for _ in range(2):
            (entry,) = await server.tails.poll(newest.head.position, 10_000)
            assert (entry.position, entry.commands) == (newest.head.position + 1, (b"four",))
    assert caplog.text.count("damaged snapshot: the next start puts it aside") == 1


async def test_a_snapshot_that_goes_while_a_subscriber_reads_it_is_no_failure() -> None:
    """The store drops the oldest of three at once, and the engine hears of it with the next turn."""
    storage = disk()
    async with opening(storage, Notes()) as server, trio.open_nursery() as nursery:
        for command in (b"one", b"two"):
            await server.propose(command)
            await server.take_snapshot()
        older, newer = server.engine.state.snapshots.kept
        server.tails.jump(server.position)  # memory has nothing of it any more

        async def next_turn() -> None:
            await trio.sleep(0.05)
            server.engine.state.snapshots.kept = (newer,)

        storage.snapshots._kept.remove(older)  # type: ignore[union-attr]
        storage.snapshots._files.remove(file_name(older.id))
        nursery.start_soon(next_turn)
        batch = await server.tails.poll(older.head.position, 10_000)
        assert batch[0].position == older.head.position + 1


async def test_who_reads_while_too_many_files_are_open_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is wrong with the disk, and whoever asks from outside must not end the server."""
    storage = disk()

    def refuse(*_: Any) -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with opening(storage, Notes()) as server:
        await server.propose(b"a")
        await server.take_snapshot()
        (info,) = await server.tails.snapshots()
        with monkeypatch.context() as patched:
            patched.setattr(storage._files, "read", refuse)
            with pytest.raises(craft.Overloaded, match="Too many open files"):
                await server.tails.read_snapshot(info.id, 0)
        assert await server.tails.read_snapshot(info.id, 0)


async def test_a_snapshot_is_no_fault_of_a_remote_subscriber(clock: MockClock) -> None:
    """It follows a server that was cut off, and is told where one may begin: it was not too slow."""
    async with three_servers(Notes, engine=SMALL) as cluster, trio.open_nursery() as nursery:
        third = cluster.servers[3]
        for server_id in (1, 2):
            cluster.network.cut(server_id, 3)
        told = trio.Event()

        async def follow() -> None:
            with pytest.raises(craft.Compacted):
                while True:
                    await third.tails.poll(third.position, 60_000)
            told.set()

        nursery.start_soon(follow)
        await _compact(cluster.servers[1], cluster.servers[2])
        cluster.network.heal()
        await told.wait()
        assert third.state_machine.restored == 1 and third.tails.dropped.value == 0


async def test_a_peers_snapshot_ends_a_server_that_cannot_restore_it(clock: MockClock) -> None:
    """It names what is missing in the state machine."""
    async with two_and_one_away() as cluster:
        with pytest.raises(craft.RestoreFailed, match="Ledger has no methods snapshot and restore"):
            async with cluster.opening(3, Ledger()):
                await trio.sleep_forever()


def test_the_demos_ledger_is_what_it_was() -> None:
    """Its digest, its counts and its answers, over chunks of both kinds."""
    ledger, again = Demo(), Demo()
    ledger.apply_batch(craft.Batch(7, 7, [b"a", b"b", b"a", *(b"%d" % i for i in range(5000))]))
    chunks = ledger.snapshot()
    before = ledger.query(b"summary")
    ledger.apply_batch(craft.Batch(8, 8, [b"later"]))
    again.restore(chunks())
    assert again.query(b"summary") == before and again.query(b"count a b later") == [2, 1, 0]
