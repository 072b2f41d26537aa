"""A real Redis server on a free loopback port, and connections that show its replies byte for byte."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

SECONDS_TO_START = 20


class Connection:
    """A client's connection without a client library."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.file = self.socket.makefile("rb")

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def ask(self, *args: bytes) -> bytes:
        """One command's reply."""
        return self.ask_all([args])[0]

    def ask_all(self, commands: Sequence[Sequence[bytes]]) -> list[bytes]:
        """The replies of a pipeline."""
        self.socket.sendall(b"".join(map(packed, commands)))
        return [self.reply() for _ in commands]

    def reply(self) -> bytes:
        """One whole reply."""
        line = self.file.readline()
        assert line, "the server closed the connection"
        kind, rest = line[:1], line[1:-2]
        if kind == b"$" and rest != b"-1":
            return line + self.file.read(int(rest) + 2)
        if kind in b"*%>" and rest != b"-1":
            return line + b"".join(self.reply() for _ in range(int(rest) * (2 if kind == b"%" else 1)))
        return line


def packed(args: Sequence[bytes]) -> bytes:
    """A command as clients send it."""
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args)


@contextmanager
def running(program: str, directory: Path) -> Iterator[int]:
    """A server with one database and no files, as long as the context lasts; its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--databases", "1")
    with (directory / "redis.log").open("wb") as log:
        process = subprocess.Popen((program, *options), cwd=directory, stdout=log, stderr=log)
    try:
        wait_for(port, process)
        yield port
    finally:
        process.terminate()
        process.wait()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return when the server answers."""
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError):
            connection = Connection(port)
            connection.close()
            return
        time.sleep(0.02)
    raise AssertionError("redis-server did not start")
