"""Data on a disk: answers as from memory, nothing twice or lost over restarts, memory that does not grow."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from itertools import count
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import Any

import msgpack
import pytest

import craft
from craft.testing import simulate
from examples.kv import cluster, member, settings
from examples.kv.disk import DurableKeyValue
from examples.kv.machine import NS_PER_MS, KeyValue, pack_command, pack_transaction
from tests.kv.generator import KEYS, Generator
from tests.kv.redis import Connection
from tests.kv.test_clients import ROOT, free_ports
from tests.kv.test_machine import asked, drawn
from tests.kv.test_member import told

CACHE_BYTES_MAX = 4_000
"""A dozen keys: what the tests ask for is mostly not in memory."""

STEP_MS = 40


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A machine on a disk that a test may restart."""
    found = Disk(tmp_path / "store")
    yield found
    found.machine.close()


class Disk:
    """A machine whose process is started again and again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.machine = self._open()

    def _open(self) -> DurableKeyValue:
        return DurableKeyValue(self.directory, cache_bytes_max=CACHE_BYTES_MAX)

    def reopen(self) -> DurableKeyValue:
        self.machine.close()
        self.machine = self._open()
        return self.machine


def batches(seed: int, number: int) -> Iterator[craft.Batch]:
    """Random commands and transactions of every kind; many keys expire within a few batches."""
    rng, generator, now = Random(seed), Generator(seed), 1_000
    for position in range(1, number + 1):
        now += rng.randrange(STEP_MS)
        commands = []
        for args in generator.sequence(rng.randint(1, 12)):
            kind = rng.random()
            if kind < 0.1:
                watched = [(rng.choice(KEYS), rng.randrange(position))] if kind < 0.03 else []
                commands.append(pack_transaction([args, [b"KEYS", b"*"], [b"DBSIZE"], *scans(rng)], watched))
            elif kind < 0.25:
                commands.append(
                    pack_command([b"SET", rng.choice(KEYS), b"v", b"PX", b"%d" % rng.randint(1, 200)])
                )
            else:
                commands.append(pack_command(args))
        yield craft.Batch(position, now * NS_PER_MS + position, commands)


def scans(rng: Random) -> list[list[bytes]]:
    """Pages, and a key of those there are."""
    return [
        [b"SCAN", b"%d" % rng.randrange(2**14), b"COUNT", b"2", b"TYPE", rng.choice([b"hash", b"string"])],
        [b"SCAN", b"0", b"COUNT", b"%d" % rng.randint(1, 5)],
        [b"RANDOMKEY"],
    ]


def seen(machine: KeyValue, now: int) -> list[Any]:
    """All that clients can see beside values, at a time that may be later than the last batch's."""
    view = machine.view(now)
    found: list[Any] = [view.keys(), view.count(), list(view.walk(b"")), list(view.walk(b"a", beyond=True))]
    found += [machine.read(args, now) for args in scans(Random(now))]
    found += [(machine.version(key, now), view.value(key) is None, view.deadline(key)) for key in KEYS]
    return [*found, [msgpack.packb(machine.read([b"OBJECT", b"ENCODING", key], now)) for key in KEYS]]


def stream(machine: KeyValue) -> bytes:
    return b"".join(machine.snapshot()())


@pytest.mark.parametrize("seed", range(3))
def test_it_answers_as_memory_does(disk: Disk, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Command by command, over restarts and snapshots in both directions; snapshots are the same bytes."""
    monkeypatch.setattr("examples.kv.keyspace.SWEEP_KEYS_MAX", 1)
    memory, machine, rng = KeyValue(), disk.machine, Random(seed)
    for batch in batches(seed, 150):
        again = craft.Batch(batch.position, batch.timestamp, batch.commands)
        assert machine.apply_batch(batch) == memory.apply_batch(again), batch.commands
        assert machine.last_applied() == (batch.position, batch.timestamp)
        what = rng.random()
        if what < 0.2:
            machine = disk.reopen()
            assert machine.last_applied() == (batch.position, batch.timestamp)
        elif what < 0.25:
            chunks = list(machine.snapshot()())
            memory = KeyValue()
            memory.restore(chunks)
        elif what < 0.3:
            machine.restore(list(memory.snapshot()()))
            assert machine.last_applied() == (batch.position, batch.timestamp)
        if what < 0.5:
            now = machine.now + rng.randrange(2 * STEP_MS)
            assert seen(machine, now) == seen(memory, now)
            assert stream(machine) == stream(memory)


def test_a_fork_is_not_touched_by_what_comes_after(disk: Disk) -> None:
    """It reads the disk as it was, in another thread, while batches change it."""
    memory = KeyValue()
    for batch in batches(7, 40):
        disk.machine.apply_batch(batch)
        memory.apply_batch(batch)
    fork = disk.machine.snapshot()
    for batch in batches(8, 60):
        disk.machine.apply_batch(batch)
    disk.machine.apply_batch(craft.Batch(41, 10**12, [pack_command([b"FLUSHALL"])]))
    with ThreadPoolExecutor(1) as worker:
        assert worker.submit(lambda: b"".join(fork())).result() == stream(memory)


class Passing(DurableKeyValue):
    """A machine whose directory goes when it does."""

    def __init__(self) -> None:
        home = mkdtemp()
        weakref.finalize(self, shutil.rmtree, home, ignore_errors=True)
        super().__init__(Path(home), cache_bytes_max=CACHE_BYTES_MAX)


def test_servers_agree_in_the_simulator() -> None:
    """Each new machine has a new directory: what a crash leaves of the data is the simulator's to say."""
    simulate(Passing, commands=drawn, queries=asked, seeds=1)


def filled(machine: KeyValue, keys: int) -> None:
    """A batch of so many keys."""
    commands = [pack_command([b"SET", b"key %d" % number, b"x" * 100]) for number in range(keys)]
    machine.apply_batch(craft.Batch(1, NS_PER_MS, commands))


def test_memory_does_not_grow_with_the_data(disk: Disk) -> None:
    """Whatever is written, read, scanned and walked over."""
    machine = disk.machine
    filled(machine, 2_000)
    assert machine.disk.table.cached < 50
    for number in range(2_000):
        assert machine.read([b"GET", b"key %d" % number], 0) == b"x" * 100
        assert machine.disk.table.cached < 50
    cursor, found = b"0", 0
    for _ in count():
        page: Any = machine.read([b"SCAN", cursor], 0)
        cursor, found = page[0], found + len(page[1])
        if cursor == b"0":
            break
    assert found == machine.read([b"DBSIZE"], 0) == 2_000
    assert machine.disk.table.cached < 50


def test_a_new_directory_has_nothing(disk: Disk) -> None:
    """It is given everything."""
    assert isinstance(disk.machine, craft.Durable)
    assert disk.machine.last_applied() == (0, 0)
    assert disk.reopen().last_applied() == (0, 0)


def test_a_restore_that_is_cut_short_leaves_nothing(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of what was there nor of the snapshot: in this process, and in the next one."""
    monkeypatch.setattr("examples.kv.disk.machine.RESTORED_BYTES", 1_000)
    filled(disk.machine, 100)
    chunks = [stream(disk.machine)]
    with pytest.raises(ValueError, match="ends too early"):
        disk.machine.restore([chunks[0][:-1]])
    assert disk.machine.last_applied() == (0, 0)
    assert disk.machine.read([b"DBSIZE"], 0) == 0

    disk.machine.restore(chunks)
    assert disk.machine.read([b"DBSIZE"], 0) == 100

    def cut() -> Iterator[bytes]:
        yield chunks[0][:8_000]
        assert disk.machine.disk.table.meta.keys > 10
        raise KeyboardInterrupt

    monkeypatch.setattr("examples.kv.disk.table.Table.reset", first_only(disk))
    with pytest.raises(KeyboardInterrupt):
        disk.machine.restore(cut())
    monkeypatch.undo()
    assert disk.machine.last_applied() == (0, 0)
    assert disk.reopen().last_applied() == (0, 0)
    assert disk.machine.read([b"DBSIZE"], 0) == 0
    assert list(disk.machine.view(0).walk(b"")) == []


def first_only(disk: Disk) -> Any:
    """The process ends before it can clean up: only the first call does anything."""
    table = disk.machine.disk.table
    calls, reset = count(), type(table).reset

    def once(self: Any) -> None:
        if next(calls) == 0:
            reset(self)

    return once


def test_a_snapshot_without_a_timestamp_counts_once_a_batch_follows(disk: Disk) -> None:
    """Versions before this one wrote none: until a batch brings one, a restart asks for it again."""
    filled(disk.machine, 3)
    records = msgpack.Unpacker(BytesIO(stream(disk.machine)))
    old = b"".join(msgpack.packb(record) for record in records if record[0] != "stamped")
    disk.machine.restore([old])
    assert disk.machine.last_applied() == (0, 0)
    assert disk.machine.read([b"DBSIZE"], 0) == 3
    disk.machine.apply_batch(craft.Batch(2, 2 * NS_PER_MS, [pack_command([b"INCR", b"n"])]))
    assert disk.reopen().last_applied() == (2, 2 * NS_PER_MS)
    assert disk.machine.read([b"DBSIZE"], 0) == 4


WRITER = """
import sys
from pathlib import Path
import craft
from examples.kv.disk import DurableKeyValue
from examples.kv.machine import pack_command

machine = DurableKeyValue(Path(sys.argv[1]))
for position in range(machine.position + 1, 10**9):
    commands = [[b"INCR", b"a"], [b"SET", b"b", b"%d" % position], [b"SET", b"k%d" % position, b"x" * 1000],
                [b"DEL", b"k%d" % (position - 10)], [b"INCR", b"c"]]
    machine.apply_batch(craft.Batch(position, position, [pack_command(args) for args in commands]))
    print(position, flush=True)
"""


@pytest.mark.system
def test_a_kill_leaves_whole_batches(tmp_path: Path) -> None:
    """Position and data agree whenever the process is killed, and nothing of a finished batch is missing."""
    written = 0
    for lines in (3, 700, 41):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "store")]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(lines):
            written = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.communicate()[0].rpartition("\n")[0].rpartition("\n")[2]
        written = int(rest) if rest else written
        machine = DurableKeyValue(tmp_path / "store")
        position = machine.last_applied().position
        assert position in (written, written + 1)
        number = b"%d" % position
        assert machine.read([b"MGET", b"a", b"b", b"c"], 0) == [number, number, number]
        assert machine.read([b"DBSIZE"], 0) == 3 + min(position, 10) == len(machine.view(0).keys())
        machine.close()


# -- servers ---------------------------------------------------------------------------------------


def test_where_the_data_are(tmp_path: Path) -> None:
    """In memory unless that is said; else beside craft's, each server's in a directory of its own."""
    in_memory = settings.load(cluster.prepare(tmp_path / "a", servers=1, redis_port=7000)[0])
    assert (in_memory.store, in_memory.directory) == ("memory", None)
    files = cluster.prepare(tmp_path / "b", servers=2, redis_port=7000, store="rocks")
    assert [settings.load(file).directory for file in files] == [
        tmp_path / "b" / "data-1-store",
        tmp_path / "b" / "data-2-store",
    ]
    files[0].write_text(files[0].read_text() + 'store_dir = "elsewhere"\n')
    assert settings.load(files[0]).directory == tmp_path / "b" / "elsewhere"
    made = member.prepare(replace(told(tmp_path / "c"), store="rocks"))
    assert settings.load(made).directory == tmp_path / "c" / "data-store"


def test_a_wrong_store_is_refused(tmp_path: Path) -> None:
    """One that is not known, one that outlives craft's log, and another than the cluster has."""
    config = craft.Config(cluster="kv", server_id=1, servers={1: "127.0.0.1:7001"})
    with pytest.raises(craft.ConfigError, match="store: 'tape' is not allowed; allowed: memory, rocks"):
        settings.Settings(craft=config, store="tape")
    with pytest.raises(craft.ConfigError, match=r"store: 'rocks' .*no data_dir"):
        settings.Settings(craft=config, store="rocks")
    with pytest.raises(craft.ConfigError, match="store_dir: is not allowed with store = 'memory'"):
        settings.Settings(craft=config, store_dir=tmp_path)
    durable = replace(config, data_dir=tmp_path / "data")
    for inside in (tmp_path / "data", tmp_path / "data" / "log"):  # the latter is craft's own database
        with pytest.raises(craft.ConfigError, match=f"store_dir: {inside} is not allowed, for craft's own"):
            settings.Settings(craft=durable, store="rocks", store_dir=inside)
    cluster.prepare(tmp_path / "kv", servers=1, redis_port=7000)
    with pytest.raises(craft.ConfigError, match="--store: rocks is not allowed, for .* says memory"):
        cluster.prepare(tmp_path / "kv", servers=1, redis_port=7000, store="rocks")


def test_what_is_no_database_is_named(tmp_path: Path) -> None:
    """And what to do about it."""
    (tmp_path / "CURRENT").write_text("nonsense")
    with pytest.raises(
        craft.StorageFailed, match=r"cannot be opened: .*; where they are damaged, remove them"
    ):
        DurableKeyValue(tmp_path)


def kill_servers(up: subprocess.Popen[str]) -> None:
    """All that it has started, at once; then it ends by itself."""
    tasks = Path(f"/proc/{up.pid}/task")
    for server in " ".join([file.read_text() for file in tasks.glob("*/children")]).split():
        os.kill(int(server), signal.SIGKILL)
    up.communicate()


@pytest.mark.system
def test_a_cluster_with_its_data_on_disks_is_killed_and_comes_back(tmp_path: Path) -> None:
    """Every server at once; each has its data where it left them."""
    first = free_ports(3)
    up = [sys.executable, "-m", "examples.kv", "up", "--dir", str(tmp_path / "kv"), "--store", "rocks"]
    for start in range(2):
        process = subprocess.Popen(
            [*up, "--redis-port", str(first)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert process.stdout is not None
            for _ in range(3):
                while "is ready" not in (line := process.stdout.readline()):
                    assert line, "the cluster ended before it was ready"
            for number in range(3):
                connection = Connection(first + number)
                if start == 0:
                    key = b"key %d" % number
                    commands = [[b"SET", key, b"v"], [b"HSET", b"h", key, b"1"], [b"INCR", b"n"]]
                    assert connection.ask_all(commands) == [b"+OK\r\n", b":1\r\n", b":%d\r\n" % (number + 1)]
                else:
                    commands = [[b"DBSIZE"], [b"HLEN", b"h"], [b"GET", b"n"], [b"GET", b"key 1"]]
                    assert connection.ask_all(commands) == [
                        b":5\r\n",
                        b":3\r\n",
                        b"$1\r\n3\r\n",
                        b"$1\r\nv\r\n",
                    ]
                connection.close()
        finally:
            kill_servers(process)
    stores = sorted(tmp_path.glob("kv/data-?-store"))
    assert len(stores) == 3
    for store in stores:
        machine = DurableKeyValue(store)
        assert machine.last_applied().position > 0
        assert machine.read([b"DBSIZE"], 0) == 5
        machine.close()
