"""The programs that people have: redis-cli, redis-benchmark, redis-py, unmodified, on real processes."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.kv.redis import Connection

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]


def free_ports(count: int) -> int:
    """The first of so many free ports in a row, with those that `up` derives from them."""
    for first in random.sample(range(21_000, 29_000, 10), 800):  # two runs on a machine do not meet
        with contextlib.ExitStack() as stack:
            try:
                for port in (
                    first + base + number for base in (0, 1000, 2000, 3000) for number in range(count)
                ):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise AssertionError("no free ports")


class Up:
    """A cluster that `python -m examples.kv up` runs."""

    def __init__(self, directory: Path, servers: int) -> None:
        self.directory = directory
        self.ports = list(range(free_ports(servers), 65_000))[:servers]
        command = [sys.executable, "-m", "examples.kv", "up", "--servers", str(servers)]
        command += ["--dir", str(directory), "--redis-port", str(self.ports[0])]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        ready = 0
        assert self.process.stdout is not None
        while ready < servers:
            line = self.process.stdout.readline()
            assert line, "the cluster ended before it was ready"
            ready += "is ready" in line

    def stop(self) -> tuple[int, str]:
        """As Ctrl-C does: the exit code, and what was printed since."""
        self.process.send_signal(signal.SIGINT)
        said, _ = self.process.communicate(timeout=60)
        return self.process.returncode, said


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Three servers; stopped by Ctrl-C, which they obey."""
    cluster = Up(tmp_path_factory.mktemp("kv") / "data", 3)
    try:
        yield cluster
        code, said = cluster.stop()
        assert code == 0
        assert said.count(" stops") == 3
    finally:
        if cluster.process.poll() is None:
            cluster.process.kill()


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def said(*command: str, given: str = "") -> str:
    """What a program prints; it must end well."""
    environment = {**os.environ, "TERM": "dumb"}
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_redis_cli_works_on_every_server(up: Up) -> None:
    """Arguments on its command line, and a session on its input."""
    cli = program("redis-cli")
    for number, port in enumerate(up.ports):
        assert said(cli, "-p", str(port), "set", f"cli{number}", "hello") == "OK\n"
    for port in up.ports:
        assert said(cli, "-p", str(port), "mget", "cli0", "cli1", "cli2") == "hello\nhello\nhello\n"
    session = "multi\nincr n\nincr n\nexec\nhset h f v\nhgetall h\n"
    assert said(cli, "-3", "-p", str(up.ports[0]), given=session).split() == [
        *("OK", "QUEUED", "QUEUED", "1", "2", "1", "f", "v"),
    ]
    assert "redis_version" in said(cli, "-p", str(up.ports[1]), "info", "server")
    found = said(cli, "-p", str(up.ports[2]), "--scan", "--pattern", "cli*").split()
    assert sorted(found) == ["cli0", "cli1", "cli2"]


def test_redis_benchmark_works(up: Up) -> None:
    """Each of its tests, alone and in pipelines; it ends at the first error."""
    benchmark = program("redis-benchmark")
    tests = ("PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET", "HSET")
    for pipeline, count in (("1", "300"), ("64", "6400")):
        options = ("-t", "ping,set,get,incr,mset,hset", "-P", pipeline, "-n", count, "-c", "10", "--csv")
        found = said(benchmark, "-p", str(up.ports[0]), *options)
        assert all(f'"{name}' in found for name in tests), found
        assert "ERR" not in found


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_works(up: Up, protocol: int) -> None:
    """Commands, pipelines, transactions, scripts of its own, and messages."""
    one, two = (
        redis.Redis(port=port, protocol=protocol, decode_responses=True)
        for port in (up.ports[0], up.ports[1])
    )
    with contextlib.closing(one), contextlib.closing(two):
        one.flushall()
        assert one.set("k", "v", ex=100, nx=True)
        assert two.get("k") == "v"
        assert 0 < two.ttl("k") <= 100
        assert two.hset("h", mapping={"a": "1", "b": "2"}) == 2
        assert one.hgetall("h") == {"a": "1", "b": "2"}
        with one.pipeline(transaction=False) as pipeline:
            for number in range(100):
                pipeline.incrby("n", number)
            assert pipeline.execute()[-1] == 4950
        with one.pipeline() as pipeline:
            pipeline.watch("n")  # type: ignore[no-untyped-call]
            found = int(str(pipeline.get("n")))
            pipeline.multi()
            pipeline.set("n", found + 1)
            two.incr("n")
            with pytest.raises(redis.WatchError):
                pipeline.execute()
        assert one.get("n") == "4951"
        assert sorted(two.scan_iter(count=2)) == ["h", "k", "n"]
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            one.incr("h")
        with two.pubsub(ignore_subscribe_messages=True) as listener:  # type: ignore[no-untyped-call]
            listener.subscribe("c")
            assert listener.get_message(timeout=10) is None
            assert one.publish("c", "hello") == 0
            message = None
            while message is None:
                message = listener.get_message(timeout=10)
            assert message["data"] == "hello"


def test_a_server_ends_when_it_is_told_to(tmp_path: Path) -> None:
    """By SHUTDOWN: what it has answered is there when it is started again, alone, on its directory."""
    cluster = Up(tmp_path / "kv", 1)
    connection = Connection(cluster.ports[0])
    assert connection.ask(b"SET", b"k", b"v") == b"+OK\r\n"
    connection.socket.sendall(b"SHUTDOWN\r\n")
    assert connection.file.readline() == b""
    connection.close()
    assert cluster.process.wait(60) == 0
    assert cluster.process.stdout is not None
    cluster.process.stdout.close()
    again = Up(tmp_path / "kv", 1)
    connection = Connection(cluster.ports[0])  # the directory keeps them
    assert connection.ask(b"GET", b"k") == b"$1\r\nv\r\n"
    connection.close()
    assert again.stop()[0] == 0
