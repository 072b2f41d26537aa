"""`craft recover`: a new cluster from the survivors of one that has lost a majority for good."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

from craft.archive.restoring import check, recover
from craft.archive.surviving import Inventory, Survivors
from craft.cli.common import EXIT_FAILED, EXIT_OK, Commands, add_command
from craft.cli.log.rows import moment
from craft.cli.serve import load_state_machine, two_names
from craft.config import Config
from craft.storage.rocks.peeking import StoppedServer, peek

DESCRIPTION = """\
Only where a majority of the servers is gone for good: else start them, or wait.
Give the data directories of ALL servers that are left, stopped or copied; not a
byte of them changes. Without confirmation nothing is made: it says what may be
lost, and asks.

It makes the data directory of the configured server, of a new cluster: it has
another name, so that the lost servers are shut out should they come back. Run it
for every server of the new cluster, with the same survivors, before any is
started; or make it a cluster of one server, and add the others as members."""

EPILOG = """\
examples:
  craft recover data-1 data-2 --config new-1.toml --state-machine bank:Accounts
"""

WORDS = "lose what is missing"


def add_to(commands: Commands, common: argparse.ArgumentParser) -> None:
    """The subcommand's own arguments."""
    command = add_command(
        commands,
        common,
        "recover",
        help="make a new cluster when a majority is gone for good",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    command.add_argument(
        "directories", nargs="+", type=Path, metavar="DIR", help="the data_dir of each survivor"
    )
    command.add_argument("-c", "--config", type=Path, required=True, metavar="FILE", help="the new server's")
    command.add_argument("-m", "--state-machine", type=two_names, required=True, metavar="MODULE:CLASS")
    command.add_argument(
        "--yes-lose-what-is-missing", action="store_true", help="make it, without asking for those words"
    )
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    config = Config.load(options.config)
    machine = load_state_machine(*options.state_machine)
    with ExitStack() as stack:
        stopped = [stack.enter_context(peek(directory)) for directory in options.directories]
        survivors = Survivors(stopped)
        check(config, survivors.cluster_id, machine)
        print(statement(survivors.stopped, survivors.inventory()))
        if not (options.yes_lose_what_is_missing or _confirmed()):
            print("nothing was made", file=sys.stderr)
            return EXIT_FAILED
        reached = recover(survivors, machine, config)
    print(
        f"{config.data_dir}: server {config.server_id} of cluster {config.cluster!r}, at position"
        f" {reached.position}, stamped {moment(reached.timestamp)}"
    )
    return EXIT_OK


def _confirmed() -> bool:
    print(f'To go on, type "{WORDS}": ', end="", flush=True)
    return sys.stdin.readline().strip() == WORDS


def statement(stopped: tuple[StoppedServer, ...], found: Inventory) -> str:
    """What survives, what may be lost, and what nobody can know."""
    servers = ", ".join(str(one.identity.server_id) for one in stopped)
    lines = [
        f"cluster {stopped[0].identity.cluster_id!r}: servers {servers} are left.",
        "",
        "Kept, as every server had it: the merged log up to",
        f"  position {found.certain}, stamped {moment(found.certain_timestamp)}",
        "Kept too, though it is not known committed on any disk here: up to",
        f"  position {found.position}, stamped {moment(found.timestamp)}",
        "Lost servers may have had other entries between these. So behind the first,",
        "positions and results may not be those that clients were told.",
        "",
        "Lost: in each group whatever stood behind this, on lost servers alone. What it",
        "was, and whether it was answered, cannot be known.",
        "",
        "group  server    term      index  committed  stamped",
    ]
    lines += [
        f"{group:>5} {best.server_id:>7} {best.last.term:>7} {best.last.index:>10} {best.committed:>10}"
        f"  {moment(best.timestamp)}"
        for group, best in enumerate(found.best)
    ]
    torn = [one for one in stopped if one.torn or (one.path / "suspect").exists()]
    lines += [
        f"{one.path} may have lost the end of what it had synced:\nwhat it acknowledged may be missing too."
        for one in torn
    ]
    return "\n".join([*lines, ""])
