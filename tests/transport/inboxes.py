"""An inbox as a server would have one, with a record of all that happened."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import trio

from craft.messages import Frame
from craft.types import ServerId


class Arrived(NamedTuple):
    sender: ServerId
    frame: Frame
    size: int


class RecordingInbox:
    """Bounded by `bytes_max` until `drain`; tests wait for what they expect with `until`."""

    def __init__(self, bytes_max: int = 1 << 30) -> None:
        self.arrived: list[Arrived] = []
        self.links: list[str] = []  # "up 2", "down 2", "refused 2"
        self._bytes_max = bytes_max
        self._waiting_bytes = 0
        self._changed = trio.Event()

    def deliver(self, sender: ServerId, frame: Frame, size: int) -> None:
        self.arrived.append(Arrived(sender, frame, size))
        self._waiting_bytes += size
        self._change()

    async def room(self) -> None:
        while self._waiting_bytes >= self._bytes_max:
            await self._changed.wait()

    def link_up(self, peer: ServerId) -> None:
        self.links.append(f"up {peer}")
        self._change()

    def link_down(self, peer: ServerId, *, refused: bool) -> None:
        self.links.append(f"{'refused' if refused else 'down'} {peer}")
        self._change()

    def drain(self) -> None:
        """Handle everything, from now on at once."""
        self._bytes_max = 1 << 62
        self._change()

    async def until(self, happened: Callable[[RecordingInbox], object]) -> None:
        """Wait for it; the test's own timeout is the only clock."""
        while not happened(self):
            await self._changed.wait()

    async def until_links(self, *links: str) -> None:
        """Wait until exactly this has happened to the links."""
        await self.until(lambda inbox: inbox.links == list(links) or len(inbox.links) > len(links))
        assert self.links == list(links)

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
