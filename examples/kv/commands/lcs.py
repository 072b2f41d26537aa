"""LCS: the longest common subsequence of two strings, its length, or where its parts are.

Knows: the table of lengths, and which of several subsequences Redis finds. Must not know: other commands.

Reference: Redis 7.0, t_string.c, lcsCommand().
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from examples.kv.commands.arguments import SYNTAX, Args, integer
from examples.kv.commands.table import TWO_KEYS, Command, Read
from examples.kv.keyspace import View
from examples.kv.replies import Refused, Reply
from examples.kv.values import Hash

CELLS_MAX = 4_000_000
"""About a second of work. Redis allows 134 million; here one command must not hold up a server for long."""

TOO_LARGE = "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len"
BOTH = "ERR If you want both the length and indexes, please just use IDX."
NO_STRINGS = "ERR The specified keys must contain string values"


@dataclass
class Options:
    """LEN, IDX, MINMATCHLEN and WITHMATCHLEN."""

    words: set[bytes] = field(default_factory=set)
    shortest: int = 0


def options_of(args: Args) -> Options:
    """The options, behind two keys."""
    options, at = Options(), 3
    while at < len(args):
        word = args[at].upper()
        if word in (b"LEN", b"IDX", b"WITHMATCHLEN"):
            options.words.add(word)
        elif word == b"MINMATCHLEN" and at + 1 < len(args):
            at += 1
            options.shortest = max(integer(args[at]), 0)
        else:
            raise Refused(SYNTAX)
        at += 1
    if options.words >= {b"LEN", b"IDX"}:
        raise Refused(BOTH)
    return options


def lcs(view: View, args: Args) -> Reply:
    """LCS key key [LEN] [IDX] [MINMATCHLEN length] [WITHMATCHLEN]."""
    one, other = view.value(args[1]) or b"", view.value(args[2]) or b""
    if isinstance(one, Hash) or isinstance(other, Hash):
        raise Refused(NO_STRINGS)
    options = options_of(args)
    if (len(one) + 1) * (len(other) + 1) > CELLS_MAX:
        raise Refused(TOO_LARGE)
    rows = lengths(one, other)
    if b"LEN" in options.words:
        return rows[-1][-1]
    places = common(rows, one, other)
    if b"IDX" not in options.words:
        return bytes([one[place] for place, _ in reversed(places)])
    return {
        b"matches": [
            described(match, options) for match in ranges(places) if len(match) >= max(options.shortest, 1)
        ],
        b"len": rows[-1][-1],
    }


def lengths(one: bytes, other: bytes) -> list[array[int]]:
    """Row i, column j: how long the longest common subsequence of the first i and j bytes is."""
    rows = [array("I", bytes(4 * (len(other) + 1)))]
    for byte in one:
        above, row, left = rows[-1], array("I", [0]), 0
        for at, second in enumerate(other):
            left = above[at] + 1 if second == byte else max(left, above[at + 1])
            row.append(left)
        rows.append(row)
    return rows


def common(rows: list[array[int]], one: bytes, other: bytes) -> list[tuple[int, int]]:
    """The places of the common bytes in both strings, from the end, as Redis walks the table back."""
    i, j, places = len(one), len(other), []
    while i > 0 and j > 0:
        if one[i - 1] == other[j - 1]:
            i, j = i - 1, j - 1
            places.append((i, j))
        elif rows[i - 1][j] > rows[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return places


def ranges(places: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """The places in runs that have no gap in either string."""
    runs: list[list[tuple[int, int]]] = []
    for i, j in places:
        if runs and runs[-1][-1] == (i + 1, j + 1):
            runs[-1].append((i, j))
        else:
            runs.append([(i, j)])
    return runs


def described(match: list[tuple[int, int]], options: Options) -> Reply:
    """First and last place in either string, and the length if asked."""
    (one_last, other_last), (one_first, other_first) = match[0], match[-1]
    answer: list[Reply] = [[one_first, one_last], [other_first, other_last]]
    return [*answer, len(match)] if b"WITHMATCHLEN" in options.words else answer


COMMANDS: tuple[Command, ...] = (Read(b"LCS", -3, lcs, TWO_KEYS),)
