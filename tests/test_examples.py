"""Every example runs, as a user would run it, and says what it promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

LINES_MAX = {"01_counter": 60, "04_sans_io": 120, "05_simulate_mine": 60}
"""An example is read at one go; these have a promised length (it stays below)."""

SAYS = {
    "01_counter": "all servers counted in the same order",
    "04_sans_io": "server 1: follower, term 2, 6 entries: a b c d",
    "05_simulate_mine": "it answers differently under another PYTHONHASHSEED",
}
"""What stands in an example's output when it did what it is for."""

SECONDS_MAX = 120
"""An example takes seconds; this only ends one that hangs."""


def output(example: Path, directory: Path) -> str:
    """Run an example in an empty directory; fails with its own words if it fails."""
    finished = subprocess.run(
        (sys.executable, str(example)),
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stderr == ""
    return finished.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.stem for example in EXAMPLES])
def test_the_example_runs(example: Path, tmp_path: Path) -> None:
    """It ends well, says nothing on stderr, and leaves nothing behind."""
    assert SAYS.get(example.stem, "") in output(example, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", LINES_MAX)
def test_the_example_keeps_its_promised_length(name: str) -> None:
    """A first look must not take an evening."""
    [example] = [example for example in EXAMPLES if example.stem == name]
    assert len(example.read_text(encoding="utf-8").splitlines()) < LINES_MAX[name]


def test_the_core_driven_by_hand_tells_the_same_story_every_time(tmp_path: Path) -> None:
    """Sans-IO means deterministic: two runs differ in nothing."""
    [example] = [example for example in EXAMPLES if example.stem == "04_sans_io"]
    assert output(example, tmp_path) == output(example, tmp_path)
