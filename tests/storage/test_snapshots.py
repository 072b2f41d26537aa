"""What the port promises of snapshots, kept in a directory, in memory and by a simulated disk."""

from __future__ import annotations

import logging
import pathlib
import random
from collections.abc import Callable, Iterator

import pytest

from craft.errors import DamagedSnapshot, InvariantViolation, StorageFailed
from craft.storage import snapshots
from craft.storage.snapshots import DirectoryFiles, Files, MemoryFiles, Snapshots, file_name, part_name
from craft.testing.files import PowerLost, SimulatedFiles
from craft.types import BEGINNING, Head, SnapshotId, SnapshotInfo, SnapshotKind, SnapshotPart

CLUSTER, GROUPS = "orders", 2
PARTS = tuple(SnapshotPart(SnapshotKind.MACHINE, bytes([n]) * 5000) for n in range(20))
MANY = tuple(SnapshotPart(SnapshotKind.MACHINE, bytes([n % 251]) * 300_000) for n in range(8))


def head(position: int, *, cluster: str = CLUSTER, groups: int = GROUPS) -> Head:
    return Head(cluster, position, position * 1000, b"d" * 16, (BEGINNING,) * groups)


def open_store(files: Files) -> Snapshots:
    """A start: nothing is known but what is in the files."""
    return Snapshots(files, cluster_id=CLUSTER, groups=GROUPS)


@pytest.fixture(params=["directory", "memory", "simulated"])
def files(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Files:
    kinds: dict[str, Callable[[], Files]] = {
        "directory": lambda: DirectoryFiles(tmp_path / "snapshots"),
        "memory": MemoryFiles,
        "simulated": lambda: SimulatedFiles(random.Random(1)),
    }
    return kinds[request.param]()


def positions(store: Snapshots) -> list[int]:
    return [info.id.position for info in store.kept()]


def damage(files: Files, name: str, at: int) -> None:
    """Change one byte of a file, through nothing but the port."""
    data = bytearray(files.read(name, 0, 10**9))
    data[at] ^= 0x40
    files.create(name)
    files.append(name, bytes(data))
    files.sync(name)


# -- writing --------------------------------------------------------------------------------------


def test_a_snapshot_is_read_back_as_it_was_written(files: Files) -> None:
    """By the server that wrote it and by the next start."""
    store = open_store(files)
    assert store.kept() == ()
    info = store.write(head(5), PARTS)
    for reader in (store, open_store(files)):
        assert reader.kept() == (info,)
        assert tuple(reader.parts(info.id)) == PARTS
    assert info.head == head(5)
    assert info.size == files.size(file_name(info.id))


def test_two_are_kept(files: Files) -> None:
    """The newest two; the older of them is the one that compaction goes by."""
    store = open_store(files)
    for position in (3, 5, 9, 12):
        store.write(head(position), PARTS[:1])
    assert positions(store) == positions(open_store(files)) == [9, 12]
    assert len(files.names()) == 2


def test_the_one_just_written_is_kept_though_it_is_older(files: Files) -> None:
    """Who wrote it needs it; of the others the newest stays."""
    store = open_store(files)
    for position in (10, 20, 5):
        store.write(head(position), PARTS[:1])
    assert positions(store) == [5, 20]


def test_of_two_at_one_position_the_later_is_kept(files: Files) -> None:
    """It is the one behind which the logs go on; the name, by chance, may say otherwise."""
    store = open_store(files)
    store.write(head(3), PARTS[:1])
    for _ in range(8):
        last = store.write(head(5), PARTS[:1])
        assert [info.id for info in open_store(files).kept()][1:] == [last.id]
    assert positions(store) == [3, 5]


def test_a_writer_that_fails_leaves_the_others_as_they_were(files: Files) -> None:
    """The state machine's error is handed on, and nothing is left of what it had given."""

    def failing() -> Iterator[SnapshotPart]:
        yield PARTS[0]
        raise LookupError("the state machine is broken")

    store = open_store(files)
    store.write(head(5), PARTS)
    with pytest.raises(LookupError, match="broken"):
        store.write(head(6), failing())
    assert positions(store) == positions(open_store(files)) == [5]
    assert len(files.names()) == 1


def test_bytes_are_handed_out_for_peers(files: Files) -> None:
    """From any offset, also when a start is all there was since; and none of what is kept no more."""
    info = open_store(files).write(head(5), PARTS)
    store = open_store(files)
    pieces: list[bytes] = []
    while data := store.read(info.id, offset=sum(map(len, pieces)), bytes_max=7000):
        pieces.append(data)
    assert sum(map(len, pieces)) == info.size
    assert max(map(len, pieces)) == 7000
    assert store.read(SnapshotId(5, 0), offset=0, bytes_max=10) is None
    for position in (6, 7):
        store.write(head(position), ())
    assert store.read(info.id, offset=0, bytes_max=10) is None


@pytest.mark.parametrize("behind", [0, 1, 2**62, 2**63 - 1, 2**64 - 1])
def test_behind_the_end_of_a_snapshot_there_is_nothing(files: Files, behind: int) -> None:
    """Peers and clients name the place. One that no system takes is no failure of this server's disk."""
    store = open_store(files)
    info = store.write(head(5), PARTS)
    assert store.read(info.id, offset=max(info.size, behind), bytes_max=10) == b""


# -- damage ---------------------------------------------------------------------------------------


def test_a_damaged_one_is_named_and_skipped(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    """The older one remains; the damaged one is put aside for whoever wants to know, and not read again."""
    store = open_store(files)
    old, new = store.write(head(5), PARTS), store.write(head(6), PARTS)
    damage(files, file_name(new.id), 2000)
    with caplog.at_level(logging.WARNING):
        assert open_store(files).kept() == (old,)
    assert file_name(new.id) in caplog.text
    assert file_name(new.id, ".damaged") in files.names()
    caplog.clear()
    assert open_store(files).kept() == (old,)
    assert not caplog.text


def test_one_damaged_file_is_kept_at_most(files: Files) -> None:
    """Evidence must not fill the disk."""
    for position in (5, 6, 7):
        info = open_store(files).write(head(position), PARTS)
        damage(files, file_name(info.id), 2000)
        assert open_store(files).kept() == ()
    assert len(files.names()) == 1


def test_damage_that_comes_later_is_noticed_while_reading(files: Files) -> None:
    """Nothing that is handed out comes from behind the damage."""
    store = open_store(files)
    info = store.write(head(5), PARTS)
    damage(files, file_name(info.id), info.size // 2)
    read: list[SnapshotPart] = []
    with pytest.raises(DamagedSnapshot, match=file_name(info.id)):
        read += store.parts(info.id)
    found = []
    with pytest.raises(DamagedSnapshot):
        for part in store.parts(info.id):
            found.append(part)  # noqa: PERF402  # what came before the error counts
    assert tuple(found) == PARTS[: len(found)]


@pytest.mark.parametrize(
    ("position", "wrong", "words"),
    [
        (5, head(6), "is of position 6"),
        (5, head(5, cluster="other"), "is of cluster 'other' with 2 groups, not of 'orders' with 2"),
        (5, head(5, groups=3), "is of cluster 'orders' with 3 groups"),
    ],
)
def test_a_foreign_snapshot_is_not_kept(
    files: Files, caplog: pytest.LogCaptureFixture, position: int, wrong: Head, words: str
) -> None:
    """Whole as it may be."""
    other = Snapshots(files, cluster_id=wrong.cluster_id, groups=len(wrong.cuts))
    info = other.write(wrong, PARTS)
    files.rename(file_name(info.id), file_name(SnapshotId(position, 1)))
    with caplog.at_level(logging.WARNING):
        assert open_store(files).kept() == ()
    assert words in caplog.text.replace('\\"', "'")


# -- a peer's -------------------------------------------------------------------------------------


def peers(parts: tuple[SnapshotPart, ...] = PARTS, *, position: int = 9) -> tuple[SnapshotInfo, bytes]:
    """A peer's snapshot, and its file."""
    store = open_store(MemoryFiles())
    info = store.write(head(position), parts)
    data = store.read(info.id, offset=0, bytes_max=10**9)
    assert data is not None
    return info, data


def test_a_peers_snapshot_is_taken_in_pieces(files: Files) -> None:
    """Whole at the end, it is one of those that are kept, under the peer's own id."""
    info, data = peers(MANY)
    store = open_store(files)
    store.write(head(5), PARTS)
    assert store.begin(info.id, info.size) == 0
    for at in range(0, info.size, 100_000):
        store.append(info.id, offset=at, data=data[at : at + 100_000])
    assert positions(store) == [5]
    assert store.finish(info.id) == info
    assert positions(open_store(files)) == [5, 9]
    assert tuple(store.parts(info.id)) == MANY


def test_a_restart_goes_on_where_the_last_whole_block_ended(files: Files) -> None:
    """What a crash cut in the middle of a block is taken again, and no more than that."""
    info, data = peers(MANY)
    store = open_store(files)
    store.begin(info.id, info.size)
    store.append(info.id, offset=0, data=data[:1_000_000])
    again = open_store(files)
    here = again.begin(info.id, info.size)
    assert 700_000 < here <= 1_000_000
    again.append(info.id, offset=here, data=data[here:])
    assert again.finish(info.id) == info


def test_what_a_crash_spoilt_is_taken_again(files: Files) -> None:
    """Only a prefix that was checked is gone on from."""
    info, data = peers(MANY)
    store = open_store(files)
    store.begin(info.id, info.size)
    store.append(info.id, offset=0, data=data[:1_000_000])
    damage(files, part_name(info.id, info.size), 400_000)
    again = open_store(files)
    here = again.begin(info.id, info.size)
    assert 200_000 < here < 400_000
    again.append(info.id, offset=here, data=data[here:])
    assert again.finish(info.id) == info


def test_at_most_one_is_being_taken(files: Files) -> None:
    """To begin another drops what is here of the first."""
    (first, data), (second, _) = peers(), peers(position=10)
    store = open_store(files)
    store.begin(first.id, first.size)
    store.append(first.id, offset=0, data=data[:50_000])
    assert store.begin(second.id, second.size) == 0
    assert [name for name in files.names() if name.endswith(".part")] == [part_name(second.id, second.size)]
    assert store.begin(first.id, first.size) == 0


def test_a_damaged_peers_snapshot_is_refused_and_nothing_is_left_of_it(files: Files) -> None:
    """Cut short, changed, or of another cluster."""
    info, data = peers()
    changed = bytearray(data)
    changed[3000] ^= 1
    foreign = Snapshots(MemoryFiles(), cluster_id="other", groups=GROUPS)
    theirs = foreign.write(head(9, cluster="other"), PARTS)
    others = foreign.read(theirs.id, offset=0, bytes_max=10**9)
    assert others is not None
    for bad in (data[:-1], bytes(changed), others):
        store = open_store(files)
        store.begin(info.id, info.size)
        store.append(info.id, offset=0, data=bad)
        with pytest.raises(DamagedSnapshot):
            store.finish(info.id)
        assert files.names() == []
        assert store.kept() == ()


def test_bytes_that_do_not_follow_are_refused(files: Files) -> None:
    """A gap is our own mistake; more bytes than were announced are the peer's."""
    info, data = peers()
    store = open_store(files)
    with pytest.raises(InvariantViolation, match="being taken is None"):
        store.append(info.id, offset=0, data=data)
    store.begin(info.id, 1000)
    with pytest.raises(InvariantViolation, match="bytes from 10"):
        store.append(info.id, offset=10, data=b"x")
    with pytest.raises(DamagedSnapshot, match="was to have 1000 bytes and has 1001 at least"):
        store.append(info.id, offset=0, data=data[:1001])


# -- crashes --------------------------------------------------------------------------------------


def test_a_crash_between_any_two_steps_of_a_write_costs_only_what_was_being_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the power cut took or left: those that were kept still are, or the new one is, whole."""
    monkeypatch.setattr(snapshots, "WRITE_BYTES", 6_000)
    monkeypatch.setattr(snapshots, "SYNC_BYTES", 20_000)
    steps = 0
    while True:
        files = SimulatedFiles(random.Random(steps))
        store = open_store(files)
        kept = [store.write(head(position), PARTS[:2]) for position in (5, 6)]
        files.steps_left = steps
        try:
            store.write(head(7), PARTS)
        except PowerLost:
            files.cut_power()
        else:
            break
        found = open_store(files).kept()
        assert found[-2:] == tuple(kept) or (found[-1].head, found[-2]) == (head(7), kept[-1])
        assert not [name for name in files.names() if name.endswith(".new")]
        assert tuple(open_store(files).parts(found[-1].id)) in (PARTS, PARTS[:2])
        steps += 1
    assert steps > 20


def test_a_crash_between_any_two_steps_of_taking_a_peers_snapshot_is_gone_on_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each start goes on with what is whole; after enough of them the snapshot is here."""
    monkeypatch.setattr(snapshots, "SYNC_BYTES", 20_000)
    info, data = peers()
    for steps in range(60):
        files = SimulatedFiles(random.Random(steps))
        open_store(files).write(head(5), PARTS[:2])
        files.steps_left = steps
        for _ in range(3):
            try:
                _take(open_store(files), info, data)
            except PowerLost:
                files.cut_power()
                continue
            break
        assert positions(open_store(files)) == [5, 9]
        assert tuple(open_store(files).parts(info.id)) == PARTS


def _take(store: Snapshots, info: SnapshotInfo, data: bytes) -> None:
    if info in store.kept():
        return
    at = store.begin(info.id, info.size)
    while at < info.size:
        store.append(info.id, offset=at, data=data[at : at + 9000])
        at = min(info.size, at + 9000)
    store.finish(info.id)


def test_a_flipped_bit_is_never_read() -> None:
    """Wherever it is: the file is skipped, or the part is refused."""
    for seed in range(60):
        files = SimulatedFiles(random.Random(seed))
        open_store(files).write(head(5), PARTS[:3])
        words = files.flip(random.Random(seed))
        assert words is not None
        assert open_store(files).kept() == (), words


def test_a_full_disk_fails_the_write_and_keeps_the_others() -> None:
    """What was being written is taken away: it would keep the disk full."""
    files = SimulatedFiles(random.Random(1))
    store = open_store(files)
    store.write(head(5), PARTS)
    files.full = True
    with pytest.raises(StorageFailed, match="no space left"):
        store.write(head(6), PARTS)
    files.full = False
    assert positions(store) == positions(open_store(files)) == [5]
    assert len(files.names()) == 1
