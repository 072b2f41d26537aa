"""The bare processes beside the servers: that they write what the servers wrote, and leave nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from bench import bare
from bench.experiment import Progress


def measured(*, written: float, syncs: int, applied: float) -> dict[str, Any]:
    """Readings of one server that had done something before the window, too."""

    def metrics(times: int) -> dict[str, Any]:
        return {
            "craft_written_bytes_total": written * times,
            "craft_sync_seconds": {"count": syncs * times},
            "craft_commands_applied_total": applied * times,
        }

    return {"before": {"metrics": metrics(1)}, "after": {"metrics": metrics(2)}}


def test_the_work_is_that_of_the_window() -> None:
    """Bytes between two syncs and bytes a command: means over all servers, of the window alone."""
    two = [measured(written=9000, syncs=2, applied=100), measured(written=11000, syncs=3, applied=100)]
    assert bare.work_of(two) == bare.Work(batch_bytes=4000, command_bytes=100.0)


@pytest.mark.parametrize("missing", ["written", "syncs", "applied"])
def test_without_work_there_is_nothing_to_repeat(missing: str) -> None:
    """Idle servers, or a window without a sync: no figure rather than a wrong one."""
    readings = measured(**{"written": 1, "syncs": 1, "applied": 1, missing: 0})
    assert bare.work_of([readings]) is None


def test_what_is_appended_are_whole_batches(tmp_path: Path) -> None:
    """At least one, in a file that is gone afterwards."""
    size, took = bare.append_and_sync(tmp_path / "file", 1000, 0.0)
    assert (size, list(tmp_path.iterdir())) == (0, [])
    size, took = bare.append_and_sync(tmp_path / "file", 1000, 0.02)
    assert size >= 1000 and size % 1000 == 0 and took > 0
    assert list(tmp_path.iterdir()) == []


def test_a_full_file_ends_the_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is faster than expected is not filled."""
    monkeypatch.setattr(bare, "FILE_BYTES_MAX", 2500)
    assert bare.append_and_sync(tmp_path / "file", 1000, 60.0)[0] == 3000


@pytest.mark.system
def test_processes_as_many_as_servers_are_related_to_them(tmp_path: Path) -> None:
    """The ratio is to the mean of the rounds, in commands of the size that they had in the log."""
    readings = [measured(written=9000, syncs=2, applied=100)] * 3
    found = trio.run(bare.beside, tmp_path, readings, 50.0, 0.05, Progress())
    assert list(tmp_path.iterdir()) == []
    one = found["bare"]
    assert (one["batch_bytes"], one["log_bytes_per_command"]) == (4500, 90.0)
    assert len(one["rounds_per_second"]) == bare.ROUNDS and min(one["rounds_per_second"]) > 0
    assert found["bare_per_second"] == pytest.approx(sum(one["rounds_per_second"]) / bare.ROUNDS, abs=0.1)
    assert found["bare_per_second"] == pytest.approx(one["syncs_per_second"] * 4500 / 90, rel=0.01)
    assert found["bare_ratio"] == pytest.approx(50.0 / found["bare_per_second"], abs=0.001)
    assert len(bare.shown(found)) == 1


def test_none_are_started_where_none_are_wanted(tmp_path: Path) -> None:
    """`--bare 0`: no figure, and no line."""
    readings = [measured(written=9000, syncs=2, applied=100)]
    found = trio.run(bare.beside, tmp_path, readings, 50.0, 0.0, Progress())
    assert set(found.values()) == {None} and bare.shown(found) == []
