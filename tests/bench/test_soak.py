"""`bench soak`: rounds of load and kills, and what counts as growth."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import soak
from bench.__main__ import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.system
def test_two_rounds_with_a_kill_each_agree(tmp_path: Path) -> None:
    """Large calls, then single ones; what was answered in both is counted on every server."""
    file = tmp_path / "soak.json"
    options = ["--rounds", "2", "--round", "0.9", "--tasks", "1", "--bytes", "64", "--dir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "bench", "soak", *options, "--json", str(file)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(file.read_text(encoding="utf-8"))
    assert [one["mode"] for one in result["samples"]] == ["bulk", "awaited"]
    assert result["agreed"]["applied"] == result["answered"] == sum(o["answered"] for o in result["samples"])
    assert all(one["answered"] > 0 and one["files"] > 3 for one in result["samples"])


def test_growth_is_the_late_rounds_over_the_early_ones() -> None:
    """The first fifth fills buffers, and one large value is no trend."""
    steady = [1.0, 50.0, 52.0, 400.0, 51.0, 50.0, 49.0, 50.0, 51.0, 50.0]
    assert soak.trend(steady)["growth"] <= soak.GROWTH_MAX * 1.1
    leaking = [10.0 * number for number in range(1, 11)]
    assert soak.trend(leaking)["growth"] > soak.GROWTH_MAX


def test_too_few_servers_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """One is away while the others serve."""
    with pytest.raises(SystemExit):
        main(["soak", "--servers", "2"])
    assert "--servers 2 is not allowed here; allowed: at least 3" in capsys.readouterr().err
