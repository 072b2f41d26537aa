"""`craft verify`: a stopped server's data directory, checked end to end."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path

from craft.cli.common import EXIT_FAILED, EXIT_OK, Commands, add_command, json_of
from craft.server.roll import ROLL_FILE, unpack_roll
from craft.storage.rocks.verifying import ERROR, Finding, Report, verify

DESCRIPTION = """\
Reads everything that the directory holds and changes nothing: whose it is, the
roll, the side files, every record's checksum, the continuity of every log,
terms, timestamps and configurations, every snapshot to its end, and whether the
snapshots' cuts stand in the logs as they say. The server must be stopped.

An error is what a start would refuse, or what was lost; a warning costs
something, and a start goes on. Exit code 0: no errors; 1: at least one."""

EPILOG = """\
examples:
  craft verify /var/lib/orders-1
  craft verify --json /var/lib/orders-1 | jq '.findings[]'
"""

SECOND_NS = 1_000_000_000
KIB = 1024


def add_to(commands: Commands, common: argparse.ArgumentParser) -> None:
    """The subcommand's own arguments."""
    command = add_command(
        commands,
        common,
        "verify",
        help="check a stopped server's data directory end to end",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    command.add_argument("directory", type=Path, metavar="DIR", help="the server's data_dir")
    command.add_argument("--json", action="store_true", help="print one line of JSON")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    report = with_roll(verify(options.directory), options.directory)
    print(json_of(as_json(report)) if options.json else as_text(report))
    return EXIT_OK if report.sound else EXIT_FAILED


def with_roll(report: Report, directory: Path) -> Report:
    """What a start finds wrong with the roll, beside the rest."""
    try:
        roll = unpack_roll((directory / ROLL_FILE).read_bytes())
    except FileNotFoundError:
        return report
    except ValueError as error:
        message = str(error)
    else:
        if report.identity is None or roll.groups == report.identity.groups:
            return report
        message = f"it is of {roll.groups} groups, and the directory of {report.identity.groups}"
    return report._replace(findings=(*report.findings, Finding(ERROR, ROLL_FILE, message)))


def as_json(report: Report) -> dict[str, object]:
    """All of it, as plain values."""
    identity = report.identity
    return {
        "sound": report.sound,
        "identity": None if identity is None else identity._asdict(),
        "groups": [
            {**group._asdict(), "start": group.start._asdict(), "last": group.last._asdict()}
            for group in report.groups
        ],
        "snapshots": [snapshot._asdict() for snapshot in report.snapshots],
        "findings": [finding._asdict() for finding in report.findings],
    }


def as_text(report: Report) -> str:
    """For people: what is there, then what is wrong."""
    lines = []
    if report.identity is not None:
        cluster, server, disk, groups, version = report.identity
        lines.append(f"server {server} of cluster {cluster}, disk {disk}, {groups} groups, format {version}")
    lines += [
        f"group {group.group}: {group.entries} entries, {group.start.index + 1} to {group.last.index},"
        f" {_size(group.bytes)}"
        if group.entries
        else f"group {group.group}: no entries behind {group.start.index}"
        for group in report.groups
    ]
    lines += [
        f"snapshot at position {snapshot.position} of {_time(snapshot.timestamp)}, {_size(snapshot.bytes)}"
        for snapshot in report.snapshots
    ]
    lines += [f"{finding.level}: {finding.file}: {finding.message}" for finding in report.findings]
    return "\n".join([*lines, "sound" if report.sound else "NOT sound"])


def _size(count: int) -> str:
    return f"{count} bytes" if count < KIB else f"{-(-count // KIB)} KiB"


def _time(timestamp: int) -> str:
    return datetime.fromtimestamp(timestamp / SECOND_NS, UTC).isoformat(timespec="seconds")
