"""`craft status`: what servers see, as a table for people or as JSON."""

from __future__ import annotations

import argparse
import ssl
import sys
import textwrap
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import trio

from craft import client
from craft.cli import snapshot
from craft.cli.clocks import ahead, clocks, row
from craft.cli.common import EXIT_FAILED, EXIT_OK, Commands, add_command, add_tls, json_of, tls_of
from craft.clock.verdict import duration
from craft.config import Config
from craft.errors import ConfigError, CraftError, Unreachable
from craft.transport.tcp.tls import connecting_context

DESCRIPTION = """\
One block a server. Per group: the leader (* is this server), the term, the five
rungs (how far its log is appended, persisted, committed, merged, applied) and
its closed timestamp: no entry that commits later will be stamped at or before
it. The merged log has reached the least of these, the safe timestamp. Below the
rungs: how long commands led here took to each, from the one before, in ms.

At the end the clocks, as these servers see each other's: good where they differ
by less than a frame takes, wild where one is too far from a majority's."""

EPILOG = """\
examples:
  craft status 127.0.0.1:8001 127.0.0.1:8002 127.0.0.1:8003
  craft status --config server-1.toml --watch
  craft status 127.0.0.1:8001 --json | jq '.[].merged_position'
"""

TIMEOUT_S = 5.0
CLEAR = "\x1b[H\x1b[2J"
SECOND_NS = 1_000_000_000
MS_NS = 1_000_000
COLUMNS = 80
INDENT = " " * 11
"""Where the values of a block's head begin."""

MS_SHOWN_EXACTLY_MAX = 1000
"""From here on microseconds do not matter, nor fit."""

_RUNG_WIDTHS = {"appended": 10, "persisted": 10, "committed": 10, "merged": 9, "applied": 9}
"""The columns of the rungs, under which their times stand."""

Status: TypeAlias = Mapping[str, Any]


def add_to(commands: Commands, common: argparse.ArgumentParser) -> None:
    """The subcommand's own arguments."""
    command = add_command(
        commands,
        common,
        "status",
        help="show leaders, logs, clocks and links as servers see them",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    command.add_argument(
        "addresses", nargs="*", metavar="ADDRESS", help="a server's client_listen, host:port"
    )
    command.add_argument(
        "-c", "--config", type=Path, metavar="FILE", help="ask the server of this configuration"
    )
    command.add_argument("--json", action="store_true", help="one line of JSON: what each address answers")
    command.add_argument("-w", "--watch", action="store_true", help="again every second, until Ctrl-C")
    add_tls(command)
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    addresses = list(options.addresses)
    tls = tls_of(options)
    if options.config is not None:
        config = Config.load(options.config)
        addresses.append(_address_of(options.config, config))
        tls = tls or _tls_of_server(config)
    if not addresses:
        options.usage_error("whom to ask? allowed: addresses (host:port), or --config FILE")
    code: int = trio.run(_show, addresses, options, tls)
    return code


def _tls_of_server(config: Config) -> ssl.SSLContext | None:
    """A server's own certificate is good for asking."""
    if config.tls is None or not config.clients.tls:
        return None
    return connecting_context((config.tls.cert_file, config.tls.key_file), config.tls.ca_file)


def _address_of(file: Path, config: Config) -> str:
    address = config.client_listen_address
    if address is None or address.port == 0:
        raise ConfigError(f"{file}: client_listen: names no port to ask; allowed: give the address instead")
    return str(address)


async def _show(addresses: Sequence[str], options: argparse.Namespace, tls: ssl.SSLContext | None) -> int:
    while True:
        answers = await ask_all(addresses, tls)
        text = json_of(answers) if options.json else table(answers)
        clear = CLEAR if options.watch and not options.json and sys.stdout.isatty() else ""
        print(clear + text, flush=True)
        if not options.watch:
            return EXIT_FAILED if any("error" in answer for answer in answers.values()) else EXIT_OK
        await trio.sleep(1)


async def ask_all(addresses: Sequence[str], tls: ssl.SSLContext | None = None) -> dict[str, Status]:
    """What each address answers, or `{"error": …}`, in the order given."""
    answers: dict[str, Status] = {address: {} for address in addresses}

    async def ask(address: str) -> None:
        try:
            answers[address] = await _ask(address, tls)
        except CraftError as error:
            answers[address] = {"error": str(error)}

    async with trio.open_nursery() as nursery:
        for address in answers:
            nursery.start_soon(ask, address)
    return answers


async def _ask(address: str, tls: ssl.SSLContext | None) -> Status:
    with trio.move_on_after(TIMEOUT_S):
        async with client.connect(address, ssl_context=tls) as connection:
            return await connection.status()
    raise Unreachable(f"{address} does not answer within {TIMEOUT_S:g} s")


# -- the table -------------------------------------------------------------------------------------


def table(answers: Mapping[str, Status]) -> str:
    """One block a server, in 80 columns, and what to make of their clocks."""
    blocks = [
        f"server ?  {address}\n  {status['error']}" if "error" in status else _block(address, status)
        for address, status in answers.items()
    ]
    answered = [status for status in answers.values() if "error" not in status]
    if answered:
        blocks.append("\n".join(clocks(answered)))
    return "\n\n".join(block for block in blocks if block)


def _block(address: str, status: Status) -> str:
    return "\n".join(
        [*_head(address, status), *_suspect(status), "", *_groups(status), *_rungs(status), *_peers(status)]
    )


def _head(address: str, status: Status) -> list[str]:
    state = "stopping" if status["stopping"] else "ready" if status["ready"] else "starting"
    blocking = status["blocking_group"]
    waits = "waits for no group"
    if blocking is not None:
        waits = f"waits for group {blocking}, {status['unmerged_bytes']} bytes unmerged"
    clock = "clamped to a majority's" if status["clock_clamped"] else "not clamped"
    merged = f"position {status['merged_position']}, digest {status['merged_digest'][:16]}"
    applied = f"position {status['applied_position']}, stamped {clock_time(status['applied_timestamp'])}"
    return [
        f"server {status['server_id']}  {address}  cluster {status['cluster']}  {state}",
        *textwrap.wrap(f"{merged}, {waits}", COLUMNS, initial_indent="  merged   ", subsequent_indent=INDENT),
        f"  applied  {applied}",
        f"  safe     {clock_time(status['safe_timestamp'])}",
        f"  clock    {clock_time(status['clock_ns'])}, {clock}",
        *_clock(status["clock"]),
        f"  pending  {status['pending_requests']} requests, {status['pending_reads']} reads",
        *snapshot.lines(status["snapshots"], status["clock_ns"]),
    ]


def _suspect(status: Status) -> list[str]:
    """In which groups it counts for nothing, why, and what each waits for."""
    suspect = [group for group in status["groups"] if group["suspicion"] is not None]
    if not suspect:
        return []
    named = ", ".join(str(group["group"]) for group in suspect)
    words = [f"counts for nothing in group {named}"]
    words += sorted({group["suspicion"] for group in suspect})
    words += [f"group {group['group']} is cleared by {_clears(group)}" for group in suspect]
    lines = [
        line
        for text in words
        for line in textwrap.wrap(text, COLUMNS, initial_indent=INDENT, subsequent_indent=INDENT)
    ]
    return [lines[0].replace(INDENT, "  suspect  ", 1), *lines[1:]]


def _clears(group: Mapping[str, Any]) -> str:
    if group["clears_at"] is not None:
        return f"entry {group['clears_at']['index']} of term {group['clears_at']['term']}"
    if group["leader"] is not None:
        return f"what server {group['leader']}, its leader, appends next"
    return "its next leader, or its last one"


def _clock(clock: Mapping[str, Any]) -> list[str]:
    """Its source and error; then its state, and what is wrong with it, as far as there is anything to say."""
    error, bound = clock["error_ns"], clock["error_ms_max"]
    known = "error unknown" if error is None else f"error {error / MS_NS:.3f} ms"
    stated = "" if bound is None else f", stated at most {bound} ms"
    lines = [f"{clock['source']}, {known}{stated}", clock["state"]]
    noticed = [f"{clock[kind]} {kind}" for kind in ("steps", "stops", "suspends") if clock.get(kind)]
    if noticed:
        stands = ", stands still now" if clock["stopped"] else ""
        lines.append(f"noticed {', '.join(noticed)}{stands}")
    if clock.get("falsetickers"):
        lines.append(f"falsetickers {', '.join(clock['falsetickers'])}")
    lines += [f"{one['server']}: {one['refused']}" for one in clock.get("servers", ()) if one["refused"]]
    return [
        line
        for text in lines
        for line in textwrap.wrap(text, COLUMNS, initial_indent=INDENT, subsequent_indent=INDENT)
    ]


def _groups(status: Status) -> list[str]:
    head = "group  leader  term  appended persisted committed   merged  applied       closed"
    lines = [head]
    for group in status["groups"]:
        leader = "-" if group["leader"] is None else str(group["leader"])
        own = "*" if group["role"] == "leader" else " "
        lines.append(
            f"{group['group']:>5}{leader:>7}{own}{group['term']:>6}{group['appended']:>10}"
            f"{group['persisted']:>10}{group['committed']:>10}{group['merged']:>9}{group['applied']:>9}"
            f"{clock_time(group['closed_timestamp']):>13}"
        )
    return lines


def _rungs(status: Status) -> list[str]:
    """The time from rung to rung, each below its column; nothing until a command has climbed them all."""
    rungs = status["rungs"]
    if not rungs["applied"]["count"]:
        return []
    return [
        f"{label:>19}"
        + "".join(f"{_ms(rungs[rung][share]):>{width}}" for rung, width in _RUNG_WIDTHS.items())
        + f"{_ms(rungs['total'][share]) + ' all':>13}"
        for label, share in (("median, ms", "p50_ms"), ("99 of 100, ms", "p99_ms"))
    ]


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if value < MS_SHOWN_EXACTLY_MAX else f"{value:.0f}"


def _peers(status: Status) -> list[str]:
    if not status["peers"]:
        return []
    seen = row(status)
    lines = ["", f"{'peer':>5}{'link':>9}{'heard':>15}{'clock offset':>16}{'error':>14}{'one-way delay':>17}"]
    for peer in status["peers"]:
        link = "up" if peer["linked"] else "refused" if peer["refused"] else "down"
        heard = "never" if peer["heard_ms_ago"] is None else f"{peer['heard_ms_ago']} ms ago"
        one = seen.get(peer["server_id"])
        clock = ["-"] * 3 if one is None else [ahead(one[0]), duration(one[1]), duration(one[2])]
        lines.append(f"{peer['server_id']:>5}{link:>9}{heard:>15}{clock[0]:>16}{clock[1]:>14}{clock[2]:>17}")
    return lines


def clock_time(timestamp: int) -> str:
    """A timestamp's time of day in UTC, to the millisecond; `-` for none."""
    if timestamp == 0:
        return "-"
    try:
        return datetime.fromtimestamp(timestamp // MS_NS / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]
    except (OverflowError, ValueError):  # a wild clock may have stamped it
        return str(timestamp)
