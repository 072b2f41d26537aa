"""The `craft` command: a module a subcommand, and here what they share: errors, exit codes, ends of pipes.

Invariants
- What goes wrong ends in one line on stderr and in an exit code; tracebacks come with `--log-level debug`
  only.
- A reader that goes away (`craft status | head`) and Ctrl-C end the command quietly.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from craft.cli import (
    ask,
    backup,
    certs,
    demo,
    log,
    members,
    recover,
    serve,
    snapshot,
    status,
    transfer,
    trust,
    verify,
)
from craft.cli.common import EXIT_CODES, EXIT_FAILED, EXIT_UNKNOWN, Formatter, alone
from craft.errors import CraftError, Unknown
from craft.version import VERSION

__all__ = ["main"]

LOG_LEVELS = ("debug", "info", "warning", "error")
SIGNALLED = 128
"""What a shell adds to a signal's number for a command that it ended."""

DESCRIPTION = """\
Replicated state machines with many leaders and one merged log.

Begin with:  craft demo
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Usage errors and `--help` raise SystemExit."""
    given = sys.argv[1:] if arguments is None else arguments
    options = parser(given).parse_args(given)
    level = options.log_level or options.log_level_default
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper(),
        format="%(asctime)s %(levelname)-7s %(name)s %(message)s",
    )
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001  # what is not expected is raised again below
        return _explain(alone(error), debug=level == "debug")
    return code


def parser(arguments: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The command line, as far as these arguments need it; without any the whole."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--log-level",
        choices=LOG_LEVELS,
        help="what is logged to stderr (default: warning; serve: info); debug also shows tracebacks",
    )
    top = argparse.ArgumentParser(
        prog="craft", description=DESCRIPTION, epilog=EXIT_CODES, formatter_class=Formatter
    )
    top.add_argument("--version", action="version", version=f"craft {VERSION}")
    top.set_defaults(log_level_default="warning")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (
        serve,
        status,
        ask,
        members,
        log,
        backup,
        certs,
        recover,
        demo,
        verify,
        trust,
        snapshot,
        transfer,
    ):
        command.add_to(commands, common)
    if not arguments or arguments[0] not in commands.choices:
        from craft.cli import simulate  # noqa: PLC0415  # a quarter of what it takes to import everything

        simulate.add_to(commands, common)
    return top


def _explain(error: BaseException, *, debug: bool) -> int:
    """One line on stderr for what is expected to go wrong; the exit code. Anything else is raised."""
    if isinstance(error, KeyboardInterrupt):
        return SIGNALLED + signal.SIGINT
    if isinstance(error, BrokenPipeError):
        _close_stdout()
        return SIGNALLED + signal.SIGPIPE
    if not isinstance(error, CraftError | OSError):  # a full disk, or no right to read, is no bug
        _raise(error)
    if debug:
        logging.getLogger("craft.cli").debug("the error in full", exc_info=error)
    kind = "unknown outcome" if isinstance(error, Unknown) else "error"
    print(f"craft: {kind}: {' '.join(str(error).split())}", file=sys.stderr)
    return EXIT_UNKNOWN if isinstance(error, Unknown) else EXIT_FAILED


def _raise(error: BaseException) -> NoReturn:
    raise error


def _close_stdout() -> None:
    """Nobody reads any more: what is still buffered goes nowhere, or Python would complain at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
