"""`bench skew`: the same figures whenever it runs, and no skew that shows in a write's latency.

Times here are virtual: they depend on craft and on the seed, never on the machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from bench import skew_picture
from bench.__main__ import parse
from bench.skew import HOUR_MS, LOADS, SCENARIOS, Scenario, _failures, measure, summary

ROOT = Path(__file__).resolve().parents[2]
LIGHT, BUSY = LOADS

FRAMES_MS = 5.0
"""A few frames and syncs; by far less than the skews of these tests."""


def brief(scenario: Scenario, servers: int = 3) -> dict[str, Any]:
    """A few dozen writes."""
    return measure(scenario, BUSY, servers=servers, seconds=0.01, seed=1)


def figures(cell: dict[str, Any]) -> dict[str, Any]:
    """What was measured, without what was asked for."""
    return {name: value for name, value in cell.items() if name not in {"who", "skew_ms"}}


def some_cells() -> list[dict[str, Any]]:
    """A figure for everything that is measured."""
    spread = {"p50_ms": 1.0, "p99_ms": 2.0, "max_ms": 3.0}
    return [
        {
            "load": load.name,
            "who": scenario.who,
            "skew_ms": scenario.skew_ms,
            "writes": 9,
            "unanswered": 0,
            "differ": False,
            "all": spread,
            "own": spread,
            "others": spread,
            "entries_per_write": 3.0,
        }
        for load in LOADS
        for scenario in SCENARIOS
    ]


# -- what clocks cost ------------------------------------------------------------------------------


@pytest.mark.parametrize("skew_ms", [100.0, HOUR_MS])
@pytest.mark.parametrize("who", ["ahead", "behind", "all", "jump ahead", "jump behind"])
def test_no_write_waits_for_a_clock(who: str, skew_ms: float) -> None:
    """Whichever clock is wrong, however much: the slowest write takes some frames, and never the skew."""
    cell = brief(Scenario(who, skew_ms))
    assert list(_failures(cell)) == []
    assert cell["all"]["max_ms"] < FRAMES_MS


def test_clocks_that_are_all_wrong_alike_change_nothing() -> None:
    """Only differences matter: not even one write takes a nanosecond more."""
    assert figures(brief(Scenario("alike", HOUR_MS))) == figures(brief(Scenario("none", 0)))


def test_a_run_repeats_itself() -> None:
    """A figure in the docs is one that anybody gets."""
    scenario = Scenario("ahead", 1.0)
    assert brief(scenario) == brief(scenario)


def test_each_clock_is_wrong_as_the_scenario_says() -> None:
    """One of them, all differently, all alike, or none before it jumps."""
    ms = 1_000_000
    assert Scenario("ahead", 10).offsets(3) == (0, 10 * ms, 0)
    assert Scenario("behind", 0.1).offsets(3) == (0, -ms // 10, 0)
    assert Scenario("all", 10).offsets(5) == (-10 * ms, -5 * ms, 0, 5 * ms, 10 * ms)
    assert Scenario("alike", 10).offsets(2) == (10 * ms, 10 * ms)
    assert Scenario("none", 0).offsets(2) == Scenario("jump behind", 10).offsets(2) == (0, 0)
    assert [Scenario(who, 10).jump() for who in ("jump ahead", "jump behind", "ahead")] == [
        10 * ms,
        -10 * ms,
        0,
    ]


# -- when a run counts -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"unanswered": 2}, "light load, none: 2 writes unanswered"),
        ({"differ": True}, "light load, none: the servers' merged logs differ"),
        ({"own": {"p50_ms": None}}, "light load, none: a server was asked nothing: the load is too short"),
    ],
)
def test_a_run_fails_where_its_figures_mean_nothing(changed: dict[str, Any], complaint: str) -> None:
    """An unanswered write, servers that differ, and no figure at all: each is named with its scenario."""
    assert list(_failures({**some_cells()[0], **changed})) == [complaint]


def test_one_clock_cannot_differ(capsys: pytest.CaptureFixture[str]) -> None:
    """A server alone is refused, and the error says what is allowed."""
    with pytest.raises(SystemExit):
        parse(["skew", "--servers", "1"])
    assert "--servers 1 is not allowed here; allowed: 2 to 32" in capsys.readouterr().err


# -- how it is shown -------------------------------------------------------------------------------


def test_a_summary_has_a_line_a_scenario() -> None:
    """And a dash where there is nothing to tell."""
    cells = some_cells()
    cells[0] = {**cells[0], "own": dict.fromkeys(cells[0]["own"])}
    lines = summary({"cells": cells})
    assert len(lines) == 1 + len(cells)
    assert lines[1].split() == [
        "light,",
        "none",
        "1.00",
        "2.00",
        "3.00",
        *"---",
        "1.00",
        "2.00",
        "3.00",
        "3.00",
    ]


def test_the_tables_in_the_docs_are_those_that_it_writes() -> None:
    """The same headings and rows; the figures are those of the day on which they were taken."""
    page = (ROOT / "docs/explanation/clocks.md").read_text(encoding="utf-8")
    for line in filter(None, skew_picture.table(some_cells()).splitlines()):
        heads = line.startswith(("|---", "| |")) or "entries" in line
        start = line if heads else line[: line.index(" | ") + 1]
        assert f"\n{start}" in page, line


@pytest.mark.system
def test_a_whole_run_is_kept_drawn_and_tabulated(tmp_path: Path) -> None:
    """The program itself, with the least load that gives every figure."""
    names = {"--json": "skew.json", "--svg": "skew.svg", "--table": "skew.md"}
    files = [word for option, name in names.items() for word in (option, str(tmp_path / name))]
    done = subprocess.run(
        (sys.executable, "-m", "bench", "skew", "--light", "0.15", "--busy", "0.01", *files),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "skew.json").read_text(encoding="utf-8"))
    assert (result["failures"], result["doubts"]) == ([], [])
    assert len(result["cells"]) == len(LOADS) * len(SCENARIOS)
    assert result["added_p50_ms_max"] < FRAMES_MS
    assert (tmp_path / "skew.md").read_text(encoding="utf-8") == skew_picture.table(result["cells"])
    drawn = ET.fromstring((tmp_path / "skew.svg").read_text(encoding="utf-8"))
    assert len(drawn.findall("{*}polyline")) == len(LOADS) * len(skew_picture.SERIES) * 2
