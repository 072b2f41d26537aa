"""Bytes, replies and commands as JSON.

Knows: JSON. Must not know: requests, the log.

Invariants:
- Bytes that are UTF-8 are a string, others `{"base64": "…"}`, on the way in and out: nothing is lost.
- What is not allowed is refused with a message that names where it stands.
"""

from __future__ import annotations

import json
import math
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from examples.kv.commands import Args
from examples.kv.http.problems import Problem
from examples.kv.replies import NO_ARRAY, Reply, digits

POSITION_MAX = 2**63 - 1


def shown(data: bytes) -> Any:
    """Bytes as JSON has them."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(data).decode()}


def given(value: Any, where: str) -> bytes:
    """Bytes as JSON has them."""
    try:
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, dict) and value.keys() == {"base64"} and isinstance(value["base64"], str):
            return b64decode(value["base64"], validate=True)
    except ValueError:
        pass
    raise wrong(where, 'a text, or {"base64": …}')


def wrong(where: str, allowed: str) -> Problem:
    """A value that is not allowed."""
    return Problem("bad-request", f"{where}: this is not allowed; allowed: {allowed}")


def reply(found: Reply) -> Any:
    """What a command answered. An error is `{"error": …}`, a map `{"map": [[key, value], …]}`."""
    if isinstance(found, bytes):
        return shown(found)
    if isinstance(found, float):
        return found if math.isfinite(found) else digits(found).decode()
    if isinstance(found, (list, tuple)):
        return [reply(item) for item in found]
    if isinstance(found, Mapping):
        if "error" in found:
            return {"error": found["error"].decode(errors="replace")}
        if found == NO_ARRAY:
            return None
        return {"map": [[reply(key), reply(value)] for key, value in found.items()]}
    return found


def parsed(body: bytes) -> Any:
    """A body of JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Problem("bad-request", f"the body is no JSON: {error}") from None


def transaction(body: Any, *, commands_max: int) -> tuple[list[Args], list[tuple[bytes, int]]]:
    """The commands of a transaction, and the watched keys with their versions."""
    if not isinstance(body, dict) or not {"commands"} <= body.keys() <= {"commands", "watch"}:
        raise wrong("the body", "an object with commands, and perhaps watch")
    commands, watch = body["commands"], body.get("watch", [])
    if not isinstance(commands, list) or not 1 <= len(commands) <= commands_max:
        raise wrong("commands", f"a list of 1 to {commands_max}")
    if not isinstance(watch, list) or len(watch) > commands_max:
        raise wrong("watch", f"a list of at most {commands_max}")
    return (
        [arguments(args, f"commands[{at}]") for at, args in enumerate(commands)],
        [watched(item, f"watch[{at}]") for at, item in enumerate(watch)],
    )


def arguments(args: Any, where: str) -> Args:
    """One command."""
    if not isinstance(args, list) or not args:
        raise wrong(where, "a list of a command's name and its arguments")
    return [given(arg, f"{where}[{at}]") for at, arg in enumerate(args)]


def watched(item: Any, where: str) -> tuple[bytes, int]:
    """A key with the version that it must have."""
    if not isinstance(item, dict) or item.keys() != {"key", "version"}:
        raise wrong(where, "an object with key and version")
    version = item["version"]
    if type(version) is not int or not 0 <= version <= POSITION_MAX:
        raise wrong(f"{where}.version", f"an integer from 0 to {POSITION_MAX}")
    return given(item["key"], f"{where}.key"), version
