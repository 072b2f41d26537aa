"""Frames between servers: late, lost, repeated, out of order, or from the past.

Knows: the network's settings, and who runs. Must not know: what a frame says.

Invariant: what reaches a server was sent to it, byte for byte; never by, or to, another disk under that id.
"""

from __future__ import annotations

import typing
from collections import deque
from functools import partial

from craft.errors import WireError
from craft.messages import Frame
from craft.testing.checkers.base import Violation
from craft.testing.plan import MS
from craft.testing.trace import words
from craft.types import ServerId
from craft.wire.frames import decode_frame, encode_frames
from craft.wire.framing import PREFIX_BYTES

if typing.TYPE_CHECKING:
    from craft.testing.server import SimServer
    from craft.testing.world import World

FRAME_BYTES_MAX = 4 * 1024 * 1024
"""As the transport's default."""

PAST_FRAMES_MAX = 200
"""So many of the frames that a server was sent last may reach it once more."""

Sent: typing.TypeAlias = tuple[ServerId, Frame, str]
"""A frame, who sent it, and its words in the trace."""

LEAST_NS = 1000
"""Between frames that come again together."""


class Mail:
    """What becomes of every frame that a server sends."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.echo: tuple[float, tuple[int, int]] = (
            0.0,
            (0, 0),
        )  # the share of frames that come again, and when
        repeats = any(fault.kind in {"repeat_past", "seesaw", "amnesia"} for fault in world.plan.faults)
        # What each server was sent last.
        self._past = {i: deque[Sent](maxlen=PAST_FRAMES_MAX) for i in world.ids if repeats}
        self._frames = 0  # that were written down

    def send(self, server: SimServer, peer: ServerId, frame: Frame) -> None:
        """A frame leaves a server."""
        world = self._world
        for hook in world.hooks.sent:
            hook(server, peer, frame)
        net, way, rng, said = world.network, (server.id, peer), world.rng_delays, ""
        if world.keep:
            self._frames += 1
            said = f"f{self._frames} {words(frame)}"
            world.note(server.id, "send", said, peer=peer)
        world.trace.fold(world.time, server.id, peer, len(frame.messages), frame.demand)
        if self._past:
            self._past.setdefault(peer, deque(maxlen=PAST_FRAMES_MAX)).append((server.id, frame, said))
        if self.echo[0] and rng.random() < self.echo[0]:
            # Whether it is lost now or not: late is all the same to the protocol.
            late = world.time + world.draw(self.echo[1])
            world.at(late, partial(self._deliver, server.id, peer, None, frame, said))
        link = net.links.get(way)
        if link is None or way in net.cuts or (net.loss and rng.random() < net.loss):
            if world.keep:
                world.note(server.id, "lose", said, peer=peer)
            return
        frames = _over_the_wire(frame, world.plan.groups) if world.plan.wire else [frame]
        for one in frames:
            at = net.arrival(way, world.time, rng)
            if net.reorder and rng.random() < net.reorder:
                at += world.draw((1 * MS, 100 * MS))
            world.at(at, partial(self._deliver, server.id, peer, link, one, said))
            if net.repeat and rng.random() < net.repeat:
                again = at + world.draw(net.delay) * rng.choice((1, 5, 100))
                world.at(again, partial(self._deliver, server.id, peer, None, one, said))

    def past(self, receiver: ServerId, frames: int = PAST_FRAMES_MAX) -> list[Sent]:
        """The last frames that a server was sent, in their order."""
        return list(self._past.get(receiver, ()))[-frames:]

    def send_again(self, receiver: ServerId, frames: list[Sent]) -> None:
        """Frames of the past reach a server once more, or only now."""
        at = self._world.time
        for sender, frame, said in frames:
            at += LEAST_NS
            self._world.at(at, partial(self._deliver, sender, receiver, None, frame, said))

    def _deliver(
        self, sender: ServerId, receiver: ServerId, link: int | None, frame: Frame, said: str
    ) -> None:
        """A frame arrives on the connection it was sent on (a repeated one: on any)."""
        world, way = self._world, (sender, receiver)
        server = world.servers.get(receiver)
        if server is None:
            return
        if world.operator.active and sender not in server.engine.state.peers:
            return  # it is forgotten there, and so is its connection
        if link is None and world.wiped & {*way}:
            return  # meant for, or from, another disk under this id: no handshake lets that in
        # A cut ends connections. What comes again, or late, was under way before it.
        if link is not None and (way in world.network.cuts or world.network.links.get(way) != link):
            return
        server.input(partial(self._receive, server, sender, frame, said))

    def _receive(self, server: SimServer, sender: ServerId, frame: Frame, said: str) -> None:
        if self._world.operator.active and sender not in server.engine.state.peers:
            return
        if self._world.keep:
            self._world.note(server.id, "receive", said, peer=sender)
        try:
            server.receive(sender, frame)
        except WireError as error:
            raise Violation(
                "no server breaks the protocol", f"server {sender} to {server.id}: {error}"
            ) from error


def _over_the_wire(frame: Frame, groups: int) -> list[Frame]:
    encoded = encode_frames(frame, FRAME_BYTES_MAX)
    return [decode_frame(one[PREFIX_BYTES:], groups=groups) for one in encoded]
