"""`micro`: every part is timed and counted, and what it times is the work that it claims."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.alone import merge_alone, raft_alone
from bench.joined import PARTS
from bench.micro import BATCHES, COUNTS, summary, table

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.system
def test_every_part_has_its_figures(tmp_path: Path) -> None:
    """Two repetitions of one beat: nothing fails, every figure is there, and nothing stays on the disk."""
    file, data = tmp_path / "result.json", tmp_path / "data"
    data.mkdir()
    small = ("--beats", "1", "--repeats", "2", "--dir", str(data), "--json", str(file))
    done = subprocess.run(
        (sys.executable, "-m", "bench", "micro", *small),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(data.iterdir()) == []
    result = json.loads(file.read_text(encoding="utf-8"))
    assert list(result["batches"]) == [str(batch) for batch in BATCHES]
    for one in result["batches"].values():
        assert [one["ns_per_command"][part]["runs"] for part in PARTS] == [2] * len(PARTS)
        assert min(one["ns_per_command"][part]["least"] for part in PARTS) > 0
        assert one["raft_ns_per_entry"]["least"] > 0 and one["merge_ns_per_entry"]["least"] > 0
        assert list(one["counts"]) == list(COUNTS) and min(one["counts"].values()) > 0
    assert result["engine_ns_per_command"] == result["batches"]["1000"]["ns_per_command"]["engine"]["median"]
    assert len(table(result)) + 1 == len(summary(result))  # a headline and a last line, but no rule


def test_raft_alone_commits_every_entry() -> None:
    """On all three replicas, the election's own among them."""
    took, committed = raft_alone(b"x" * 100, 20)
    assert took > 0 and committed == 21


@pytest.mark.parametrize("entries", [3, 24, 30])
def test_merge_alone_merges_every_entry(entries: int) -> None:
    """However many runs that makes, the last one short."""
    took, merged = merge_alone(b"x" * 100, entries)
    assert took > 0 and merged == entries
