"""What an experiment is, the options that all share, and how its result is kept and shown."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import machine
from bench.workload import ORIGINS_MAX
from craft import EngineLimits
from craft.limits import MIB
from craft.types import GROUPS_MAX

SERVERS_MAX = 32
"""On one machine more say nothing."""

assert SERVERS_MAX < ORIGINS_MAX

SECONDS_MAX = 24 * 3600

BAR_CHARACTERS = 24

Figures = dict[str, Any]


class OptionError(Exception):
    """Options that do not fit together; the message names them."""


class Progress:
    """One line on a terminal that changes; elsewhere a line a stage."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()

    def stage(self, text: str) -> None:
        """What is being done now."""
        self._show(f"… {text}") if self._live else print(f"… {text}", flush=True)

    def bar(self, text: str, share: float) -> None:
        """How far it is."""
        if self._live:
            full = round(min(share, 1.0) * BAR_CHARACTERS)
            self._show(f"[{'#' * full}{'.' * (BAR_CHARACTERS - full)}] {text}")

    def clear(self) -> None:
        """Make room for what stays."""
        if self._live:
            self._show("")

    def _show(self, text: str) -> None:
        print(f"\r\x1b[K{text}", end="", flush=True)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One question to the machine. `run` returns figures, and what went wrong: nothing, or the run failed."""

    name: str
    question: str
    figure: str
    """The figure that another command's is compared with (`--beside`)."""

    add_options: Callable[[argparse.ArgumentParser], None]
    check: Callable[[argparse.Namespace], None] = lambda _: None
    """Raises OptionError where options do not go together; by default any combination will do."""

    run: Callable[[argparse.Namespace, Progress], Awaitable[tuple[Figures, list[str]]]]
    summary: Callable[[Figures], list[str]]

    table: Callable[[Figures], list[str]] | None = None
    """The figures as lines of Markdown, for `report`; without it, `summary` in a block of code."""

    quick: tuple[str, ...] = ()
    """The options of the short run that `report --quick` makes of it."""


# -- options ---------------------------------------------------------------------------------------


def whole(least: int, greatest: int) -> Callable[[str], int]:
    """The type of an option that is a whole number in a range."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= greatest:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not allowed; allowed: whole numbers {least} to {greatest}"
            )
        return value

    return parse


def wholes(least: int, greatest: int) -> Callable[[str], list[int]]:
    """The type of an option that is one whole number in a range or several, with commas between them."""
    one = whole(least, greatest)

    def parse(text: str) -> list[int]:
        values = [one(part) for part in text.split(",")]
        if len(set(values)) < len(values):
            raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: each number once")
        return values

    return parse


def seconds(least: float = 0.0) -> Callable[[str], float]:
    """The type of an option that is a time."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not least <= value <= SECONDS_MAX:  # not a number fails, too
            raise argparse.ArgumentTypeError(
                f"{text!r} is not allowed; allowed: {least:g} to {SECONDS_MAX} seconds"
            )
        return value

    return parse


def directory(text: str) -> Path:
    """The type of an option that is a directory which exists."""
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not a directory that exists")
    return path


def new_file(text: str) -> Path:
    """The type of an option that is a file to be written: better refused now than after the run."""
    path = Path(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(
            f"{text!r} cannot be written: allowed is a file in a directory that exists"
        )
    return path


def add_common_options(parser: argparse.ArgumentParser, *, servers: bool = True) -> None:
    """What every experiment takes; but for `--servers`, where their number is part of the question."""
    if servers:
        parser.add_argument(
            "--servers",
            type=whole(1, SERVERS_MAX),
            default=3,
            metavar="N",
            help="server processes (default: 3)",
        )
    parser.add_argument(
        "--dir",
        type=directory,
        metavar="DIR",
        help="where the servers' data goes, on a disk"
        " (default: the system's place for temporary files); removed afterwards",
    )
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write the result there")
    parser.add_argument(
        "--beside",
        metavar="COMMAND",
        help="run COMMAND before and after, in an empty directory on the"
        " same file system, and show and keep its output (give absolute paths)",
    )
    parser.add_argument(
        "--beside-figure",
        metavar="REGEX",
        help="group 1 of REGEX is COMMAND's figure: the ratio to"
        " it is printed; of several matches in an output the median counts",
    )


def add_group_option(parser: argparse.ArgumentParser, default: int | None = None) -> None:
    """How many Raft groups."""
    shown = "craft's own: as many as servers, at least 3" if default is None else str(default)
    parser.add_argument(
        "--groups",
        type=whole(1, GROUPS_MAX),
        default=default,
        metavar="N",
        help=f"Raft groups (default: {shown})",
    )


def add_size_option(parser: argparse.ArgumentParser, default: int) -> None:
    """How large a command is, where one size is as good as another for the question."""
    parser.add_argument(
        "--bytes",
        type=whole(8, 4096),
        default=default,
        metavar="N",
        help=f"size of a command (default: {default})",
    )


def add_window_options(parser: argparse.ArgumentParser, *, window: float, warmup: float) -> None:
    """For how long a load is counted, and how long it runs before that."""
    parser.add_argument(
        "--seconds", type=seconds(0.1), default=window, metavar="S", help=f"the window (default: {window:g})"
    )
    parser.add_argument(
        "--warmup",
        type=seconds(),
        default=warmup,
        metavar="S",
        help=f"load before the window, not counted (default: {warmup:g})",
    )


def add_snapshot_options(parser: argparse.ArgumentParser, *, trailing_mib: int) -> None:
    """How often snapshots are taken, and how much log is kept: see `snapshot_limits`."""
    parser.add_argument(
        "--snapshot-mib",
        type=whole(1, 10_000),
        default=32,
        metavar="N",
        help="engine.snapshot_log_bytes: log between two snapshots (default: 32 MiB)",
    )
    parser.add_argument(
        "--trailing-mib",
        type=whole(1, 10_000),
        default=trailing_mib,
        metavar="N",
        help=f"engine.log_trailing_bytes: log kept below them (default: {trailing_mib} MiB)",
    )


def snapshot_limits(options: argparse.Namespace) -> EngineLimits:
    """What those options say to a server."""
    return EngineLimits(
        snapshot_log_bytes=options.snapshot_mib * MIB, log_trailing_bytes=options.trailing_mib * MIB
    )


# -- results ---------------------------------------------------------------------------------------


def head(experiment: Experiment, options: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Everything that must stand beside a figure for it to mean something."""
    return {
        "experiment": experiment.name,
        "question": experiment.question,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": machine.commit(),
        "command": ["python", "-m", "bench", *sys.argv[1:]],
        "settings": {
            name: str(value) if isinstance(value, Path) else value
            for name, value in sorted(vars(options).items())
            if name != "experiment"
        },
        "machine": machine.describe(place),
        "versions": machine.versions(),
    }


def save(result: dict[str, Any], file: Path) -> None:
    """Write the result."""
    file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
