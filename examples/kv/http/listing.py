"""A page of keys in their order, from one state of the data.

Knows: views. Must not know: requests.

Invariants:
- A page looks at no more than `LOOKS_MAX` keys, expired ones too, and holds no more than it was allowed: it
  may be short, or empty, and still have a next one.
- A value that is larger than a page is not told: APPEND makes ones of 512 MiB, each byte six in JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from examples.kv.http.texts import shown
from examples.kv.keyspace import View
from examples.kv.values import type_name

LOOKS_MAX = 10_000
KEY_BYTES = 64
"""What a key costs on a page beside itself."""


class Wanted(NamedTuple):
    """What a page is to have."""

    prefix: bytes
    after: bytes | None
    """Only keys beyond this one."""
    limit: int
    values: bool
    bytes_max: int


@dataclass(slots=True)
class Page:
    """Keys, and from where the next page goes on; None: there is none."""

    keys: list[dict[str, Any]] = field(default_factory=list)
    following: bytes | None = None


def page(view: View, wanted: Wanted) -> Page:
    """The page."""
    found, size, looks = Page(), 0, 0
    beyond = wanted.after is not None and wanted.after >= wanted.prefix
    start = wanted.after if beyond and wanted.after is not None else wanted.prefix
    last: bytes | None = None
    for key in view.walk(start, beyond=beyond):
        if not key.startswith(wanted.prefix):
            break
        if len(found.keys) == wanted.limit or size >= wanted.bytes_max or looks == LOOKS_MAX:
            found.following = last
            break
        looks, last = looks + 1, key
        value = view.value(key)
        if value is None:
            continue
        item = {"key": shown(key), "version": view.version(key), "type": type_name(value)}
        deadline = view.deadline(key)
        if deadline is not None:
            item["expires_at_ms"] = deadline
        size += len(key) + KEY_BYTES
        if wanted.values and isinstance(value, bytes) and len(value) <= wanted.bytes_max:
            item["value"] = shown(value)
            size += len(value)
        found.keys.append(item)
    return found
