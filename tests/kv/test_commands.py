"""Dialogues with the store: what each family of commands does, without a real Redis at hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kv.store import Store

WRONG_TYPE = {"error": b"WRONGTYPE Operation against a key holding the wrong kind of value"}
NOT_AN_INTEGER = {"error": b"ERR value is not an integer or out of range"}
SYNTAX = {"error": b"ERR syntax error"}

DIALOGUES: dict[str, list[tuple[str, Any]]] = {
    "SET obeys its conditions and tells what was there": [
        ("SET k 1 XX", None),
        ("SET k 1 NX", "OK"),
        ("SET k 2 NX", None),
        ("SET k 2 NX GET", b"1"),
        ("SET k 3 GET EX 100", b"1"),
        ("SET k 4 KEEPTTL", "OK"),
        ("TTL k", 100),
        ("SET k 5", "OK"),
        ("TTL k", -1),
        ("SET k 6 NX XX", SYNTAX),
        ("SET k 6 EX 0", {"error": b"ERR invalid expire time in 'set' command"}),
        ("GET k", b"5"),
    ],
    "counters refuse what is no integer, and what would overflow": [
        ("INCR n", 1),
        ("INCRBY n 9223372036854775806", 9223372036854775807),
        ("INCR n", {"error": b"ERR increment or decrement would overflow"}),
        ("DECRBY n -9223372036854775808", {"error": b"ERR decrement would overflow"}),
        ("INCRBY n 1.5", NOT_AN_INTEGER),
        ("SET n 01", "OK"),
        ("INCR n", NOT_AN_INTEGER),
        ("INCRBYFLOAT n 0.5", b"1.5"),
        ("OBJECT ENCODING n", b"embstr"),
    ],
    "parts of strings are read and written": [
        ("SETRANGE k 2 xy", 4),
        ("GET k", b"\0\0xy"),
        ("GETRANGE k -2 -1", b"xy"),
        ("APPEND k z", 5),
        ("STRLEN k", 5),
        ("OBJECT ENCODING k", b"raw"),
        ("MSET a ohmytext b mynewtext", "OK"),
        ("LCS a b", b"mytext"),
        ("LCS a b LEN", 6),
        ("LCS a b IDX MINMATCHLEN 4 WITHMATCHLEN", {b"matches": [[[4, 7], [5, 8], 4]], b"len": 6}),
    ],
    "keys are renamed and copied with their deadlines": [
        ("SET a 1 EX 50", "OK"),
        ("RENAME a b", "OK"),
        ("TTL b", 50),
        ("COPY b c", 1),
        ("TTL c", 50),
        ("COPY b c", 0),
        ("COPY b c REPLACE", 1),
        ("RENAMENX b c", 0),
        ("RENAME nothing c", {"error": b"ERR no such key"}),
        ("EXISTS b b nothing", 2),
        ("DEL b c nothing", 2),
        ("DBSIZE", 0),
    ],
    "hashes hold fields, and go with the last one": [
        ("HSET h a 1 b 2", 2),
        ("HSET h b 3 c 4", 1),
        ("HGETALL h", {b"a": b"1", b"b": b"3", b"c": b"4"}),
        ("HINCRBY h a 5", 6),
        ("HINCRBYFLOAT h a 0.25", b"6.25"),
        ("HINCRBY h a 1", {"error": b"ERR hash value is not an integer"}),
        ("HMGET h a nothing", [b"6.25", None]),
        ("HSET h a", {"error": b"ERR wrong number of arguments for 'hset' command"}),
        ("HDEL h a b c d", 3),
        ("TYPE h", "none"),
    ],
    "a key of one kind refuses the commands of another": [
        ("HSET h a 1", 1),
        ("SET s 1", "OK"),
        ("GET h", WRONG_TYPE),
        ("APPEND h x", WRONG_TYPE),
        ("SET h 1 GET", WRONG_TYPE),
        ("HGET s a", WRONG_TYPE),
        ("MGET h s", [None, b"1"]),
        ("SET h 1", "OK"),
        ("TYPE h", "string"),
    ],
    "deadlines obey their conditions": [
        ("SET k v", "OK"),
        ("EXPIRE k 100 XX", 0),
        ("EXPIRE k 100 NX", 1),
        ("EXPIRE k 50 GT", 0),
        ("EXPIRE k 100 GT", 0),
        ("EXPIRE k 100 LT", 0),
        ("EXPIRE k 50 LT", 1),
        (
            "EXPIRE k 50 NX GT",
            {"error": b"ERR NX and XX, GT or LT options at the same time are not compatible"},
        ),
        ("EXPIRE k 50 SOON", {"error": b"ERR Unsupported option SOON"}),
        ("PERSIST k", 1),
        ("PERSIST k", 0),
        ("TTL k", -1),
    ],
    "names are known in any case, and unknown ones quoted": [
        ("sEt k v", "OK"),
        ("nonsense a b", {"error": b"ERR unknown command 'nonsense', with args beginning with: 'a' 'b' "}),
        ("GET", {"error": b"ERR wrong number of arguments for 'get' command"}),
        ("OBJECT FOO", {"error": b"ERR unknown subcommand 'FOO'. Try OBJECT HELP."}),
    ],
}


@pytest.mark.parametrize("dialogue", DIALOGUES.values(), ids=[name.replace(" ", "_") for name in DIALOGUES])
def test_a_dialogue(dialogue: list[tuple[str, Any]]) -> None:
    """One command after the other, each with its answer."""
    store = Store()
    for command, answer in dialogue:
        assert store.ask(*command.split()) == answer, command


def test_a_read_command_answers_the_same_beside_the_log() -> None:
    """What the table calls a read needs no log."""
    store = Store()
    store.ask("SET", "k", "v")
    store.ask("HSET", "h", "f", "v")
    for command in (
        "GET k",
        "TYPE h",
        "HGETALL h",
        "KEYS *",
        "SCAN 0",
        "LCS k k",
        "TTL k",
        "GET h",
        "DBSIZE",
    ):
        assert store.read(*command.split()) == store.ask(*command.split()), command
