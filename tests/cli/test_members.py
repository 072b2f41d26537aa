"""`craft members`, and a server that goes in the middle of it."""

from __future__ import annotations

import pytest
import trio

from craft.cli import main
from craft.wire import encode_message
from tests.test_client import scripted

AGREED = {"version": 1, "reached_version": 0, "servers": []}


@pytest.mark.parametrize("last", [None, "NotReady: the server is stopping and takes no commands"])
async def test_a_change_that_was_taken_has_not_failed_when_the_server_goes(
    last: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """The cluster goes on with it: exit code 3, and the version to look for."""

    async def script(stream: trio.SocketStream, _: bytes) -> None:
        await stream.send_all(encode_message([1, "ok", AGREED]))
        await stream.receive_some()
        if last is not None:
            await stream.send_all(encode_message([2, "rejected", last]))
            await stream.receive_some()

    async with scripted(script) as address:
        code = await trio.to_thread.run_sync(main, ["members", address, "remove", "3"])
    assert code == 3
    told = "craft: unknown outcome: the change is agreed, as version 1, and goes on; but "
    assert capsys.readouterr().err.startswith(told)
