"""`craft transfer`, with real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio

from craft import client
from craft.cli import main
from craft.cli.demo.cluster import ServerProcess, running
from craft.wire import encode_message
from tests.cli.running import craft
from tests.test_client import scripted

LEDGER = "craft.cli.demo.machine:Ledger"

WRONG = {
    "nothing": ((), "allowed: GROUP --to SERVER, or --from SERVER, or --home"),
    "no target": (("0",), "allowed: GROUP --to SERVER"),
    "no group": (("--to", "1"), "allowed: GROUP --to SERVER"),
    "two wishes": (("0", "--to", "1", "--home"), "allowed: GROUP --to SERVER"),
    "a name": (("first", "--to", "1"), "'first' is not allowed; allowed: a whole number"),
    "for ever": (
        ("--from", "1", "--hold", "9999999"),
        "'9999999' is not allowed; allowed: 1 to 86400",
    ),
    "a hold of nothing": (("--home", "--hold", "5"), "not allowed with --home"),
}


@pytest.mark.parametrize("which", sorted(WRONG))
def test_a_wrong_command_line_says_what_is_allowed(which: str, tmp_path: Path) -> None:
    """Exit code 2, and no server is asked."""
    arguments, message = WRONG[which]
    done = craft("transfer", "127.0.0.1:1", *arguments, directory=tmp_path)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())


@pytest.mark.parametrize("reply", [None, "after 10 ms server 1 still leads groups 0"])
@pytest.mark.parametrize("wish", [("0", "--to", "2"), ("--from", "1"), ("--home",)])
async def test_a_wish_that_may_go_on_has_not_failed(
    wish: tuple[str, ...], reply: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server that was asked goes, or says that it takes long: exit code 3."""

    async def script(stream: trio.SocketStream, request: bytes) -> None:
        if b"servers" in request:
            await stream.send_all(encode_message([1, "ok", []]))
            request = await stream.receive_some()
        if reply is not None and request:
            await stream.send_all(encode_message([1, "unknown", reply]))
            await stream.receive_some()
        await stream.aclose()

    async with scripted(script) as address:
        code = await trio.to_thread.run_sync(main, ["transfer", address, *wish])
    assert code == 3
    assert capsys.readouterr().err.startswith("craft: unknown outcome: ")


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[list[ServerProcess]]:
    """Three, whose leaders are at home."""
    async with running(tmp_path, servers=3, groups=3, state_machine=LEDGER) as processes:
        await until_led(processes[0], [1, 2, 3])
        yield processes


async def until_led(process: ServerProcess, wanted: list[int]) -> None:
    """Wait until the groups are led so, by the word of one server."""
    async with client.connect(process.address) as connection:
        while True:
            if [one["leader"] for one in (await connection.status())["groups"]] == wanted:
                return
            await trio.sleep(0.05)


@pytest.mark.system
async def test_groups_go_where_they_are_put_whoever_is_asked(
    servers: list[ServerProcess], tmp_path: Path
) -> None:
    """A group, all of a server, and home again; what cannot be is one line and exit code 1."""
    run = partial(craft, "transfer", directory=tmp_path)
    asked = servers[2].address

    async def transfer(*arguments: str) -> tuple[int, str]:
        done = await trio.to_thread.run_sync(lambda: run(asked, *arguments))
        return done.returncode, done.stdout + done.stderr

    assert await transfer("0", "--to", "2") == (0, "group 0 is led by server 2\n")
    await until_led(servers[0], [2, 2, 3])
    assert await transfer("--from", "2", "--hold", "600") == (0, "server 2 leads nothing\n")
    code, said = await transfer("0", "--to", "2")
    assert code == 1 and "it stops, or is drained" in said
    code, said = await transfer("7", "--to", "2")
    assert code == 1 and "there is no group 7; allowed: 0 to 2" in said
    code, said = await transfer("--from", "9")
    assert code == 1 and "server 9 is to be drained" in said
    assert await transfer("--home") == (0, "groups return to the servers that they belong to\n")
    await until_led(servers[0], [1, 2, 3])
