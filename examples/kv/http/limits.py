"""Bounds of the HTTP port: what one client may use, so that it harms only itself.

Knows: numbers and their reasons. Must not know: what keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB, MIB = 1024, 1024 * 1024

PIECE_BYTES = 64 * KIB
"""What is sent at a time, within `send_timeout_s`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """All are at least 1."""

    connections_max: int = 1_000
    """More are turned away at once."""

    streams_max: int = 32
    """Requests at a time on one connection of HTTP/2."""

    requests_max: int = 512
    """Requests at a time on all connections; more are told to come again. Followers do not count."""

    header_bytes_max: int = 16 * KIB
    """The request line and all headers."""

    json_bytes_max: int = 4 * MIB
    """The body of a transaction: JSON takes more room than the log. (A value's limit is the log's.)"""

    commands_max: int = 10_000
    """Of one transaction: all of them run at one go."""

    replies_bytes_max: int = 32 * MIB
    """Of one transaction, all together: each may be as large as a value, and takes more room as JSON."""

    page_keys_max: int = 1_000
    """Keys of a page, whatever is asked for."""

    page_bytes_max: int = MIB
    """Of keys and values; the one that goes beyond it is the page's last. A larger value is left out."""

    answer_timeout_s: int = 30
    """A command that is not answered by then has an unknown outcome; a read is given up."""

    body_timeout_s: int = 30
    """A body takes no longer to come."""

    send_timeout_s: int = 30
    """A client takes 64 KiB of its answer in this time, or is disconnected; one of HTTP/2 that takes others
    loses this one."""

    idle_timeout_s: int = 60
    """A connection without a request is closed, and one whose headers take so long."""

    heartbeat_interval_s: int = 10
    """Between two signs of life in a stream of changes."""

    passwords_max: int = 32
    """Passwords that wait to be checked; one address may have half of them."""
