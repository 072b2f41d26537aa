"""`python -m tests`: every check there is, in one command: format, lint, types, then the tests.

All of them run even where an earlier one fails; pytest comes last, so that its summary ends the output and
names the earlier failures. Arguments go to pytest: `python -m tests -k merge`. Exit code 0: all passed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREES = tuple(name for name in ("craft", "tests", "examples", "bench") if any((ROOT / name).rglob("*.py")))

WORKERS = "2"
"""The product is tuned on two cores, and system tests need one of them."""

SECONDS_MAX = 660
"""The whole run; beyond it pytest is ended, whatever hangs. A hanging test ends its worker long before."""

STATIC_CHECKS = {
    "ruff format": ("ruff", "format", "--check", "--quiet", "--diff", *TREES),
    "ruff check": ("ruff", "check", "--quiet", *TREES),
    "mypy": ("mypy", "--no-error-summary", *TREES),
}
PYTEST = ("pytest", "-q", "-n", WORKERS, "--dist", "worksteal")


def run(command: tuple[str, ...], **environment: str) -> int:
    """Run a module of this interpreter in the checkout; return its exit code, 124 beyond the time.

    Its bytecode is kept, whatever the environment says: system tests start hundreds of processes.
    """
    try:
        finished = subprocess.run(
            (sys.executable, "-m", *command),
            cwd=ROOT,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", **environment},
            timeout=SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        print(f"{command[0]} took more than {SECONDS_MAX} s and was ended", flush=True)
        return 124
    return finished.returncode


def main(arguments: list[str]) -> int:
    """Run every check; 0 only if all of them passed."""
    failed = []
    for name, command in STATIC_CHECKS.items():
        print(f"{name} …", flush=True)
        if run(command) != 0:
            failed.append(name)
    tests = run((*PYTEST, *arguments), CRAFT_CHECKS_FAILED=", ".join(failed))
    return tests or int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
