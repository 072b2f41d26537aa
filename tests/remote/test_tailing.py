"""Following the merged log from outside: through any server, also when one is lost."""

from __future__ import annotations

from typing import Any

import pytest
import trio

import craft
from craft.errors import RemoteError
from craft.types import Cut, Place
from craft.wire import encode_message
from tests.remote.servers import serving
from tests.test_client import scripted

HASTY = craft.RemoteLimits(
    attempt_timeout_ms=500, retry_delay_ms_min=5, retry_delay_ms_max=20, tail_wait_ms=50
)


async def take(client: craft.Client, after: int, upto: int) -> list[craft.TailEntry]:
    """What a subscriber is given."""
    found: list[craft.TailEntry] = []
    async with client.subscribe(after=after) as batches:
        async for batch in batches:
            found += batch
            if found[-1].position >= upto:
                break
    return found


async def test_a_remote_subscriber_sees_what_a_local_one_sees() -> None:
    """From any position, and while it waits; a wait without anything new is no end."""
    async with serving(3) as s, craft.connect(s.addresses[2], limits=HASTY) as client:
        for number in range(10):
            await client.propose_many([b"%d" % number, b"x"])
        server = s.servers[2]
        found = await take(client, 0, client.position)
        assert [entry.position for entry in found] == list(range(1, len(found) + 1))
        assert [command for entry in found for command in entry.commands] == server.state_machine.commands
        assert await take(client, 5, found[-1].position) == found[5:]
        async with client.subscribe() as batches, trio.open_nursery() as nursery:

            async def late() -> None:
                await trio.sleep(0.2)
                await client.propose(b"late")

            nursery.start_soon(late)
            assert [entry.commands for entry in await batches.receive()] == [(b"late",)]


async def test_a_remote_subscriber_goes_on_through_another_server() -> None:
    """Positions are equal on all servers: nothing comes twice, and nothing is left out."""
    async with serving(3) as s:
        for i in (1, 2, 3):
            s.advertise(i)
        async with craft.connect(list(s.addresses.values()), limits=HASTY) as client:
            await client.propose(b"a")
            found: list[craft.TailEntry] = []
            commands: list[bytes] = []
            async with client.subscribe(after=0) as batches:
                async for batch in batches:
                    found += batch
                    commands = [command for entry in found for command in entry.commands]
                    if commands[-1:] == [b"a"]:
                        assert client.server_id is not None
                        s.kill(client.server_id)
                        await client.propose(b"b")
                    if commands[-1:] == [b"b"]:
                        break
            assert commands == [b"a", b"b"]
            assert [entry.position for entry in found] == list(range(1, len(found) + 1))


async def test_one_that_begins_far_back_asks_again_where_it_was() -> None:
    """Many requests, and the logs are read once."""
    settings: dict[str, Any] = {
        "tail": craft.TailLimits(memory_bytes_max=2000, batch_bytes_max=500, reread_bytes=300),
        "engine": craft.EngineLimits(apply_bytes_max=500),
    }
    async with serving(1, **settings) as s, craft.connect(s.addresses[1], limits=HASTY) as client:
        for number in range(60):
            await client.propose(b"%d" % number)
        server = s.servers[1]
        assert server.tails.recent.start > 20
        found = await take(client, 0, client.position)
        assert [c for entry in found for c in entry.commands] == server.state_machine.commands
        written = server.measures.written_bytes.value
        assert 0 < server.tails.reread_bytes.value <= written


async def test_what_is_compacted_is_told_from_outside() -> None:
    """With the position that one may begin after."""
    async with serving(1) as s, craft.connect(s.addresses[1], limits=HASTY) as client:
        await client.propose(b"a")
        server = s.servers[1]
        log = server.engine.state.raft(0).log
        log.start = Cut(Place(1, 1), 1, *log.start[2:])
        server.tails.recent.jump(client.position)
        with pytest.raises(craft.Compacted, match="after position 0 is compacted here") as caught:
            await take(client, 0, 5)
        assert caught.value.retained == client.position


async def test_threads_follow_without_async() -> None:
    """Batch by batch, with a for loop."""

    def follow(address: str) -> list[bytes]:
        found: list[bytes] = []
        with craft.blocking.connect(address, timeout=5, limits=HASTY) as client:
            client.propose_many([b"a", b"b"])
            client.propose(b"c")
            for batch in client.subscribe(after=0):
                found += [command for entry in batch for command in entry.commands]
                if b"c" in found:
                    return found
        return found

    async with serving(1) as s:
        assert await trio.to_thread.run_sync(follow, s.addresses[1]) == [b"a", b"b", b"c"]


@pytest.mark.parametrize("said", [7, [1], [0, [[2, 1, 0, 1, 1, []]]], [0, [[1, 2]]]])
async def test_an_answer_that_makes_no_sense_is_the_servers_fault(said: object) -> None:
    """Among them a batch with a gap."""

    async def answer(stream: trio.SocketStream, _: bytes) -> None:
        await stream.send_all(encode_message([1, "ok", said]))
        await trio.sleep_forever()

    async with scripted(answer) as address, craft.connect(address, learn=False) as client:
        with pytest.raises(RemoteError):
            await take(client, 0, 1)
