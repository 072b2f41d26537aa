"""Another command in the same session, before and after the experiment, so that a ratio comes from one run.

Machines differ from hour to hour; what ran minutes apart on the same disk and cores can be compared.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import trio

from bench.experiment import OptionError
from bench.processes import BenchError

SECONDS_MAX = 300.0
"""A command that takes longer is stuck."""


@dataclass(frozen=True)
class Beside:
    """A command and where its figure stands in its output."""

    command: str
    figure: str | None

    def check(self) -> None:
        """Raise OptionError for what cannot work."""
        try:
            words = shlex.split(self.command)
        except ValueError as error:
            raise OptionError(f"--beside {self.command!r} is not a command: {error}") from None
        if not words:
            raise OptionError("--beside is empty; allowed: a command with its arguments")
        try:
            groups = 1 if self.figure is None else re.compile(self.figure).groups
        except re.error as error:
            raise OptionError(
                f"--beside-figure {self.figure!r} is not a regular expression: {error}"
            ) from None
        if groups != 1:
            raise OptionError(
                f"--beside-figure {self.figure!r} has {groups} groups; allowed: exactly 1, the figure"
            )

    async def run(self, when: str, place: Path | None) -> dict[str, Any]:
        """Run it once; its output, its errors and its figure. Raises BenchError if it fails."""
        with tempfile.TemporaryDirectory(prefix="craft-beside-", dir=place) as directory:
            output, errors = await _run(self.command, directory)
        figure = self.figure_in(output)
        return {"when": when, "command": self.command, "output": output, "errors": errors, "figure": figure}

    def figure_in(self, output: str) -> float | None:
        """The command's figure: the median of all matches in its output. Raises BenchError without any."""
        if self.figure is None:
            return None
        try:
            return median(float(text.replace(",", "")) for text in re.findall(self.figure, output))
        except ValueError:
            raise BenchError(
                f"--beside-figure {self.figure!r} finds no number in this output:\n{output}"
            ) from None


async def _kill_all(process: trio.Process) -> None:
    """The command and whatever it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _run(command: str, directory: str) -> tuple[str, str]:
    try:
        with trio.fail_after(SECONDS_MAX):
            done = await trio.run_process(
                shlex.split(command),
                cwd=directory,
                stdin=b"",
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                start_new_session=True,
                deliver_cancel=_kill_all,
            )
    except trio.TooSlowError:
        raise BenchError(f"--beside {command!r} took more than {SECONDS_MAX:.0f} s") from None
    except OSError as error:
        raise BenchError(f"--beside {command!r} cannot be started: {error}") from None
    output, errors = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    if done.returncode:
        raise BenchError(f"--beside {command!r} failed with exit code {done.returncode}:\n{output}{errors}")
    return output, errors


def related(figure: float | None, runs: list[dict[str, Any]]) -> float | None:
    """The experiment's figure over the mean of the command's, or None where one of them is missing."""
    others: list[float] = [run["figure"] for run in runs if run["figure"] is not None]
    if figure is None or not others or not sum(others):
        return None
    mean = sum(others) / len(others)
    return round(figure / mean, 3)
