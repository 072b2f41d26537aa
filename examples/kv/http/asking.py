"""What a request asks for: its parameters, positions, conditions and the key in its path.

Knows: the syntax of HTTP. Must not know: sockets, the store.

Invariants:
- A parameter that is not known is refused, and so is one that comes twice: a misspelt one is no wish.
- Keys and prefixes are bytes, percent-encoded; what is decoded is taken as it stands.

Reference: RFC 9110, 8.8.3 (entity tags), 13 (conditions).
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

from examples.kv.http.problems import Problem
from examples.kv.http.texts import POSITION_MAX
from examples.kv.store import Mode

KEYS = b"/keys/"
PARAMETERS_MAX = 16
FRESHNESS = ("consistency",)
"""The parameters of every read."""

TAG = re.compile(r'[ \t]*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"[ \t]*')
VERSION = re.compile(r"0|[1-9][0-9]{0,18}")
NUMBER = re.compile(r"[0-9]{1,19}")

TRUTH = {b"": True, b"true": True, b"1": True, b"false": False, b"0": False}


def key(raw_path: bytes) -> bytes:
    """The key of /keys/{key}: all that follows, slashes too."""
    return unquote_to_bytes(raw_path[len(KEYS) :])


def parameters(query: bytes, allowed: frozenset[str]) -> dict[str, bytes]:
    """The query's parameters."""
    found: dict[str, bytes] = {}
    try:
        pairs = parse_qsl(
            query.decode("latin-1"), keep_blank_values=True, encoding="latin-1", max_num_fields=PARAMETERS_MAX
        )
    except ValueError:
        raise Problem("bad-request", f"more than {PARAMETERS_MAX} parameters") from None
    for name, value in pairs:
        if name not in allowed:
            known = ", ".join(sorted(allowed)) or "none"
            raise Problem("bad-request", f"the parameter {name[:40]!r} is not known; allowed: {known}")
        if name in found:
            raise Problem("bad-request", f"the parameter {name} comes twice")
        found[name] = value.encode("latin-1")
    return found


def number(name: str, text: bytes | str, *, least: int = 0, most: int = POSITION_MAX) -> int:
    """An integer of a parameter or header."""
    text = text.decode("latin-1") if isinstance(text, bytes) else text
    if not NUMBER.fullmatch(text) or not least <= int(text) <= most:
        raise Problem("bad-request", f"{name}: {text[:40]!r} is not allowed; allowed: {least} to {most}")
    return int(text)


def truth(name: str, text: bytes) -> bool:
    """Yes or no."""
    if text not in TRUTH:
        raise Problem("bad-request", f"{name}: {text[:40]!r} is not allowed; allowed: true, false")
    return TRUTH[text]


class Freshness(NamedTuple):
    """How fresh a read is to be."""

    mode: Mode
    at_least: int


def freshness(consistency: bytes | None, position: str | None) -> Freshness:
    """From the parameter `consistency` and the header `Craft-Position`."""
    try:
        mode = Mode(b"linearizable".decode() if consistency is None else consistency.decode("latin-1"))
    except ValueError:
        allowed = ", ".join(mode.value for mode in Mode)
        raise Problem(
            "bad-request", f"consistency: {consistency!r} is not allowed; allowed: {allowed}"
        ) from None
    seen = 0 if position is None else number("Craft-Position", position)
    if mode is Mode.SESSION and position is None:
        raise Problem(
            "bad-request", "consistency=session needs the header Craft-Position of an earlier answer"
        )
    return Freshness(mode, seen)


# -- conditions ------------------------------------------------------------------------------------


def etag(version: int) -> str:
    """The tag of what a key holds since a position."""
    return f'"{version}"'


class Tags(NamedTuple):
    """What If-Match or If-None-Match names."""

    any: bool
    """A star."""
    strong: frozenset[str] = frozenset()
    weak: frozenset[str] = frozenset()

    def matches(self, version: int | None, *, weakly: bool) -> bool:
        """Do they fit a key that has a version; None: that is not there?"""
        if version is None:
            return False
        tag = str(version)
        return self.any or tag in self.strong or (weakly and tag in self.weak)


def tags(header: str, text: str | None) -> Tags | None:
    """The header's tags; None: there is no such header."""
    if text is None:
        return None
    if text.strip() == "*":
        return Tags(any=True)
    strong: set[str] = set()
    weak: set[str] = set()
    at = 0
    while True:
        match = TAG.match(text, at)
        if match is None or (match.end() < len(text) and text[match.end()] != ","):
            raise Problem(
                "bad-request", f'{header}: {text[:80]!r} is not allowed; allowed: * or tags such as "7"'
            )
        (weak if match[1] else strong).add(match[2])
        if match.end() == len(text):
            return Tags(False, frozenset(strong), frozenset(weak))
        at = match.end() + 1


class Condition(NamedTuple):
    """What must hold of a key, at the position in the log at which it is written."""

    present: bool = False
    absent: bool = False
    version: int | None = None


def condition(if_match: str | None, if_none_match: str | None) -> Condition | None:
    """The condition of a write; None: it cannot hold. Raises Problem for what is not decided in the log."""
    match, none_match = tags("If-Match", if_match), tags("If-None-Match", if_none_match)
    if match is not None and none_match is not None:
        raise Problem("bad-request", "If-Match and If-None-Match exclude each other")
    if none_match is not None:
        if not none_match.any:
            raise Problem(
                "bad-request", "If-None-Match of a write: allowed is *, for a key that is not there"
            )
        return Condition(absent=True)
    if match is None:
        return Condition()
    if match.any:
        return Condition(present=True)
    if len(match.strong) + len(match.weak) > 1:
        raise Problem("bad-request", "If-Match of a write: allowed are one tag, or *")
    versions = [tag for tag in match.strong if VERSION.fullmatch(tag) and int(tag) <= POSITION_MAX]
    return Condition(present=True, version=int(versions[0])) if versions else None
