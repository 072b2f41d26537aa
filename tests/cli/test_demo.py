"""The demo's parts that need no servers: its picture, directory, ports, ledger and comparison."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from craft.cli.demo.cluster import MARK, DemoFailed, ServerProcess, configs, free_ports, prepare
from craft.cli.demo.load import Load, Row
from craft.cli.demo.machine import Ledger
from craft.cli.demo.scene import STRIP, WIDTH, Ink, Scene, picture
from craft.cli.demo.view import PlainView, choose
from craft.errors import ConfigError
from craft.state_machine import Batch


def loaded(directory: Path, *, servers: int, groups: int) -> Load:
    """A load in the middle of its work, of servers that never ran."""
    load = Load(
        [ServerProcess(config, directory, "no:one") for config in configs(directory, servers, groups)]
    )
    for position in range(1, 2 * STRIP):
        load.rows[position] = Row(1_700_000_000_000_000_000 + position, position % groups, position, "")
        load.top = position
    for station in load.stations[1:]:
        station.process.up = True
        station.moved(99_999_999, 1.0)
        station.status = {"groups": [{"group": group, "role": "leader"} for group in range(groups)]}
        station.tally.answered += [b"w"] * 1_000_000
    return load


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize(("servers", "groups"), [(3, 3), (9, 256), (1, 1)])
def test_the_picture_fits_in_80_columns(tmp_path: Path, servers: int, groups: int, colour: bool) -> None:
    """Whatever the numbers grow to; and colours come only where they are wanted."""
    scene = Scene(loaded(tmp_path, servers=servers, groups=groups), groups=groups, elapsed=3599.9)
    for _ in range(2 * STRIP):
        scene.sample(0.25)
    lines = picture(scene, Ink(colour))
    visible = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    assert max(map(len, visible)) <= WIDTH
    assert ("\x1b" in "".join(lines)) is colour


def test_the_strip_shows_each_entry_in_its_group_and_in_the_one_log(tmp_path: Path) -> None:
    """Without colour, a group's number marks its entries."""
    lines = picture(Scene(loaded(tmp_path, servers=3, groups=3), groups=3), Ink(colour=False))
    rows = {line[1:9].strip(): line[12:] for line in lines if line.startswith((" group", " one log"))}
    merged = rows["one log"]
    assert len(merged) == STRIP
    for group in range(3):
        assert rows[f"group {group}"].rstrip() == re.sub(f"[^{group}]", " ", merged).rstrip()


def test_output_into_a_pipe_is_plain() -> None:
    """Pytest's own capture is no terminal."""
    assert isinstance(choose(plain=False), PlainView)
    assert isinstance(choose(plain=True), PlainView)


def test_two_servers_that_tell_one_position_differently_are_found(tmp_path: Path) -> None:
    """While it happens, with both entries."""
    load = loaded(tmp_path, servers=3, groups=3)
    same, other = load.rows[7], load.rows[7]._replace(index=8)
    load._see(load.stations[1], 7, same)
    with pytest.raises(DemoFailed, match="the merged log differs at position 7: server 3 has .*index=8"):
        load._see(load.stations[2], 7, other)


def test_a_demo_cleans_up_after_an_earlier_one_only(tmp_path: Path) -> None:
    """What it did not make itself stays, also in its own directory."""
    directory = prepare(tmp_path / "new")
    (directory / "server-1").mkdir()
    (directory / "server-1.log").write_text("old", encoding="utf-8")
    (directory / "notes").write_text("mine", encoding="utf-8")
    assert sorted(path.name for path in prepare(directory).iterdir()) == [MARK, "notes"]


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    """With the path and the system's words."""
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match=f"--dir: '{file}' cannot be used"):
        prepare(file)


def test_ports_are_distinct_and_free() -> None:
    """At the moment, at least: whoever asks binds them at once."""
    ports = free_ports(8)
    assert len(set(ports)) == 8
    for port in ports:
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", port))


def test_the_ledger_counts_and_its_digest_tells_states_apart() -> None:
    """The order of the same writes does not matter to the state; a repeated or lost one does."""
    one, other = Ledger(), Ledger()
    assert one.apply_batch(Batch(1, 10, [b"a", b"b", b"a"])) == [1, 1, 2]
    assert other.apply_batch(Batch(1, 10, [b"a", b"a"])) == [1, 2]
    assert one.digest != other.digest
    other.apply_batch(Batch(2, 11, [b"b"]))
    assert one.digest == other.digest
    assert one.query(b"count a b c") == [2, 1, 0]
    summary = other.query(b"summary")
    assert (summary["position"], summary["writes"], summary["repeated"]) == (2, 2, ["a"])
    with pytest.raises(ValueError, match="query is b'grow'; allowed are"):
        one.query(b"grow")
