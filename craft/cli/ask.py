"""`craft propose` and `craft read`: one request to one server."""

from __future__ import annotations

import argparse
import os
from typing import Any

import trio

from craft import client
from craft.cli.common import EXIT_OK, Commands, add_command, add_tls, json_of, text_of, tls_of
from craft.errors import Unknown, Unreachable

PROPOSE = """\
All commands take effect together, in this order, with nothing between, or none
does. Prints one result a command, as the server's state machine returned it.
Each run is a new proposal: where the outcome is unknown (exit code 3), running
it again may give it a second effect."""

PROPOSE_EXAMPLES = """\
examples:
  craft propose 127.0.0.1:8001 "deposit ann 5" "withdraw bob 5"
  craft propose 127.0.0.1:8001 --hex 00ff
"""

READ = """\
Prints what the state machine's method query answers, when everything that was
answered anywhere before this call has been applied there: a linearizable read,
from any server."""

READ_EXAMPLES = """\
examples:
  craft read 127.0.0.1:8002 "balance ann"
  craft read 127.0.0.1:8002 --json report
"""


def add_to(commands: Commands, common: argparse.ArgumentParser) -> None:
    """The subcommands' own arguments."""
    propose = add_command(
        commands,
        common,
        "propose",
        help="propose commands to a cluster and print their results",
        description=PROPOSE,
        epilog=PROPOSE_EXAMPLES,
    )
    _add_common(propose)
    propose.add_argument("texts", nargs="+", metavar="COMMAND", help="a command; text becomes UTF-8")
    propose.set_defaults(run=_run_propose)
    read = add_command(
        commands,
        common,
        "read",
        help="read from a cluster's state machine",
        description=READ,
        epilog=READ_EXAMPLES,
    )
    _add_common(read)
    read.add_argument("texts", nargs=1, metavar="QUERY", help="a query; text becomes UTF-8")
    read.set_defaults(run=_run_read)


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument("address", metavar="ADDRESS", help="a server's client_listen, host:port")
    command.add_argument("--hex", action="store_true", help="what follows is written as hexadecimal digits")
    command.add_argument("--json", action="store_true", help="print one line of JSON")
    command.add_argument(
        "--timeout", type=seconds, default=10.0, metavar="SECONDS", help="how long to wait (default: 10)"
    )
    add_tls(command)


def seconds(text: str) -> float:
    """A duration on the command line."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: seconds, greater than 0")
    return seconds


def _payloads(options: argparse.Namespace) -> list[bytes]:
    """What to send. Text that is no UTF-8 travels as the bytes that the shell gave."""
    if not options.hex:
        return [os.fsencode(text) for text in options.texts]
    try:
        return [bytes.fromhex(text) for text in options.texts]
    except ValueError as error:
        options.usage_error(f"--hex: {error}; allowed: hexadecimal digits, two a byte")
        raise  # not reached: a usage error ends the command


def _run_propose(options: argparse.Namespace) -> int:
    results = trio.run(_ask, options, "propose", _payloads(options))
    if options.json:
        print(json_of(results))
    else:
        for result in results or ():
            print(text_of(result))
    return EXIT_OK


def _run_read(options: argparse.Namespace) -> int:
    (query,) = _payloads(options)
    answer = trio.run(_ask, options, "read", query)
    print(json_of(answer) if options.json else text_of(answer))
    return EXIT_OK


async def _ask(options: argparse.Namespace, operation: str, argument: Any) -> Any:
    tls = tls_of(options)
    with trio.move_on_after(options.timeout):
        async with client.connect(options.address, ssl_context=tls) as connection:
            return await getattr(connection, operation)(argument)
    error = Unknown if operation == "propose" else Unreachable
    raise error(f"no answer from {options.address} within {options.timeout:g} s")
