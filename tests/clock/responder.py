"""A time server on loopback that lies as it is told: a thread with a UDP socket."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

NTP_UNIX_S = 2_208_988_800
SECOND_NS = 1_000_000_000

PACKET = struct.Struct(">BBBbII4s4Q")


def raw(unix_ns: int) -> int:
    """Nanoseconds since 1970 as a raw NTP timestamp."""
    seconds, rest = divmod(unix_ns, SECOND_NS)
    return ((seconds + NTP_UNIX_S) % 2**32) << 32 | (rest << 32) // SECOND_NS


class Lie(NamedTuple):
    """What a server answers; the defaults are honest."""

    leap: int = 0
    version: int = 4
    mode: int = 4
    stratum: int = 1
    root_delay: int = 0x0000_0041  # 1 ms, in units of 2**-16 s
    root_dispersion: int = 0x0000_0041
    reference: bytes = b"TEST"
    echo: int = 0  # is added to what the client sent
    ahead_ns: int = 0  # its clock less the true one
    turned: bool = False  # it says that it sent before it received
    before: tuple[bytes, ...] = ()  # packets that it sends first
    times: int = 1  # how often it sends its answer; 0: never
    cut: int | None = None  # bytes of the packet that it sends


def answer(question: bytes, lie: Lie, now_ns: int) -> bytes:
    """A server's packet."""
    nonce = int.from_bytes(question[40:48], "big")
    receive, transmit = raw(now_ns + lie.ahead_ns), raw(now_ns + lie.ahead_ns + 1000)
    if lie.turned:
        receive, transmit = transmit, receive
    return PACKET.pack(
        lie.leap << 6 | lie.version << 3 | lie.mode,
        lie.stratum,
        6,
        -20,
        lie.root_delay,
        lie.root_dispersion,
        lie.reference,
        receive,
        (nonce + lie.echo) % 2**64,
        receive,
        transmit,
    )[: lie.cut]


class Responder:
    """Answers every question with its present lie. `hook` sees each question first."""

    def __init__(self, endpoint: socket.socket, lie: Lie) -> None:
        self.port: int = endpoint.getsockname()[1]
        self.lie = lie
        self.questions: list[bytes] = []
        self.hook: Callable[[bytes], None] = lambda question: None
        self._endpoint = endpoint

    def serve(self) -> None:
        """Until the socket is shut down."""
        while True:
            try:
                question, client = self._endpoint.recvfrom(1024)
            except OSError:
                return
            if not question:
                return
            self.questions.append(question)
            self.hook(question)
            lie = self.lie
            for packet in lie.before:
                self._endpoint.sendto(packet, client)
            packet = answer(question, lie, time.time_ns())
            for _ in range(lie.times):
                self._endpoint.sendto(packet, client)


@contextlib.contextmanager
def responding(lie: Lie | None = None) -> Iterator[Responder]:
    """A time server while the block runs."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as endpoint:
        endpoint.bind(("127.0.0.1", 0))
        responder = Responder(endpoint, lie or Lie())
        thread = threading.Thread(target=responder.serve, daemon=True)
        thread.start()
        try:
            yield responder
        finally:
            # an empty datagram wakes the thread and ends it
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"", ("127.0.0.1", responder.port))
            thread.join()
