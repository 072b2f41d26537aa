"""State machines that keep their data themselves: given what they lack, and nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

import msgpack
import pytest
import trio

import craft
from craft.applying import Applier, Told
from craft.errors import ForeignState
from craft.ready import Judged, Merged, Request, Verdict
from craft.restoring import begin, restore
from craft.types import EntryKind, Head, SnapshotId, SnapshotInfo, SnapshotKind, SnapshotPart
from tests.server.test_snapshots import Notes, disk, opening


class Kept:
    """A disk: what is on it outlives the state machine."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []
        self.last = craft.LastApplied()


class Keeping(Notes):
    """Notes on a disk; counts the batches that it is given."""

    def __init__(self, kept: Kept) -> None:
        super().__init__()
        self.kept, self.commands, self.batches = kept, list(kept.commands), 0

    def last_applied(self) -> craft.LastApplied:
        return self.kept.last

    def apply_batch(self, batch: craft.Batch) -> Sequence[Any] | None:
        results = super().apply_batch(batch)
        self.batches += 1
        self._keep(craft.LastApplied(batch.position, batch.timestamp))
        return results

    def snapshot(self) -> Callable[[], Iterable[bytes]]:
        head, chunks = msgpack.packb(self.kept.last), super().snapshot()
        return lambda: chain([head], chunks())

    def restore(self, chunks: Iterable[bytes]) -> None:
        rest = iter(chunks)
        last = craft.LastApplied(*msgpack.unpackb(next(rest)))
        super().restore(rest)
        self._keep(last)

    def _keep(self, last: craft.LastApplied) -> None:
        self.kept.commands, self.kept.last = list(self.commands), last


def test_it_is_recognized_by_its_method() -> None:
    """Not by a base class."""
    assert isinstance(Keeping(Kept()), craft.Durable)
    assert not isinstance(Notes(), craft.Durable)


# -- a server --------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_snapshot", [False, True])
async def test_a_restart_gives_it_nothing_that_it_has(with_snapshot: bool) -> None:
    """Neither from the log nor from a snapshot; and its reads see all of it."""
    storage, kept = disk(), Kept()
    async with opening(storage, Keeping(kept)) as server:
        await server.propose_many([b"one", b"two"])
        if with_snapshot:
            await server.take_snapshot()
        await server.propose(b"three")
        position = server.position
    again = Keeping(kept)
    async with opening(storage.reopen(), again) as server:
        assert await server.read(lambda notes: notes.commands) == [b"one", b"two", b"three"]
        assert (again.batches, again.restored) == (0, 0)
        assert await server.propose(b"four") == 4
        assert server.position > position
        assert await server.take_snapshot() == server.position
    assert kept.commands == [b"one", b"two", b"three", b"four"]


async def test_what_a_power_cut_took_of_its_data_is_given_again() -> None:
    """From the log, as far as the snapshot goes; else from the snapshot."""
    storage, kept, before = disk(), Kept(), Kept()
    async with opening(storage, Keeping(kept)) as server:
        await server.propose(b"one")
        before.commands, before.last = list(kept.commands), kept.last
        await server.propose(b"two")
    lagging = Keeping(before)
    async with opening(storage.reopen(), lagging) as server:
        assert await server.read(lambda notes: notes.commands) == [b"one", b"two"]
        assert (lagging.batches, lagging.restored) == (1, 0)
        await server.take_snapshot()
    empty = Keeping(Kept())
    async with opening(storage.reopen(), empty) as server:
        assert await server.read(lambda notes: notes.commands) == [b"one", b"two"]
        assert (empty.batches, empty.restored) == (0, 1)
    assert empty.kept.last == before.last


async def test_data_of_another_cluster_end_the_server() -> None:
    """It says which batch they claim, and what is there."""
    storage, kept = disk(), Kept()
    async with opening(storage, Keeping(kept)) as server:
        await server.propose(b"one")
    kept.last = kept.last._replace(timestamp=7)
    with pytest.raises(
        ForeignState, match=f"last batch was at position {kept.last.position}, stamped 7; the"
    ):
        async with opening(storage.reopen(), Keeping(kept)) as server:
            await server.read(lambda notes: notes.commands)


async def test_data_of_commands_that_the_cluster_has_lost_end_the_server() -> None:
    """A new command would be passed over, because the data claim a position beyond it."""
    kept = Kept()
    kept.last = craft.LastApplied(1000, 7)
    with pytest.raises(ForeignState, match="position 1000, stamped 7; the merged log has a new command at"):
        async with opening(disk(), Keeping(kept)) as server:
            with trio.fail_after(10):
                await server.propose(b"one")


async def test_nobody_reads_or_captures_data_that_are_ahead_of_the_merge() -> None:
    """They would be of another position than they say. The server itself becomes ready: it can be asked."""
    kept = Kept()
    kept.last = craft.LastApplied(1000, 7)
    async with opening(disk(), Keeping(kept)) as server:
        await server.wait_ready()
        for ask in (
            server.take_snapshot,
            lambda: server.read(lambda notes: notes.commands),
            lambda: server.read_stale(lambda notes: notes.commands),
        ):
            with trio.move_on_after(0.1) as waited:
                await ask()
            assert waited.cancelled_caught


# -- the pieces ------------------------------------------------------------------------------------


def merged(position: int, *commands: bytes, token: Any = None, clients: tuple[Judged, ...] = ()) -> Merged:
    requests = (Request(token, msgpack.packb(list(commands))),) if commands else ()
    return Merged(position, 10 * position, 0, position, EntryKind.COMMAND, requests, clients)


def applier(commands: list[bytes], position: int) -> Applier:
    """At work for a state machine that has these commands."""
    kept = Kept()
    kept.commands, kept.last = commands, craft.LastApplied(position, 10 * position)
    made = Applier(Keeping(kept))
    made.ahead = kept.last
    return made


def test_a_client_that_asks_again_is_told_that_its_result_is_gone() -> None:
    """The command took effect before the restart; what it was answered nobody here knows."""
    first = Judged(Verdict.EXECUTED, "client", b"session", 1, 5)
    again = Judged(Verdict.REPEATED, "client", b"session", 1, 5)
    work = applier([b"one", b"two"], 3)
    assert work.run([merged(3, b"two", clients=(first,))]) == [
        ("client", Told(Verdict.EXECUTED, 1, 3, 30, known=False))
    ]
    assert work.run([merged(4, clients=(again,))]) == [
        ("client", Told(Verdict.REPEATED, 1, 4, 40, known=False))
    ]
    assert work.machine.batches == 0  # type: ignore[attr-defined]


def info(position: int) -> SnapshotInfo:
    head = Head("notes", position, 10 * position, b"", ())
    return SnapshotInfo(SnapshotId(position, 1), 0, head)


def parts(position: int, *commands: bytes) -> list[SnapshotPart]:
    results = msgpack.packb([((b"session", 5), msgpack.packb(["told"]))])
    chunks = (msgpack.packb((position, 10 * position)), *commands)
    return [
        SnapshotPart(SnapshotKind.RESULTS, results),
        *[SnapshotPart(SnapshotKind.MACHINE, chunk) for chunk in chunks],
    ]


@pytest.mark.parametrize(
    ("own", "restored", "ahead"), [(3, 1, 0), (4, 1, 0), (5, 0, 5), (9, 0, 9)], ids=["3", "4", "5", "9"]
)
def test_at_a_start_the_further_one_counts(own: int, restored: int, ahead: int) -> None:
    """Its data, or the snapshot at position 5; what clients were told is the snapshot's either way."""
    work = applier([b"its own"], own)
    begin(info(5), lambda: parts(5, b"the snapshot's"), work)
    assert (work.machine.restored, work.ahead.position) == (restored, ahead)  # type: ignore[attr-defined]
    assert [name for name, _ in work.client_results.items()] == [(b"session", 5)]


def test_at_one_position_there_is_one_history() -> None:
    """Else the data are put aside by hand: nothing of them is touched."""
    work = applier([b"its own"], 5)
    work.ahead = craft.LastApplied(5, 51)
    with pytest.raises(ForeignState, match="stamped 51; the snapshot there is stamped 50"):
        begin(info(5), lambda: parts(5, b"the snapshot's"), work)


def test_behind_a_restore_everything_is_applied_again() -> None:
    """A peer's snapshot may bring it back behind what it had: its logs were lost, its data were not."""
    work = applier([b"one", b"two"], 9)
    restore(parts(5, b"one"), work)
    work.run([merged(6, b"two")])
    assert work.machine.commands == [b"one", b"two"]  # type: ignore[attr-defined]
