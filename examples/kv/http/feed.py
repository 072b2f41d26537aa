"""The merged log as server-sent events.

Knows: entries of the log, the format of events. Must not know: sockets, subscriptions.

Invariants:
- A command is told whole where all of its keys may be seen; else only those of its keys that may.
- It is the log that is told, not its effects: a transaction says what it watched, and whoever wants to know
  what a key holds reads it. What changes nothing (a read that travelled with writes, PUBLISH) is left out.

Reference: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import craft
from examples.kv.commands import Args, find, keys_of
from examples.kv.http.texts import shown
from examples.kv.machine import checked, checked_transaction, unpack
from examples.kv.replies import Refused

MEDIA_TYPE = "text/event-stream"
RETRY_MS = 1000


class Filter(NamedTuple):
    """What a follower sees."""

    readable: tuple[bytes, ...]
    """It may see keys that begin so,"""
    prefix: bytes = b""
    """and wants to see changes of keys that begin so."""

    def sees(self, key: bytes) -> bool:
        """May it?"""
        return key.startswith(self.readable)

    def wants(self, keys: list[bytes]) -> bool:
        """Does a command speak of anything that it may and wants to see? No keys are all keys."""
        return not keys or any(key.startswith(self.prefix) and self.sees(key) for key in keys)


def event(name: str, data: Any, *, position: int | None = None) -> bytes:
    """An event; one with a position is where a client that lost its connection goes on."""
    head = "" if position is None else f"id: {position}\n"
    return f"{head}event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def opening(position: int) -> bytes:
    """What a stream begins with: how soon to come again, and from where."""
    return f"retry: {RETRY_MS}\nid: {position}\n\n".encode()


def heartbeat(position: int) -> bytes:
    """A sign of life, without an event: everything up to here was told, or left out."""
    return f": {position}\nid: {position}\n\n".encode()


def change(entry: craft.TailEntry, seen: Filter) -> bytes | None:
    """An entry's event; None where it has nothing for this follower."""
    changes = [found for packed in entry.commands if (found := told(packed, seen)) is not None]
    if not changes:
        return None
    data = {
        "position": entry.position,
        "timestamp": entry.timestamp,
        "group": entry.group,
        "index": entry.index,
        "changes": changes,
    }
    return event("change", data, position=entry.position)


def told(packed: bytes, seen: Filter) -> dict[str, Any] | None:
    """A command, or a transaction."""
    try:
        content = unpack(packed)
        single = isinstance(content[0], bytes)
        watched, commands = ([], [checked(content)]) if single else checked_transaction(content)
    except Refused:
        return None
    found = [one for args in commands if (one := command(args, seen)) is not None]
    if not found:
        return None
    watch = [{"key": shown(key), "version": version} for key, version in watched if seen.sees(key)]
    return {"commands": found, "watch": watch}


def command(args: Args, seen: Filter) -> dict[str, Any] | None:
    """A command that may change something."""
    try:
        known = find(args)
        keys = keys_of(args)
    except Refused:
        return None
    if not known.writes or known.name == b"PUBLISH" or not seen.wants(keys):
        return None
    visible = [key for key in keys if seen.sees(key)]
    found: dict[str, Any] = {"keys": [shown(key) for key in visible]}
    if len(visible) == len(keys):
        found["command"] = [shown(arg) for arg in args]
    return found
