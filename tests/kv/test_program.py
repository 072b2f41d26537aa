"""The program itself: signals at any moment, and what it ends with."""

from __future__ import annotations

import getpass
import signal
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
import trio.testing

import craft
from examples.kv import __main__ as program
from examples.kv import cluster, member, settings
from tests.transport.clusters import free_addresses


def alone_and_nobody_to_join() -> settings.Settings:
    """Its start takes as long as nobody answers."""
    [nobody, own] = free_addresses(2)
    config = craft.Config(
        cluster="kv",
        server_id=4,
        join=[f"{nobody[0]}:{nobody[1]}"],
        listen=f"{own[0]}:{own[1]}",
        client_listen="127.0.0.1:0",
    )
    return settings.Settings(craft=config)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_server_that_starts_is_stopped_by_the_first_signal(
    number: signal.Signals, autojump_clock: trio.testing.MockClock
) -> None:
    """There is nothing to hand over, and a start may take for ever."""
    codes = []

    async def serve() -> None:
        codes.append(await program.serve(alone_and_nobody_to_join()))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await trio.testing.wait_all_tasks_blocked()
            signal.raise_signal(number)
    assert codes == [0]
    del autojump_clock


async def test_servers_that_are_stopped_before_they_listen_have_not_failed(tmp_path: Path) -> None:
    """A process that has just begun knows no other way to end."""
    [file] = cluster.prepare(tmp_path / "kv", servers=1, redis_port=6379)
    stop, codes = trio.Event(), list[int]()
    stop.set()
    await cluster.keep(file, stop, codes)
    assert codes == [0]


def test_ctrl_c_is_no_failure_of_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may come before any signal is listened for, while a server asks to be let in."""

    def interrupted(_member: member.Member) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(member, "prepare", interrupted)
    assert program.main(["member", "--dir", str(tmp_path), "--create"]) == 128 + signal.SIGINT
    assert capsys.readouterr().err == ""


def test_nobody_is_asked_for_a_servers_health_but_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A container may be told of a proxy, which knows no 127.0.0.1 of ours."""
    [(host, nobody), (_, proxy)] = free_addresses(2)
    monkeypatch.setenv("http_proxy", f"http://{host}:{proxy}")
    monkeypatch.delenv("no_proxy", raising=False)
    with socket.create_server((host, proxy)) as listener:
        listener.settimeout(0)
        assert program.main(["health", f"http://{host}:{nobody}/health"]) == 1
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert "refused" in capsys.readouterr().err


def test_ctrl_d_is_no_password(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It is how a prompt is left."""

    def left(_prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(getpass, "getpass", left)
    assert program.main(["password"]) == 2
    assert capsys.readouterr().err == "kv: error: no password was given; allowed: one, and Enter\n"
