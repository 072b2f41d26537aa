"""When a majority is gone for good: what the survivors hold is kept, and what may be lost is said."""

from __future__ import annotations

import io
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import msgpack
import pytest

import craft
from craft.applying import Applier
from craft.archive.restoring import recover
from craft.archive.surviving import Survivors
from craft.cli import main
from craft.engine import capturing
from craft.folding import Fold, fold
from craft.sessions import OPEN, encode_payload
from craft.storage.rocks import RocksStorage
from craft.storage.rocks.peeking import peek
from craft.types import (
    BEGINNING,
    Append,
    Cut,
    Entry,
    EntryKind,
    HardState,
    Head,
    Place,
    Proposal,
    SnapshotKind,
    SnapshotPart,
    Start,
    Write,
    make_entry,
)
from tests.archive.test_archive import Book, config, contents


def entry(group: int, index: int, term: int, stamp: int, *said: str) -> Entry:
    """Server 1 opens its session at index 1 of group 0, and says things; without any: a closing entry."""
    kind = EntryKind.COMMAND if said or (group, index) == (0, 1) else EntryKind.EMPTY
    proposals = [
        Proposal(1, 1, 100 * stamp + number, 1, 0, msgpack.packb([word.encode()]))
        for number, word in enumerate(said)
    ]
    if (group, index) == (0, 1):
        proposals.insert(0, Proposal(1, 1, OPEN, 1, 0, bytes(16)))
    payload = encode_payload(proposals) if proposals else b""
    return make_entry(group, index=index, term=term, timestamp=stamp, kind=kind, payload=payload)


def survivor(
    directory: Path, server_id: int, logs: list[list[Entry]], commits: list[int], cluster: str = "old"
) -> Path:
    """A stopped server's directory."""
    storage = RocksStorage.open(directory, cluster_id=cluster, server_id=server_id, groups=len(logs))
    storage.recover()
    appends = tuple(Append(group, 0, tuple(log)) for group, log in enumerate(logs) if log)
    states = tuple((group, HardState(9, None, commit)) for group, commit in enumerate(commits))
    storage.write(Write(1, appends, states, None))
    storage.sync()
    storage.close()
    return directory


BEGIN = [entry(0, 1, 1, 10), entry(0, 2, 1, 20, "a"), entry(0, 3, 1, 30, "b")]
OTHER = [entry(1, 1, 1, 11), entry(1, 2, 1, 25, "c")]


def test_of_each_group_the_log_of_the_latest_term_is_taken(tmp_path: Path) -> None:
    """Not the longest one: what ends in an older term was overwritten, or never committed."""
    one = survivor(
        tmp_path / "1", 1, [[*BEGIN, entry(0, 4, 1, 40, "orphan"), entry(0, 5, 1, 50)], OTHER], [3, 2]
    )
    two = survivor(tmp_path / "2", 2, [[*BEGIN, entry(0, 4, 2, 45, "d")], OTHER[:1]], [3, 1])
    with peek(one) as first, peek(two) as second:
        survivors = Survivors([first, second])
        found = survivors.inventory()
        assert [(best.server_id, best.last, best.committed) for best in found.best] == [
            (2, Place(2, 4), 3),
            (1, Place(1, 2), 2),
        ]
        book = Book()
        recover(survivors, book, config(tmp_path / "new"))
    assert [line[2] for line in book.lines] == ["a", "c", "b", "d"]
    assert [line[1] for line in book.lines] == [20, 25, 30, 45]
    head, state, starts = contents(tmp_path / "new")
    assert state == b"".join(book.snapshot()())
    assert (head.position, head.timestamp, len(starts)) == (found.position, found.timestamp, 5)


def test_what_is_certain_ends_where_a_group_is_not_known_closed(tmp_path: Path) -> None:
    """Behind that a lost server may have had something between; it is kept all the same."""
    directory = survivor(tmp_path / "1", 1, [BEGIN, OTHER], [3, 2])
    with peek(directory) as stopped:
        found = Survivors([stopped]).inventory()
    assert (found.certain, found.certain_timestamp) == (3, 25)  # "b" at 30 may have come behind others
    assert (found.position, found.timestamp) == (4, 30)
    directory = survivor(tmp_path / "2", 2, [BEGIN, OTHER], [2, 1])
    with peek(directory) as stopped:
        found = Survivors([stopped]).inventory()
    assert found.certain == 1
    assert found.position == 4


def compacted(directory: Path, server_id: int) -> Path:
    """A survivor whose logs begin behind a snapshot at position 2."""
    survivor(directory, server_id, [BEGIN, OTHER], [3, 2])
    state, book = Fold(), Book()
    first = Applier(book)
    for one in BEGIN[:2]:
        first.run([fold(state, 0, one)])
    cuts = (cut_at(BEGIN[1]), cut_at(OTHER[0]))
    head = Head("old", 2, 20, state.digest, cuts)
    chunks = [SnapshotPart(SnapshotKind.MACHINE, chunk) for chunk in book.snapshot()()]
    storage = RocksStorage.open(directory, cluster_id="old", server_id=server_id, groups=2)
    storage.recover()
    storage.snapshots.write(head, [*capturing.pack(state), *chunks])
    starts = tuple(Start(group, cut, keep=True) for group, cut in enumerate(cuts))
    storage.write(Write(2, (), (), None, starts))
    storage.sync()
    storage.close()
    return directory


def cut_at(one: Entry) -> Cut:
    return BEGINNING._replace(place=Place(one.term, one.index), timestamp=one.timestamp)


def test_survivors_with_compacted_logs_begin_at_their_snapshot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What comes out is what whole logs give; and `craft log` begins there as well, and says so."""
    found = []
    directories = [compacted(tmp_path / "1", 1), survivor(tmp_path / "2", 2, [BEGIN, OTHER], [3, 2])]
    for number, directory in enumerate(directories, start=1):
        book = Book()
        with peek(directory) as stopped:
            survivors = Survivors([stopped])
            reached = recover(survivors, book, config(tmp_path / f"new-{number}"))
            found.append((book.lines, reached, survivors.inventory()[1:]))
    assert found[0] == found[1]
    assert contents(tmp_path / "new-1") == contents(tmp_path / "new-2")
    assert main(["log", str(tmp_path / "1"), "--uncommitted"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["3"]
    assert "compacted up to position 2" in err


def test_survivors_of_one_cluster_only(tmp_path: Path) -> None:
    """Others, and one server twice, are refused by name."""
    one = survivor(tmp_path / "1", 1, [BEGIN, OTHER], [3, 2])
    again = survivor(tmp_path / "2", 1, [BEGIN, OTHER], [3, 2])
    other = survivor(tmp_path / "3", 2, [BEGIN, OTHER], [3, 2], cluster="other")
    with ExitStack() as stack:
        first, second, third = (stack.enter_context(peek(path)) for path in (one, again, other))
        with pytest.raises(craft.ConfigError, match="are both of server 1"):
            Survivors([first, second])
        with pytest.raises(craft.ConfigError, match="is of cluster 'other' with 2 groups"):
            Survivors([first, third])


async def test_what_a_survivor_applied_is_kept(tmp_path: Path) -> None:
    """Three real servers; two are gone: all that the third one ever showed is there, in its places."""
    network = craft.MemoryNetwork()
    addresses = {number: f"127.0.0.1:{7800 + number}" for number in (1, 2, 3)}
    async with AsyncExitStack() as stack:
        servers = []
        for number in (1, 2, 3):
            settings = craft.Config(
                cluster="old", server_id=number, servers=addresses, data_dir=tmp_path / str(number)
            )
            opening = craft.open_server(settings, Book(), transport=network.transport(number))
            servers.append(await stack.enter_async_context(opening))
        for number in range(10):
            await servers[number % 3].propose(b"%d" % number)
        shown = await servers[2].read(lambda book: list(book.lines))
    book = Book()
    with peek(tmp_path / "3") as stopped:
        recover(Survivors([stopped]), book, config(tmp_path / "new"))
    assert len(shown) == 10
    assert book.lines[: len(shown)] == shown


def test_nothing_is_made_without_confirmation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command says what may be lost, and wants those words, or the option of that name."""
    directory = survivor(tmp_path / "1", 1, [BEGIN, OTHER], [3, 2])
    file = tmp_path / "new.toml"
    file.write_text(config(tmp_path / "new").to_toml())
    arguments = ["recover", str(directory), "-c", str(file), "-m", "tests.archive.test_archive:Book"]
    for said in ("", "yes\n"):
        monkeypatch.setattr("sys.stdin", io.StringIO(said))
        assert main(arguments) == 1
        out, err = capsys.readouterr()
        assert "servers 1 are left" in out and "up to\n  position 3, stamped 1970" in out
        assert "cannot be known" in out and "nothing was made" in err
        assert max(map(len, out.splitlines())) <= 80
        assert not (tmp_path / "new").exists()
    monkeypatch.setattr("sys.stdin", io.StringIO("lose what is missing\n"))
    assert main(arguments) == 0
    assert len(contents(tmp_path / "new")[1].splitlines()) == 3
    (tmp_path / "new").rename(tmp_path / "gone")
    assert main([*arguments, "--yes-lose-what-is-missing"]) == 0
    assert contents(tmp_path / "new")[:2] == contents(tmp_path / "gone")[:2]
