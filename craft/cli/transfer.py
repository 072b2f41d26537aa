"""`craft transfer`: put a group's leader somewhere, drain a server, or let everything go home."""

from __future__ import annotations

import argparse
import ssl

import trio

from craft import client
from craft.cli.common import EXIT_OK, Commands, add_command, add_tls, tls_of
from craft.errors import Rejected, Unknown, Unreachable
from craft.limits import EngineLimits

DESCRIPTION = """\
Moves groups' leaders while the cluster works; nobody waits longer than for a
few round trips, and nothing is lost. What you put somewhere stays there for
--hold seconds, or until the server loses it; then groups return to the servers
that they belong to, as `craft status` shows them.

Any server may be asked that knows where clients reach the one it concerns."""

EXAMPLES = """\
examples:
  craft transfer 127.0.0.1:8001 0 --to 2               group 0 is led by server 2
  craft transfer 127.0.0.1:8001 --from 3 --hold 3600   server 3 leads nothing for an hour
  craft transfer 127.0.0.1:8001 --home                 everything back where it belongs
"""

HOPS_MAX = 3
"""A group may get another leader while we ask for it; not again and again."""

TIMEOUT_S = 30.0


def add_to(commands: Commands, common: argparse.ArgumentParser) -> None:
    """The subcommand's own arguments."""
    command = add_command(
        commands,
        common,
        "transfer",
        help="move groups' leaders: one group, all of a server, or home",
        description=DESCRIPTION,
        epilog=EXAMPLES,
    )
    command.add_argument("address", metavar="ADDRESS", help="a server's client_listen, host:port")
    command.add_argument("group", nargs="?", type=_number, metavar="GROUP", help="the group to be moved")
    command.add_argument("--to", type=_number, metavar="SERVER", help="the server that shall lead GROUP")
    command.add_argument(
        "--from", dest="drained", type=_number, metavar="SERVER", help="a server that shall lead nothing"
    )
    command.add_argument("--home", action="store_true", help="end what was held by this command, everywhere")
    default_s = EngineLimits().leader_hold_ms // 1000
    command.add_argument(
        "--hold",
        type=_seconds,
        metavar="SECONDS",
        help=f"how long it stays so (default: the servers' engine.leader_hold_ms, mostly {default_s})",
    )
    add_tls(command)
    command.set_defaults(run=_run)


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: a whole number, 0 or greater")
    return int(text)


def _seconds(text: str) -> int:
    """As milliseconds."""
    longest = EngineLimits().leader_hold_ms_max // 1000
    if not text.isdecimal() or not 1 <= int(text) <= longest:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: 1 to {longest} seconds")
    return int(text) * 1000


def _run(options: argparse.Namespace) -> int:
    one = options.group is not None and options.to is not None
    some = options.group is not None or options.to is not None
    if [some, options.drained is not None, options.home].count(True) != 1 or some != one:
        options.usage_error("allowed: GROUP --to SERVER, or --from SERVER, or --home")
    if options.home and options.hold is not None:
        options.usage_error("--hold: not allowed with --home, which ends all holds")
    trio.run(_move, options, tls_of(options))
    return EXIT_OK


async def _move(options: argparse.Namespace, tls: ssl.SSLContext | None) -> None:
    with trio.move_on_after(TIMEOUT_S):
        if options.home:
            await _bring_home(options.address, tls)
        elif options.drained is not None:
            await _drain(options, tls)
        else:
            await _transfer(options, tls)
        return
    raise Unknown(f"no answer within {TIMEOUT_S:g} s; `craft status` shows who leads")


async def _transfer(options: argparse.Namespace, tls: ssl.SSLContext | None) -> None:
    address = options.address
    for _ in range(HOPS_MAX):
        async with client.connect(address, ssl_context=tls) as connection:
            leader = await connection.transfer(options.group, to=options.to, hold_ms=options.hold)
            if leader is None:
                print(f"group {options.group} is led by server {options.to}")
                return
            address = await _address(connection, leader, f"leads group {options.group}")
    raise Rejected(f"group {options.group} gets one leader after another; try again")


async def _drain(options: argparse.Namespace, tls: ssl.SSLContext | None) -> None:
    async with client.connect(options.address, ssl_context=tls) as connection:
        address = options.address
        if connection.server_id != options.drained:
            address = await _address(connection, options.drained, "is to be drained")
    async with client.connect(address, ssl_context=tls) as connection:
        await connection.drain(hold_ms=options.hold)
    print(f"server {options.drained} leads nothing")


async def _bring_home(address: str, tls: ssl.SSLContext | None) -> None:
    """Each server keeps its own holds, so all that can be asked are; one that is down holds nothing."""
    async with client.connect(address, ssl_context=tls) as connection:
        known = {**await connection.servers(), connection.server_id: address}
    unknown = []
    for server, where in sorted(known.items()):
        try:
            async with client.connect(where, ssl_context=tls) as connection:
                await connection.bring_home()
        except Rejected as error:
            print(f"server {server} was not asked: {error}")
        except Unknown as error:
            unknown.append(f"server {server} may not have heard it: {error}")
    if unknown:
        raise Unknown("; ".join(unknown))
    print("groups return to the servers that they belong to")


async def _address(connection: client.Client, server: int, why: str) -> str:
    known = await connection.servers()
    if server not in known:
        shown = ", ".join(map(str, sorted(known))) or "none"
        raise Unreachable(
            f"server {server} {why}, and server {connection.server_id} does not know where clients reach it;"
            f" it knows that of servers {shown}; allowed: to ask server {server} itself"
        )
    return known[server]
