"""`craft log`: what a server's log holds, stopped or running, and nothing changes by looking."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import trio

import craft
from craft.cli import main
from craft.cli.log.rows import moment, timestamp_of
from craft.storage.rocks import RocksStorage
from craft.types import BEGINNING, Append, EntryKind, HardState, Place, Start, Write, make_entry
from tests.remote.servers import Ledger, serving


def config(directory: Path) -> craft.Config:
    return craft.Config(
        cluster="test", server_id=1, servers={1: "127.0.0.1:7001"}, groups=2, data_dir=directory
    )


async def _write(directory: Path) -> list[tuple[int, int, list[str]]]:
    """Some commands; what a subscriber saw of them."""
    network = craft.MemoryNetwork()
    opening = craft.open_server(config(directory), Ledger(), transport=network.transport(1))
    async with opening as server:
        for number in range(5):
            await server.propose_many([b"put %d" % number, b"\xff\x00"])
        found: list[craft.TailEntry] = []
        async with server.subscribe(after=0) as batches:
            async for batch in batches:
                found += batch
                if found[-1].position >= server.position:
                    break
    return [
        (
            entry.position,
            entry.timestamp,
            [c.decode() if c[:3] == b"put" else "0xff00" for c in entry.commands],
        )
        for entry in found
    ]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, int, list[str]]]]:
    """A stopped server's directory, and its merged log."""
    directory = tmp_path_factory.mktemp("log") / "data"
    return directory, trio.run(_write, directory)


Stopped = tuple[Path, list[tuple[int, int, list[str]]]]


def lines(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[Any]:
    """What `craft log … --json` prints."""
    assert main(["log", *arguments, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def fingerprint(directory: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_the_merged_log_of_a_stopped_server_is_what_was_applied(
    stopped: Stopped, capsys: pytest.CaptureFixture[str]
) -> None:
    """Positions, timestamps and commands; and not a byte of the directory changes."""
    directory, merged = stopped
    before = fingerprint(directory)
    rows = lines(capsys, str(directory), "--uncommitted")
    assert [(row["position"], row["timestamp"], row["commands"]) for row in rows] == merged
    known = lines(capsys, str(directory))
    assert known == [row for row in rows if row.get("committed", True)]
    assert len(known) >= len(rows) - 1
    assert {row["kind"] for row in rows} <= {"command", "session"}
    assert fingerprint(directory) == before


def test_rows_are_chosen_by_position_time_and_kind(
    stopped: Stopped, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bounds are inclusive, but that of --after."""
    directory, merged = stopped
    rows = lines(capsys, str(directory), "--after", "2", "--until", "4")
    assert [row["position"] for row in rows] == [3, 4]
    begin, end = merged[1][1], merged[3][1]
    rows = lines(capsys, str(directory), "--uncommitted", "--from", moment(begin), "--to", str(end))
    assert [row["timestamp"] for row in rows] == [timestamp for _, timestamp, _ in merged[1:4]]
    assert lines(capsys, str(directory), "--kind", "membership") == []


def test_a_groups_log_shows_what_the_merged_one_does_not(
    stopped: Stopped, capsys: pytest.CaptureFixture[str]
) -> None:
    """Empty entries, terms, and who asked for what; all groups together hold what is merged."""
    directory, merged = stopped
    groups = [lines(capsys, str(directory), "--group", str(group)) for group in (0, 1)]
    for group, rows in enumerate(groups):
        assert [row["index"] for row in rows] == list(range(1, len(rows) + 1))
        assert all(row["term"] >= 1 and row["group"] == group for row in rows)
        assert rows[0]["kind"] == "empty"
    commands = [row for rows in groups for row in rows]
    stamps = sorted(row["timestamp"] for row in commands if row["kind"] in {"command", "session"})
    assert stamps == [timestamp for _, timestamp, _ in merged]
    asked = [one for row in commands for one in row.get("requests", [])]
    assert {"server": 1, "counter": 1, "request": 0, "opens": "server session"} in asked


def test_people_get_one_line_an_entry(stopped: Stopped, capsys: pytest.CaptureFixture[str]) -> None:
    """A position, a time, a place, a kind, and what was said."""
    directory, merged = stopped
    assert main(["log", str(directory), "--uncommitted"]) == 0
    out, err = capsys.readouterr()
    text = out.splitlines()
    assert len(text) == len(merged)
    assert "put 0, 0xff00" in text[1] and moment(merged[1][1]) in text[1] and " command " in text[1]
    assert "merged as far as group" in err


def test_a_running_servers_directory_is_refused_and_its_address_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error says what to do instead."""
    storage = RocksStorage.open(tmp_path / "data", cluster_id="c", server_id=1, groups=1)
    try:
        assert main(["log", str(tmp_path / "data")]) == 1
        assert "is in use by its server (pid" in capsys.readouterr().err
    finally:
        storage.close()
    assert main(["log", str(tmp_path)]) == 1
    assert "is no data directory" in capsys.readouterr().err


async def test_a_running_server_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """The same rows, merged and group by group."""
    async with serving(3) as s:
        for number in range(10):
            await s.servers[1].propose(b"%d" % number)

        async def show(*arguments: str) -> list[Any]:
            code = await trio.to_thread.run_sync(
                main, ["log", "--connect", s.addresses[1], "--json", *arguments]
            )
            assert code == 0
            return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

        rows = await show()
        assert [command for row in rows for command in row["commands"]] == [str(n) for n in range(10)]
        assert [row["position"] for row in rows] == list(range(1, len(rows) + 1))
        assert await show("--after", "5") == rows[5:]
        stamps = []
        for group in range(3):
            found = await show("--group", str(group), "--kind", "command,session")
            stamps += [row["timestamp"] for row in found if row.get("committed", True)]
        assert set(stamps) >= {row["timestamp"] for row in rows}


def test_what_is_compacted_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Group by group what is left is shown; what is not known committed is marked."""
    directory = tmp_path / "data"
    storage = RocksStorage.open(directory, cluster_id="c", server_id=1, groups=1)
    storage.recover()
    entries = tuple(
        make_entry(0, index=index, term=1, timestamp=index * 10, kind=EntryKind.EMPTY)
        for index in range(1, 7)
    )
    storage.write(Write(1, (Append(0, 0, entries),), ((0, HardState(1, None, 5)),), None))
    cut = BEGINNING._replace(place=Place(1, 3), timestamp=30)
    storage.write(Write(2, (), (), None, (Start(0, cut, keep=True),)))
    storage.sync()
    storage.close()
    assert main(["log", str(directory), "--group", "0"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[1] for line in out.splitlines()] == ["0:4", "0:5", "0:6"]
    assert out.splitlines()[-1].endswith("(not known committed)")
    assert "group 0 is compacted up to index 3" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "allowed: one directory, or --connect ADDRESS"),
        (["a", "--connect", "b"], "allowed: one directory, or --connect ADDRESS"),
        (["a", "--group", "1", "--after", "3"], "positions of the merged log"),
        (["a", "--kind", "command,text"], "'text' is not allowed; allowed: empty, command"),
        (["a", "--from", "yesterday"], "'yesterday' is not allowed; allowed: a time such as"),
        (["a", "--after", "x"], "'x' is not allowed; allowed: 0 to"),
    ],
)
def test_a_wrong_command_line_is_told(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what is allowed."""
    with pytest.raises(SystemExit) as ended:
        main(["log", *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("timestamp", [0, 1, 999_999_999, 1_700_000_000_123_456_789, 2**62, 2**63 - 1])
def test_a_moment_reads_back(timestamp: int) -> None:
    """What is printed can be given back, to the nanosecond; also a wild clock's."""
    assert timestamp_of(moment(timestamp)) == timestamp


@pytest.mark.parametrize(
    "text", ["", "now", "2026-03-01T12:00:00.x", "2026-03-01T12:00:00.1+01:00", "1969-01-01", "9" * 30]
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    """Rather than taken for another one."""
    with pytest.raises(ValueError):
        timestamp_of(text)
