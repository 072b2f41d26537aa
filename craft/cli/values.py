"""Values on the command line of `craft simulate`: each is checked where it is read, and named if wrong."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path

MINUTES_MAX = 7 * 24 * 60.0

WINDOW_MS_MAX = 24 * 3600 * 1000
"""Of virtual time: far longer than any run."""

MS = 1_000_000

Window = tuple[int | None, int | None]
"""From and to in ns of virtual time; None: from the beginning, to the end."""


def whole(least: int, greatest: int) -> Callable[[str], int]:
    """Whole numbers between two."""

    def number(text: str) -> int:
        if text.isascii() and text.isdigit() and least <= int(text) <= greatest:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: {least} to {greatest}")

    return number


def minutes(text: str) -> float:
    """How long a search may take."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found <= MINUTES_MAX:
        allowed = f"more than 0, at most {MINUTES_MAX:g}"
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: {allowed}")
    return found


def file(text: str) -> Path:
    """A file that can be written: a search of hours shall not end with an error."""
    path = Path(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: a file in an existing directory")
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: a file that can be written")
    return path


def window(text: str) -> Window:
    """`FROM..TO` in virtual ms, each of them optional."""
    first, dots, last = text.partition("..")
    allowed = (
        f"FROM..TO in virtual ms, 0 to {WINDOW_MS_MAX}, FROM below TO; without one of them: all to that side"
    )
    ends: list[int | None] = []
    for part in (first, last):
        valid = part.isascii() and part.isdigit() and int(part) <= WINDOW_MS_MAX
        if not dots or (part and not valid):
            raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: {allowed}")
        ends.append(int(part) * MS if part else None)
    begin, end = ends
    if end is not None and (begin or 0) >= end:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: {allowed}")
    return begin, end
