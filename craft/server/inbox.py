"""What has arrived between two turns, bounded."""

from __future__ import annotations

from collections.abc import Callable

import trio

from craft.engine import Engine
from craft.errors import RemoteError
from craft.messages import Frame
from craft.server.doors import Doors
from craft.types import Instant, ServerId


class ServerInbox:
    """The transport delivers here; the turn takes everything.

    Readers wait in `room` while it holds too much.
    """

    def __init__(self, bytes_max: int, wake: Callable[[], None], doors: Doors | None = None) -> None:
        if doors is not None:
            doors.on_met = self.met
        self._bytes_max = bytes_max
        self._wake = wake
        self._bytes = 0
        self._room = trio.Event()
        self._frames: list[tuple[ServerId, Frame]] = []
        self._links: list[tuple[ServerId, bool, bool]] = []
        self._disks: dict[ServerId, str] = {}  # of each peer's newest handshake
        self._met: dict[ServerId, str] = {}  # not told to the engine yet
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

    def met(self, peer: ServerId, disk: str) -> None:
        """A handshake told on which disk a peer lives; what came from another is not looked at any more."""
        if self._disks.get(peer, disk) != disk:
            self._frames = [one for one in self._frames if one[0] != peer]
        self._disks[peer] = disk
        self._met[peer] = disk
        self._wake()

    def pass_on(self, engine: Engine, now: Instant, fault: Callable[[ServerId, RemoteError], None]) -> None:
        """Hand everything that has arrived to the engine; `fault` hears who broke the protocol."""
        links, frames = self._links, self._frames
        self._links, self._frames = [], []
        if self._bytes >= self._bytes_max:
            self._room.set()
            self._room = trio.Event()
        self._bytes = 0
        met, self._met = self._met, {}
        for peer, disk in met.items():
            engine.met(peer, disk, now)
        for peer, up, refused in links:
            if up:
                engine.link_up(peer, now)
            else:
                engine.link_down(peer, now, refused=refused)
        for sender, frame in frames:
            try:
                engine.receive(sender, frame, now)
            except RemoteError as error:
                fault(sender, error)
