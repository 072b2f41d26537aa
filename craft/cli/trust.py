"""`craft trust`: the operator's word that a suspect server has lost nothing."""

from __future__ import annotations

import argparse

import trio

from craft import client
from craft.cli.common import EXIT_OK, Commands, add_command, add_tls, tls_of
from craft.errors import Unknown

DESCRIPTION = """\
A suspect server may have lost the end of what it had synced, and counts for
nothing until its peers have made it whole. Where they cannot, because others
are gone for good, you may say that nothing is missing: if you know that the
machine only lost power, and that its disk keeps what it has synced.

If you are wrong, a write that was answered can be lost, silently and for ever."""

EPILOG = """\
examples:
  craft status 127.0.0.1:8002
  craft trust 127.0.0.1:8002 --server-id 2 --nothing-is-missing
"""

TIMEOUT_S = 10.0


def add_to(commands: Commands, common: argparse.ArgumentParser) -> None:
    """The subcommand's own arguments."""
    command = add_command(
        commands,
        common,
        "trust",
        help="say that a suspect server has lost nothing",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    command.add_argument("address", metavar="ADDRESS", help="that server's client_listen, host:port")
    command.add_argument("--server-id", type=int, required=True, metavar="ID", help="its id, to be sure")
    command.add_argument(
        "--nothing-is-missing", action="store_true", help="that you know this; without it nothing happens"
    )
    add_tls(command)
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if not options.nothing_is_missing:
        options.usage_error(
            "this can lose answered writes; allowed: with --nothing-is-missing, if you know that"
        )
    groups: list[int] = trio.run(_ask, options)
    if groups:
        named = ", ".join(map(str, groups))
        print(f"server {options.server_id} is trusted again in group {named}")
    else:
        print(f"server {options.server_id} is suspect in no group: nothing was changed")
    return EXIT_OK


async def _ask(options: argparse.Namespace) -> list[int]:
    tls = tls_of(options)
    with trio.move_on_after(TIMEOUT_S):
        async with client.connect(options.address, ssl_context=tls) as connection:
            return list(await connection.order("trust", options.server_id))
    raise Unknown(f"no answer from {options.address} within {TIMEOUT_S:g} s")
