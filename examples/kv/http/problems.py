"""Every way in which a request fails: a kind, its status and title, and the fate of what was to be written.

Knows: kinds, craft's outcomes. Must not know: requests, sockets.

Invariants:
- `KINDS` is the only list: what is described (`openapi.py`) and what is answered cannot differ.
- A problem of a request that writes says what became of the write: "rejected" (no effect, ever), "unknown"
  (it may have taken effect, or still take it), "applied" (it took effect, its answer is lost).

Reference: RFC 9457.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import craft
from examples.kv import fates

MEDIA_TYPE = "application/problem+json"
REJECTED = "rejected"


class Kind(NamedTuple):
    """What the problems of a kind share."""

    status: int
    title: str


KINDS = {
    "bad-request": Kind(400, "The request cannot be understood"),
    "refused": Kind(400, "The command is refused"),
    "who-are-you": Kind(401, "A user and a password are needed"),
    "not-allowed": Kind(403, "This user may not do this"),
    "no-such-key": Kind(404, "There is no such key"),
    "no-such-page": Kind(404, "There is nothing here"),
    "method-not-allowed": Kind(405, "This method means nothing here"),
    "body-too-slow": Kind(408, "The body took too long to come"),
    "wrong-type": Kind(409, "The key holds no string"),
    "compacted": Kind(410, "What comes after this position is not kept any more"),
    "condition-failed": Kind(412, "The key is not as the request wants it to be"),
    "too-large": Kind(413, "This is too large"),
    "unsupported-media-type": Kind(415, "The body is of another type than is read here"),
    "wrong-host": Kind(421, "This is not the server's name"),
    "too-many-passwords": Kind(429, "Too many passwords wait to be checked"),
    "answer-lost": Kind(500, "It took effect, its answer is lost"),
    "overloaded": Kind(503, "The server has too much to do"),
    "not-ready": Kind(503, "The server is not ready"),
    "no-answer": Kind(504, "There is no answer in time"),
}

AGAIN = {"retry-after": "1"}


class Problem(Exception):
    """Why a request fails."""

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        fate: str | None = None,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.status, self.title = KINDS[kind]
        self.detail = detail
        self.fate = fate
        self.headers = headers or {}
        self.more = more

    def body(self) -> bytes:
        """As problem+json."""
        content = {"type": f"urn:kv:{self.kind}", "title": self.title, "status": self.status}
        content["detail"] = self.detail
        if self.fate is not None:
            content["fate"] = self.fate
        return json.dumps(content | self.more).encode()


def of_write(outcome: craft.CraftError) -> Problem:
    """A command that has no answer."""
    fate = fates.fate(outcome)
    word = fate.partition(" ")[0].lower()
    if isinstance(outcome, craft.CommandTooLarge):
        return Problem("too-large", str(outcome), fate=word)
    if isinstance(outcome, craft.Rejected):
        return Problem(temporary(outcome), str(outcome), fate=word, headers=AGAIN)
    return Problem("answer-lost" if fate is fates.APPLIED else "no-answer", str(outcome), fate=word)


def of_read(outcome: craft.CraftError) -> Problem:
    """A read, or a stream, that has no answer."""
    return Problem(temporary(outcome), str(outcome), headers=AGAIN)


def temporary(outcome: craft.CraftError) -> str:
    """Why one may come again."""
    return "overloaded" if isinstance(outcome, craft.Overloaded) else "not-ready"
