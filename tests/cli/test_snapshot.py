"""`craft snapshot`, and what `craft status` says of snapshots."""

from __future__ import annotations

from typing import Any

import pytest
import trio

import craft
from craft.cli import main
from craft.cli.demo.machine import Ledger
from craft.cli.snapshot import age, lines, size
from craft.errors import RemoteError
from tests.server.listening import Register, one_server

NOTHING: dict[str, Any] = {
    "supported": True,
    "kept": [],
    "log_bytes": [0, 0],
    "last_error": "",
    "unfounded": False,
    "taking": False,
    "restoring": False,
    "receiving": None,
    "sending": [],
}


async def _snapshot(address: str) -> int:
    return await trio.to_thread.run_sync(lambda: main(["snapshot", address]))


async def test_it_prints_the_position_of_a_snapshot_that_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    """And the status shows it, with its age and size."""
    async with one_server(Ledger()) as (server, address):
        await server.propose(b"one")
        assert await _snapshot(address) == 0
        assert capsys.readouterr().out == f"snapshot at position {server.position}\n"
        status = server.status()
        shown = " ".join(lines(status["snapshots"], status["clock_ns"]))
        assert f"position {server.position}," in shown and "0 s old" in shown


async def test_a_state_machine_without_the_hooks_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1 and one line; so is an argument that makes no sense."""
    async with one_server(Register()) as (_, address):
        assert await _snapshot(address) == 1
        assert "Register has no methods snapshot and restore" in capsys.readouterr().err
        async with craft.client.connect(address) as client:
            with pytest.raises(RemoteError, match="take_snapshot takes -1"):
                await client.get("take_snapshot", -1)


def test_a_timeout_is_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    """Anything else is refused before anybody is asked."""
    with pytest.raises(SystemExit):
        main(["snapshot", "127.0.0.1:1", "--timeout", "0"])
    assert "--timeout" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "none yet; logs 0 B"),
        ({"supported": False}, "none: the state machine has no snapshot and restore"),
        ({"unfounded": True}, "waits for a peer's"),
        ({"last_error": "no chunk today"}, "no chunk today"),
        (
            {"receiving": {"from": 2, "position": 9, "bytes": 2048, "here_bytes": 1024}},
            "receives position 9 from server 2: 1.0 KiB of 2.0 KiB",
        ),
        ({"sending": [{"to": 3, "position": 9}]}, "sends position 9 to server 3"),
        ({"taking": True}, "one is being taken"),
        ({"restoring": True}, "being restored"),
    ],
)
def test_the_status_says_what_goes_on(changes: dict[str, Any], said: str) -> None:
    """One line each, of what there is to say."""
    assert said in " ".join(" ".join(lines(NOTHING | changes, 0)).split())


def test_sizes_and_ages_are_for_people() -> None:
    """In the unit in which they are small."""
    assert [size(n) for n in (5, 2048, 3 * 2**20, 5 * 2**30)] == ["5 B", "2.0 KiB", "3.0 MiB", "5.0 GiB"]
    assert [age(s * 10**9) for s in (-5, 7, 600, 9000)] == ["0 s", "7 s", "10 min", "2 h"]
