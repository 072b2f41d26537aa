"""As much of NATS's protocol as a load of acknowledged publications to a stream needs.

Reference: docs.nats.io/reference/reference-protocols, "NATS protocol" and "NATS JetStream".
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any

STREAM = "BENCH"
SUBJECTS = "bench.*"
REPLICAS = 3
CONNECT = b'CONNECT {"verbose":false,"pedantic":false,"headers":false,"lang":"python"}\r\nPING\r\n'
LINE_END = b"\r\n"
RECEIVE_BYTES = 64 * 1024


def publish(subject: str, reply_to: str, content: bytes) -> bytes:
    """A message that asks for an answer."""
    return b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), reply_to.encode(), len(content), content)


class Reader:
    """From pieces of the server's bytes to the contents of messages."""

    def __init__(self) -> None:
        self._rest = b""

    def messages(self, data: bytes) -> list[bytes]:
        """Of this piece and what was left of the last one. Raises ValueError for an error of the server's."""
        self._rest += data
        found = []
        while LINE_END in self._rest:
            line, _, behind = self._rest.partition(LINE_END)
            if line.startswith(b"-ERR"):
                raise ValueError(f"NATS says {line.decode()}")
            if line.startswith(b"MSG "):
                size = int(line.rsplit(b" ", 1)[1])
                if len(behind) < size + len(LINE_END):
                    break
                found.append(behind[:size])
                behind = behind[size + len(LINE_END) :]
            self._rest = behind  # INFO, PONG, PING: the server minds no client that answers anything
        return found


def acknowledged(content: bytes) -> int:
    """The place in the stream that an answer tells. Raises ValueError for a refusal."""
    told = json.loads(content)
    if "error" in told or "seq" not in told:
        raise ValueError(f"NATS refused a write: {told}")
    place: int = told["seq"]
    return place


class NatsConnection:
    """A connection that publishes to one server's subject, and has each message's answer."""

    def __init__(self, server: int, size: int) -> None:
        self._inbox = f"_INBOX.{os.urandom(8).hex()}"
        self._publication = publish(f"bench.{server}", self._inbox, b"x" * size)
        self._reader = Reader()

    def open(self, stream: socket.socket) -> None:
        """Say who is there, and where answers go."""
        stream.sendall(CONNECT + f"SUB {self._inbox} 1\r\n".encode())

    def request(self) -> bytes:
        """The same message again."""
        return self._publication

    def answered(self, data: bytes) -> int:
        """Each answer tells a place in the stream."""
        return len([acknowledged(one) for one in self._reader.messages(data)])

    def held(self, stream: socket.socket) -> int:
        """The stream's last place, if all its replicas have it; else how many the last one has."""
        state = self.ask(stream, "INFO", {})
        lag = max((one.get("lag", 0) for one in state["cluster"]["replicas"]), default=0)
        last: int = state["state"]["last_seq"]
        return last - lag

    def ask(self, stream: socket.socket, what: str, body: dict[str, Any]) -> Any:
        """Of the stream, by JetStream's own subjects."""
        stream.sendall(publish(f"$JS.API.STREAM.{what}.{STREAM}", self._inbox, json.dumps(body).encode()))
        while True:
            data = stream.recv(RECEIVE_BYTES)
            if not data:
                raise ValueError("NATS closed a connection")
            for content in self._reader.messages(data):
                return json.loads(content)
