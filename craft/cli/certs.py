"""`craft certs`: an authority and certificates to develop and test with."""

from __future__ import annotations

import argparse
import ipaddress
import re
from pathlib import Path

from craft.cli.common import EXIT_OK, Commands, add_command
from craft.errors import ConfigError

DESCRIPTION = """\
Makes two authorities, one for servers and one for clients, and certificates
signed by them (PEM, ECDSA P-256, unencrypted keys that only you may read):

  servers-ca.pem   NAME.pem   NAME-key.pem     for each server
  clients-ca.pem   client.pem client-key.pem   for clients of craft

Run again, it keeps the authorities and makes what is not there: add a server
later by its name. For development: an authority whose key lies on a disk is
as good as whoever reads that disk.

Needs the extra craft-consensus[certs]."""

EPILOG = """\
examples:
  craft certs --dir certs server-1 server-2 server-3
  craft certs --dir certs --host 10.0.0.4 --host db4.example.org server-4

in a server's configuration:
  [tls]
  cert_file = "certs/server-1.pem"
  key_file = "certs/server-1-key.pem"
  ca_file = "certs/servers-ca.pem"
  client_ca_file = "certs/clients-ca.pem"
  [clients]
  tls = true
"""

HOSTS_DEFAULT = ("localhost", "127.0.0.1", "::1")
HOST = re.compile(r"(\*\.)?([\w-]{1,63}\.)*(?!\d+\.?$)[\w-]{1,63}\.?", re.ASCII)
"""A name in DNS; what ends in a number was to be an address."""

NAME_CHARS_MAX = 64
DAYS_MAX = 3650


def add_to(commands: Commands, common: argparse.ArgumentParser) -> None:
    """The subcommand's own arguments."""
    command = add_command(
        commands,
        common,
        "certs",
        help="make an authority and certificates, for development",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    command.add_argument(
        "names", nargs="+", type=file_name, metavar="NAME", help="of servers: names of files"
    )
    command.add_argument("--dir", type=Path, required=True, metavar="DIR", help="where the files go")
    command.add_argument(
        "--host",
        action="append",
        type=host_name,
        dest="hosts",
        metavar="HOST",
        help="name or address at which these servers are reached, again for each"
        f" (default: {', '.join(HOSTS_DEFAULT)})",
    )
    command.add_argument(
        "--days", type=days, default=365, metavar="N", help="how long they are valid (default: 365)"
    )
    command.set_defaults(run=_run)


def file_name(text: str) -> str:
    """A part of a file's name."""
    if not 1 <= len(text) <= NAME_CHARS_MAX or not all(char.isalnum() or char in "-_." for char in text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not allowed; allowed: 1 to {NAME_CHARS_MAX} letters, digits, '-', '_' and '.'"
        )
    if text in {"client", "servers-ca", "clients-ca"} or text.startswith(".") or text.endswith("-key"):
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; it is the name of another file")
    return text


def host_name(text: str) -> str:
    """A DNS name, or an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        if HOST.fullmatch(text) is None:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not allowed; allowed: a DNS name or an IP address, without a port"
            ) from None
    return text


def days(text: str) -> int:
    """A number of days."""
    if not text.isdecimal() or not 1 <= int(text) <= DAYS_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: 1 to {DAYS_MAX}")
    return int(text)


def _run(options: argparse.Namespace) -> int:
    try:
        from craft.cli.authority import Authority  # noqa: PLC0415  # an extra: nobody else needs it
    except ImportError as error:
        raise ConfigError(
            "craft certs needs the package cryptography; allowed: pip install 'craft-consensus[certs]'"
        ) from error
    options.dir.mkdir(parents=True, exist_ok=True)
    servers = Authority(options.dir, "servers-ca", options.days)
    clients = Authority(options.dir, "clients-ca", options.days)
    for name in options.names:
        print(servers.issue(name, options.hosts or HOSTS_DEFAULT, for_server=True))
    print(clients.issue("client", (), for_server=False))
    return EXIT_OK
