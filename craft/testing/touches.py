"""Where does a piece of code ask for the time, for randomness, for an address or a hash? By watching it run.

Knows: names of the standard library. It is a hint beside a verdict, never a verdict: to look at a clock is no
fault where nothing depends on it.
"""

from __future__ import annotations

import builtins
import datetime as dt
import os
import random
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

SITES_MAX = 3
"""Of one kind that are told."""

CLOCK, RANDOM, ENTROPY, HASH, ADDRESS, PROCESS = "clock", "random", "entropy", "hash", "address", "process"

FUNCTIONS: dict[int, str] = {
    **{id(value): CLOCK for name, value in vars(time).items() if callable(value) and "sleep" not in name},
    id(os.urandom): ENTROPY,
    id(builtins.hash): HASH,
    id(builtins.id): ADDRESS,
    id(os.getpid): PROCESS,
}
"""Functions in C that tell what no state machine may depend on."""

DATES = {"now", "utcnow", "today"}
STDLIB = tuple({str(Path(sysconfig.get_path(name))) for name in ("stdlib", "platstdlib")})
HERE = str(Path(__file__).parent)


def _kind(function: Any) -> str | None:
    """What a function in C tells, if it is one of ours."""
    known = FUNCTIONS.get(id(function))
    owner = getattr(function, "__self__", None)
    if known is not None or owner is None:
        return known
    if owner is getattr(random, "_inst", None):
        return RANDOM
    if owner in (dt.datetime, dt.date) and function.__name__ in DATES:
        return CLOCK
    return HASH if type(owner) is set and function.__name__ == "pop" else None


def _foreign(code: CodeType) -> bool:
    """Is it the standard library's, not its user's?"""
    name = code.co_filename
    return name.startswith("<frozen") or (name.startswith(STDLIB) and "site-packages" not in name)


def _site(frame: FrameType | None, function: Any) -> str | None:
    """Which line asked, and what for; None for our own."""
    asked = f"{getattr(function, '__qualname__', function.__name__)}()"
    if function.__module__ and "." not in asked:
        asked = f"{function.__module__}.{asked}".removeprefix("builtins.").replace("posix.", "os.")
    asked = asked.replace("Random.", "random.")
    while frame is not None and _foreign(frame.f_code):
        asked = f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}()"
        frame = frame.f_back
    if frame is None or frame.f_code.co_filename.startswith(HERE):
        return None
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} in {frame.f_code.co_name}: {asked}"


def touches(run: Callable[[], object]) -> dict[str, list[str]]:
    """Run something; by kind, the places that asked."""
    found: dict[str, list[str]] = {}

    def watch(frame: FrameType, event: str, function: Any) -> None:
        if event != "c_call":
            return
        kind = _kind(function)
        site = _site(frame, function) if kind is not None else None
        if kind is not None and site is not None and site not in found.setdefault(kind, []):
            found[kind].append(site)

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        run()
    finally:
        sys.setprofile(before)
    return {kind: sites[:SITES_MAX] for kind, sites in found.items()}
