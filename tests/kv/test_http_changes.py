"""The change stream: from any position, in order, without a gap; what ends it says from where to go on."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

import craft
from examples.kv.http.house import House
from examples.kv.http.limits import HttpLimits
from tests.kv.http import Stream, client_of, houses, problem

Clock = trio.testing.MockClock

KIB = 1024

SMALL = craft.EngineLimits(
    apply_bytes_max=500,
    snapshot_log_bytes=64 * KIB,
    log_trailing_bytes=1,
    log_held_bytes_max=1,
)
"""A snapshot every few writes, and logs that are compacted behind it."""


@pytest.fixture
def clock() -> Clock:
    """Time jumps when nothing runs; the threshold leaves worker threads their few microseconds."""
    return Clock(autojump_threshold=0.01)


def value_in(event: tuple[int | None, str, Any]) -> Any:
    """What was written by the only command of a change."""
    return event[2]["changes"][0]["commands"][0]["command"][-1]


async def test_changes_come_in_order_and_go_on_where_a_client_was(clock: Clock) -> None:
    """With the id that it saw last: nothing twice, nothing left out."""
    async with houses(1) as [house], client_of(house) as client:
        for value in (b"1", b"2", b"3"):
            await client.put("/keys/k", content=value)
        async with Stream(house, "/changes", "after=0") as stream:
            assert stream.status == 200
            assert await stream.text() == "retry: 1000\nid: 0\n\n"
            first = await stream.event()
            second = await stream.event()
        assert [event[2]["changes"][0]["commands"][0]["command"][-1] for event in (first, second)] == [
            "1",
            "2",
        ]
        position = second[0]
        assert position == second[2]["position"]
        headers = {"last-event-id": str(position)}
        async with Stream(house, "/changes", "after=0", headers) as again:
            third = await again.event()
            assert value_in(third) == "3"
            await client.put("/keys/k", content=b"4")
            fourth = await again.event()
            assert value_in(fourth) == "4"
        assert position is not None and third[0] == position + 1
        assert house.followers == 0


async def test_without_a_position_changes_begin_now(clock: Clock) -> None:
    """And a prefix chooses among them."""
    async with houses(1) as [house], client_of(house) as client:
        await client.put("/keys/a1", content=b"before")
        async with Stream(house, "/changes", "prefix=a") as stream:
            assert await stream.text() == f"retry: 1000\nid: {house.store.position}\n\n"
            await client.put("/keys/b", content=b"no")
            await client.put("/keys/a2", content=b"yes")
            _, name, data = await stream.event()
            assert name == "change"
            assert data["changes"][0]["commands"] == [{"keys": ["a2"], "command": ["SET", "a2", "yes"]}]


async def test_a_quiet_stream_shows_that_it_lives_and_how_far_it_is(clock: Clock) -> None:
    """What was left out need not be looked at again by who comes back."""
    async with (
        houses(1) as [house],
        client_of(house) as client,
        Stream(house, "/changes", "prefix=a") as stream,
    ):
        await stream.text()
        await client.put("/keys/b", content=b"v")
        position = house.store.position
        assert await stream.text() == f": {position}\nid: {position}\n\n"


async def test_a_sign_of_life_does_not_take_a_client_back(clock: Clock) -> None:
    """One that comes due while an event is being sent says what that event is, not what was before it."""
    async with (
        houses(1) as [house],
        client_of(house) as client,
        Stream(house, "/changes") as stream,
    ):
        await stream.text()
        await client.put("/keys/k", content=b"v")
        await trio.sleep(house.limits.heartbeat_interval_s + 1)
        position, _, _ = await stream.event()
        assert await stream.text() == f": {position}\nid: {position}\n\n"


async def test_the_same_changes_come_from_every_server(clock: Clock) -> None:
    """Positions are those of the merged log: a client may go on anywhere."""
    async with houses(3) as [one, two, _], client_of(one) as client:
        for value in (b"1", b"2"):
            await client.put("/keys/k", content=value)
        told = []
        for house in (one, two):
            await house.see(lambda machine, now: None)
            async with Stream(house, "/changes", "after=0") as stream:
                told.append([await stream.event(), await stream.event()])
        assert told[0] == told[1]


async def test_what_is_not_kept_any_more_is_said_with_where_one_may_begin(clock: Clock) -> None:
    """410, with the first position that one may follow after."""
    tail = craft.TailLimits(memory_bytes_max=8000, batch_bytes_max=4000, reread_bytes=500)
    async with houses(1, engine=SMALL, tail=tail) as [house], client_of(house) as client:
        while await status_of(house, "after=0") != 410:
            for _ in range(8):
                await client.put("/keys/k", content=bytes(20_000))
            await trio.sleep(0.1)
        gone = problem(await client.get("/changes?after=0"), "compacted")
        async with Stream(house, "/changes", f"after={gone['retained']}") as stream:
            assert (await stream.event())[0] == gone["retained"] + 1


async def status_of(house: House, query: str) -> int:
    """What a stream begins with."""
    async with Stream(house, "/changes", query) as stream:
        return stream.status


async def test_a_follower_that_does_not_keep_up_is_told_where_it_was(clock: Clock) -> None:
    """Nobody waits for it; from there it goes on without a gap."""
    tail = craft.TailLimits(memory_bytes_max=8000, batch_bytes_max=4000, reread_bytes=500)
    async with (
        houses(1, tail=tail, engine=craft.EngineLimits(apply_bytes_max=500)) as [house],
        client_of(house) as client,
    ):
        async with Stream(house, "/changes") as stream:
            await stream.text()
            await trio.testing.wait_all_tasks_blocked()  # it has caught up
            for at in range(100):
                await client.put(f"/keys/{at}", content=bytes(400))
            seen = []
            while True:
                position, name, data = await stream.event()
                if name != "change":
                    break
                seen.append(position)
            assert name == "too-slow"
            assert data["after"] == seen[-1]
        async with Stream(house, "/changes", f"after={data['after']}") as again:
            assert (await again.event())[0] == data["after"] + 1


async def test_a_position_that_is_none_is_refused(clock: Clock) -> None:
    """Wherever it stands; and so is a body."""
    async with houses(1, limits=HttpLimits()) as [house], client_of(house) as client:
        for wrong in ("after=-1", "after=x", "since=1"):
            problem(await client.get(f"/changes?{wrong}"), "bad-request")
        problem(await client.get("/changes", headers={"last-event-id": "x"}), "bad-request")
        problem(await client.request("GET", "/changes", content=b"x"), "too-large")
        assert (await client.head("/changes")).headers["content-type"].startswith("text/event-stream")
