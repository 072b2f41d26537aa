"""Servers that write their own configuration: they create a cluster, join it, and come back with nothing."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import craft
from examples.kv import member, settings
from tests.kv.redis import Connection
from tests.kv.test_clients import ROOT, free_ports

KINDS = ("peer", "client", "redis", "http")
PORTS = range(free_ports(4), 65_000)


def told(directory: Path, *join: str) -> member.Member:
    """Create a cluster, unless one is there."""
    peer, client, redis, http = PORTS[:4]
    return member.Member(
        directory,
        "127.0.0.1",
        peer_port=peer,
        client_port=client,
        redis_port=redis,
        http_port=http,
        create=True,
        join=join,
    )


class Members:
    """Each in a directory and with ports of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.first = free_ports(4 * len(KINDS))
        self.processes: dict[int, subprocess.Popen[str]] = {}

    def port(self, number: int, kind: str) -> int:
        return self.first + len(KINDS) * number + KINDS.index(kind)

    def start(self, number: int, *options: str) -> None:
        """Start one, and wait until it is ready."""
        command = [sys.executable, "-m", "examples.kv", "member", "--host", "127.0.0.1", *options]
        command += ["--dir", str(self.directory / str(number))]
        for kind in KINDS:
            command += [f"--{kind}-port", str(self.port(number, kind))]
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.processes[number] = process
        assert process.stdout is not None
        while "is ready" not in (line := process.stdout.readline()):
            assert line, f"member {number} ended before it was ready"

    def join(self, number: int, at: int) -> None:
        self.start(number, "--join", f"127.0.0.1:{self.port(at, 'client')}")

    def kill(self, number: int) -> None:
        process = self.processes.pop(number)
        process.kill()
        process.communicate()

    def ask(self, number: int, *args: bytes) -> bytes:
        connection = Connection(self.port(number, "redis"))
        try:
            return connection.ask(*args)
        finally:
            connection.close()

    def wait_until_settled(self) -> None:
        """Until every group has followed the last change: only then a majority of all can spare one."""
        while True:
            found = member.members(f"127.0.0.1:{self.port(0, 'client')}", "list")
            assert found is not None
            if found["reached_version"] >= found["version"]:
                return

    def id(self, number: int) -> int:
        return settings.load(self.directory / str(number) / member.STORE_FILE).craft.server_id


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Members]:
    found = Members(tmp_path)
    yield found
    for number in list(found.processes):
        found.kill(number)


@pytest.mark.system
def test_one_creates_a_cluster_and_others_join_it(servers: Members) -> None:
    """By any member's address; who is started again uses what it has; who comes back with nothing is new."""
    servers.start(0, "--create")
    assert servers.ask(0, b"SET", b"k", b"v") == b"+OK\r\n"
    servers.join(1, at=0)
    servers.join(2, at=1)
    for number in range(3):
        assert servers.ask(number, b"GET", b"k") == b"$1\r\nv\r\n"
    assert [servers.id(number) for number in range(3)] == [1, 2, 3]

    servers.wait_until_settled()
    servers.kill(1)
    servers.join(1, at=0)
    assert servers.ask(1, b"INCR", b"n") == b":1\r\n"
    assert servers.id(1) == 2

    servers.kill(1)
    shutil.rmtree(servers.directory / "1")
    servers.join(1, at=0)
    assert servers.ask(1, b"GET", b"n") == b"$1\r\n1\r\n"
    assert servers.id(1) == 4
    found = member.members(f"127.0.0.1:{servers.port(0, 'client')}", "list")
    assert found is not None
    assert sorted(server["server_id"] for server in found["servers"]) == [1, 3, 4]


@pytest.mark.system
def test_who_is_removed_ends_and_its_id_is_nobodys(servers: Members) -> None:
    """Clients of the one would be refused for ever; under its id a newcomer would be taken for it."""
    servers.start(0, "--create")
    servers.join(1, at=0)
    servers.wait_until_settled()
    member.members(f"127.0.0.1:{servers.port(0, 'client')}", "remove", "2")
    gone = servers.processes[1]
    said, _ = gone.communicate(timeout=60)
    assert "server 2 is no member of the cluster any more" in said
    assert gone.returncode == 0

    servers.join(2, at=0)
    assert servers.id(2) == 3
    assert servers.ask(2, b"INCR", b"n") == b":1\r\n"


def test_a_cluster_is_created_only_if_that_is_asked_for(tmp_path: Path) -> None:
    """Where nobody answers, a new one would hide the old."""
    with pytest.raises(craft.Unreachable, match=r"nobody answers at 127\.0\.0\.1:1; allowed: --join"):
        member.prepare(replace(told(tmp_path / "kv", "127.0.0.1:1"), create=False))
    assert not list((tmp_path / "kv").iterdir())


def test_what_is_there_is_used(tmp_path: Path) -> None:
    """Whatever is asked for now."""
    made = member.prepare(told(tmp_path))
    text = made.read_text()
    again = member.Member(tmp_path, "elsewhere", redis_port=1, create=True, join=("127.0.0.1:1",))
    assert member.prepare(again) == made
    assert made.read_text() == text


def test_beyond_loopback_one_has_to_insist(tmp_path: Path) -> None:
    """As with every server; the files of nobody are made."""
    with pytest.raises(craft.ConfigError):
        member.prepare(replace(told(tmp_path / "a"), host="kv-0.kv"))
    made = member.prepare(replace(told(tmp_path / "b"), host="kv-0.kv", insecure_listen=True))
    found = settings.load(made)
    assert found.redis_listen == ("0.0.0.0", PORTS[2])
    assert found.craft.servers == {1: f"kv-0.kv:{PORTS[0]}"}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"host": "kv-1.kv"}, "listen: .* insecure_listen = true"),
        ({"host": "a b"}, "'a b:.*' is not an address"),
        ({"join": ("kv-0",)}, r"join\[0\]: 'kv-0' is not an address"),
        ({"redis_port": PORTS[3]}, f"--http-port: cannot listen on 127.0.0.1:{PORTS[3]}: .*in use"),
    ],
    ids=["beyond loopback", "no host", "no port to join at", "one port twice"],  # ports differ by process
)
def test_what_is_wrong_is_told_before_a_cluster_is_asked(
    changes: dict[str, Any], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would wait for a member that never comes, and each attempt would leave another."""
    monkeypatch.setattr(member, "joined", pytest.fail)
    with pytest.raises(craft.ConfigError, match=complaint):
        member.prepare(replace(told(tmp_path / "kv", "127.0.0.1:1"), **changes))
    assert not list((tmp_path / "kv").iterdir())


def test_data_without_settings_are_not_taken_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are another id's, so that no server could be started on them."""
    monkeypatch.setattr(member, "joined", pytest.fail)
    (tmp_path / "data").mkdir()
    with pytest.raises(craft.ConfigError, match=f"--dir: {tmp_path} holds data, and no store.toml"):
        member.prepare(told(tmp_path, "127.0.0.1:1"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What a cluster of two is asked, which cannot agree on any change: the other one is away."""
    found: list[tuple[str, ...]] = []

    def members(address: str, *words: str) -> dict[str, Any] | None:
        found.append((address, *words))
        here = {"server_id": 1, "address": "127.0.0.1:7001"}
        return {"version": 1, "servers": [here]} if words == ("list",) else None

    monkeypatch.setattr(member, "members", members)
    return found


def test_no_cluster_is_created_beside_one_that_lets_nobody_in(
    tmp_path: Path, asked: list[tuple[str, ...]]
) -> None:
    """A majority may be away, and come back: then there would be two clusters, and clients of both."""
    with socket.create_server(("127.0.0.1", 0)) as there:
        address = f"127.0.0.1:{there.getsockname()[1]}"
        with pytest.raises(craft.Unreachable, match=f"{address} answers, but does not let us in"):
            member.prepare(told(tmp_path / "kv", "127.0.0.1:1", address))
        assert asked[-1][0] == address
        assert not list((tmp_path / "kv").iterdir())


def test_nothing_is_created_beside_something_that_speaks_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster whose clients need certificates is one, too."""
    monkeypatch.setattr(member, "members", lambda *_words: None)
    with socket.create_server(("127.0.0.1", 0)) as there:
        address = f"127.0.0.1:{there.getsockname()[1]}"
        with pytest.raises(craft.Unreachable, match=f"{address} answers, but does not let us in"):
            member.prepare(told(tmp_path, address))


def test_addresses_come_in_one_text_too() -> None:
    """An environment has no lists."""
    assert member.parse_join(["a:1, b:2", "c:3", ""]) == ("a:1", "b:2", "c:3")
