"""The transport port: how frames travel between servers; adapters in `memory.py` and `tcp.py`.

Obligations (PROTOCOL 11)
- Frames may be lost, duplicated or overtaken, never altered: what arrives is what was sent. A lost link loses
  what was queued.
- `send` never blocks and never raises for a peer's fault. A full queue drops the link, which the engine hears
  of.
- Frames that carry heartbeats only may overtake bulk frames, and never wait behind them.
- The inbox bounds what has arrived and is not yet handled: readers await `room()` before they take more off a
  socket.
- A peer that breaks the protocol is disconnected with a reason and disturbs nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import trio

from craft.messages import Frame
from craft.types import ServerId


class Inbox(Protocol):
    """Where a transport delivers; the server's turn empties it."""

    def deliver(self, sender: ServerId, frame: Frame, size: int) -> None:
        """A frame has arrived; `size` is its bytes on the wire."""

    async def room(self) -> None:
        """Wait while the inbox is full. A checkpoint only when it waits."""

    def link_up(self, peer: ServerId) -> None:
        """Our connection to `peer` is made: frames sent from now on have a way."""

    def link_down(self, peer: ServerId, *, refused: bool) -> None:
        """Our connection to `peer` broke; `refused`: and the immediate reconnect was refused (PROTOCOL 9)."""


class Transport(Protocol):
    """One server's connections to its peers. `run` lives in the server's nursery."""

    async def run(
        self, inbox: Inbox, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Listen, connect, deliver until cancelled. It has started when peers can connect.

        Raises only for this server's own faults (a taken address).
        """

    def send(self, peer: ServerId, frame: Frame) -> None:
        """Queue a frame for a peer; dropped where there is no link."""

    def set_peers(self, peers: Mapping[ServerId, tuple[str, int] | None]) -> None:
        """Connect to these from now on, and be connected to by them, and by nobody else.

        None: where it was reached before; if that is not known, it is only listened to.
        """

    @property
    def tells_disks(self) -> bool:
        """Do handshakes tell on which disk a peer lives? Else nobody is bound to a disk."""

    def disconnect(self, peer: ServerId, reason: str) -> None:
        """The engine found that `peer` breaks the protocol.

        Drop its connection to us, saying why in the log.
        """

    def advertise(self, client_address: str) -> None:
        """Tell the peers where clients reach this server, on connections made from now on."""

    def client_addresses(self) -> dict[ServerId, str]:
        """Where clients reach this server and those peers that have said so, by id in rising order."""
