"""`python -m examples.kv`: a cluster on this machine, one server of one, a password for its users."""

from __future__ import annotations

import argparse
import getpass
import logging
import signal
import socket
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any

import trio

import craft
from examples.kv import cluster, member, serving, settings, users

DESCRIPTION = "A replicated key-value store for Redis clients and HTTP: an example of building on craft."

EPILOG = """\
examples:
  python -m examples.kv up                        three servers here, in ./kv-data
  python -m examples.kv up --servers 1 --dir /tmp/kv
  python -m examples.kv serve --config store-1.toml
  python -m examples.kv member --dir /data --host kv-1 --join kv-0:8000
  python -m examples.kv password                  what a configuration keeps of one
"""


LOG_LEVELS = ("debug", "info", "warning", "error")
HEALTH_S = 5
STORE_HELP = "where the data are: in memory, or in RocksDB on disk (default: memory)"


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except craft.ConfigError as error:
        print(f"kv: error: {error}", file=sys.stderr)
        return 2
    except (craft.CraftError, BaseExceptionGroup) as error:
        print(f"kv: error: {said(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before, or after, a server listens for signals itself
        return 128 + signal.SIGINT
    return code


def said(error: BaseException) -> str:
    """The first of what went wrong."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    form = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(
        prog="python -m examples.kv", description=DESCRIPTION, epilog=EPILOG, formatter_class=form
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="a cluster on this machine, until Ctrl-C")
    up.add_argument(
        "--servers", type=int, choices=range(1, 8), default=3, metavar="N", help="1 to 7 (default: 3)"
    )
    up.add_argument(
        "--dir",
        type=Path,
        default=Path("kv-data"),
        help="where configurations and data are kept (default: kv-data); what is there is used again",
    )
    up.add_argument(
        "--redis-port",
        type=port,
        default=6379,
        metavar="P",
        help="of server 1; the others have the following ones (default: 6379)",
    )
    up.add_argument(
        "--http-port", type=port, metavar="P", help="likewise for HTTP (default: the Redis port + 3000)"
    )
    up.add_argument("--store", choices=settings.STORES, help=STORE_HELP)
    up.set_defaults(run=run_up)
    serve = commands.add_parser("serve", help="one server, until SIGTERM or Ctrl-C")
    serve.add_argument("-c", "--config", type=Path, required=True, metavar="FILE", help="its settings, TOML")
    serve.add_argument("--log-level", choices=LOG_LEVELS, default="warning")
    serve.set_defaults(run=run_serve)
    add_member(
        commands.add_parser("member", help="one server that writes its own configuration, for containers")
    )
    health = commands.add_parser("health", help="is a server ready? Exit code 0: it is")
    health.add_argument("url", metavar="URL", help="its /health, for example http://127.0.0.1:8080/health")
    health.set_defaults(run=run_health)
    password = commands.add_parser("password", help="read a password, print what a configuration keeps of it")
    password.set_defaults(run=run_password)
    return top


def add_member(command: argparse.ArgumentParser) -> None:
    """What a server that writes its own configuration is told."""
    command.add_argument(
        "--dir", type=Path, required=True, help="its configuration and data; what is there is used again"
    )
    command.add_argument(
        "--host",
        default=socket.gethostname(),
        help="by which name the others and clients reach it (default: this machine's name)",
    )
    command.add_argument(
        "--create", action="store_true", help="make a new cluster, if nobody to join answers"
    )
    command.add_argument(
        "--join",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="where a server of the cluster listens for craft's clients; several: again, or with commas",
    )
    for name, default in (("peer", 7000), ("client", 8000), ("redis", 6379), ("http", 8080)):
        command.add_argument(f"--{name}-port", type=port, default=default, metavar="P")
    command.add_argument("--store", choices=settings.STORES, default=settings.MEMORY, help=STORE_HELP)
    command.add_argument(
        "--insecure", action="store_true", help="listen beyond loopback without users and TLS"
    )
    command.add_argument("--log-level", choices=LOG_LEVELS, default="warning")
    command.set_defaults(run=run_member)


def port(text: str) -> int:
    """A port that several more can follow."""
    if not text.isdecimal() or not 1 <= int(text) <= 65000:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: 1 to 65000")
    return int(text)


@contextmanager
def usable(directory: Path) -> Iterator[None]:
    """What is made in a directory is made, or craft.ConfigError says why it cannot be."""
    try:
        yield
    except OSError as error:
        raise craft.ConfigError(f"--dir: {directory} cannot be used: {error}") from error


# -- one server ------------------------------------------------------------------------------------


def run_member(options: argparse.Namespace) -> int:
    """`member`."""
    told = member.Member(
        options.dir,
        options.host,
        peer_port=options.peer_port,
        client_port=options.client_port,
        redis_port=options.redis_port,
        http_port=options.http_port,
        create=options.create,
        join=member.parse_join(options.join),
        insecure_listen=options.insecure,
        store=options.store,
    )
    with usable(options.dir):
        options.config = member.prepare(told)
    return run_serve(options)


def run_health(options: argparse.Namespace) -> int:
    """`health`."""
    if not options.url.startswith(("http://", "https://")):
        raise craft.ConfigError(f"{options.url!r} is not allowed; allowed: an http or https URL")
    # No proxy, which an environment may name for all else: the server itself is asked.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(options.url, timeout=HEALTH_S) as answer:
            return 0 if answer.status == HTTPStatus.OK else 1
    except (OSError, ValueError, HTTPException) as error:  # also what is no answer 200, and no URL
        print(f"kv: {options.url}: {error}", file=sys.stderr)
        return 1


def run_serve(options: argparse.Namespace) -> int:
    """`serve`."""
    found = settings.load(options.config)
    logging.basicConfig(
        level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    return trio.run(serve, found)


async def serve(found: settings.Settings) -> int:
    """Until a signal, or a client, ends it; a second signal, or one while it starts, ends it at once."""
    number, started, stop = found.craft.server_id, trio.Event(), trio.Event()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(obey, signals, started, stop, nursery.cancel_scope)
            async with serving.running(found, stop) as store:
                started.set()
                for line in listening(found, store):
                    cluster.say(f"server {number} listens {line}")
                nursery.start_soon(tell_ready, store, number)
                nursery.start_soon(leave, store, number, stop)
                await stop.wait()
                cluster.say(f"server {number} stops")
            nursery.cancel_scope.cancel()
    return 0


def listening(found: settings.Settings, store: serving.Running) -> list[str]:
    """Where, for whom."""
    lines = []
    if found.redis_listen is not None:
        lines.append(f"on port {store.house.port} for Redis clients")
    if found.http_listen is not None:
        address = found.http_listen._replace(port=store.http.port)
        lines.append(f"at {'http' if found.tls is None else 'https'}://{address}/ for HTTP")
    return lines


async def obey(signals: Any, started: trio.Event, stop: trio.Event, scope: trio.CancelScope) -> None:
    """The first signal asks for a graceful stop, the second for one at once; so does one while it starts."""
    async for _ in signals:
        if stop.is_set() or not started.is_set():  # a start may wait for ever, and leaves nothing behind
            scope.cancel()
        stop.set()


async def tell_ready(store: serving.Running, number: int) -> None:
    """Say so when it takes commands."""
    try:
        await store.store.server.wait_ready()
    except craft.NotReady:
        return  # it ends before
    cluster.say(f"server {number} is ready")


async def leave(store: serving.Running, number: int, stop: trio.Event) -> None:
    """Who is removed stops: clients would be refused here, and go where they are not."""
    await store.store.server.members.removed.wait()
    cluster.say(f"server {number} is no member of the cluster any more")
    stop.set()


# -- a cluster here --------------------------------------------------------------------------------


def run_up(options: argparse.Namespace) -> int:
    """`up`."""
    with usable(options.dir):
        files = cluster.prepare(
            options.dir,
            servers=options.servers,
            redis_port=options.redis_port,
            http_port=options.http_port,
            store=options.store,
        )
    return trio.run(cluster.up, files)


def run_password(_options: argparse.Namespace) -> int:
    """`password`."""
    try:
        given = getpass.getpass("password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
        print(users.hashed(given))
    except EOFError:  # Ctrl-D
        raise craft.ConfigError("no password was given; allowed: one, and Enter") from None
    except ValueError as error:
        raise craft.ConfigError(str(error)) from error
    return 0


if __name__ == "__main__":
    sys.exit(main())
