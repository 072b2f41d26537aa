"""The bare servers that craft is compared with do what they are said to, or their figure is too high."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import pytest
import trio
from rocksdict import Options, Rdict

from bench import ceiling, processes
from bench.ceiling_member import Bare
from bench.workload import Table
from tests.bench.test_bench import bench, result_of
from tests.bench.test_loads import options_of


class Three:
    """Three of them in one process. Frames arrive when they are carried, syncs are done when told."""

    def __init__(self, place: Path) -> None:
        self.disks = [Rdict(str(place / str(me)), Options(raw_mode=True)) for me in range(3)]
        self.bare = [Bare(me, 3, db) for me, db in enumerate(self.disks)]

    def round(self, *, synced: tuple[int, ...] = (0, 1, 2)) -> None:
        """Everybody takes a turn; then frames arrive, and some disks have everything."""
        for one in self.bare:
            one.turn()
        for me, one in enumerate(self.bare):
            for peer, outbox in enumerate(one.outboxes):
                if outbox:
                    self.bare[peer].inbox.append(msgpack.packb(outbox))
                    outbox.clear()
            if me in synced:
                one.synced = one.lengths

    def propose(self, me: int, *commands: bytes) -> trio.Event:
        """A client's call."""
        answer = trio.Event()
        self.bare[me].proposed.append((msgpack.packb(commands), answer))
        return answer

    @property
    def tables(self) -> list[Table]:
        return [one.table for one in self.bare]


@pytest.fixture
def three(tmp_path: Path) -> Any:
    made = Three(tmp_path)
    yield made
    for disk in made.disks:
        disk.close()


def test_all_apply_the_same_in_the_same_order(three: Three) -> None:
    """Each call at its own server is answered, and every server has executed all of them."""
    answers = [three.propose(number % 3, b"%08d" % number) for number in range(30)]
    for _ in range(8):
        three.round()
    assert all(answer.is_set() for answer in answers)
    assert [table.applied for table in three.tables] == [30, 30, 30]
    assert len({table.digest() for table in three.tables}) == 1


def test_nothing_is_answered_that_one_disk_alone_has(three: Three) -> None:
    """A majority has synced it, as with craft; else the ceiling would be another design's."""
    answer = three.propose(0, b"12345678")
    for _ in range(8):
        three.round(synced=(0,))
    assert not answer.is_set() and not any(table.applied for table in three.tables)
    for _ in range(8):
        three.round(synced=(0, 2))
    assert answer.is_set()


def test_entries_are_on_the_disk(three: Three) -> None:
    """All of all groups, with their stamps: a log that is not written would be a faster one."""
    three.propose(1, b"12345678", b"87654321")
    for _ in range(8):
        three.round()
    for one, disk in zip(three.bare, three.disks, strict=True):
        assert len(list(disk.keys())) == sum(one.lengths)
        value = disk.get(bytes([1]) + (1).to_bytes(8, "big"))
        assert value is not None and msgpack.unpackb(value[8:]) == [b"12345678", b"87654321"]


@pytest.mark.system
def test_craft_is_measured_in_turns_with_them(tmp_path: Path) -> None:
    """The share is that of the rounds, and whatever they left behind is gone."""
    brief = ("--seconds", "0.5", "--warmup", "0.2", "--repeats", "2", "--tasks", "2")
    result = result_of(bench("ceiling", *brief, place=tmp_path), tmp_path)
    rates = [[run["applied_per_second"] for run in result[name]["runs"]] for name in ("craft", "bare")]
    shares = sorted(round(own / bare, 3) for own, bare in zip(*rates, strict=True))
    assert [result["share"]["least"], result["share"]["greatest"]] == shares
    assert all(len(run["servers"]) == 3 for run in result["bare"]["runs"])


@pytest.mark.system
def test_a_bare_server_that_dies_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, and nothing stays: neither a process nor a directory."""
    options = options_of("ceiling", "--seconds", "0.5", "--warmup", "0", "--dir", str(tmp_path))
    taken = processes.free_ports(1) * 3
    monkeypatch.setattr(ceiling, "free_ports", lambda _: taken)
    with pytest.raises(processes.BenchError, match="told nothing"):
        trio.run(ceiling.bare_cluster, options)
    assert not list(tmp_path.iterdir())
