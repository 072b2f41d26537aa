"""CLIENT: the connections of this server.

Reference: Redis 7.0, networking.c, clientCommand().
"""

from __future__ import annotations

from collections.abc import Callable

from examples.kv.commands.arguments import SYNTAX, Args, integer
from examples.kv.replies import OK, Refused, Reply
from examples.kv.resp.client import Client
from examples.kv.resp.commands.connection import checked_name
from examples.kv.resp.commands.table import Local

KINDS = {b"NORMAL": False, b"PUBSUB": True, b"MASTER": None, b"REPLICA": None, b"SLAVE": None}
LIBRARY = (b"LIB-NAME", b"LIB-VER")


def id_(client: Client, _args: Args) -> Reply:
    """CLIENT ID."""
    return client.id


def getname(client: Client, _args: Args) -> Reply:
    """CLIENT GETNAME."""
    return client.name or None


def setname(client: Client, args: Args) -> Reply:
    """CLIENT SETNAME name."""
    client.name = checked_name(args[2])
    return OK


def setinfo(client: Client, args: Args) -> Reply:
    """CLIENT SETINFO LIB-NAME | LIB-VER text."""
    if args[2].upper() not in LIBRARY:
        raise Refused(b"ERR Unrecognized option '%b'" % args[2])
    client.library[args[2].upper()] = checked_name(args[3])
    return OK


def info(client: Client, _args: Args) -> Reply:
    """CLIENT INFO."""
    return client.line() + b"\n"


def list_(client: Client, args: Args) -> Reply:
    """CLIENT LIST [TYPE type] [ID id …]."""
    chosen = list(client.house.clients.values())
    if len(args) > 2:
        option = args[2].upper()
        if option == b"TYPE" and len(args) == 4:
            chosen = list(filter(of_kind(args[3]), chosen))
        elif option == b"ID" and len(args) > 3:
            wanted = {integer(text, "ERR Invalid client ID") for text in args[3:]}
            chosen = [other for other in chosen if other.id in wanted]
        else:
            raise Refused(SYNTAX)
    if client.user is not None and not client.user.admin:
        chosen = [other for other in chosen if other.user == client.user]
    return b"".join(other.line() + b"\n" for other in chosen)


def of_kind(text: bytes) -> Callable[[Client], bool]:
    """Is a client of that type?"""
    if text.upper() not in KINDS:
        raise Refused(b"ERR Unknown client type '%b'" % text)
    wanted = KINDS[text.upper()]
    return lambda client: bool(client.channels or client.patterns) is wanted


def kill(client: Client, args: Args) -> Reply:
    """CLIENT KILL address, or [ID id] [ADDR address] [TYPE type] [USER name] [SKIPME yes|no]."""
    assert client.user is not None
    client.user.check_admin(b"CLIENT|KILL")
    others = list(client.house.clients.values())
    if len(args) == 3:
        found = [other for other in others if other.address.encode() == args[2]]
        if not found:
            raise Refused("ERR No such client")
        end(client, found)
        return OK
    tests, skip_me = filters(args)
    found = [other for other in others if all(test(other) for test in tests)]
    found = [other for other in found if not (skip_me and other is client)]
    end(client, found)
    return len(found)


def filters(args: Args) -> tuple[list[Callable[[Client], bool]], bool]:
    """What all of the chosen must be, and whether who asks is spared."""
    if len(args) % 2:
        raise Refused(SYNTAX)
    tests: list[Callable[[Client], bool]] = []
    skip_me = True
    for option, text in zip(args[2::2], args[3::2], strict=True):
        word = option.upper()
        if word == b"SKIPME" and text.lower() in (b"yes", b"no"):
            skip_me = text.lower() == b"yes"
        elif word in FILTERS:
            tests.append(FILTERS[word](text))
        else:
            raise Refused(SYNTAX)
    return tests, skip_me


def with_id(text: bytes) -> Callable[[Client], bool]:
    """Has a client that id?"""
    wanted = integer(text, "ERR client-id should be greater than 0")
    return lambda client: client.id == wanted


FILTERS: dict[bytes, Callable[[bytes], Callable[[Client], bool]]] = {
    b"ID": with_id,
    b"ADDR": lambda text: lambda client: client.address.encode() == text,
    b"LADDR": lambda text: lambda client: client.local.encode() == text,
    b"TYPE": of_kind,
    b"USER": lambda text: lambda client: client.user is not None and client.user.name.encode() == text,
}


def end(client: Client, chosen: list[Client]) -> None:
    """End their connections; one's own when it is answered."""
    for other in chosen:
        if other is client:
            client.leaving = True
        else:
            other.end()


COMMANDS = (
    Local(b"CLIENT|ID", 2, id_),
    Local(b"CLIENT|GETNAME", 2, getname),
    Local(b"CLIENT|SETNAME", 3, setname),
    Local(b"CLIENT|SETINFO", 4, setinfo),
    Local(b"CLIENT|INFO", 2, info),
    Local(b"CLIENT|LIST", -2, list_),
    Local(b"CLIENT|KILL", -3, kill),
)
