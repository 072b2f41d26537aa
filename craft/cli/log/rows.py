"""What `craft log` shows of an entry: which ones, as text or as JSON.

Knows entries and what stands in them. Must not know where they come from.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from typing import Any, NamedTuple

from craft.applying import unpack
from craft.cli.common import text_of
from craft.client_sessions import TAGGED, decode_tagged
from craft.sessions import OPEN, decode_payload
from craft.types import Entry, EntryKind, GroupId, Index, Position, Proposal, Term, Timestamp, is_command

SECOND_NS = 1_000_000_000
PREVIEW_CHARS = 60
"""Of an entry's commands, in a line of text."""


class Row(NamedTuple):
    """An entry, wherever it was found. `None`: not known there."""

    group: GroupId
    index: Index  # type: ignore[assignment]  # the field's own word; tuple.index is never wanted here
    timestamp: Timestamp
    kind: EntryKind
    commands: tuple[bytes, ...]
    position: Position | None = None
    term: Term | None = None
    size: int | None = None
    committed: bool = True
    requests: tuple[dict[str, Any], ...] = ()


class Wanted(NamedTuple):
    """Which rows. Bounds are inclusive but `after`."""

    after: Position = 0
    upto: Position | None = None
    begin: Timestamp | None = None
    end: Timestamp | None = None
    kinds: frozenset[EntryKind] = frozenset(EntryKind)

    def takes(self, row: Row) -> bool:
        """Is this row wanted?"""
        if row.position is not None and row.position <= self.after:
            return False
        if self.begin is not None and row.timestamp < self.begin:
            return False
        return row.kind in self.kinds and not self.passed(row)

    def passed(self, row: Row) -> bool:
        """Is everything behind this row of no interest? (Of one group, or merged, timestamps rise.)"""
        if self.end is not None and row.timestamp > self.end:
            return True
        return row.position is not None and self.upto is not None and row.position > self.upto


# -- from entries ----------------------------------------------------------------------------------


def row_of(group: GroupId, entry: Entry, *, committed: bool) -> Row:
    """An entry of a group's log: what was asked for in it, whether or not it takes effect."""
    requests = tuple(map(_request, decode_payload(entry.payload))) if _has_requests(entry) else ()
    commands = tuple(command for one in requests for command in one.pop("_commands"))
    return Row(
        group,
        entry.index,
        entry.timestamp,
        entry.kind,
        commands,
        term=entry.term,
        size=entry.size,
        committed=committed,
        requests=requests,
    )


def _has_requests(entry: Entry) -> bool:
    return is_command(entry.kind) and entry.kind is not EntryKind.MEMBERSHIP


def _request(proposal: Proposal) -> dict[str, Any]:
    """Who asked for what: for people, and for JSON."""
    shown: dict[str, Any] = {
        "server": proposal.server_id,
        "counter": proposal.counter,
        "request": proposal.request,
        "_commands": [],
    }
    if proposal.request == OPEN:
        return shown | {"opens": "server session"}
    body = proposal.body
    if body.startswith(TAGGED):
        tagged = decode_tagged(body)
        if tagged is None:
            return shown
        tag, body = tagged
        shown["client"] = {
            "tag": type(tag).__name__.removesuffix("Tag").lower(),
            "session": tag.session.hex(),
        }
    return shown | {"_commands": unpack(body)}


# -- to lines --------------------------------------------------------------------------------------


def moment(timestamp: Timestamp) -> str:
    """A timestamp as people and `--from` write it, to the nanosecond."""
    seconds, ns = divmod(timestamp, SECOND_NS)
    try:
        day = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    except (ValueError, OverflowError, OSError):  # a wild clock's: beyond the years that Python knows
        return f"{timestamp}ns"
    return f"{day}.{ns:09d}Z"


def timestamp_of(text: str) -> Timestamp:
    """Nanoseconds since the epoch, from such a text: a number of them, or a date and time (UTC).

    Raises ValueError.
    """
    digits = text.removesuffix("ns")
    if digits.isascii() and digits.isdigit() and int(digits) < 2**63:
        return int(digits)
    head, dot, fraction = text.removesuffix("Z").partition(".")
    day = datetime.fromisoformat(head)
    day = day.replace(tzinfo=UTC) if day.tzinfo is None else day
    if dot and not (fraction.isascii() and fraction.isdigit() and len(fraction) <= 9):
        raise ValueError(f"{text!r}: a fraction of a second has 1 to 9 digits, and no zone behind it but Z")
    found = int(day.timestamp()) * SECOND_NS + int((fraction if dot else "0").ljust(9, "0"))
    if not 0 <= found < 2**63:
        raise ValueError(f"{text!r} is not between 1970 and 2262")
    return found


def time_option(text: str) -> Timestamp:
    """`timestamp_of`, as the type of an option."""
    try:
        return timestamp_of(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not allowed; allowed: a time such as 2026-03-01T12:00:00.5Z, or ns since 1970"
        ) from None


def as_json(row: Row) -> str:
    """One line of JSON; what is not known is left out."""
    fields: dict[str, Any] = {
        "position": row.position,
        "group": row.group,
        "index": row.index,
        "term": row.term,
        "timestamp": row.timestamp,
        "time": moment(row.timestamp),
        "kind": row.kind.name.lower(),
        "bytes": row.size,
        "commands": [text_of(command) for command in row.commands],
    }
    if not row.committed:
        fields["committed"] = False
    if row.requests:
        fields["requests"] = list(row.requests)
    return json.dumps({key: value for key, value in fields.items() if value is not None}, ensure_ascii=False)


def as_text(row: Row) -> str:
    """One line for people."""
    place = f"{row.group}:{row.index}"
    head = f"{row.position:>10}  " if row.position is not None else ""
    term = f"  term {row.term}" if row.term is not None else ""
    words = [f"{head}{moment(row.timestamp)}  {place:>10}{term}  {row.kind.name.lower():<13}"]
    if row.commands:
        words.append(f"{len(row.commands):>5}  {_preview(row.commands)}")
    if any("opens" in request for request in row.requests):
        words.append("opens a server's session")
    if not row.committed:
        words.append("(not known committed)")
    return " ".join(words).rstrip()


def _preview(commands: tuple[bytes, ...]) -> str:
    text = ""
    for command in commands:
        text += (", " if text else "") + text_of(command[:PREVIEW_CHARS])
        if len(text) > PREVIEW_CHARS:
            return text[: PREVIEW_CHARS - 1] + "…"
    return text
