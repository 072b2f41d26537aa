"""The command line as a process, and the two machines that its tests serve."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

BANK = """
class Accounts:
    def __init__(self):
        self.balances = {}

    def apply_batch(self, batch):
        return [self.change(*command.decode().split()) for command in batch]

    def change(self, name, amount):
        self.balances[name] = self.balances.get(name, 0) + int(amount)
        return self.balances[name]

    def query(self, query):
        return self.balances.get(query.decode())
"""


def environment() -> dict[str, str]:
    """Ours, with this checkout first: the processes run in a directory of their own."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


def craft(*arguments: str, directory: Path, seconds: float = 110) -> subprocess.CompletedProcess[str]:
    """Run `craft …` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "craft", *arguments],
        cwd=directory,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def start(*arguments: str, directory: Path, **variables: str) -> subprocess.Popen[str]:
    """Begin `craft …`; both of its outputs come through one pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "craft", *arguments],
        cwd=directory,
        env=environment() | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
