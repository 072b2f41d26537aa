"""A backup is the merged log, whole and checked; what is restored from it is a replay, to the byte."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import pytest
import trio

import craft
from craft import restoring
from craft.applying import Applier
from craft.archive import files
from craft.archive.reading import Backup
from craft.archive.restoring import replay, restore
from craft.archive.taking import begin
from craft.cli import main
from craft.client import connect
from craft.engine import Engine, capturing
from craft.errors import DamagedBackup, DamagedSnapshot
from craft.storage import origin_of
from craft.storage.rocks import RocksStorage
from craft.types import Head, Instant, SnapshotInfo, SnapshotKind, SnapshotPart, StoredSnapshots
from craft.wire import encode_message
from tests.remote.servers import serving
from tests.test_client import scripted


class Book:
    """A state machine whose state is all that it was told, with places."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, int, str]] = []

    def apply_batch(self, batch: craft.Batch) -> Sequence[Any]:
        self.lines += [(batch.position, batch.timestamp, command.decode()) for command in batch]
        return [len(self.lines)] * len(batch)

    def snapshot(self) -> Callable[[], Iterable[bytes]]:
        fork = list(self.lines)
        return lambda: (json.dumps(line).encode() + b"\n" for line in fork)

    def restore(self, chunks: Iterable[bytes]) -> None:
        self.lines = [tuple(json.loads(line)) for line in b"".join(chunks).splitlines()]


class Taken(NamedTuple):
    """A backup, and what the cluster's state machine was told."""

    directory: Path
    lines: list[tuple[int, int, str]]


async def _take(directory: Path) -> list[tuple[int, int, str]]:
    async with serving(3, machine=Book) as s:
        for number in range(12):
            await s.servers[1 + number % 3].propose_many([b"%d" % number, b"x"])
        async with craft.connect(s.addresses[1]) as client:
            await client.propose(b"from a client")
        async with connect(s.addresses[2]) as link:
            assert await (await begin(directory, link)).round() > 0
            for number in range(8):
                await s.servers[1].propose(b"later %d" % number)
            await s.servers[2].read(lambda machine: None)
            archivist = await begin(directory, link)  # as another run does
            assert await archivist.round() >= 8
            assert await archivist.round() == 0
        lines: list[tuple[int, int, str]] = list(s.machine(2).lines)
        return [line for line in lines if line[0] <= archivist.manifest.position]


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Taken:
    """Two rounds of a backup of three servers."""
    directory = tmp_path_factory.mktemp("backup") / "bank"
    return Taken(directory, trio.run(_take, directory))


def config(directory: Path, server_id: int = 1, *, servers: int = 1, **settings: Any) -> craft.Config:
    """A server of another cluster, with other groups."""
    addresses = {number: f"127.0.0.1:{7600 + number}" for number in range(1, servers + 1)}
    defaults: dict[str, Any] = {"cluster": "restored", "groups": 5}
    return craft.Config(server_id=server_id, servers=addresses, data_dir=directory, **(defaults | settings))


# -- replaying -------------------------------------------------------------------------------------------


def test_a_backup_replays_to_the_very_state(taken: Taken) -> None:
    """Every command once, at its place."""
    book = Book()
    backup = Backup(taken.directory)
    reached = replay(backup, book)
    assert book.lines == taken.lines
    assert (reached.position, reached.timestamp) == (backup.manifest.position, backup.manifest.timestamp)
    assert reached.digest.hex() == backup.manifest.digest


def test_any_moment_of_a_backup_can_be_had(taken: Taken) -> None:
    """Exactly what was stamped up to then, whichever server stamped it; and no moment beyond it."""
    backup = Backup(taken.directory)
    stamps = sorted({timestamp for _, timestamp, _ in taken.lines})
    for until in [stamps[0] - 1, *stamps, stamps[-1] - 1, stamps[3] + 1, backup.manifest.timestamp]:
        book = Book()
        reached = replay(backup, book, until=until)
        assert book.lines == [line for line in taken.lines if line[1] <= until]
        assert reached.position + reached.left == backup.manifest.position
    for until in (-1, backup.manifest.timestamp + 1):
        with pytest.raises(craft.ConfigError, match=f"until is {until}; this backup allows 0 to"):
            replay(backup, Book(), until=until)


# -- restoring -------------------------------------------------------------------------------------------


def contents(directory: Path, server_id: int = 1) -> tuple[Any, bytes, list[Any]]:
    """A restored directory's snapshot, and where its logs begin."""
    storage = RocksStorage.open(directory, cluster_id="restored", server_id=server_id, groups=5)
    try:
        [info] = storage.snapshots.kept()
        parts = list(storage.snapshots.parts(info.id))
        recovered = storage.recover(info.head.cuts)
    finally:
        storage.close()
    assert {part.kind for part in parts} == {SnapshotKind.ENGINE, SnapshotKind.MACHINE}
    state = b"".join(part.data for part in parts if part.kind is SnapshotKind.MACHINE)
    unpacked = capturing.unpack([part for part in parts if part.kind is SnapshotKind.ENGINE])
    assert unpacked.members.servers and not [*unpacked.sessions.export(), *unpacked.clients.export()]
    return info.head, state, [group.start for group in recovered.groups]


def test_a_restored_directory_holds_the_state_of_a_replay(taken: Taken, tmp_path: Path) -> None:
    """Byte for byte the snapshot that a replay up to there would give; logs begin behind its cuts."""
    until = taken.lines[5][1]
    book = Book()
    restore(Backup(taken.directory), Book(), config(tmp_path / "new"), until)
    reached = replay(Backup(taken.directory), book, until=until)
    head, state, starts = contents(tmp_path / "new")
    assert state == b"".join(book.snapshot()())
    assert (head.position, head.timestamp, head.digest) == reached[:3]
    assert starts == list(head.cuts) and len(starts) == 5
    assert not (tmp_path / "new.restoring").exists()


def test_all_servers_of_a_new_cluster_get_the_same(taken: Taken, tmp_path: Path) -> None:
    """Their snapshots have equal heads and states, wherever they were made."""
    found = []
    for server_id in (1, 2, 3, 4, 5):
        directory = tmp_path / str(server_id)
        restore(Backup(taken.directory), Book(), config(directory, server_id, servers=5))
        found.append(contents(directory, server_id))
    assert all(one == found[0] for one in found)
    assert found[0][0].cuts[0].configuration.voters == {1, 2, 3, 4, 5}


def test_directories_name_the_state_that_they_were_made_with(taken: Taken, tmp_path: Path) -> None:
    """By it servers know each other; what is random in a disk's id still tells two directories apart."""
    found = []
    for name, until in (("a", None), ("b", None), ("earlier", taken.lines[5][1])):
        restore(Backup(taken.directory), Book(), config(tmp_path / name), until)
        found.append(json.loads((tmp_path / name / "identity").read_text().splitlines()[0])["disk_id"])
    origins = [origin_of(disk_id) for disk_id in found]
    assert origins[0] == origins[1] != origins[2]
    assert len(set(found)) == 3


def test_a_restored_server_goes_on_where_the_backup_was(taken: Taken, tmp_path: Path) -> None:
    """It leads, opens a session of its own, and what is written then comes behind everything restored."""
    reached = restore(Backup(taken.directory), Book(), config(tmp_path / "new"))
    storage = RocksStorage.open(tmp_path / "new", cluster_id="restored", server_id=1, groups=5)
    book = Book()
    applier = Applier(book)
    [info] = kept = storage.snapshots.kept()
    parts = list(storage.snapshots.parts(info.id))
    restoring.restore(parts, applier)
    assert book.lines == taken.lines
    now = Instant(0, 1)  # a clock that is far behind
    engine = Engine(
        1,
        [1],
        storage.recover(info.head.cuts),
        limits=craft.EngineLimits(),
        rng=random.Random(1),
        now=now,
        cluster_id="restored",
        stored=StoredSnapshots(kept, (info, restoring.engines(parts)), None),
    )
    try:
        for turn in range(2000):
            now = Instant(turn * 10_000_000, 1 + turn)
            engine.tick(now)
            if engine.session_open and len(book.lines) == len(taken.lines) and not engine.state.pending:
                engine.propose(None, msgpack.packb([b"new"]))
            ready = engine.ready(now)
            if ready.write is not None:
                storage.write(ready.write)
                storage.sync()
                engine.persisted(ready.write.number, now)
            if ready.apply:
                applier.run(ready.apply)
                engine.applied(ready.apply[-1].position, now)
            if len(book.lines) > len(taken.lines):
                break
    finally:
        storage.close()
    position, timestamp, said = book.lines[-1]
    assert said == "new"
    assert position > reached.position and timestamp > reached.timestamp


def test_what_must_not_be_restored_is_refused(taken: Taken, tmp_path: Path) -> None:
    """The same cluster, a directory in use, a state machine that cannot, none at all: nothing is made."""

    class Plain:
        def apply_batch(self, batch: craft.Batch) -> None:
            pass

    backup = Backup(taken.directory)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    for machine, settings, said in (
        (Book(), config(tmp_path / "new", cluster="test"), "cluster: 'test' is the old one's"),
        (Book(), config(tmp_path / "used"), "is there already; allowed: one that is not, or empty"),
        (Plain(), config(tmp_path / "new"), "Plain cannot be restored"),
        (Book(), craft.Config(cluster="c", server_id=1, servers={1: "127.0.0.1:1"}), "data_dir: is missing"),
    ):
        with pytest.raises(craft.ConfigError, match=said):
            restore(backup, machine, settings)
    assert not (tmp_path / "new").exists()
    with pytest.raises(craft.ConfigError, match="holds no backup"):
        Backup(tmp_path)


# -- behind a snapshot -----------------------------------------------------------------------------------


def take_snapshot(server: craft.Server[Any]) -> SnapshotInfo:
    """As the server itself does, between two applies."""
    e = server.engine.state
    cuts = tuple(capturing.cut(e, group) for group in range(len(e.replicas)))
    head = Head("test", e.applied_position, e.applied_timestamp, e.digest, cuts)
    chunks = server.state_machine.snapshot()()
    parts = [*capturing.pack(e), *(SnapshotPart(SnapshotKind.MACHINE, chunk) for chunk in chunks)]
    return server._storage.snapshots.write(head, parts)


async def test_a_backup_begins_at_a_servers_newest_snapshot(tmp_path: Path) -> None:
    """The state at it, and everything behind it, once: also what was repeated across it."""
    async with serving(1, machine=Book) as s, connect(s.addresses[1]) as link:
        for number in range(20):
            await s.servers[1].propose(b"%d" % number)
        info = take_snapshot(s.servers[1])
        for number in range(10):
            await s.servers[1].propose(b"more %d" % number)
        assert await (await begin(tmp_path, link)).round() == 10
        await s.servers[1].propose(b"last")
        assert await (await begin(tmp_path, link)).round() == 1
        lines = s.machine(1).lines
    backup = Backup(tmp_path)
    assert backup.manifest.begin_position == info.head.position
    book = Book()
    reached = replay(backup, book)
    assert book.lines == lines
    assert reached.position == lines[-1][0]
    book = Book()
    assert replay(backup, book, until=info.head.timestamp).position == info.head.position
    assert book.lines == lines[:20]
    with pytest.raises(craft.ConfigError, match="this backup allows"):
        replay(backup, Book(), until=info.head.timestamp - 1)
    (tmp_path / "base.snapshot").write_bytes((tmp_path / "base.snapshot").read_bytes()[:-3])
    with pytest.raises((DamagedBackup, DamagedSnapshot)):
        replay(Backup(tmp_path), Book())


async def test_a_subscriber_may_begin_at_a_snapshot(tmp_path: Path) -> None:
    """Where the logs before it are compacted: behind it everything is there; before it, it is said."""
    small = craft.TailLimits(memory_bytes_max=3000, batch_bytes_max=1000, reread_bytes=300)
    async with serving(1, machine=Book, tail=small, engine=craft.EngineLimits(apply_bytes_max=500)) as s:
        server = s.servers[1]
        for number in range(20):
            await server.propose(b"%d" % number)
        info = take_snapshot(server)
        for number in range(40):
            await server.propose(b"more %d" % number)
        e = server.engine.state
        e.snapshots.kept = (info,)
        for group, cut in enumerate(info.head.cuts):
            e.raft(group).log.start = cut
        position = info.head.position
        assert server.tails.recent.start > position
        assert server.tails.retained == position
        found: list[str] = []
        async with server.subscribe(after=position) as batches:
            async for batch in batches:
                found += [command.decode() for entry in batch for command in entry.commands]
                if batch[-1].position == server.position:
                    break
        assert found == [line[2] for line in server.state_machine.lines[20:]]
        with pytest.raises(craft.Compacted) as caught:
            async with server.subscribe(after=position - 1) as batches:
                async for _ in batches:
                    pass
        assert caught.value.retained == position


# -- damage ----------------------------------------------------------------------------------------------


def damaged(taken: Taken, tmp_path: Path, name: str, change: Callable[[bytes], bytes]) -> Backup | None:
    """A copy with one file changed."""
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(taken.directory, copy)
    file = copy / name
    file.write_bytes(change(file.read_bytes()))
    return Backup(copy)


def test_any_flipped_bit_is_noticed(taken: Taken, tmp_path: Path) -> None:
    """In whichever file, at a hundred random places: never a wrong state."""
    rng = random.Random(7)
    names = sorted(path.name for path in taken.directory.iterdir())
    assert len(names) == 4  # the manifest, and a log for each of three groups
    for _ in range(100):
        name = rng.choice(names)

        def flip(data: bytes) -> bytes:
            at = rng.randrange(len(data))
            return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]

        with pytest.raises((DamagedBackup, craft.ConfigError)):
            backup = damaged(taken, tmp_path, name, flip)
            assert backup is not None
            replay(backup, Book())


def test_what_is_cut_missing_or_of_another_backup_is_noticed(taken: Taken, tmp_path: Path) -> None:
    """Each with the name of what is wrong."""
    log = files.segment_name(0, 1)
    backup = damaged(taken, tmp_path, log, lambda data: data[:-1])
    with pytest.raises(DamagedBackup, match=r"group 0: entries \d+ to \d+ are missing"):
        replay(backup, Book())  # type: ignore[arg-type]
    (tmp_path / "copy" / log).unlink()
    with pytest.raises(DamagedBackup, match="group 0: entries 1 to"):
        replay(Backup(tmp_path / "copy"), Book())
    with pytest.raises(DamagedBackup, match="backup is damaged: its checksum does not hold"):
        damaged(taken, tmp_path, "backup", lambda data: data.replace(b'"test"', b'"tess"'))
    shutil.copytree(taken.directory, tmp_path / "other")
    manifest = files.read_manifest(tmp_path / "other")
    assert manifest is not None
    files.write_manifest(tmp_path / "other", manifest._replace(digest="00" * 16))
    with pytest.raises(DamagedBackup, match="its logs merge to position"):
        replay(Backup(tmp_path / "other"), Book())


async def test_what_a_crash_left_behind_the_manifest_is_dropped(tmp_path: Path) -> None:
    """Half a record, a whole file: the next run cuts them off, and goes on without a gap."""
    async with serving(1, machine=Book) as s, connect(s.addresses[1]) as link:
        for number in range(5):
            await s.servers[1].propose(b"%d" % number)
        await (await begin(tmp_path, link)).round()
        [(_, log)] = files.segments(tmp_path, 0)
        log.write_bytes(log.read_bytes() + b"\0\0\0\x50half a record")
        (tmp_path / files.segment_name(0, 10**6)).write_bytes(files.MAGIC)
        await s.servers[1].propose(b"later")
        await (await begin(tmp_path, link)).round()
        book = Book()
        replay(Backup(tmp_path), book)
        assert book.lines == s.machine(1).lines


async def test_long_logs_are_kept_in_files_of_bounded_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And read one behind the other."""
    monkeypatch.setattr(files, "SEGMENT_BYTES_MAX", 400)
    async with serving(1, machine=Book) as s, connect(s.addresses[1]) as link:
        for number in range(30):
            await s.servers[1].propose(b"%d" % number)
            if number % 10 == 9:
                await (await begin(tmp_path, link)).round()
        assert len(files.segments(tmp_path, 0)) > 2
        book = Book()
        replay(Backup(tmp_path), book)
        assert book.lines == s.machine(1).lines


async def test_a_backup_of_another_cluster_is_left_alone(tmp_path: Path) -> None:
    """So is a directory with something else in it."""
    async with serving(1, machine=Book) as s, connect(s.addresses[1]) as link:
        await s.servers[1].propose(b"x")
        await (await begin(tmp_path / "ours", link)).round()
        manifest = files.read_manifest(tmp_path / "ours")
        assert manifest is not None
        files.write_manifest(tmp_path / "ours", manifest._replace(cluster_id="theirs"))
        with pytest.raises(craft.ConfigError, match="is a backup of cluster 'theirs' with 3 groups, not of"):
            await begin(tmp_path / "ours", link)
        (tmp_path / "file").touch()
        with pytest.raises(craft.ConfigError, match="contains 'file'; allowed: an empty directory"):
            await begin(tmp_path, link)


# -- the commands ----------------------------------------------------------------------------------------


async def test_the_commands_take_and_restore(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`craft backup`, twice, and `craft restore` of a moment."""
    backup = str(tmp_path / "backup")
    async with serving(1, machine=Book) as s:
        for number in range(3):
            await s.servers[1].propose(b"%d" % number)
        take = ["backup", backup, "--connect", s.addresses[1]]
        assert await trio.to_thread.run_sync(main, take) == 0
        assert "4 more, up to position 4, stamped 20" in capsys.readouterr().out
        assert await trio.to_thread.run_sync(main, take) == 0
        assert "0 more, up to position 4" in capsys.readouterr().out
        until = s.machine(1).lines[1][1]
    file = tmp_path / "new.toml"
    file.write_text(config(tmp_path / "new").to_toml())
    arguments = ["restore", backup, "-c", str(file), "-m", "tests.archive.test_archive:Book"]
    assert main([*arguments, "--until", str(until)]) == 0
    out = capsys.readouterr().out
    assert "server 1 of cluster 'restored', at position 3" in out and "1 later positions are left out" in out
    assert len(contents(tmp_path / "new")[1].splitlines()) == 2
    assert main(arguments) == 1
    assert "is there already" in capsys.readouterr().err


async def test_two_backups_into_one_directory_do_not_mix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that is taken every hour may last longer: the second is refused, and the first goes on."""
    directory = tmp_path / "bank"
    async with serving(1, machine=Book) as s:
        await s.servers[1].propose(b"x")

        async def backup() -> int:
            return await trio.to_thread.run_sync(
                main, ["backup", str(directory), "--connect", s.addresses[1]]
            )

        directory.mkdir()
        with files.alone(directory):
            assert await backup() == 1
        assert "is taken by another process; allowed: a directory for each" in capsys.readouterr().err
        assert await backup() == 0
        assert await backup() == 0


async def test_a_backup_that_follows_outlives_the_stop_of_its_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server that stops rejects what it is asked, as one that is not there does not answer."""
    told = [("rejected", "NotReady: the server has ended"), ("failed", "no more of that")]

    async def script(stream: trio.SocketStream, _: bytes) -> None:
        await stream.send_all(encode_message([1, *told.pop(0)]))
        await stream.receive_some()

    async with scripted(script) as address:
        arguments = ["backup", str(tmp_path / "bank"), "--connect", address, "--follow"]
        assert await trio.to_thread.run_sync(main, arguments) == 1
    said = capsys.readouterr().err
    assert "NotReady: the server has ended; tried again" in said
    assert "no more of that" in said
