"""Who may do what over HTTP: passwords, rights over prefixes, and what a flood of wrong passwords costs."""

from __future__ import annotations

import threading
from base64 import b64encode

import httpx
import pytest
import trio
import trio.testing

from examples.kv import passwords
from examples.kv.http.guard import Guard
from examples.kv.http.problems import Problem
from examples.kv.users import User, Users, hashed
from tests.kv.http import Stream, client_of, houses, one_client, problem

PASSWORD = "schlüssel"
SCRYPT = hashed(PASSWORD)

USERS = (
    User("root", SCRYPT, writes=(b"",), admin=True),
    User("app", SCRYPT, writes=(b"app:",)),
    User("reader", SCRYPT, reads=(b"app:",)),
    User("nobody", SCRYPT),
)


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """Time jumps when nothing runs; checking a password takes a thread 50 ms."""
    return trio.testing.MockClock(autojump_threshold=1)


def basic(name: str, password: str = PASSWORD) -> dict[str, str]:
    return {"authorization": "Basic " + b64encode(f"{name}:{password}".encode()).decode()}


async def test_without_a_password_nothing_is_told(clock: trio.testing.MockClock) -> None:
    """But whether the server is well. A browser is told what to ask for."""
    async with one_client(users=USERS) as client:
        assert (await client.get("/health")).status_code == 200
        for path in ("/keys", "/keys/k", "/status", "/metrics", "/changes", "/openapi.json", "/nothing"):
            response = await client.get(path)
            problem(response, "who-are-you")
            assert response.headers["www-authenticate"].startswith("Basic realm=")
        assert problem(await client.put("/keys/k", content=b"v"), "who-are-you")["fate"] == "rejected"
        for header in ("", "Basic", "Basic !", "Basic YQ==", "Bearer x", "Basic /zp4"):
            problem(await client.get("/keys", headers={"authorization": header}), "who-are-you")
        for name, password in (("root", "wrong"), ("nobody-else", PASSWORD), ("", ""), ("root", "")):
            problem(await client.get("/keys", headers=basic(name, password)), "who-are-you")
        assert (await client.get("/keys", headers=basic("root"))).status_code == 200


async def test_rights_are_over_prefixes(clock: trio.testing.MockClock) -> None:
    """For keys, pages and transactions alike; what is refused had no effect."""
    async with houses(1, users=USERS) as [house], client_of(house) as client:
        root, app, reader, nobody = (basic(user.name) for user in USERS)
        assert (await client.put("/keys/other", content=b"v", headers=root)).status_code == 201
        assert (await client.put("/keys/app:1", content=b"v", headers=app)).status_code == 201
        assert (await client.get("/keys/app:1", headers=reader)).content == b"v"
        assert (await client.get("/keys?prefix=app:", headers=reader)).status_code == 200

        async def refused(response: httpx.Response) -> None:
            content = problem(response, "not-allowed")
            assert content.get("fate") == (None if response.request.method == "GET" else "rejected")

        await refused(await client.put("/keys/app:1", content=b"w", headers=reader))
        await refused(await client.delete("/keys/app:1", headers=reader))
        await refused(await client.put("/keys/other", content=b"w", headers=app))
        for headers in (app, reader, nobody):
            await refused(await client.get("/keys/other", headers=headers))
            for prefix in ("", "ap", "other"):
                await refused(await client.get(f"/keys?prefix={prefix}", headers=headers))
        await refused(await client.get("/changes", headers=nobody))
        for commands in ([["SET", "app:2", "v"], ["SET", "other", "w"]], [["FLUSHALL"]], [["KEYS", "*"]]):
            body = {"commands": commands}
            await refused(await client.post("/transactions", json=body, headers=app))
        watching = {"commands": [["GET", "app:1"]], "watch": [{"key": "other", "version": 1}]}
        await refused(await client.post("/transactions", json=watching, headers=app))
        assert (await client.get("/keys/other", headers=root)).content == b"v"
        problem(await client.get("/keys/app:2", headers=app), "no-such-key")


async def test_a_follower_sees_only_what_it_may(clock: trio.testing.MockClock) -> None:
    """Keys of others are not even named."""
    async with houses(1, users=USERS) as [house], client_of(house, headers=basic("root")) as client:
        commands = [["SET", "other", "x"], ["MSET", "other", "x", "app:1", "x"], ["SET", "app:1", "y"]]
        await client.post("/transactions", json={"commands": commands})
        async with Stream(house, "/changes", "after=0", basic("reader")) as stream:
            [change] = (await stream.event())[2]["changes"]
        assert change["commands"] == [
            {"keys": ["app:1"]},
            {"keys": ["app:1"], "command": ["SET", "app:1", "y"]},
        ]


async def test_a_password_is_checked_once_for_many_requests(clock: trio.testing.MockClock) -> None:
    """Also where they come at once; after a while it is checked again."""
    checked = Guard(Users(USERS), waiting_max=32, clock=trio.current_time)
    header = basic("app")["authorization"]
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(checked.identify, header, "1.2.3.4")
    assert checked.checks == 1
    assert (await checked.identify(header, "1.2.3.4")).name == "app"
    await trio.sleep(passwords.REMEMBERED_S + 1)
    await checked.identify(header, "1.2.3.4")
    assert checked.checks == 2


async def test_who_was_recognized_is_forgotten_when_there_are_too_many(
    clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest first; and no password is kept."""
    monkeypatch.setattr(passwords, "REMEMBERED_MAX", 1)
    checked = Guard(Users(USERS), waiting_max=32, clock=trio.current_time)
    for name in ("app", "reader", "reader", "app"):
        await checked.identify(basic(name)["authorization"], "1.2.3.4")
    assert checked.checks == 3
    assert PASSWORD.encode() not in repr(vars(checked._passwords)).encode()


class SlowUsers(Users):
    """Passwords that are checked when a test says so."""

    def __init__(self) -> None:
        super().__init__(USERS)
        self.go = threading.Event()

    def verify(self, name: str, password: bytes) -> User | None:
        """Waits."""
        self.go.wait()
        return USERS[0] if password == b"right" else None


async def test_a_flood_of_wrong_passwords_leaves_room_for_others(clock: trio.testing.MockClock) -> None:
    """One address may have half of what may wait; who is remembered does not wait at all."""
    users = SlowUsers()
    checked = Guard(users, waiting_max=4, clock=trio.current_time)
    kinds: list[str] = []

    async def ask(name: str, address: str, password: str = "wrong") -> None:
        try:
            await checked.identify(basic(name, password)["authorization"], address)
        except Problem as refused:
            kinds.append(refused.kind)
        else:
            kinds.append("welcome")

    users.go.set()
    await ask("known", "6.6.6.6", "right")
    users.go.clear()
    async with trio.open_nursery() as nursery:
        for at in range(10):
            nursery.start_soon(ask, f"flood{at}", "6.6.6.6")
        await trio.testing.wait_all_tasks_blocked()
        assert kinds == ["welcome"] + ["too-many-passwords"] * 8
        await ask("known", "6.6.6.6", "right")
        assert kinds[-1] == "welcome"
        nursery.start_soon(ask, "other", "1.2.3.4", "right")
        await trio.testing.wait_all_tasks_blocked()
        users.go.set()
    assert kinds[-3:].count("who-are-you") == 2
    assert kinds[-3:].count("welcome") == 1
