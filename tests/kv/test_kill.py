"""SIGKILL under load: clients that connect again lose no answered write, and see one copy of the data."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from craft.testing import UNKNOWN_RESULT
from craft.testing.history import History, Operation, Outcome
from craft.testing.linearizability import Verdict, check
from examples.kv import cluster
from tests.kv.test_clients import ROOT, free_ports

pytestmark = pytest.mark.system

SERVERS = (1, 2, 3)
CLIENTS = 6
KEYS = ("a", "b", "c")
KILLS = 3
PAUSE_S = 0.01
"""Between the calls of a client: the checker's work grows with what is concurrent."""


NEVER_AGAIN = Retry(NoBackoff(), 0)
"""By default redis-py sends a command again when its connection breaks, and it may take effect twice."""


class Register:
    """A key as GET, SET and GETSET see it."""

    def key(self, request: bytes) -> bytes:
        return request.split(b" ")[1]

    def initial(self, _key: Any) -> bytes:
        return b""

    def step(self, state: bytes, request: bytes, result: Any) -> bytes | None:
        name, _, *value = request.split(b" ")
        seen = None if name == b"SET" else state
        if result is not UNKNOWN_RESULT and seen is not None and (result or b"") != seen:
            return None
        return value[0] if value else state

    def describe(self, request: bytes) -> str:
        return request.decode()


class Servers:
    """Three processes; each can be killed, and started again on its directory."""

    def __init__(self, directory: Path) -> None:
        first = free_ports(len(SERVERS))
        self.files = cluster.prepare(directory, servers=len(SERVERS), redis_port=first)
        self.ports = {number: first + number - 1 for number in SERVERS}
        self.processes = {number: self._start(number) for number in SERVERS}
        for number in SERVERS:
            self._wait_ready(number)

    def _start(self, number: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "examples.kv", "serve", "-c", str(self.files[number - 1])]
        return subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def _wait_ready(self, number: int) -> None:
        out = self.processes[number].stdout
        assert out is not None
        while "is ready" not in (line := out.readline()):
            assert line, f"server {number} ended before it was ready"

    def kill(self, number: int) -> None:
        process = self.processes[number]
        process.send_signal(signal.SIGKILL)
        process.communicate()

    def start_again(self, number: int) -> None:
        self.processes[number] = self._start(number)
        self._wait_ready(number)

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.communicate()


class Caller(threading.Thread):
    """A client that writes and reads, and connects to another server when its own is gone."""

    def __init__(self, number: int, ports: dict[int, int], history: History, lock: threading.Lock) -> None:
        super().__init__(daemon=True)
        self._number = number
        self._ports = ports
        self._history = history
        self._lock = lock
        self._rng = random.Random(number)
        self._server = SERVERS[number % len(SERVERS)]
        self._connection: redis.Redis | None = None
        self.over = threading.Event()
        self.failures = 0

    def run(self) -> None:
        calls = 0
        while not self.over.wait(PAUSE_S):
            calls += 1
            self._call(f"{self._number}.{calls}")
        if self._connection is not None:
            self._connection.close()

    def _call(self, value: str) -> None:
        key, name = self._rng.choice(KEYS), self._rng.choice(("SET", "GET", "GETSET"))
        words = [name, key] if name == "GET" else [name, key, value]
        operation = self._begin("read" if name == "GET" else "write", words)
        try:
            if self._connection is None:
                self._connection = redis.Redis(
                    port=self._ports[self._server], socket_timeout=20, retry=NEVER_AGAIN
                )
            result = self._connection.execute_command(*words)  # type: ignore[no-untyped-call]
        except (redis.ResponseError, redis.ConnectionError, redis.TimeoutError) as error:
            rejected = "REJECTED" in str(error)
            with self._lock:
                (self._history.reject if rejected else self._history.unknown)(
                    operation, at=time.monotonic_ns()
                )
            if not isinstance(error, redis.ResponseError):
                self._go_elsewhere()
        else:
            with self._lock:
                self._history.ok(operation, [result], None, at=time.monotonic_ns())

    def _go_elsewhere(self) -> None:
        self.failures += 1
        if self._connection is not None:
            self._connection.close()
        self._connection, self._server = None, self._rng.choice(SERVERS)

    def _begin(self, kind: Any, words: list[str]) -> Operation:
        with self._lock:
            request = " ".join(words).encode()
            return self._history.invoke(self._number, self._server, kind, [request], at=time.monotonic_ns())


def test_what_was_answered_outlives_every_kill(tmp_path: Path) -> None:
    """Each server is killed under load, and comes back; then all three are read."""
    servers = Servers(tmp_path / "kv")
    history, lock = History(), threading.Lock()
    callers = [Caller(number, servers.ports, history, lock) for number in range(CLIENTS)]
    try:
        for caller in callers:
            caller.start()
        for number in SERVERS[:KILLS]:
            answered = wait_for_answers(history, lock, more=60)
            servers.kill(number)
            assert wait_for_answers(history, lock, more=60) > answered
            servers.start_again(number)
        wait_for_answers(history, lock, more=60)
        for caller in callers:
            caller.over.set()
        for caller in callers:
            caller.join()
        for number in SERVERS:
            read_all(history, number, servers.ports[number])
    finally:
        for caller in callers:
            caller.over.set()
        servers.stop()
    assert sum(caller.failures for caller in callers) >= KILLS
    result = check(history, Register())
    assert result.verdict is Verdict.LINEARIZABLE, str(result)


def wait_for_answers(history: History, lock: threading.Lock, *, more: int) -> int:
    """Until so many more writes have been answered; returns how many that are."""

    def answered() -> int:
        with lock:
            return sum(operation.outcome is Outcome.OK for operation in history)

    goal = answered() + more
    while (found := answered()) < goal:
        time.sleep(0.02)
    return found


def read_all(history: History, server: int, port: int) -> None:
    """Every key, from this server."""
    with redis.Redis(port=port) as connection:
        for key in KEYS:
            request = f"GET {key}".encode()
            operation = history.invoke(CLIENTS, server, "read", [request], at=time.monotonic_ns())
            history.ok(operation, [connection.get(key)], None, at=time.monotonic_ns())
