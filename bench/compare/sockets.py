"""Load over many connections by one process, where no load generator is at hand.

Closed-loop: each connection has as many writes outstanding as it was told, and makes the next one when one is
answered. It is Python, and costs about 20 µs a write: enough for some ten thousand a second; the share of a
core that it used stands beside the figures. `python -m bench.compare.sockets`, asked by its stdin, as
`bench.member`.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque
from typing import Any, Protocol

from bench.compare.asked import serve
from bench.compare.nats_wire import NatsConnection
from bench.compare.zookeeper_wire import ZooKeeperConnection
from bench.figures import milliseconds, percentile

RECEIVE_BYTES = 64 * 1024
TIMEOUT_S = 20.0
"""An answer that takes longer never comes."""


class Wire(Protocol):
    """One connection's protocol."""

    def open(self, stream: socket.socket) -> None:
        """Say who is there, and make what is written to; on a socket that blocks."""

    def request(self) -> bytes:
        """The next write."""

    def answered(self, data: bytes) -> int:
        """How many writes this piece of the server's bytes answers. Raises ValueError for a refusal."""

    def held(self, stream: socket.socket) -> int:
        """How many writes there were, by this server's word; on a socket that blocks."""


WIRES: dict[str, type[ZooKeeperConnection | NatsConnection]] = {
    "zookeeper": ZooKeeperConnection,
    "nats": NatsConnection,
}


class Connection:
    """A socket, what is said over it, and when each outstanding write was sent."""

    def __init__(self, wire: Wire, port: int) -> None:
        self.wire = wire
        self.stream = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire.open(self.stream)
        self._sent: deque[float] = deque()

    @property
    def outstanding(self) -> int:
        """Writes that are not answered."""
        return len(self._sent)

    def send(self, count: int) -> None:
        """That many writes."""
        self.stream.sendall(b"".join(self.wire.request() for _ in range(count)))
        self._sent.extend([time.perf_counter()] * count)

    def receive(self) -> list[float]:
        """How long each write took that is answered now."""
        data = self.stream.recv(RECEIVE_BYTES)
        if not data:
            raise ValueError("the server closed a connection")
        now = time.perf_counter()
        return [now - self._sent.popleft() for _ in range(self.wire.answered(data))]


class Clients:
    """What the harness may ask."""

    def __init__(self, wire: str, ports: list[int], clients: int, pipeline: int, size: int) -> None:
        self._pipeline = pipeline
        self._connections = [
            Connection(WIRES[wire](number % len(ports), size), ports[number % len(ports)])
            for number in range(clients)
        ]
        self._of_each_server = self._connections[: len(ports)]

    def drive(self, seconds: float) -> dict[str, Any]:
        """Load for so long, then wait for what is outstanding."""
        taken: list[float] = []
        with selectors.DefaultSelector() as selector:
            for one in self._connections:
                selector.register(one.stream, selectors.EVENT_READ, one)
            began = time.perf_counter()
            for one in self._connections:
                one.send(self._pipeline)
            while (now := time.perf_counter()) < began + seconds:
                for key, _ in selector.select(began + seconds - now):
                    answers = key.data.receive()
                    taken += answers
                    if answers:
                        key.data.send(len(answers))
            elapsed, in_window = time.perf_counter() - began, sorted(taken)
            while any(one.outstanding for one in self._connections):
                ready = selector.select(TIMEOUT_S)
                if not ready:
                    raise ValueError(f"no answer for {TIMEOUT_S:.0f} s")
                for key, _ in ready:
                    taken += key.data.receive()
        return {
            "answered": len(taken),
            "per_second": len(in_window) / elapsed,
            "p50_ms": milliseconds(percentile(in_window, 0.5)),
            "p99_ms": milliseconds(percentile(in_window, 0.99)),
        }

    def held(self) -> list[int]:
        """By each server's word."""
        return [one.wire.held(one.stream) for one in self._of_each_server]


if __name__ == "__main__":
    serve(lambda told: (Clients(**told), {}))
