"""Plain values: what msgpack carries there and back, made of whatever a state machine returns.

Knows the limits of a message. Must not know where the value comes from.
"""

from __future__ import annotations

from typing import Any

from craft.wire.framing import ITEMS_MAX, PREFIX_BYTES, decode_message, encode_message

REPR_CHARS_MAX = 1000
"""The most that is kept of the repr of a value that msgpack cannot carry."""

NESTING_MAX = 32
"""Lists and maps within each other that are looked through for what msgpack cannot carry."""


def plain(value: Any, level: int = 1) -> Any:
    """A value that msgpack can carry there and back; what it cannot carry becomes its repr, item by item.

    `level` is how deep it stands in the reply. Raises nothing: a value is the state machine's.
    """
    if _survives(value, level):
        return value
    if level < NESTING_MAX and isinstance(value, list | tuple) and len(value) <= ITEMS_MAX:
        return [plain(item, level + 1) for item in value]
    if (
        level < NESTING_MAX
        and isinstance(value, dict)
        and len(value) <= ITEMS_MAX
        and all(map(_is_key, value))
    ):
        return {key: plain(item, level + 1) for key, item in value.items()}
    return _text(value)


def _survives(value: Any, level: int = 0) -> bool:
    for _ in range(level):
        value = [value]
    try:
        decode_message(encode_message(value)[PREFIX_BYTES:])
    except Exception:  # noqa: BLE001  # whatever an object of the state machine's does: it is no plain value
        return False
    return True


def _is_key(key: Any) -> bool:
    return type(key) in (str, bytes) and _survives(key)


def _text(value: Any) -> str:
    """A value's repr, where it has one, as far as it may be sent."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # as above
        text = f"an object of {type(value).__name__} without a repr"
    return text[:REPR_CHARS_MAX].encode(errors="backslashreplace").decode()
