"""What a server tells of itself: INFO, CONFIG, COMMAND; and DEBUG SLEEP, SHUTDOWN.

Knows: what can be looked at. Must not know: how a connection works.

Reference: Redis 7.0, server.c, config.c.
"""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Callable, Mapping
from typing import NamedTuple

import trio

from examples.kv.commands import Command, keys_of
from examples.kv.commands.arguments import SYNTAX, Args, integer
from examples.kv.globs import matcher
from examples.kv.replies import OK, Refused, Reply, several
from examples.kv.resp.client import Client, House
from examples.kv.resp.commands.connection import REDIS_VERSION
from examples.kv.resp.commands.table import Local

Section = Mapping[str, object]

SLEEP_S_MAX = 3600.0

# -- INFO ------------------------------------------------------------------------------------------


def server(house: House) -> Section:
    """Who this is."""
    return {
        "redis_version": REDIS_VERSION.decode(),
        "redis_mode": "standalone",
        "server_name": "craft-kv",
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "arch_bits": 64,
        "process_id": os.getpid(),
        "run_id": house.store.server.disk_id,
        "tcp_port": house.port,
        "uptime_in_seconds": int(house.clock() - house.started),
    }


def clients(house: House) -> Section:
    """Who is connected."""
    return {
        "connected_clients": len(house.clients),
        "maxclients": house.limits.clients_max,
        "blocked_clients": 0,
        "pubsub_clients": sum(bool(client.channels or client.patterns) for client in house.clients.values()),
        "watching_clients": sum(bool(client.watched) for client in house.clients.values()),
    }


def memory(_house: House) -> Section:
    """What it uses."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {"used_memory_rss": resident_bytes(), "used_memory_peak": usage.ru_maxrss * 1024, "maxmemory": 0}


def resident_bytes() -> int:
    """Of this process."""
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 (a file of the kernel's)
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def persistence(house: House) -> Section:
    """Every answered write is on the disks of a majority; snapshots shorten the log."""
    snapshots = house.store.server.status()["snapshots"]
    return {"loading": 0, "aof_enabled": 1, "aof_last_write_status": "ok", **plain("snapshot", snapshots)}


def stats(house: House) -> Section:
    """Counts since the start."""
    return {
        "total_connections_received": house.connections,
        "rejected_connections": house.refused,
        "total_commands_processed": house.commands,
        "total_net_input_bytes": house.bytes_in,
        "total_net_output_bytes": house.bytes_out,
        "total_writes_processed": house.store.writes,
        "total_reads_processed": house.store.reads,
        "pubsub_channels": len(house.store.hub.channels),
        "pubsub_patterns": len(house.store.hub.patterns),
    }


def replication(_house: House) -> Section:
    """To a client every server is a master: all take writes."""
    return {"role": "master", "connected_slaves": 0}


def cpu(_house: House) -> Section:
    """Seconds that this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {"used_cpu_sys": f"{usage.ru_stime:.6f}", "used_cpu_user": f"{usage.ru_utime:.6f}"}


def cluster(_house: House) -> Section:
    """Redis Cluster is something else: there are no slots to be asked for."""
    return {"cluster_enabled": 0}


def craft_(house: House) -> Section:
    """The merged log and its groups."""
    return plain(
        "craft", {key: value for key, value in house.store.server.status().items() if key != "groups"}
    )


def keyspace(house: House) -> Section:
    """How many keys there are."""
    view = house.store.machine.view(house.store.machine.now)
    keys = view.count()
    return {"db0": f"keys={keys},expires={len(view.space.deadlines)},avg_ttl=0"} if keys else {}


SECTIONS: dict[str, Callable[[House], Section]] = {
    "server": server,
    "clients": clients,
    "memory": memory,
    "persistence": persistence,
    "stats": stats,
    "replication": replication,
    "cpu": cpu,
    "cluster": cluster,
    "craft": craft_,
    "keyspace": keyspace,
}


def plain(name: str, value: object) -> dict[str, object]:
    """A tree of values as lines, with the way to each as its name; lists are left out."""
    if isinstance(value, Mapping):
        return {
            key: item
            for inner, deeper in value.items()
            for key, item in plain(f"{name}_{inner}", deeper).items()
        }
    return {} if isinstance(value, (list, tuple)) else {name: value}


def info(client: Client, args: Args) -> Reply:
    """INFO [section …]."""
    wanted = {arg.decode("latin-1").lower() for arg in args[1:]}
    if not wanted or wanted & {"default", "all", "everything"}:
        wanted = set(SECTIONS)
    parts = []
    for name, section in SECTIONS.items():
        if name in wanted:
            lines = [f"{key}:{value}\r\n" for key, value in section(client.house).items()]
            parts.append(f"# {name.capitalize()}\r\n{''.join(lines)}")
    return "\r\n".join(parts).encode()


# -- CONFIG ----------------------------------------------------------------------------------------


class Parameter(NamedTuple):
    """A value that CONFIG GET shows; `limit` is the field of RespLimits that CONFIG SET changes."""

    show: Callable[[House], object]
    limit: str = ""
    least: int = 0
    """What it may be set to."""


PARAMETERS: dict[bytes, Parameter] = {
    b"appendfsync": Parameter(lambda _: "always"),
    b"appendonly": Parameter(lambda _: "yes"),
    b"client-output-buffer-limit": Parameter(
        lambda house: f"normal 0 0 0 slave 0 0 0 pubsub {house.limits.output_bytes_max} 0 0"
    ),
    b"databases": Parameter(lambda _: 1),
    b"maxclients": Parameter(lambda house: house.limits.clients_max, "clients_max", 1),
    b"maxmemory": Parameter(lambda _: 0),
    b"maxmemory-policy": Parameter(lambda _: "noeviction"),
    b"port": Parameter(lambda house: house.port),
    b"proto-max-bulk-len": Parameter(lambda house: house.store.command_bytes_max),
    b"save": Parameter(lambda _: ""),
    b"timeout": Parameter(lambda house: house.limits.idle_timeout_s, "idle_timeout_s"),
}


def config_get(client: Client, args: Args) -> Reply:
    """CONFIG GET pattern …."""
    tests = [matcher(pattern.lower()) for pattern in args[2:]]
    return {
        name: str(parameter.show(client.house)).encode()
        for name, parameter in PARAMETERS.items()
        if any(test(name) for test in tests)
    }


def config_set(client: Client, args: Args) -> Reply:
    """CONFIG SET parameter value …: all or none; until the server ends."""
    assert client.user is not None
    client.user.check_admin(b"CONFIG|SET")
    if len(args) % 2:
        raise Refused(b"ERR wrong number of arguments for 'config|set' command")
    wanted: dict[str, int] = {}
    for name, text in zip(args[2::2], args[3::2], strict=True):
        parameter = PARAMETERS.get(name.lower())
        if parameter is None:
            raise Refused(b"ERR Unknown option or number of arguments for CONFIG SET - '%b'" % name)
        failed = b"ERR CONFIG SET failed (possibly related to argument '%b') - " % name
        if not parameter.limit:
            raise Refused(failed + b"can't set immutable config")
        value = integer(text, (failed + b"argument couldn't be parsed into an integer").decode("latin-1"))
        if not parameter.least <= value <= 2**31:
            raise Refused(failed + b"argument must be between %d and %d inclusive" % (parameter.least, 2**31))
        wanted[parameter.limit] = value
    for field, value in wanted.items():
        setattr(client.house.limits, field, value)
    return OK


def config_resetstat(client: Client, _args: Args) -> Reply:
    """CONFIG RESETSTAT."""
    assert client.user is not None
    client.user.check_admin(b"CONFIG|RESETSTAT")
    house = client.house
    house.connections = house.refused = house.commands = house.bytes_in = house.bytes_out = 0
    house.store.reads = house.store.writes = 0
    return OK


def config_rewrite(_client: Client, _args: Args) -> Reply:
    """CONFIG REWRITE: the file is the operator's."""
    raise Refused("ERR The server is running without a config file that it may rewrite")


# -- COMMAND ---------------------------------------------------------------------------------------


class Described(NamedTuple):
    """A command as COMMAND tells of it."""

    arity: int
    flags: tuple[str, ...]
    keys: tuple[int, int, int]


def described(command: Command | Local) -> Described:
    """Of one of the table's."""
    if isinstance(command, Local):
        flags = ("loading", "stale") + (() if command.queued or command.immediate else ("no-multi",))
        return Described(command.arity, flags, (0, 0, 0))
    return Described(command.arity, ("write",) if command.writes else ("readonly",), command.keys)


def catalogue(commands: Mapping[bytes, Command | Local]) -> dict[bytes, Described]:
    """All commands; a container stands for those in it."""
    found: dict[bytes, Described] = {}
    for name, command in commands.items():
        container, inside, _ = name.partition(b"|")
        found[container.lower()] = Described(-2, (), (0, 0, 0)) if inside else described(command)
    return found


def entry(name: bytes, command: Described) -> Reply:
    """As COMMAND INFO tells of it."""
    return [name, command.arity, list(command.flags), *command.keys, [], [], [], []]


def about(commands: Mapping[bytes, Command | Local]) -> tuple[Local, ...]:
    """COMMAND and what is in it, for a table of commands that may grow until they are asked."""

    def all_of(_client: Client, _args: Args) -> Reply:
        return [entry(name, command) for name, command in catalogue(commands).items()]

    def count(_client: Client, _args: Args) -> Reply:
        return len(catalogue(commands))

    def info_of(_client: Client, args: Args) -> Reply:
        known = catalogue(commands)
        names = [name.lower() for name in args[2:]] or list(known)
        return [entry(name, known[name]) if name in known else None for name in names]

    def docs(_client: Client, args: Args) -> Reply:
        known = catalogue(commands)
        names = [name.lower() for name in args[2:]] or list(known)
        return {name: {b"summary": b"", b"arity": known[name].arity} for name in names if name in known}

    def list_(_client: Client, args: Args) -> Reply:
        names = list(catalogue(commands))
        if len(args) == 2:
            return names
        if len(args) != 5 or args[2].upper() != b"FILTERBY" or args[3].upper() != b"PATTERN":
            raise Refused(SYNTAX)
        return list(filter(matcher(args[4].lower()), names))

    def getkeys(_client: Client, args: Args) -> Reply:
        command = commands.get(args[2].upper()) or commands.get(b"|".join(args[2:4]).upper())
        if command is None:
            raise Refused("ERR Invalid command specified")
        if not any(described(command).keys):
            raise Refused("ERR The command has no key arguments")
        try:
            return list(keys_of(args[2:]))
        except Refused:
            raise Refused("ERR Invalid number of arguments specified for command") from None

    return (
        Local(b"COMMAND", -1, all_of),
        Local(b"COMMAND|COUNT", 2, count),
        Local(b"COMMAND|INFO", -2, info_of),
        Local(b"COMMAND|DOCS", -2, docs),
        Local(b"COMMAND|LIST", -2, list_),
        Local(b"COMMAND|GETKEYS", -4, getkeys),
    )


# -- the rest --------------------------------------------------------------------------------------


async def debug_sleep(client: Client, args: Args) -> Reply:
    """DEBUG SLEEP seconds: this connection's next answers come later; nobody else's do."""
    assert client.user is not None
    client.user.check_admin(b"DEBUG|SLEEP")
    try:
        seconds = float(args[2])
    except ValueError:
        raise Refused("ERR value is not a valid float") from None
    if not 0 <= seconds <= SLEEP_S_MAX:
        raise Refused(f"ERR DEBUG SLEEP takes 0 to {SLEEP_S_MAX:.0f} seconds")
    await trio.sleep(seconds)
    return OK


def shutdown(client: Client, args: Args) -> Reply:
    """SHUTDOWN [NOSAVE | SAVE]: hand over and end, as SIGTERM does; what was answered is kept either way."""
    assert client.user is not None
    client.user.check_admin(b"SHUTDOWN")
    if len(args) > 2 or (len(args) == 2 and args[1].upper() not in (b"NOSAVE", b"SAVE")):
        raise Refused(SYNTAX)
    client.leaving = True
    client.house.stop()
    return several([])


COMMANDS = (
    Local(b"INFO", -1, info),
    Local(b"CONFIG|GET", -3, config_get),
    Local(b"CONFIG|SET", -4, config_set),
    Local(b"CONFIG|RESETSTAT", 2, config_resetstat),
    Local(b"CONFIG|REWRITE", 2, config_rewrite),
    Local(b"DEBUG|SLEEP", 3, debug_sleep, queued=False),
    Local(b"SHUTDOWN", -1, shutdown, queued=False),
)
