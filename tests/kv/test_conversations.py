"""Whole conversations against a real Redis: every reply compared byte for byte, in both protocols."""

from __future__ import annotations

import pytest

from tests.kv.doors import shops
from tests.kv.redis import Connection

pytestmark = pytest.mark.system

CONVERSATIONS = {
    "which arguments of a command are keys": """
        COMMAND GETKEYS MSET a 1 b 2
        COMMAND GETKEYS object encoding a
        COMMAND GETKEYS GET
        COMMAND GETKEYS GET a b
        COMMAND GETKEYS MSET a
        COMMAND GETKEYS NOSUCH a
        COMMAND GETKEYS OBJECT NOSUCH a
        COMMAND GETKEYS PING a b c
        COMMAND GETKEYS CONFIG GET a
    """,
    "a transaction answers all at once": """
        MULTI
        SET a 1
        INCR a
        GET a
        PING
        ECHO hello
        EXEC
        GET a
    """,
    "a transaction that is thrown away does nothing": """
        SET a 1
        MULTI
        SET a 2
        DISCARD
        GET a
        DISCARD
        EXEC
    """,
    "what is refused before it is queued spoils the rest": """
        MULTI
        SET a 1
        GET
        EXEC
        MULTI
        NOSUCH a
        SET a 2
        EXEC
        GET a
        EXEC
    """,
    "what is refused when it runs does not": """
        MULTI
        SET a x
        INCR a
        SET b 2
        EXEC
        MGET a b
    """,
    "MULTI and WATCH inside MULTI are refused and spoil nothing": """
        MULTI
        MULTI
        WATCH a
        SET a 1
        EXEC
    """,
    "an empty transaction": """
        MULTI
        EXEC
        WATCH a
        MULTI
        EXEC
    """,
    "a watched key that changes stops the transaction": """
        SET a 1
        WATCH a b
        SET a 2
        MULTI
        SET b 1
        EXEC
        GET b
        MULTI
        SET b 1
        EXEC
        WATCH a
        UNWATCH
        SET a 3
        MULTI
        GET a
        EXEC
    """,
    "subscribing takes no part in transactions": """
        MULTI
        UNWATCH
        SUBSCRIBE a
        EXEC
    """,
    "a subscriber in RESP2 has few words": """
        SUBSCRIBE a b
        PSUBSCRIBE a*
        PING
        PING hello
        GET a
        MULTI
        UNSUBSCRIBE a
        UNSUBSCRIBE
        PUNSUBSCRIBE
        PUNSUBSCRIBE nothing
        GET a
    """,
    "a subscriber in RESP3 has all, and hears himself": """
        HELLO 3
        SUBSCRIBE a
        PSUBSCRIBE ?
        SET k 1
        GET k
        PING
        UNSUBSCRIBE a
        PUNSUBSCRIBE
        HGETALL none
        HSET h f v
        HGETALL h
    """,
    "names of clients": """
        CLIENT GETNAME
        CLIENT SETNAME somebody
        CLIENT GETNAME
        CLIENT SETNAME a\\x20b
        CLIENT NOSUCH
        CLIENT
        CLIENT KILL 1.2.3.4:5
        CLIENT KILL ID x
        CLIENT KILL ID 999999
        CLIENT LIST TYPE nosuch
        CLIENT LIST WHAT
    """,
    "greetings": """
        PING a b
        ECHO
        SELECT 0
        SELECT 1
        SELECT x
        HELLO 4
        HELLO x
        HELLO 3 WHAT
        AUTH password
        AUTH default anything
        RESET
        PING
    """,
    "who is not known": """
        AUTH nobody password
        AUTH a b c
        HELLO 2 AUTH nobody password
    """,
    "configuration": """
        CONFIG GET save
        CONFIG GET maxmemory nosuch
        CONFIG GET databases
        CONFIG SET nosuch 1
        CONFIG SET timeout 10
        CONFIG GET timeout
        CONFIG SET timeout 0
        CONFIG SET timeout
        CONFIG NOSUCH
        CONFIG RESETSTAT
        COMMAND NOSUCH
        COMMAND GETKEYS MSET a 1 b 2
        COMMAND GETKEYS PING
        COMMAND GETKEYS NOSUCH x
        PUBSUB CHANNELS
        PUBSUB NUMSUB a
        PUBSUB NUMPAT
        NOSUCH 'with arguments' and more
        OBJECT
        OBJECT NOSUCH
    """,
}

DIFFERENT = {b"HELLO"}
"""What HELLO tells is of the server: its version, a connection's number."""


def spoken(text: str) -> list[bytes]:
    return [line.strip().encode() for line in text.strip().splitlines()]


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        (name, protocol)
        for name in CONVERSATIONS
        for protocol in (2, 3)
        if protocol == 2 or "RESP2" not in name
    ],
)
async def test_both_answer_alike(redis: Connection, name: str, protocol: int) -> None:
    """Inline commands, one after another, as one would type them."""
    async with shops() as [shop]:
        wire = await shop.wire()
        for line in [b"HELLO %d" % protocol, *spoken(CONVERSATIONS[name])]:
            redis.socket.sendall(line + b"\r\n")
            await wire.stream.send_all(line + b"\r\n")
            for _ in range(replies_to(line)):
                theirs = redis.reply()
                ours = await wire.reply()
                if line.split()[0] not in DIFFERENT or theirs.startswith(b"-"):
                    assert ours == theirs, f"{line!r}\nours   {ours!r}\ntheirs {theirs!r}"
        redis.socket.sendall(b"RESET\r\n")
        while redis.reply() != b"+RESET\r\n":
            pass


def replies_to(line: bytes) -> int:
    """A subscriber is answered for each channel."""
    words = line.split()
    return max(1, len(words) - 1) if words[0] in {b"SUBSCRIBE", b"PSUBSCRIBE"} else 1
