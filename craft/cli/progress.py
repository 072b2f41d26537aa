"""How far a long command is: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import time

from craft.cli.demo.view import CLEAR_LINE, FRAME_S

PLAIN_S = 10.0
"""Between two lines where stdout is no terminal: they are kept, so they are few."""

BAR = 24


class Progress:
    """Shows a share and a text, at most so often; what is said in between stays."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._interval = FRAME_S if self._live else PLAIN_S
        self._next = time.monotonic() + self._interval
        self._drawn = False

    def show(self, share: float, text: str) -> None:
        """How far it is, from 0 to 1, and what there is to say about it."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._interval
        if not self._live:
            print(text, flush=True)
            return
        filled = round(min(1.0, share) * BAR)
        line = f"[{'#' * filled}{'-' * (BAR - filled)}] {text}"
        sys.stdout.write(f"\r{line[: shutil.get_terminal_size().columns - 1]}{CLEAR_LINE}")
        sys.stdout.flush()
        self._drawn = True

    def say(self, text: str) -> None:
        """A line that stays."""
        self.close()
        print(text, flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._drawn:
            sys.stdout.write(f"\r{CLEAR_LINE}")
            sys.stdout.flush()
            self._drawn = False
