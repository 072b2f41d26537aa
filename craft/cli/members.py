"""`craft members`: who belongs to a cluster, and changing it while it works."""

from __future__ import annotations

import argparse
from typing import Any

import trio

from craft import client
from craft.cli.ask import seconds
from craft.cli.common import EXIT_OK, EXIT_UNKNOWN, Commands, add_command, add_tls, json_of, tls_of
from craft.errors import Rejected, Unknown

MEMBERS = """\
Asks any server of the cluster, which need not be a leader nor stay. A change is
made in one step however many servers come and go, and the command returns when
every group has followed: until then servers that come have to be started and
catch up, and servers that go must go on running. To stop waiting (Ctrl-C,
--timeout) stops nothing: the cluster goes on by itself, and `list` tells how
far it is."""

EXAMPLES = """\
examples:
  craft members 127.0.0.1:8001 list
  craft members 127.0.0.1:8001 add 4 10.0.0.4:7000
  craft members 127.0.0.1:8001 replace 3 4 10.0.0.4:7000
  craft members 127.0.0.1:8001 remove 3
  craft members 127.0.0.1:8001 move 2 10.0.0.22:7000
  craft members 127.0.0.1:8001 add 3 10.0.0.3:7000 --disk 5f0c…
"""

ADD, REMOVE, MOVE = 0, 1, 2
"""What a change is, on the wire."""

WAIT_MS = 2000
"""How long one question waits for the change to be done; then it is asked again."""


def add_to(commands: Commands, common: argparse.ArgumentParser) -> None:
    """The subcommand's own arguments."""
    command = add_command(
        commands,
        common,
        "members",
        help="list, add, remove, replace or move a cluster's servers",
        description=MEMBERS,
        epilog=EXAMPLES,
    )
    command.add_argument("address", metavar="ADDRESS", help="a server's client_listen, host:port")
    _add_options(command)
    what = command.add_subparsers(title="what to do", metavar="WHAT", required=True)
    _verb(what, "list", "who belongs to the cluster", _list)
    _verb(what, "add", "let a server come; with --disk also one that lost its disk", _add, "id", "where")
    what.choices["add"].add_argument("--disk", default="", metavar="DISK", help="on this disk and no other")
    _verb(what, "remove", "let a server go", _remove, "id")
    _verb(what, "replace", "let one come for another, which may be dead", _replace, "gone", "id", "where")
    _verb(what, "move", "a server is reached at another address", _move, "id", "where")
    command.set_defaults(run=_run, timeout=600.0)


def _add_options(command: argparse.ArgumentParser) -> None:
    """What may stand before the verb, and at the end."""
    command.add_argument("--json", action="store_true", help="print one line of JSON")
    command.add_argument("--no-wait", action="store_true", help="return as soon as the change is agreed")
    command.add_argument("--timeout", type=seconds, metavar="SECONDS", help="how long to wait (default: 600)")
    add_tls(command)


_METAVARS = {"id": "ID", "gone": "GONE", "where": "HOST:PORT"}


def _verb(what: Any, name: str, help_: str, changes: Any, *arguments: str) -> None:
    # What is not given at the end leaves what stands before the verb as it is.
    verb = what.add_parser(name, help=help_, argument_default=argparse.SUPPRESS)
    for argument in arguments:
        verb.add_argument(argument, metavar=_METAVARS[argument], type=str if argument == "where" else int)
    _add_options(verb)
    verb.set_defaults(changes=changes)


def _list(_options: argparse.Namespace) -> list[list[Any]]:
    return []


def _add(options: argparse.Namespace) -> list[list[Any]]:
    return [[ADD, options.id, options.where, options.disk]]


def _remove(options: argparse.Namespace) -> list[list[Any]]:
    return [[REMOVE, options.id]]


def _replace(options: argparse.Namespace) -> list[list[Any]]:
    return [[ADD, options.id, options.where, ""], [REMOVE, options.gone]]


def _move(options: argparse.Namespace) -> list[list[Any]]:
    return [[MOVE, options.id, options.where]]


def _run(options: argparse.Namespace) -> int:
    found = trio.run(_ask, options)
    if options.json:
        print(json_of(found))
    else:
        _print(found)
    done = found["reached_version"] >= found["version"]
    return EXIT_OK if done or options.no_wait or not options.changes(options) else EXIT_UNKNOWN


def _print(found: dict[str, Any]) -> None:
    for server in found["servers"]:
        disk = server["disk_id"] or "not known yet"
        print(f"{server['server_id']:>6}  {server['address'] or '?':<22}  disk {disk}")
    if found["reached_version"] < found["version"]:
        print(f"version {found['version']} is under way; every group has followed {found['reached_version']}")
    else:
        print(f"version {found['version']}: every group has followed")


async def _ask(options: argparse.Namespace) -> dict[str, Any]:
    """Ask for the change once; then only how far it is, which may be asked again and again."""
    changes = options.changes(options)
    found: dict[str, Any] | None = None
    with trio.move_on_after(options.timeout):
        async with client.connect(options.address, ssl_context=tls_of(options)) as connection:
            found = await connection.members([*changes, 0])
            while changes and not options.no_wait and found["reached_version"] < found["version"]:
                found = await _further(connection, found["version"])
    if found is None:
        raise Unknown(f"no answer from {options.address} within {options.timeout:g} s")
    return found


async def _further(connection: client.Client, version: int) -> dict[str, Any]:
    """How far the groups have followed a version, after a while. It was taken, whatever becomes of us."""
    try:
        return {**await connection.members([WAIT_MS]), "version": version}
    except Rejected as error:
        raise Unknown(f"the change is agreed, as version {version}, and goes on; but {error}") from error
