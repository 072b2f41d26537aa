"""`craft snapshot`: let a server take a snapshot now; and what `craft status` says of snapshots."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import trio

from craft import client
from craft.cli.common import EXIT_OK, Commands, add_command, add_tls, tls_of
from craft.errors import Unknown

DESCRIPTION = """\
The server writes its state, as it is between two applies, beside the logs, and
prints the snapshot's position when it is durable. Two are kept; the logs are
compacted behind the older. Servers take snapshots by themselves, by bytes of log
and by time; ask for one before a planned restart, or to have space back sooner."""

EPILOG = """\
examples:
  craft snapshot 127.0.0.1:8001
  craft snapshot 127.0.0.1:8001 --timeout 600
"""

TIMEOUT_S = 300.0
COLUMNS = 80
INDENT = " " * 11


def add_to(commands: Commands, common: argparse.ArgumentParser) -> None:
    """The subcommand's own arguments."""
    command = add_command(
        commands,
        common,
        "snapshot",
        help="let a server take a snapshot now",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    command.add_argument("address", metavar="ADDRESS", help="that server's client_listen, host:port")
    command.add_argument(
        "--timeout",
        type=float,
        default=TIMEOUT_S,
        metavar="SECONDS",
        help=f"how long to wait for it (default: {TIMEOUT_S:g})",
    )
    add_tls(command)
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if not 0 < options.timeout < float("inf"):
        options.usage_error(f"--timeout: {options.timeout:g} is not allowed; allowed: seconds, above 0")
    position = trio.run(_take, options)
    print(f"snapshot at position {position}")
    return EXIT_OK


async def _take(options: argparse.Namespace) -> int:
    """Ask again until it is there: a large one takes longer than a request may."""
    tls = tls_of(options)
    with trio.move_on_after(options.timeout):
        async with client.connect(options.address, ssl_context=tls) as connection:
            wanted, taken = None, None
            while taken is None:
                wanted, taken = await connection.order("take_snapshot", wanted)
            return int(taken)
    raise Unknown(f"no snapshot from {options.address} within {options.timeout:g} s; it may still be taken")


# -- in `craft status` -----------------------------------------------------------------------------


def lines(snapshots: Mapping[str, Any], clock_ns: int) -> list[str]:
    """What there is, what the logs take, and what moves."""
    words = list(_words(snapshots, clock_ns))
    return [
        line
        for number, text in enumerate(words)
        for line in textwrap.wrap(
            text, COLUMNS, initial_indent=INDENT if number else "  snapshot ", subsequent_indent=INDENT
        )
    ]


def _words(snapshots: Mapping[str, Any], clock_ns: int) -> Iterator[str]:
    kept = [
        f"position {one['position']}, {size(one['bytes'])}, {age(clock_ns - one['timestamp'])} old"
        for one in reversed(snapshots["kept"])
    ]
    logs = f"logs {size(sum(snapshots['log_bytes']))}"
    if not snapshots["supported"]:
        yield f"none: the state machine has no snapshot and restore; {logs}"
    else:
        yield f"{'; before it '.join(kept) or 'none yet'}; {logs}"
    if snapshots["last_error"]:
        yield snapshots["last_error"]
    if snapshots["unfounded"]:
        yield "the logs are compacted and no snapshot is usable: it waits for a peer's"
    if snapshots["taking"]:
        yield "one is being taken"
    if snapshots["restoring"]:
        yield "the state machine is being restored"
    receiving = snapshots["receiving"]
    if receiving is not None:
        here = f"{size(receiving['here_bytes'])} of {size(receiving['bytes'])}"
        yield f"receives position {receiving['position']} from server {receiving['from']}: {here}"
    for one in snapshots["sending"]:
        yield f"sends position {one['position']} to server {one['to']}"


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def age(ns: int) -> str:
    """How old what was stamped then is; clocks may differ, so never less than nothing."""
    seconds = max(0, ns) // 1_000_000_000
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
