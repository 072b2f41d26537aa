"""`craft verify`, as text and as JSON."""

from __future__ import annotations

import json
import pathlib
import re
from dataclasses import replace

import pytest

from craft import Config
from craft.cli import main
from craft.server.roll import ROLL_FILE, founding, save
from tests.storage.disks import CLUSTER
from tests.storage.test_rocks import overwrite
from tests.storage.test_verifying import stopped


def test_a_sound_directory_ends_with_0(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    """What is there, a line each, and the verdict last."""
    assert main(["verify", str(stopped(tmp_path / "d"))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"server 7 of cluster orders, disk [0-9a-f]{32}, 3 groups, format 1", lines[0])
    assert lines[1:-2] == [
        "group 0: 16 entries, 5 to 20, 6 KiB",
        "group 1: no entries behind 0",
        "group 2: no entries behind 0",
    ]
    assert lines[-2].startswith("snapshot at position 10 of 1970-01-01T00:00:00+00:00, ")
    assert lines[-1] == "sound"


def test_an_error_ends_with_1(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    """The file and the place are named."""
    directory = stopped(tmp_path / "d")
    overwrite(directory / "identity", 5, b"x")
    assert main(["verify", str(directory)]) == 1
    out = capsys.readouterr().out
    assert "error: identity: " in out
    assert out.endswith("NOT sound\n")


def test_a_roll_that_a_start_refuses_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    """It stands beside what the storage keeps; a restored directory has none yet."""
    directory = stopped(tmp_path / "d")
    members = {1: "127.0.0.1:7001", 7: "127.0.0.1:7007"}
    config = Config(cluster=CLUSTER, server_id=7, servers=members, groups=3, data_dir=directory)
    for groups, verdict in ((3, "sound"), (4, "of 4 groups, and the directory of 3")):
        save(directory, founding(replace(config, groups=groups)))
        assert (main(["verify", str(directory)]) == 0) == (groups == 3)
        assert verdict in capsys.readouterr().out
    overwrite(directory / ROLL_FILE, 8, b"\xff")
    assert main(["verify", str(directory)]) == 1
    assert "error: ROLL: its checksum does not hold" in capsys.readouterr().out


def test_json_has_all_of_it(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    """For scripts."""
    directory = stopped(tmp_path / "d")
    overwrite(directory / "synced", 5, b"\xff")
    assert main(["verify", "--json", str(directory)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["sound"] is True
    assert report["identity"]["server_id"] == 7
    group = report["groups"][0]
    assert (group["start"], group["last"], group["entries"]) == (
        {"term": 1, "index": 4},
        {"term": 1, "index": 20},
        16,
    )
    assert report["snapshots"][0]["position"] == 10
    assert report["findings"][0]["level"] == "warning"
    assert report["findings"][0]["file"] == "synced"


def test_what_is_no_data_directory_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    """On stderr, with exit code 1."""
    assert main(["verify", str(tmp_path)]) == 1
    assert "is no server's data directory" in capsys.readouterr().err


def test_what_the_system_refuses_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    """A full disk, or files of another user, are no bug of craft's: that is what a traceback would say."""
    directory = stopped(tmp_path / "d")
    (directory / "lock").unlink()
    (directory / "lock").mkdir()
    assert main(["verify", str(directory)]) == 1
    lock = directory / "lock"
    assert capsys.readouterr().err == f"craft: error: [Errno 21] Is a directory: '{lock}'\n"
