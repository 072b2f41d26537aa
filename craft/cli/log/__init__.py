"""`craft log`: a server's log, stopped or running, group by group or merged."""

from __future__ import annotations

import argparse
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from craft import client
from craft.cli.common import EXIT_OK, Commands, add_command, add_tls, tls_of
from craft.cli.log.rows import Row, Wanted, as_json, as_text, time_option
from craft.cli.log.sources import DirectorySource, RemoteSource, Source
from craft.cli.values import whole
from craft.errors import Compacted
from craft.storage.rocks.peeking import peek
from craft.types import GROUPS_MAX, EntryKind

DESCRIPTION = """\
Of a stopped server, its data directory is read, and not a byte of it changes.
Of a running one, its client_listen address is asked.

Merged (the default): what the state machine was given, in its order, with
positions; of a stopped server as far as its disk says that entries were
committed, which may be a little less than it knew when it ran. With
--group: that group's log as it stands, with empty entries, configurations and
what is not known committed; commands in it may have been dropped as repeated.
Where a log is compacted is said on stderr."""

EPILOG = """\
examples:
  craft log data-1
  craft log data-1 --group 0 --kind empty,configuration
  craft log --connect 127.0.0.1:8001 --after 1000 --until 1010 --json
  craft log data-1 --from 2026-03-01T12:00:00Z --to 2026-03-01T12:00:01Z
  craft log data-1 --json | jq -r '.commands[]'
"""

POSITION_MAX = 2**63 - 1


def add_to(commands: Commands, common: argparse.ArgumentParser) -> None:
    """The subcommand's own arguments."""
    command = add_command(
        commands, common, "log", help="print a server's log", description=DESCRIPTION, epilog=EPILOG
    )
    command.add_argument("directory", nargs="?", type=Path, metavar="DIR", help="a stopped server's data_dir")
    command.add_argument("--connect", metavar="ADDRESS", help="a running server's client_listen, host:port")
    group = whole(0, GROUPS_MAX - 1)
    command.add_argument("--group", type=group, metavar="N", help="this group's log, not the merged one")
    position = whole(0, POSITION_MAX)
    command.add_argument("--after", type=position, default=0, metavar="P", help="merged after this position")
    command.add_argument("--until", type=position, metavar="P", help="merged up to this position")
    times = "a time (2026-03-01T12:00:00.5Z), or ns since 1970"
    command.add_argument(
        "--from", dest="begin", type=time_option, metavar="T", help=f"stamped at or after {times}"
    )
    command.add_argument(
        "--to", dest="end", type=time_option, metavar="T", help="stamped at or before such a time"
    )
    command.add_argument("--kind", type=_kinds, default=frozenset(EntryKind), metavar="K,K", help=_KINDS_HELP)
    command.add_argument(
        "--uncommitted",
        action="store_true",
        help="merge also what a stopped server does not know committed: it may be lost or come elsewhere",
    )
    command.add_argument("--json", action="store_true", help="a line of JSON for each entry")
    add_tls(command)
    command.set_defaults(run=_run)


_KINDS_HELP = f"only these: {', '.join(kind.name.lower() for kind in EntryKind)}"


def _kinds(text: str) -> frozenset[EntryKind]:
    known = {kind.name.lower(): kind for kind in EntryKind}
    unknown = [name for name in text.split(",") if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not allowed; allowed: {', '.join(known)}")
    return frozenset(known[name] for name in text.split(","))


def _run(options: argparse.Namespace) -> int:
    if (options.directory is None) == (options.connect is None):
        options.usage_error("which log? allowed: one directory, or --connect ADDRESS")
    if options.group is not None and (options.after or options.until is not None):
        options.usage_error("--after and --until are positions of the merged log; allowed: without --group")
    trio.run(_show, options)
    return EXIT_OK


async def _show(options: argparse.Namespace) -> None:
    wanted = Wanted(options.after, options.until, options.begin, options.end, options.kind)
    write = as_json if options.json else as_text
    async with _source(options) as source:
        if options.group is not None and options.group >= source.groups:
            options.usage_error(f"--group {options.group}: allowed: 0 to {source.groups - 1}")
        try:
            await _print(source, options.group, wanted, write)
        except Compacted as error:
            _say(f"compacted up to position {error.retained}")
            await _print(source, None, wanted._replace(after=error.retained), write)
        for note in source.notes:
            _say(note)


async def _print(source: Source, group: int | None, wanted: Wanted, write: Callable[[Row], str]) -> None:
    rows: Any = source.merged(wanted.after) if group is None else source.group(group)
    try:
        async for row in rows:
            if wanted.passed(row):
                return
            if wanted.takes(row):
                print(write(row))
    finally:
        await rows.aclose()


@asynccontextmanager
async def _source(options: argparse.Namespace) -> AsyncIterator[Source]:
    if options.connect is None:
        with peek(options.directory) as stopped:
            yield DirectorySource(stopped, uncommitted=options.uncommitted)
    else:
        async with client.connect(options.connect, ssl_context=tls_of(options)) as connection:
            yield RemoteSource(connection)


def _say(note: str) -> None:
    """To people, beside the log."""
    print(f"craft: note: {note}", file=sys.stderr)
