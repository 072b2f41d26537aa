"""The connection itself: PING, HELLO, AUTH and the like.

Reference: Redis 7.0, server.c, networking.c, acl.c.
"""

from __future__ import annotations

from examples.kv import fates
from examples.kv.commands.arguments import SYNTAX, Args, integer, wrong_arity
from examples.kv.passwords import TooMany
from examples.kv.replies import OK, Refused, Reply
from examples.kv.resp.client import Client
from examples.kv.resp.commands.table import Local
from examples.kv.store import Mode

REDIS_VERSION = b"7.0.0"
"""Whose commands and error texts these are. Client libraries ask for it."""


def ping(client: Client, args: Args) -> Reply:
    """PING [message]."""
    if len(args) > 2:
        raise wrong_arity(args[0])
    message = args[1] if len(args) == 2 else b""
    if client.subscribed:
        return [b"pong", message]
    return message if len(args) == 2 else "PONG"


def echo(_client: Client, args: Args) -> Reply:
    """ECHO message."""
    return args[1]


def quit_(client: Client, _args: Args) -> Reply:
    """QUIT."""
    client.leaving = True
    return OK


def reset(client: Client, _args: Args) -> Reply:
    """RESET."""
    client.reset()
    return "RESET"


def select(_client: Client, args: Args) -> Reply:
    """SELECT 0."""
    if integer(args[1]) != 0:
        raise Refused("ERR DB index is out of range")
    return OK


async def auth(client: Client, args: Args) -> Reply:
    """AUTH [user] password."""
    if len(args) > 3:
        raise Refused(SYNTAX)
    name, password = (args[1], args[2]) if len(args) == 3 else (b"default", args[1])
    if client.house.users.everybody is not None:
        if len(args) == 2:
            raise Refused(
                "ERR AUTH <password> called without any password configured for the default user."
                " Are you sure your configuration is correct?"
            )
        return OK if name == b"default" else await log_in(client, name, password)
    return await log_in(client, name, password)


async def log_in(client: Client, name: bytes, password: bytes) -> Reply:
    """Check a password, in a thread: that takes a while."""
    text, host = name.decode(errors="surrogateescape"), client.address.rpartition(":")[0]
    try:
        user = await client.house.passwords.check(text, password, host)
    except TooMany:
        most = client.house.limits.passwords_max
        raise Refused(f"{fates.REJECTED}: of passwords_max = {most} passwords too many wait") from None
    if user is None:
        raise Refused("WRONGPASS invalid username-password pair or user is disabled.")
    client.user = user
    return OK


async def hello(client: Client, args: Args) -> Reply:
    """HELLO [protocol [AUTH user password] [SETNAME name]]."""
    protocol = client.protocol
    if len(args) > 1:
        protocol = integer(args[1], "ERR Protocol version is not an integer or out of range")
        if protocol not in (2, 3):
            raise Refused("NOPROTO unsupported protocol version")
    name, at = None, 2
    while at < len(args):
        word = args[at].upper()
        if word == b"AUTH" and at + 2 < len(args):
            await log_in(client, args[at + 1], args[at + 2])
            at += 3
        elif word == b"SETNAME" and at + 1 < len(args):
            name = checked_name(args[at + 1])
            at += 2
        else:
            raise Refused(b"ERR Syntax error in HELLO option '%b'" % args[at])
    if client.user is None:
        raise Refused(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto>"
            " AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol"
            " version at the same time"
        )
    client.protocol = protocol
    client.name = client.name if name is None else name
    return {
        b"server": b"redis",
        b"version": REDIS_VERSION,
        b"proto": protocol,
        b"id": client.id,
        b"mode": b"standalone",
        b"role": b"master",
        b"modules": [],
    }


def checked_name(name: bytes) -> bytes:
    """A client's name."""
    if any(not 0x21 <= byte <= 0x7E for byte in name):
        raise Refused("ERR Client names cannot contain spaces, newlines or special characters.")
    return name


def readmode(client: Client, args: Args) -> Reply:
    """READMODE linearizable | session | stale: what this connection's reads see from now on."""
    try:
        client.mode = Mode(args[1].lower().decode("latin-1"))
    except ValueError:
        allowed = ", ".join(mode.value for mode in Mode)
        raise Refused(b"ERR READMODE is '%b'; allowed are " % args[1] + allowed.encode()) from None
    client.seen = client.store.position
    return OK


COMMANDS = (
    Local(b"PING", -1, ping, subscribed=True),
    Local(b"ECHO", 2, echo),
    Local(b"QUIT", -1, quit_, immediate=True, anonymous=True, subscribed=True),
    Local(b"RESET", 1, reset, immediate=True, anonymous=True, subscribed=True),
    Local(b"SELECT", 2, select),
    Local(b"AUTH", -2, auth, queued=False, anonymous=True),
    Local(b"HELLO", -1, hello, queued=False, anonymous=True),
    Local(b"READMODE", 2, readmode),
)
