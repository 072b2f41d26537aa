"""From the bytes of a connection to requests: what they claim is checked before the parser sees them.

hiredis parses; it knows no inline commands, and a header's word is enough for it to set memory aside. So a
gate walks over the headers first, refuses what is too large or no request, and hands on whole requests only.

Knows: how requests are framed, the limits. Must not know: commands, sockets.

Invariants
- No more is held than `request_bytes_max` and what one `feed` brings; nothing is walked over twice.
- Requests before a fault are handed out; behind a fault nothing is, unless one of them was to say who asks.

Reference: Redis 7.0, networking.c, processInlineBuffer(), processMultibulkBuffer(); sds.c, sdssplitargs().
"""

from __future__ import annotations

from dataclasses import dataclass

import hiredis

Request = list[bytes]

LINE_BYTES_MAX = 64 * 1024
"""Of an inline command, or of a header."""

ARGUMENTS_MAX_UNKNOWN, ARGUMENT_BYTES_MAX_UNKNOWN = 10, 16 * 1024
"""What Redis grants somebody who has not said who he is."""

SHORT = {b"$%d" % length: length for length in range(1024)}
"""What most headers say."""

ASTERISK, NEWLINE = b"*\n"
FOREIGN = frozenset({b"POST", b"HOST:"})
"""Words of HTTP. A page in a browser can send its requests here, with lines in them that it chooses."""
SPACES = b" \n\r\t\v\f\0"
ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}
HEX = frozenset(b"0123456789abcdefABCDEF")


class ProtocolFault(Exception):
    """What came is no request; the connection ends. The text is Redis's."""


class Unauthenticated(ProtocolFault):
    """What came is too large for somebody who has not said who he is; he may be about to."""


@dataclass(frozen=True, slots=True)
class GateLimits:
    """How large a request may be."""

    request_bytes_max: int
    """All arguments of one request with their headers."""

    arguments_max: int = 65_536

    argument_bytes_max: int = 512 * 1024 * 1024
    """What Redis calls proto-max-bulk-len."""


class Gate:
    """One connection's bytes that have not become requests yet."""

    def __init__(self, limits: GateLimits) -> None:
        self.limits = limits
        self.known = False
        """Has the client said who it is? Until then it may ask little."""
        self._reader = hiredis.Reader()
        self._bytes = b""
        self._at = 0
        """Everything before is walked over."""
        self._lacking = 0
        """So many arguments of the request under way are to come."""
        self._start = 0
        """Where that request begins."""
        self.fault: ProtocolFault | None = None
        """What came behind the last request, if it was none."""

    @property
    def held(self) -> int:
        """The bytes that wait for the rest of their request."""
        return len(self._bytes)

    def welcome(self) -> list[Request]:
        """The client has said who it is: the requests that were too large until then, as `feed`."""
        self.known = True
        if isinstance(self.fault, Unauthenticated):
            self.fault = None
        return self.feed(b"")

    def feed(self, data: bytes) -> list[Request]:
        """The requests that are complete now; empty ones are left out.

        Raises the fault where no request comes before it; else `fault` is it, and those before are answered.
        """
        self._bytes += data
        requests: list[Request] = []
        while self.fault is None:
            requests += self._parse(self._walk())
            line = self._inline()
            if line is None:
                break
            if line:
                requests.append(line)
        if self.fault is not None and not requests:
            raise self.fault
        return requests

    def _walk(self) -> int:
        """Go on over headers and arguments to the end of what is there; how many requests ended."""
        held, at, lacking, ended = self._bytes, self._at, self._lacking, 0
        size, find = len(held), held.find
        try:
            while at < size:
                if not lacking:
                    self._start = at
                    if held[at] != ASTERISK:
                        break
                    end = find(b"\r\n", at, at + LINE_BYTES_MAX)
                    if end < 0:
                        self._check_line(at, "too big mbulk count string")
                        break
                    lacking = self._arguments(held[at + 1 : end])
                    if lacking:
                        at = end + 2
                    else:  # an empty request is none; the parser knows but one way to write it
                        self._bytes = held = held[:at] + held[end + 2 :]
                        size, find = len(held), held.find
                    continue
                end = find(b"\r\n", at, at + LINE_BYTES_MAX)
                if end < 0:
                    self._check_line(at, "too big bulk count string")
                    break
                length = SHORT.get(held[at:end])
                following = end + 4 + (self._length(held[at:end]) if length is None else length)
                if following - self._start > self.limits.request_bytes_max:
                    raise ProtocolFault(f"request exceeds {self.limits.request_bytes_max} bytes")
                if following > size:
                    break
                at = following
                lacking -= 1
                ended += not lacking
        except ProtocolFault as fault:
            self.fault = fault
        self._at, self._lacking = at, lacking
        if not lacking:
            self._start = at
        return ended

    def _parse(self, count: int) -> list[Request]:
        """Take out the requests that the walk found to be whole."""
        if not count:
            return []
        self._reader.feed(self._bytes[: self._start])
        self._bytes = self._bytes[self._start :]
        self._at -= self._start
        self._start = 0
        return [self._reader.gets() for _ in range(count)]

    def _inline(self) -> Request | None:
        """A line that is no array, if a whole one comes next; None: nothing whole is left."""
        if self.fault or self._lacking or not self._bytes or self._bytes[0] == ASTERISK:
            return None
        end = self._bytes.find(NEWLINE, 0, LINE_BYTES_MAX)
        if end < 0:
            if len(self._bytes) >= LINE_BYTES_MAX:
                self.fault = ProtocolFault("too big inline request")
            return None
        line, self._bytes = self._bytes[:end], self._bytes[end + 1 :]
        words = split(line.removesuffix(b"\r"))
        if words is None:
            self.fault = ProtocolFault("unbalanced quotes in request")
        elif words and words[0].upper() in FOREIGN:
            self.fault, words = ProtocolFault("this is HTTP, here is the Redis protocol"), None
        return words

    def _check_line(self, at: int, complaint: str) -> None:
        """A header without an end is waited for, but not for ever."""
        if len(self._bytes) - at >= LINE_BYTES_MAX:
            raise ProtocolFault(complaint)

    def _arguments(self, text: bytes) -> int:
        """How many follow; none for an empty request."""
        count = number(text)
        if count is None or count > self.limits.arguments_max:
            raise ProtocolFault("invalid multibulk length")
        if not self.known and count > ARGUMENTS_MAX_UNKNOWN:
            raise Unauthenticated("unauthenticated multibulk length")
        return max(count, 0)

    def _length(self, header: bytes) -> int:
        """The bytes of the argument behind a header."""
        if header[:1] != b"$":
            raise ProtocolFault(f"expected '$', got '{header[:1].decode('latin-1')}'")
        length = number(header[1:])
        if length is None or not 0 <= length <= self.limits.argument_bytes_max:
            raise ProtocolFault("invalid bulk length")
        if not self.known and length > ARGUMENT_BYTES_MAX_UNKNOWN:
            raise Unauthenticated("unauthenticated bulk length")
        return length


def number(text: bytes) -> int | None:
    """An integer as headers write it, which is as one prints it; None where it is none."""
    digits = text[1:] if text[:1] == b"-" else text
    if not digits.isdigit() or len(digits) > 10:
        return None
    found = int(text)
    return found if b"%d" % found == text else None


def split(line: bytes) -> Request | None:
    """The words of an inline command, quoted ones with their escapes; None where a quote is not closed."""
    words: Request = []
    at = 0
    while True:
        while at < len(line) and line[at] in SPACES:
            at += 1
        if at == len(line):
            return words
        found = word(line, at)
        if found is None:
            return None
        text, at = found
        words.append(text)


def word(line: bytes, at: int) -> tuple[bytes, int] | None:
    """One word and where it ends."""
    text = bytearray()
    quote = b""
    while at < len(line):
        here = line[at : at + 1]
        if not quote:
            if here in SPACES:
                break
            if here in b"\"'":
                quote = here
            else:
                text += here
        elif here == b"\\" and quote == b'"' and at + 1 < len(line):
            step, meant = escape(line, at)
            text += meant
            at += step
            continue
        elif here == b"\\" and quote == b"'" and line[at + 1 : at + 2] == b"'":
            text += b"'"
            at += 1
        elif here == quote:
            # A closing quote is followed by a space, or by nothing.
            return (bytes(text), at + 1) if line[at + 1 : at + 2] in SPACES or at + 1 == len(line) else None
        else:
            text += here
        at += 1
    return None if quote else (bytes(text), at)


def escape(line: bytes, at: int) -> tuple[int, bytes]:
    """How long an escape is, and what it means."""
    if line[at + 1 : at + 2] == b"x" and len(line) > at + 3 and HEX.issuperset(line[at + 2 : at + 4]):
        return 4, bytes.fromhex(line[at + 2 : at + 4].decode())
    following = line[at + 1 : at + 2]
    return 2, ESCAPES.get(following, following)
