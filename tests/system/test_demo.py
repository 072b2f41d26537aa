"""`craft demo` as a user runs it, and that it fails where something is wrong."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.cli.running import ROOT, craft, start

pytestmark = pytest.mark.system


def processes_below(directory: Path) -> list[int]:
    """Servers whose configuration lies below a directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if any(word.startswith(bytes(directory)) for word in words):
            found.append(int(path.parent.name))
    return found


def test_the_demo_passes(tmp_path: Path) -> None:
    """It loses a server and gets it back, and everything holds; nothing is left running."""
    ran = craft("demo", "--plain", "--seconds", "5", "--dir", str(tmp_path / "demo"), directory=ROOT)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"SIGKILL to server [123], which led group", ran.stdout)
    assert re.search(r"the merge stood still for \d+, \d+ ms on servers \d, \d\n", ran.stdout)
    assert re.search(r"server [123] has caught up", ran.stdout)
    assert re.search(r"one merged log: 3 servers at position \d+", ran.stdout)
    assert re.search(r"\d+ answered writes: each is there exactly once, on every server", ran.stdout)
    assert re.search(r"one state: \d+ writes on each server", ran.stdout)
    assert "craft demo: passed in" in ran.stdout
    assert "\x1b" not in ran.stdout
    assert processes_below(tmp_path) == []


def test_a_directory_of_an_earlier_demo_may_be_used_again(tmp_path: Path) -> None:
    """And stays; a server of one, which nobody kills."""
    for _ in range(2):
        ran = craft("demo", "--servers", "1", "--seconds", "1", "--dir", str(tmp_path), directory=ROOT)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "no server is killed: 1 have no majority without it" in ran.stdout
    assert (tmp_path / "server-1").is_dir()


@pytest.mark.parametrize(
    ("machine", "difference"),
    [
        ("Forgetful", r"s\d-\d+ was answered, and is there 0 times on server 2; allowed: 1"),
        (
            "Diverging",
            r"the states differ in their digest: server 1: (\w+), server 2: (?!\1)\w+, server 3: \1",
        ),
    ],
)
def test_a_server_that_is_wrong_is_found(tmp_path: Path, machine: str, difference: str) -> None:
    """Exit code 1, the first difference, and the directory to look into."""
    name = f"tests.system.wrong_machine:{machine}"
    arguments = ["--plain", "--no-kill", "--seconds", "1", "--state-machine", name]
    ran = craft("demo", *arguments, "--dir", str(tmp_path / "demo"), directory=ROOT)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert re.search(difference, ran.stdout)
    assert f"logs and data are kept in {tmp_path}/demo" in ran.stdout
    assert processes_below(tmp_path) == []


def test_a_server_that_does_not_start_is_reported(tmp_path: Path) -> None:
    """With its own last words."""
    ran = craft("demo", "--state-machine", "no:Such", "--dir", str(tmp_path / "demo"), directory=ROOT)
    assert ran.returncode == 1
    assert re.search(
        r"server \d ended by itself with code 1: craft: error: --state-machine no:Such", ran.stdout
    )
    assert processes_below(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_stopped_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C in the middle: the servers are stopped, and the exit code is the signal's."""
    demo = start("demo", "--plain", "--dir", str(tmp_path / "demo"), directory=ROOT)
    with demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "writing through all of them" in line:
                break
        assert len([pid for pid in processes_below(tmp_path) if pid != demo.pid]) == 3
        demo.send_signal(number)
        rest = demo.stdout.read()
    assert demo.returncode == 128 + number
    assert "Traceback" not in rest
    assert processes_below(tmp_path) == []


def test_a_demo_whose_reader_goes_away_leaves_nothing_behind(tmp_path: Path) -> None:
    """`craft demo | head -1`: no servers, no temporary directory, no traceback."""
    with start("demo", "--seconds", "3", directory=ROOT, TMPDIR=str(tmp_path)) as demo:
        assert demo.stdout is not None
        demo.stdout.readline()
        demo.stdout.close()
        assert demo.wait() == 141
    assert processes_below(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
