"""`craft backup` and `craft restore`: a cluster's state on other disks, and a new cluster out of that."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import trio

from craft import client
from craft.archive.files import alone
from craft.archive.reading import Backup
from craft.archive.restoring import restore
from craft.archive.taking import Archivist, begin
from craft.cli.common import EXIT_OK, Commands, add_command, add_tls, tls_of
from craft.cli.log.rows import moment, time_option
from craft.cli.serve import load_state_machine, two_names
from craft.cli.values import whole
from craft.config import Config
from craft.errors import Rejected

BACKUP = """\
From any server that runs, while it works. What is there already is checked to
its end and gone on with, so the same command makes the next backup, and
--follow goes on for ever: the merged log is kept beyond what servers compact.
Nothing is ever removed; a new directory begins anew."""

BACKUP_EXAMPLES = """\
examples:
  craft backup backups/bank --connect 127.0.0.1:8001
  craft backup backups/bank --connect 127.0.0.1:8001 --follow
"""

RESTORE = """\
Makes the data directory of the configured server, of a new cluster: it has
another name, and as many servers and groups as its configuration says. Run it
for every server of the new cluster, on the same backup and with the same
--until, before any of them is started. The backup is checked to its end.

With --until the state is that of a moment: everything in it was stamped at that
time or before, on whichever server, and everything so stamped is in it."""

RESTORE_EXAMPLES = """\
examples:
  craft restore backups/bank --config new-1.toml --state-machine bank:Accounts
  craft restore backups/bank -c 1.toml -m bank:Book --until 2026-03-01T12:00:00Z
"""

INTERVAL_S = 5
RETRY_S = 1


def add_to(commands: Commands, common: argparse.ArgumentParser) -> None:
    """The subcommands' own arguments."""
    command = add_command(
        commands,
        common,
        "backup",
        help="take a backup from a running cluster",
        description=BACKUP,
        epilog=BACKUP_EXAMPLES,
    )
    command.add_argument("directory", type=Path, metavar="DIR", help="where it is, or is to be")
    command.add_argument("--connect", required=True, metavar="ADDRESS", help="any server's client_listen")
    command.add_argument("--follow", action="store_true", help="go on, until Ctrl-C")
    seconds = whole(1, 24 * 3600)
    command.add_argument(
        "--interval", type=seconds, default=INTERVAL_S, metavar="S", help="how often it is whole (default: 5)"
    )
    add_tls(command)
    command.set_defaults(run=_backup)
    command = add_command(
        commands,
        common,
        "restore",
        help="make a server of a new cluster from a backup",
        description=RESTORE,
        epilog=RESTORE_EXAMPLES,
    )
    command.add_argument("directory", type=Path, metavar="DIR", help="the backup")
    command.add_argument("-c", "--config", type=Path, required=True, metavar="FILE", help="the new server's")
    command.add_argument("-m", "--state-machine", type=two_names, required=True, metavar="MODULE:CLASS")
    command.add_argument("--until", type=time_option, metavar="T", help="the state at this time")
    command.set_defaults(run=_restore)


def _backup(options: argparse.Namespace) -> int:
    trio.run(_take, options)
    return EXIT_OK


async def _take(options: argparse.Namespace) -> None:
    while True:
        try:
            await _rounds(options)
        except Rejected as error:  # nobody is there, or who is there stops
            if not options.follow:
                raise
            print(f"craft: note: {error}; tried again", file=sys.stderr)
            await trio.sleep(RETRY_S)
        else:
            return


async def _rounds(options: argparse.Namespace) -> None:
    async with client.connect(options.connect, ssl_context=tls_of(options)) as connection:
        options.directory.mkdir(parents=True, exist_ok=True)
        with alone(options.directory):
            await _follow(options, await begin(options.directory, connection))


async def _follow(options: argparse.Namespace, archivist: Archivist) -> None:
    while True:
        count = await archivist.round()
        manifest = archivist.manifest
        if count or not options.follow:
            stamped = f", stamped {moment(manifest.timestamp)}" if manifest.position else ""
            print(f"{options.directory}: {count} more, up to position {manifest.position}{stamped}")
            sys.stdout.flush()
        if not options.follow:
            return
        await trio.sleep(options.interval)


def _restore(options: argparse.Namespace) -> int:
    config = Config.load(options.config)
    machine = load_state_machine(*options.state_machine)
    reached = restore(Backup(options.directory), machine, config, options.until)
    left = f"; {reached.left} later positions are left out" if reached.left else ""
    print(
        f"{config.data_dir}: server {config.server_id} of cluster {config.cluster!r}, at position"
        f" {reached.position}, stamped {moment(reached.timestamp)}{left}"
    )
    others = sorted(set(config.servers) - {config.server_id})
    if others:
        named = ", ".join(map(str, others))
        print(f"before any is started, restore servers {named} from the same backup, to the same position")
    return EXIT_OK
