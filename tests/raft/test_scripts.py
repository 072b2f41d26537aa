"""Every golden script still tells the same story; `python -m tests.raft.regenerate_scripts` retells them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.raft.scripting import PROMPT, SCRIPTS, run

FILES = sorted(SCRIPTS.glob("*.txt"))
FEWEST = 12


@pytest.mark.parametrize("script", FILES, ids=lambda path: path.stem)
def test_the_script_still_tells_the_same_story(script: Path) -> None:
    """A difference is a change of the protocol: read it, then regenerate."""
    text = script.read_text(encoding="utf-8")
    assert run(text) == text, "if this is meant: python -m tests.raft.regenerate_scripts, and review the diff"


@pytest.mark.parametrize("script", FILES, ids=lambda path: path.stem)
def test_a_script_begins_with_what_it_shows(script: Path) -> None:
    """Prose first, then commands."""
    first, *rest = script.read_text(encoding="utf-8").splitlines()
    assert first and not first.startswith(PROMPT)
    assert any(line.startswith(PROMPT) for line in rest)


def test_no_script_is_lost() -> None:
    """A folder that moved would pass everything above."""
    assert len(FILES) >= FEWEST


def test_a_changed_output_is_noticed() -> None:
    """The runner rewrites outputs, keeps prose and commands, and drops what is no longer said."""
    script = "Prose.\n\n> stamp now=1 last=5 floor=0\n    7\n    8\n\nMore.\n"
    assert run(script) == "Prose.\n\n> stamp now=1 last=5 floor=0\n    6\n\nMore.\n"
