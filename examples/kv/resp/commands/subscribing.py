"""SUBSCRIBE and its relatives, and PUBSUB.

Reference: Redis 7.0, pubsub.c.
"""

from __future__ import annotations

from collections.abc import Callable

from examples.kv.commands.arguments import Args
from examples.kv.globs import matcher
from examples.kv.replies import Refused, Reply, push, several
from examples.kv.resp.client import Client
from examples.kv.resp.commands.table import Local


def subscribe(client: Client, args: Args) -> Reply:
    """SUBSCRIBE channel …."""
    return join(client, b"subscribe", args[1:], client.channels, client.store.hub.subscribe)


def psubscribe(client: Client, args: Args) -> Reply:
    """PSUBSCRIBE pattern …."""
    return join(client, b"psubscribe", args[1:], client.patterns, client.store.hub.subscribe_pattern)


def unsubscribe(client: Client, args: Args) -> Reply:
    """UNSUBSCRIBE [channel …]: of all, if none is named."""
    return leave(client, b"unsubscribe", args[1:], client.channels, client.store.hub.unsubscribe)


def punsubscribe(client: Client, args: Args) -> Reply:
    """PUNSUBSCRIBE [pattern …]."""
    return leave(client, b"punsubscribe", args[1:], client.patterns, client.store.hub.unsubscribe_pattern)


def join(
    client: Client,
    word: bytes,
    names: list[bytes],
    held: dict[bytes, None],
    begin: Callable[[Client, bytes], None],
) -> Reply:
    """Listen to each, and say so."""
    told: list[Reply] = []
    client.check_size(sum(map(len, {*client.channels, *client.patterns, *names})), "all names")
    most = client.house.limits.subscriptions_max
    if subscriptions(client) + len(set(names).difference(held)) > most:
        raise Refused(f"ERR more than subscriptions_max = {most}")
    for name in names:
        if name not in held:
            begin(client, name)
            held[name] = None
        told.append(push(word, name, subscriptions(client)))
    return several(told)


def leave(
    client: Client,
    word: bytes,
    names: list[bytes],
    held: dict[bytes, None],
    end: Callable[[Client, bytes], None],
) -> Reply:
    """Listen to none of these any more, and say so."""
    told: list[Reply] = []
    for name in names or list(held):
        held.pop(name, None)
        end(client, name)
        told.append(push(word, name, subscriptions(client)))
    return several(told or [push(word, None, subscriptions(client))])


def subscriptions(client: Client) -> int:
    """Of both kinds."""
    return len(client.channels) + len(client.patterns)


def channels(client: Client, args: Args) -> Reply:
    """PUBSUB CHANNELS [pattern]: of this server's clients."""
    held = client.store.hub.channels
    return list(held if len(args) == 2 else filter(matcher(args[2]), held))


def numsub(client: Client, args: Args) -> Reply:
    """PUBSUB NUMSUB [channel …]."""
    told: list[Reply] = []
    for name in args[2:]:
        told += (name, len(client.store.hub.channels.get(name, ())))
    return told


def numpat(client: Client, _args: Args) -> Reply:
    """PUBSUB NUMPAT."""
    return len(client.store.hub.patterns)


COMMANDS = (
    Local(b"SUBSCRIBE", -2, subscribe, subscribed=True),
    Local(b"PSUBSCRIBE", -2, psubscribe, subscribed=True),
    Local(b"UNSUBSCRIBE", -1, unsubscribe, subscribed=True),
    Local(b"PUNSUBSCRIBE", -1, punsubscribe, subscribed=True),
    Local(b"PUBSUB|CHANNELS", -2, channels),
    Local(b"PUBSUB|NUMSUB", -2, numsub),
    Local(b"PUBSUB|NUMPAT", 2, numpat),
)
