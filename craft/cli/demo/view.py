"""Two ways to show the demo: a picture that moves on a terminal, and plain lines for everything else."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Protocol

from craft.cli.demo.scene import BARS, WIDTH, Ink, Scene, picture

FRAME_S = 0.1
PLAIN_S = 1.0
LINES_MIN = 24
BEGIN_DRAWING, END_DRAWING = "\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h"
"""No cursor, and long lines are cut instead of wrapped: a wrapped one could not be drawn over."""
CLEAR_LINE, CLEAR_BELOW = "\x1b[K", "\x1b[J"


class View(Protocol):
    """How the demo is shown."""

    interval: float
    ink: Ink

    def show(self, scene: Scene) -> None:
        """Show how things stand; called every `interval` seconds."""

    def event(self, scene: Scene, text: str) -> None:
        """Something happened that is worth a line of its own."""

    def say(self, text: str) -> None:
        """A line, before the scene or after it."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class PlainView:
    """One line an event, and one a second: no ANSI, for pipes, files and small terminals."""

    interval = PLAIN_S
    ink = Ink(colour=False)

    def show(self, scene: Scene) -> None:
        """One line."""
        stations = scene.load.stations
        merged = ", ".join(str(station.position) if station.process.up else "-" for station in stations)
        leads = "; ".join(
            f"server {station.server_id} leads {' '.join(map(str, station.leads())) or '-'}"
            for station in stations
            if station.process.up
        )
        rate = sum(scene.per_server.values())
        self.say(f"{scene.elapsed:5.1f} s  {rate:6.0f} writes/s  merged {merged}  {leads}")

    def event(self, scene: Scene, text: str) -> None:
        """One line too."""
        self.say(f"{scene.elapsed:5.1f} s  {text}")

    def say(self, text: str) -> None:
        """Print it at once: a pipe's reader watches too."""
        print(text, flush=True)

    def close(self) -> None:
        """There is nothing to leave."""


class LiveView:
    """The picture, drawn again and again over itself; its last state stays on the terminal."""

    interval = FRAME_S

    def __init__(self, *, colour: bool) -> None:
        self.ink = Ink(colour)
        self._drawn = 0

    def show(self, scene: Scene) -> None:
        """Draw it in one write, so that nothing flickers."""
        lines = picture(scene, self.ink)
        # A frame taller than the terminal could not be drawn over: what is lowest is left out.
        del lines[shutil.get_terminal_size().lines - 1 :]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        body = "".join(f"{CLEAR_LINE}{line}\n" for line in lines)
        sys.stdout.write(f"{BEGIN_DRAWING}\r{up}{body}{CLEAR_BELOW}")
        sys.stdout.flush()
        self._drawn = len(lines)

    def event(self, scene: Scene, text: str) -> None:
        """It stays in the picture."""
        scene.events.append(f"{self.ink.faint(f'{scene.elapsed:5.1f} s')}  {text}")
        self.show(scene)

    def say(self, text: str) -> None:
        """Below the picture, which ends with it."""
        self._drawn = 0
        print(END_DRAWING + text, flush=True)

    def close(self) -> None:
        """Give the cursor and the wrapping back."""
        sys.stdout.write(END_DRAWING)
        sys.stdout.flush()


def choose(*, plain: bool) -> View:
    """The picture where stdout is a terminal that can hold it, else plain lines."""
    if plain or not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb" or not _can_draw():
        return PlainView()
    size = shutil.get_terminal_size()
    if size.columns < WIDTH or size.lines < LINES_MIN:
        return PlainView()
    return LiveView(colour="NO_COLOR" not in os.environ)


def _can_draw() -> bool:
    try:
        (BARS + "■░─↓→…·").encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
