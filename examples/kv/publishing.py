"""Who listens to which channel on this server, and telling them.

Knows: channels, patterns, and that a listener can be told. Must not know: connections, the log.

Invariants:
- Who does not listen costs nothing. A message is told in the order of the log, to each listener once for its
  channel and once for each of its patterns that fit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from examples.kv.globs import matcher
from examples.kv.replies import Reply, push


class Listener(Protocol):
    """A connection that subscribes."""

    def tell(self, message: Reply) -> None:
        """Send it what it listens for."""


class Hub:
    """The subscriptions of one server's connections."""

    def __init__(self) -> None:
        self.channels: dict[bytes, dict[Listener, None]] = {}
        self.patterns: dict[bytes, tuple[Callable[[bytes], bool], dict[Listener, None]]] = {}

    def subscribe(self, listener: Listener, channel: bytes) -> None:
        """From now on."""
        self.channels.setdefault(channel, {})[listener] = None

    def unsubscribe(self, listener: Listener, channel: bytes) -> None:
        """No more."""
        listeners = self.channels.get(channel, {})
        listeners.pop(listener, None)
        if not listeners:
            self.channels.pop(channel, None)

    def subscribe_pattern(self, listener: Listener, pattern: bytes) -> None:
        """To all channels that fit."""
        self.patterns.setdefault(pattern, (matcher(pattern), {}))[1][listener] = None

    def unsubscribe_pattern(self, listener: Listener, pattern: bytes) -> None:
        """No more."""
        _, listeners = self.patterns.get(pattern, (None, {}))
        listeners.pop(listener, None)
        if not listeners:
            self.patterns.pop(pattern, None)

    def publish(self, channel: bytes, message: bytes) -> int:
        """Tell all who listen; returns how often it was told."""
        told = 0
        for listener in list(self.channels.get(channel, ())):
            listener.tell(push(b"message", channel, message))
            told += 1
        for pattern, (fits, listeners) in list(self.patterns.items()):  # who is told may end, and leave
            if fits(channel):
                for listener in list(listeners):
                    listener.tell(push(b"pmessage", pattern, channel, message))
                    told += 1
        return told
