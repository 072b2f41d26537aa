r"""Patterns of KEYS, SCAN and HSCAN: `*`, `?`, `[a-c]`, `[^x]` and `\` before what is meant literally.

Knows: the patterns as Redis reads them, its odd cases included. Must not know: keys, commands.

Invariants:
- Matching takes time linear in the key for each star: every star is an atomic group, so that a hostile
  pattern (`a*a*a*a*b`) cannot make a server search for ever.
- A pattern that is too long is refused: to translate one as large as an entry would take minutes.

Reference: Redis 7.0, util.c, stringmatchlen().
"""

from __future__ import annotations

import re
from collections.abc import Callable

from examples.kv.replies import Refused

NEVER = b"(?!)"

PATTERN_BYTES_MAX = 16 * 1024
"""About a quarter of a second of work."""


def matcher(pattern: bytes) -> Callable[[bytes], bool]:
    """A function that says whether a key matches the pattern. Raises Refused for one that is too long."""
    if len(pattern) > PATTERN_BYTES_MAX:
        raise Refused(f"ERR a pattern may have {PATTERN_BYTES_MAX} bytes; this has {len(pattern)}")
    segments = [b""]
    at = 0
    while at < len(pattern):
        byte = pattern[at : at + 1]
        if byte == b"*":
            segments.append(b"")
            at += 1
        elif byte == b"?":
            segments[-1] += b"."
            at += 1
        elif byte == b"[":
            one, at = bracket(pattern, at + 1)
            segments[-1] += one
        else:
            at += byte == b"\\" and at + 1 < len(pattern)
            segments[-1] += re.escape(pattern[at : at + 1])
            at += 1
    compiled = re.compile(joined(segments), re.DOTALL)

    def matches(key: bytes) -> bool:
        # Redis does not enter its loop for an empty key, so that only an empty pattern matches it.
        return compiled.fullmatch(key) is not None if key else not pattern

    return matches


def joined(segments: list[bytes]) -> bytes:
    """Segments of one byte a token with stars between, as an expression that never backtracks into a star.

    The first place where a segment fits leaves most to the rest, so no other place has to be tried.
    """
    if len(segments) == 1:
        return segments[0]
    first, *middle, last = segments
    stars = b"".join(b"(?>.*?%b)" % segment for segment in middle if segment)
    return first + stars + b".*" + last


def bracket(pattern: bytes, at: int) -> tuple[bytes, int]:
    """One class of bytes, from behind its `[`: the expression, and where the pattern goes on.

    One that is not closed ends with the pattern. Bounds of a range are signed, and may stand in either order.
    """
    negated = pattern[at : at + 1] == b"^"
    at += negated
    allowed: set[int] = set()
    while at < len(pattern) and pattern[at : at + 1] != b"]":
        if pattern[at : at + 1] == b"\\" and at + 1 < len(pattern):
            allowed.add(pattern[at + 1])
            at += 2
        elif at + 2 < len(pattern) and pattern[at + 1 : at + 2] == b"-":
            low, high = sorted((signed(pattern[at]), signed(pattern[at + 2])))
            allowed.update(byte % 256 for byte in range(low, high + 1))
            at += 3
        else:
            allowed.add(pattern[at])
            at += 1
    if negated:
        allowed = set(range(256)) - allowed
    members = b"".join(b"\\x%02x-\\x%02x" % run for run in runs(allowed))
    return (b"[%b]" % members if members else NEVER), at + 1


def runs(allowed: set[int]) -> list[tuple[int, int]]:
    """The first and last bytes of all runs: one by one, `[^a]` would be a kilobyte of expression."""
    firsts = sorted(byte for byte in allowed if byte - 1 not in allowed)
    lasts = sorted(byte for byte in allowed if byte + 1 not in allowed)
    return list(zip(firsts, lasts, strict=True))


def signed(byte: int) -> int:
    """A byte as a C `char`, in which order Redis sees ranges."""
    return byte - 256 if byte > 127 else byte
