"""`craft demo`: three real server processes, three leaders, one merged log, and a SIGKILL.

`cluster` the processes · `machine` what they replicate · `load` writers and watchers · `story` the course ·
`verify` what must hold at the end · `scene` the picture · `view` where it is shown.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import shutil
import signal
from pathlib import Path
from typing import Any

import trio

from craft.cli.common import EXIT_FAILED, EXIT_OK, Commands, add_command, alone
from craft.cli.demo.cluster import DemoFailed, prepare
from craft.cli.demo.story import MACHINE, Options, Story
from craft.cli.demo.view import View, choose

DESCRIPTION = """\
Starts ordinary `craft serve` processes on loopback, with RocksDB in a temporary
directory; writes through all of them at once; kills one with SIGKILL and
measures how long the merge stands still on the others; starts it again; and at
the end compares the servers: the same merged log, the same state, and every
answered write there exactly once. Exit code 0 if all of it holds, else 1 and
the first difference."""

EPILOG = """\
examples:
  craft demo
  craft demo --servers 5 --groups 8 --seconds 20
  craft demo --plain --no-kill | tee demo.txt
"""

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a polite kill, and a terminal that is closed: the servers must not outlive any of them."""

SERVERS_MAX = 9
GROUPS_MAX = 256
SECONDS_MIN, SECONDS_MAX = 1.0, 3600.0


def add_to(commands: Commands, common: argparse.ArgumentParser) -> None:
    """The subcommand's own arguments."""
    command = add_command(
        commands,
        common,
        "demo",
        help="watch a cluster take writes everywhere, lose a server and go on",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    command.add_argument(
        "--servers",
        type=_between(1, SERVERS_MAX),
        default=3,
        metavar="N",
        help="server processes (default: 3)",
    )
    command.add_argument(
        "--groups",
        type=_between(1, GROUPS_MAX),
        metavar="N",
        help="Raft groups (default: as many, at least 3)",
    )
    command.add_argument(
        "--seconds", type=_seconds, default=12.0, metavar="S", help="how long to write (default: 12)"
    )
    command.add_argument("--no-kill", action="store_true", help="leave all servers alive")
    command.add_argument(
        "--plain",
        action="store_true",
        help="plain lines, no picture (the default where stdout is no terminal)",
    )
    command.add_argument(
        "--dir",
        type=Path,
        metavar="DIR",
        help="keep everything in this directory, new, empty or an earlier demo's (default: a temporary one)",
    )
    # For the tests: the demo must fail where a state machine is wrong on one server.
    command.add_argument("--state-machine", default=MACHINE, help=argparse.SUPPRESS)
    command.set_defaults(run=_run)


def _between(least: int, greatest: int) -> Any:
    def number(text: str) -> int:
        if text.isascii() and text.isdigit() and least <= int(text) <= greatest:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: {least} to {greatest}")

    return number


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not SECONDS_MIN <= seconds <= SECONDS_MAX:
        allowed = f"{SECONDS_MIN:g} to {SECONDS_MAX:g}"
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: {allowed}")
    return seconds


def _run(options: argparse.Namespace) -> int:
    view = choose(plain=options.plain)
    directory = prepare(options.dir)
    told = Options(
        servers=options.servers,
        groups=options.groups,
        seconds=options.seconds,
        kill=not options.no_kill,
        state_machine=options.state_machine,
    )
    failed = False
    try:
        code: int = trio.run(_play, told, directory, view)
        failed = code == EXIT_FAILED
    except BaseException as error:
        failed = not isinstance(alone(error), OSError | KeyboardInterrupt)  # as when nobody reads any more
        raise
    finally:
        kept = failed or options.dir is not None
        if not kept:
            shutil.rmtree(directory, ignore_errors=True)
        with contextlib.suppress(OSError):  # the terminal may be gone, or the pipe closed
            view.close()
            if kept:
                view.say(f"craft demo: logs and data are kept in {directory}")
    return code


async def _play(options: Options, directory: Path, view: View) -> int:
    began = trio.current_time()
    caught: list[int] = []
    try:
        with trio.open_signal_receiver(*STOPPING) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_obey, signals, nursery.cancel_scope, caught)
                await Story(options, directory, view).run()
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        error = alone(group)
        if not isinstance(error, DemoFailed):
            raise
        view.say(f" {view.ink.bad('✗')} {error}")
        view.say(f"craft demo: {view.ink.bad('failed')} after {trio.current_time() - began:.1f} s")
        return EXIT_FAILED
    if caught:
        view.say("craft demo: stopped; all servers are stopped too")
        return 128 + caught[0]
    view.say(f"craft demo: {view.ink.good('passed')} in {trio.current_time() - began:.1f} s")
    return EXIT_OK


async def _obey(signals: Any, scope: trio.CancelScope, caught: list[int]) -> None:
    async for number in signals:
        caught.append(number)
        scope.cancel()
