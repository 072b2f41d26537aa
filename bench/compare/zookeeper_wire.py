"""As much of ZooKeeper's protocol as a load of `setData` needs (Jute: big-endian, lengths of four bytes).

Reference: zookeeper-jute/src/main/resources/zookeeper.jute of ZooKeeper 3.8.
"""

from __future__ import annotations

import itertools
import socket
import struct

CREATE, EXISTS, SET_DATA, SYNC = 1, 3, 5, 9
SESSION_TIMEOUT_MS = 30_000
PASSWORD = bytes(16)
ALL_PERMISSIONS = 31
ANY_VERSION = -1
NODE_EXISTS = -110

LENGTH = struct.Struct(">i")
REPLY_HEAD = struct.Struct(">iqi")
"""Number of the request, transaction, error."""

VERSION_AT = struct.calcsize(">qqqq")
"""In a Stat, behind two transactions and two times: how often the data were set."""


def buffer(content: bytes) -> bytes:
    """A string or buffer."""
    return LENGTH.pack(len(content)) + content


def frame(content: bytes) -> bytes:
    """What travels at once."""
    return buffer(content)


def connect_request() -> bytes:
    """A new session."""
    return frame(struct.pack(">iqiq", 0, 0, SESSION_TIMEOUT_MS, 0) + buffer(PASSWORD) + b"\0")


def request(number: int, kind: int, body: bytes) -> bytes:
    """Any other."""
    return frame(struct.pack(">ii", number, kind) + body)


def create_body(path: bytes) -> bytes:
    """An empty one that everybody may use, and that stays."""
    everybody = struct.pack(">ii", 1, ALL_PERMISSIONS) + buffer(b"world") + buffer(b"anyone")
    return buffer(path) + buffer(b"") + everybody + struct.pack(">i", 0)


def set_data_body(path: bytes, value: bytes) -> bytes:
    """Whatever its version is."""
    return buffer(path) + buffer(value) + struct.pack(">i", ANY_VERSION)


def read_frame(stream: socket.socket) -> bytes:
    """The next one."""
    (length,) = LENGTH.unpack(_exactly(stream, LENGTH.size))
    return _exactly(stream, length)


def _exactly(stream: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        piece = stream.recv(size - len(content))
        if not piece:
            raise ValueError("ZooKeeper closed a connection")
        content += piece
    return content


class ZooKeeperConnection:
    """A session that sets one server's path."""

    PATHS = 3
    """As many as servers, so that as many keys are written as elsewhere."""

    def __init__(self, server: int, size: int) -> None:
        self._path = b"/bench-%d" % server
        self._numbers = itertools.count(1)
        self._body = set_data_body(self._path, b"x" * size)
        self._rest = b""

    def open(self, stream: socket.socket) -> None:
        """A session; and the path, which the first session makes."""
        stream.sendall(connect_request())
        read_frame(stream)
        self._ask(stream, CREATE, create_body(self._path), allowed=NODE_EXISTS)

    def request(self) -> bytes:
        """Set it."""
        return request(next(self._numbers), SET_DATA, self._body)

    def answered(self, data: bytes) -> int:
        """Whole frames of this piece and what was left of the last one."""
        data, at, count = self._rest + data, 0, 0
        while len(data) - at >= LENGTH.size:
            (length,) = LENGTH.unpack_from(data, at)
            if len(data) - at - LENGTH.size < length:
                break
            _, _, error = REPLY_HEAD.unpack_from(data, at + LENGTH.size)
            if error:
                raise ValueError(f"ZooKeeper refused a write with error {error}")
            at += LENGTH.size + length
            count += 1
        self._rest = data[at:]
        return count

    def held(self, stream: socket.socket) -> int:
        """The paths' versions, which count their writes, here, when this server has caught up."""
        paths = [b"/bench-%d" % number for number in range(self.PATHS)]
        self._ask(stream, SYNC, buffer(paths[0]))
        return sum(self._version(stream, path) for path in paths)

    def _version(self, stream: socket.socket, path: bytes) -> int:
        stat = self._ask(stream, EXISTS, buffer(path) + b"\0")
        version: int = LENGTH.unpack_from(stat, VERSION_AT)[0]
        return version

    def _ask(self, stream: socket.socket, kind: int, body: bytes, allowed: int = 0) -> bytes:
        stream.sendall(request(next(self._numbers), kind, body))
        reply = read_frame(stream)
        _, _, error = REPLY_HEAD.unpack_from(reply)
        if error not in {0, allowed}:
            raise ValueError(f"ZooKeeper refused request {kind} with error {error}")
        return reply[REPLY_HEAD.size :]
