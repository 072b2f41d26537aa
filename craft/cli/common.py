"""What the subcommands share: exit codes, help, errors out of nurseries, values for people."""

from __future__ import annotations

import argparse
import json
import ssl
from pathlib import Path
from typing import Any, TypeAlias

from craft.transport.tcp.tls import connecting_context

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_UNKNOWN = 0, 1, 2, 3

EXIT_CODES = """\
exit codes:
  0  done
  1  failed, with one line on stderr that says why
  2  the command line is wrong
  3  unknown: a command may or may not have taken effect
  130, 141, 143  ended by Ctrl-C, by a closed pipe, by SIGTERM
"""

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Formatter = argparse.RawDescriptionHelpFormatter


def add_command(
    commands: Commands,
    common: argparse.ArgumentParser,
    name: str,
    *,
    help: str,
    description: str,
    epilog: str,
) -> argparse.ArgumentParser:
    """A subcommand whose help shows its text as it is written, then examples and exit codes."""
    return commands.add_parser(
        name,
        help=help,
        parents=[common],
        description=f"{help[0].upper()}{help[1:]}.\n\n{description}".rstrip(),
        epilog=f"{epilog}\n{EXIT_CODES}",
        formatter_class=Formatter,
    )


def add_tls(command: argparse.ArgumentParser) -> None:
    """How to speak TLS with servers that have `clients.tls`."""
    command.add_argument("--ca", type=Path, metavar="FILE", help="speak TLS, with servers of this authority")
    command.add_argument("--cert", type=Path, metavar="FILE", help="our certificate for that (PEM)")
    command.add_argument("--key", type=Path, metavar="FILE", help="its private key, unencrypted")
    command.set_defaults(usage_error=command.error)


def tls_of(options: argparse.Namespace) -> ssl.SSLContext | None:
    """What the options say; None: plain TCP. Raises ConfigError where a file cannot be used."""
    if (options.cert is None) != (options.key is None) or (options.cert is not None and options.ca is None):
        options.usage_error("TLS: allowed: --ca alone, or --ca, --cert and --key together")
    if options.ca is None:
        return None
    return connecting_context(None if options.cert is None else (options.cert, options.key), options.ca)


def alone(error: BaseException) -> BaseException:
    """The one error inside groups of one; the group itself where there are several."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def text_of(value: Any) -> str:
    """A result for people: text as it is, bytes as text where they are, else 0x…, anything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = "\0"
        return text if text.isprintable() else "0x" + value.hex()
    return json_of(value)


def json_of(value: Any) -> str:
    """A value as one line of JSON; bytes in it become text or 0x…."""
    return json.dumps(_json_ready(value), ensure_ascii=False)


def _json_ready(value: Any) -> Any:
    """JSON knows no bytes, neither as a value nor as a key."""
    if isinstance(value, dict):
        return {text_of(key): _json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_ready(item) for item in value]
    return text_of(value) if isinstance(value, bytes) else value
