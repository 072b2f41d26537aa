"""`craft serve`: one server of a cluster, until it is told to stop."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any, cast

import trio

from craft.cli.common import EXIT_FAILED, EXIT_OK, Commands, add_command
from craft.config import Config
from craft.errors import ConfigError, NotReady
from craft.server import Server, open_server
from craft.state_machine import StateMachine

DESCRIPTION = """\
Runs until SIGTERM or Ctrl-C, then hands its groups to other servers, answers
what it still can, and ends. A second signal ends it at once, and so does one
while it still starts. Two lines on stdout say when it listens and when it is
ready; all else is logged to stderr.

The state machine is a class (or function) that is called without arguments and
returns an object with a method apply_batch; with a method query too, it can be
read by `craft read`. It is looked for in the current directory first."""

EPILOG = """\
examples:
  craft serve --config server-1.toml --state-machine bank:Accounts
  craft serve -c /etc/craft.toml -m bank.machines:Accounts --log-level error

a configuration:
  cluster = "bank"
  server_id = 1
  data_dir = "data-1"
  client_listen = "127.0.0.1:8001"
  [servers]
  1 = "127.0.0.1:7001"
  2 = "127.0.0.1:7002"
  3 = "127.0.0.1:7003"
"""


def add_to(commands: Commands, common: argparse.ArgumentParser) -> None:
    """The subcommand's own arguments."""
    command = add_command(
        commands, common, "serve", help="run one server of a cluster", description=DESCRIPTION, epilog=EPILOG
    )
    command.add_argument(
        "-c", "--config", type=Path, required=True, metavar="FILE", help="the server's configuration, TOML"
    )
    command.add_argument(
        "-m",
        "--state-machine",
        type=two_names,
        required=True,
        metavar="MODULE:CLASS",
        help="what to replicate, for example bank:Accounts",
    )
    command.set_defaults(run=_run, log_level_default="info")


def _run(options: argparse.Namespace) -> int:
    config = Config.load(options.config)
    machine = load_state_machine(*options.state_machine)
    code: int = trio.run(_serve, config, machine)
    return code


# -- the state machine -----------------------------------------------------------------------------


def two_names(text: str) -> tuple[str, str]:
    """`package.module:Class`, in two."""
    module, colon, name = text.partition(":")
    if not (colon and all(part.isidentifier() for part in [*module.split("."), *name.split(".")])):
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: package.module:Class")
    return module, name


def load_state_machine(module: str, name: str) -> StateMachine:
    """Import the user's class and make one. Raises ConfigError that says which step failed."""
    where = f"--state-machine {module}:{name}"
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does; an installed `craft` script does not
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:  # whatever the user's module raises
        raise ConfigError(f"{where}: cannot import {module} from {Path.cwd()}: {_said(error)}") from error
    try:
        for part in name.split("."):
            found = getattr(found, part)
        machine = found()
    except Exception as error:  # whatever the user's class raises
        raise ConfigError(f"{where}: cannot make one: {_said(error)}") from error
    if not callable(getattr(machine, "apply_batch", None)):
        raise ConfigError(f"{where}: {machine!r:.80} is no state machine; it has no method apply_batch")
    return cast(StateMachine, machine)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


# -- running ---------------------------------------------------------------------------------------


async def _serve(config: Config, machine: StateMachine) -> int:
    started, stop = trio.Event(), trio.Event()
    graceful = False
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_obey, signals, started, stop, nursery.cancel_scope)
            async with open_server(config, machine) as server:
                started.set()
                say(_listening(config, server))
                async with trio.open_nursery() as inside:
                    inside.start_soon(_say_when_ready, server)
                    inside.start_soon(_stop_when_removed, server, stop)
                    await stop.wait()
                    inside.cancel_scope.cancel()
                say(f"craft: server {config.server_id} stops")
            graceful = True
            nursery.cancel_scope.cancel()
    return EXIT_OK if graceful or not started.is_set() else EXIT_FAILED


async def _obey(signals: Any, started: trio.Event, stop: trio.Event, scope: trio.CancelScope) -> None:
    """The first signal asks for a graceful stop, the second for one at once; so does one while it starts."""
    async for number in signals:
        logging.getLogger("craft.cli").info("%s received", signal.Signals(number).name)
        if stop.is_set() or not started.is_set():  # a start may wait for ever, and leaves nothing behind
            scope.cancel()
        stop.set()


async def _say_when_ready(server: Server[Any]) -> None:
    with contextlib.suppress(NotReady):  # it ends before it is ready, and says itself why
        await server.wait_ready()
        say(f"craft: server {server.config.server_id} is ready")


async def _stop_when_removed(server: Server[Any], stop: trio.Event) -> None:
    """Its operator may start it no more. What its callers wait for has a moment to be answered."""
    await server.members.removed.wait()
    say(f"craft: server {server.config.server_id} is no member of the cluster any more")
    await trio.sleep(server.config.engine.election_timeout_ms_max / 1000)
    stop.set()


def _listening(config: Config, server: Server[Any]) -> str:
    clients = ", ".join(str(address) for address in server.client_addresses) or "nowhere"
    return (
        f"craft: server {config.server_id} of cluster {config.cluster!r} listens on {config.listen_address}"
        f" for servers, on {clients} for clients (pid {os.getpid()})"
    )


def say(line: str) -> None:
    """A line on stdout. A server does not end because nobody reads it.

    One write: an unbuffered `print` writes the end of the line by itself, and where servers share a stream
    another's line would come between.
    """
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
