"""What has arrived between two turns, bounded."""

from __future__ import annotations

from collections.abc import Callable

import trio

from craft.messages import Frame
from craft.types import ServerId


class ServerInbox:
    """The transport delivers here; the turn takes everything.

    Readers wait in `room` while it holds too much.
    """

    def __init__(self, bytes_max: int, wake: Callable[[], None]) -> None:
        self._bytes_max = bytes_max
        self._wake = wake
        self._bytes = 0
        self._room = trio.Event()
        self._frames: list[tuple[ServerId, Frame]] = []
        self._links: list[tuple[ServerId, bool, bool]] = []
        self.frames_total = 0
        self.bytes_total = 0

    def deliver(self, sender: ServerId, frame: Frame, size: int) -> None:
        """A frame has arrived."""
        self._frames.append((sender, frame))
        self._bytes += size
        self.frames_total += 1
        self.bytes_total += size
        self._wake()

    async def room(self) -> None:
        """Wait while the inbox is full."""
        while self._bytes >= self._bytes_max:
            await self._room.wait()

    def link_up(self, peer: ServerId) -> None:
        """Our connection to a peer is made."""
        self._links.append((peer, True, False))
        self._wake()

    def link_down(self, peer: ServerId, *, refused: bool) -> None:
        """Our connection to a peer broke."""
        self._links.append((peer, False, refused))
        self._wake()

    def take(self) -> tuple[list[tuple[ServerId, bool, bool]], list[tuple[ServerId, Frame]]]:
        """Everything that has arrived: `(peer, up, refused)` and `(sender, frame)`, each in order."""
        links, frames = self._links, self._frames
        self._links, self._frames = [], []
        if self._bytes >= self._bytes_max:
            self._room.set()
            self._room = trio.Event()
        self._bytes = 0
        return links, frames
