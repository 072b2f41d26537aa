"""Keys over HTTP: versions as tags, conditional writes, pages, transactions, how fresh a read is."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

import pytest
import trio
import trio.testing

import craft
from examples.kv.http.limits import HttpLimits
from examples.kv.machine import KeyValue
from tests.kv.http import client_of, house, houses, one_client, problem

Clock = trio.testing.MockClock


@pytest.fixture
def clock() -> Clock:
    """Time jumps when nothing runs; the threshold leaves worker threads their few microseconds."""
    return Clock(autojump_threshold=0.01)


async def test_a_key_has_a_tag_that_changes_with_it(clock: Clock) -> None:
    """The tag is the position of its last change."""
    async with one_client() as client:
        created = await client.put("/keys/k", content=b"v\0")
        assert created.status_code == 201
        assert created.headers["location"] == "/keys/k"
        found = await client.get("/keys/k")
        assert (found.status_code, found.content) == (200, b"v\0")
        assert found.headers["content-type"] == "application/octet-stream"
        assert found.headers["etag"] == created.headers["etag"]
        assert int(found.headers["craft-position"]) >= int(found.headers["etag"].strip('"'))
        replaced = await client.put("/keys/k", content=b"w")
        assert (replaced.status_code, replaced.content) == (204, b"")
        assert replaced.headers["etag"] != created.headers["etag"]
        gone = await client.delete("/keys/k")
        assert gone.status_code == 204
        assert problem(await client.get("/keys/k"), "no-such-key").get("fate") is None
        assert problem(await client.delete("/keys/k"), "no-such-key")["fate"] == "rejected"


@pytest.mark.parametrize("key", [b"", b"a/b", b"a b?#%", b"\0\n\r\xff", "schlüssel".encode(), b"key", b"a\n"])
async def test_a_key_is_any_bytes(clock: Clock, key: bytes) -> None:
    """In the path, and on a page."""
    async with one_client() as client:
        path = f"/keys/{quote(key, safe='')}"
        assert (await client.put(path, content=b"v")).status_code == 201
        assert (await client.get(path)).content == b"v"
        assert len((await client.get("/keys")).json()["keys"]) == 1
        assert (await client.delete(path)).status_code == 204


async def test_what_has_not_changed_is_not_sent_again(clock: Clock) -> None:
    """304 with the tag; a changed one is sent."""
    async with one_client() as client:
        tag = (await client.put("/keys/k", content=b"v")).headers["etag"]
        same = await client.get("/keys/k", headers={"if-none-match": f'"0", W/{tag}'})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
        assert (await client.get("/keys/k", headers={"if-none-match": '"0"'})).status_code == 200
        assert (await client.get("/keys/k", headers={"if-match": tag})).status_code == 200
        problem(await client.get("/keys/k", headers={"if-match": '"0"'}), "condition-failed")


async def test_a_write_with_a_condition_changes_nothing_where_it_fails(clock: Clock) -> None:
    """And says so: its fate, and the version that the key has."""
    async with one_client() as client:
        first = (await client.put("/keys/k", content=b"1", headers={"if-none-match": "*"})).headers["etag"]
        again = await client.put("/keys/k", content=b"2", headers={"if-none-match": "*"})
        failed = problem(again, "condition-failed")
        assert (failed["fate"], failed["version"]) == ("rejected", int(first.strip('"')))
        second = await client.put("/keys/k", content=b"2", headers={"if-match": first})
        assert second.status_code == 204
        for condition in (first, '"abc"', 'W/"1"'):
            for method in ("PUT", "DELETE"):
                failing = await client.request(method, "/keys/k", headers={"if-match": condition})
                assert problem(failing, "condition-failed")["fate"] == "rejected"
        assert (await client.get("/keys/k")).content == b"2"
        assert (await client.put("/keys/k", content=b"3", headers={"if-match": "*"})).status_code == 204
        removed = await client.delete("/keys/k", headers={"if-match": "*"})
        assert removed.status_code == 204
        for method in ("PUT", "DELETE"):
            for condition in ("*", second.headers["etag"]):
                absent = await client.request(method, "/keys/k", headers={"if-match": condition})
                problem(absent, "condition-failed")
        assert (await client.get("/keys")).json() == {"keys": []}


async def test_of_writes_that_race_on_two_servers_one_wins_each_round(clock: Clock) -> None:
    """Compare and set through whichever server: every increment counts, none is lost."""
    async with houses(3) as [one, two, _], client_of(one) as first, client_of(two) as second:
        assert (await first.put("/keys/n", content=b"0")).status_code == 201
        outcomes: list[int] = []

        async def count(client: Any, times: int) -> None:
            while times:
                found = await client.get("/keys/n")
                more = b"%d" % (int(found.content) + 1)
                done = await client.put("/keys/n", content=more, headers={"if-match": found.headers["etag"]})
                assert done.status_code in (204, 412), done.text
                outcomes.append(done.status_code)
                times -= done.status_code == 204

        async with trio.open_nursery() as nursery:
            for client in (first, second) * 2:
                nursery.start_soon(count, client, 5)
        assert (await first.get("/keys/n")).content == b"20"
        assert outcomes.count(204) == 20


async def test_a_tag_is_told_only_where_the_value_is_still_there(clock: Clock) -> None:
    """Two writes that share a position must not share a tag: the first could then undo the second."""
    async with houses(1) as [one], client_of(one) as client:
        told: dict[bytes, str | None] = {}

        async def put(value: bytes) -> None:
            told[value] = (await client.put("/keys/k", content=value)).headers.get("etag")

        async with trio.open_nursery() as nursery:
            for at in range(8):
                nursery.start_soon(put, b"%d" % at)
        found = await client.get("/keys/k")
        tags = [tag for tag in told.values() if tag is not None]
        assert len(set(tags)) == len(tags)
        assert told[found.content] == found.headers["etag"]


async def test_a_write_that_took_effect_is_never_told_as_rejected(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever becomes of reads behind it: a server may have too many of them, or end."""

    async def refuse(*_: object) -> None:
        raise craft.Overloaded("too many reads wait")

    async with one_client() as client:
        monkeypatch.setattr(craft.Server, "read", refuse)
        monkeypatch.setattr(craft.Server, "read_stale", refuse)
        done = await client.put("/keys/k", content=b"v")
        assert done.status_code == 201, done.text
        assert done.headers["etag"] == f'"{done.headers["craft-position"]}"'
        problem(await client.get("/keys/k"), "overloaded")


async def test_a_key_may_expire(clock: Clock) -> None:
    """When, is told with it; a write without a time to live keeps it for ever."""
    async with one_client() as client:
        await client.put("/keys/k?ttl_ms=100000", content=b"v")
        assert int((await client.get("/keys/k")).headers["craft-expires-at-ms"]) > 0
        [item] = (await client.get("/keys")).json()["keys"]
        assert item["expires_at_ms"] > 0
        await client.put("/keys/k", content=b"v")
        assert "craft-expires-at-ms" not in (await client.get("/keys/k")).headers
        for wrong in ("0", "-1", "x", "", str(10**16)):
            problem(await client.put(f"/keys/k?ttl_ms={wrong}", content=b"w"), "bad-request")


async def test_a_hash_is_no_value(clock: Clock) -> None:
    """It is read by a transaction, removed like anything, and replaced by a value."""
    async with one_client() as client:
        await client.post("/transactions", json={"commands": [["HSET", "h", "f", "v"]]})
        problem(await client.get("/keys/h"), "wrong-type")
        assert (await client.get("/keys?values=true")).json()["keys"][0]["type"] == "hash"
        assert (await client.put("/keys/h", content=b"v")).status_code == 204


async def test_pages_follow_each_other(clock: Clock) -> None:
    """By their links, with all parameters."""
    async with one_client(limits=HttpLimits(page_keys_max=3)) as client:
        values = {f"a{at}": f"v{at}" for at in range(7)} | {"b": "w"}
        commands = [["SET", key, value] for key, value in values.items()]
        await client.post("/transactions", json={"commands": commands})
        found, sizes, path = {}, [], "/keys?prefix=a&limit=100&values=true"
        while path:
            page = await client.get(path)
            found.update({item["key"]: item["value"] for item in page.json()["keys"]})
            sizes.append(len(page.json()["keys"]))
            path = page.json().get("next", "")
            assert page.headers.get("link", "") == (f'<{path}>; rel="next"' if path else "")
        assert sizes == [3, 3, 1]
        assert found == {key: value for key, value in values.items() if key != "b"}
        for wrong in ("limit=0", "values=maybe", "limit=1&limit=2", "foo=1", "consistency=x"):
            problem(await client.get(f"/keys?{wrong}"), "bad-request")


async def test_a_transaction_runs_at_one_position_or_not_at_all(clock: Clock) -> None:
    """Its replies are those of its commands; a watched key that changed stops all of it."""
    async with one_client() as client:
        commands = [["SET", "k", {"base64": "/w=="}], ["INCR", "n"], ["GET", "k"], ["INCR", "k"]]
        done = (await client.post("/transactions", json={"commands": commands})).json()
        assert done["replies"][:3] == ["OK", 1, {"base64": "/w=="}]
        assert "not an integer" in done["replies"][3]["error"]
        [item] = (await client.get("/keys?prefix=n")).json()["keys"]
        watch = [{"key": "n", "version": item["version"]}]
        body = {"commands": [["INCR", "n"]], "watch": watch}
        assert (await client.post("/transactions", json=body)).json()["replies"] == [2]
        failed = await client.post("/transactions", json=body)
        assert problem(failed, "condition-failed")["fate"] == "rejected"
        assert (await client.get("/keys/n")).content == b"2"


async def test_a_transaction_that_cannot_run_as_it_stands_does_not_begin(clock: Clock) -> None:
    """An unknown command, a wrong number of arguments: the first command has not run either."""
    async with one_client() as client:
        for wrong in (["NONSENSE"], ["GET"], ["OBJECT"], ["MULTI"]):
            body = {"commands": [["SET", "k", "v"], wrong]}
            assert problem(await client.post("/transactions", json=body), "refused")["fate"] == "rejected"
        problem(await client.post("/transactions", content=b"{"), "unsupported-media-type")
        json_type = {"content-type": "application/json"}
        problem(await client.post("/transactions", content=b"{", headers=json_type), "bad-request")
        problem(await client.get("/keys/k"), "no-such-key")


async def test_tags_may_come_on_several_lines() -> None:
    """They are one list, as if they came on one line."""
    async with one_client() as client:
        tag = (await client.put("/keys/k", content=b"v")).headers["etag"]
        match = [("If-Match", '"777"'), ("If-Match", tag)]
        none_match = [("If-None-Match", '"777"'), ("If-None-Match", tag)]
        assert (await client.get("/keys/k", headers=match)).status_code == 200
        assert (await client.get("/keys/k", headers=none_match)).status_code == 304
        problem(await client.put("/keys/k", content=b"w", headers=match[::-1]), "bad-request")
        assert (await client.get("/keys/k")).text == "v"


async def test_what_a_transaction_answers_is_bounded() -> None:
    """A short request cannot ask for more than memory holds; what was written stays written, and says so."""
    async with one_client(limits=HttpLimits(replies_bytes_max=100_000)) as client:
        await client.put("/keys/k", content=b"x" * 30_000)
        few: dict[str, Any] = {"commands": [["GET", "k"]] * 3}
        many: dict[str, Any] = {"commands": [["GET", "k"]] * 4}
        assert (await client.post("/transactions", json=few)).json()["replies"] == ["x" * 30_000] * 3
        found = problem(await client.post("/transactions", json=many), "too-large")
        assert found["fate"] == "rejected"
        many["commands"].append(["SET", "other", "written"])
        assert problem(await client.post("/transactions", json=many), "answer-lost")["fate"] == "applied"
        assert (await client.get("/keys/other")).text == "written"


async def test_a_transaction_that_only_reads_leaves_the_log_alone(clock: Clock) -> None:
    """It is a read, as fresh as it asks to be."""
    async with houses(1) as [one], client_of(one) as client:
        await client.put("/keys/k", content=b"v")
        before = one.store.position
        for consistency in ("linearizable", "stale"):
            path = f"/transactions?consistency={consistency}"
            found = await client.post(path, json={"commands": [["GET", "k"], ["STRLEN", "k"]]})
            assert found.json()["replies"] == ["v", 1]
        assert one.store.position == before


async def test_a_session_sees_its_own_writes_on_any_server(clock: Clock) -> None:
    """By the position of an earlier answer; one that is not reached is waited for, not for ever."""
    limits = HttpLimits(answer_timeout_s=2)
    async with houses(3, limits=limits) as [one, _, two], client_of(one) as writer, client_of(two) as reader:
        for value in (b"1", b"2", b"3"):
            wrote = await writer.put("/keys/k", content=value)
            seen = {"craft-position": wrote.headers["craft-position"]}
            found = await reader.get("/keys/k?consistency=session", headers=seen)
            assert found.content == value
        assert (await reader.get("/keys/k?consistency=stale")).status_code == 200
        far = {"craft-position": str(2**62)}
        problem(await reader.get("/keys/k?consistency=session", headers=far), "no-answer")
        problem(await reader.get("/keys/k?consistency=session"), "bad-request")


@pytest.mark.parametrize("consistency", ["linearizable", "stale"])
async def test_a_read_has_the_position_of_what_it_saw(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, consistency: str
) -> None:
    """The log may go on before it is told: who follows behind that position must miss nothing."""
    async with houses(1) as [one], client_of(one) as client:
        await client.put("/keys/a", content=b"v")
        look = one.store.see

        async def look_and_linger(*args: Any) -> Any:
            found = await look(*args)
            await one.store.write([[b"INCR", b"later"]])
            return found

        monkeypatch.setattr(type(one.store), "see", lambda _, *args: look_and_linger(*args))
        read_only = {"commands": [["GET", "later"]]}
        for turn in range(3):
            before = one.store.position
            if turn == 2:
                found = await client.post(f"/transactions?consistency={consistency}", json=read_only)
                assert found.json() == {"replies": ["2"], "position": before}
            else:
                path = ("/keys", "/keys/a")[turn]
                found = await client.get(f"{path}?consistency={consistency}")
            assert int(found.headers["craft-position"]) == before < one.store.position


async def test_without_a_majority_a_write_is_unknown_and_a_stale_read_is_answered(clock: Clock) -> None:
    """Nothing waits for ever, and what is not known is not claimed."""
    network = craft.MemoryNetwork()
    addresses = {number: f"127.0.0.1:{7400 + number}" for number in (1, 2)}

    def opening(number: int) -> Any:
        config = craft.Config(cluster="kv", server_id=number, servers=addresses)
        transport = network.transport(number)
        return craft.open_server(config, KeyValue(), clock=craft.SystemClock(), transport=transport)

    limits = HttpLimits(answer_timeout_s=2)
    async with opening(1) as server, client_of(house(server, (), limits)) as client:
        async with opening(2) as other:
            await other.wait_ready()
            assert (await client.put("/keys/k", content=b"v")).status_code == 201
        lost = problem(await client.put("/keys/k", content=b"w"), "no-answer")
        assert lost["fate"] == "unknown"
        assert "fate" not in problem(await client.get("/keys/k"), "no-answer")
        assert (await client.get("/keys/k?consistency=stale")).content == b"v"


async def test_a_body_is_bounded(clock: Clock) -> None:
    """By what it says of itself, and by what comes; the store is not asked."""
    async with houses(1, limits=HttpLimits(json_bytes_max=100)) as [one], client_of(one) as client:
        most = one.store.command_bytes_max
        writes = one.store.writes

        async def pieces() -> Any:
            for _ in range(most // 65536 + 2):
                yield bytes(65536)

        assert (
            problem(await client.put("/keys/k", content=bytes(most + 1)), "too-large")["fate"] == "rejected"
        )
        assert problem(await client.put("/keys/k", content=pieces()), "too-large")["fate"] == "rejected"
        problem(await client.post("/transactions", json={"commands": [["GET", "k" * 100]]}), "too-large")
        assert one.store.writes == writes
        # Within the bound, and yet more than an entry takes with its key.
        full = await client.put(f"/keys/{'k' * 200}", content=bytes(most))
        assert problem(full, "too-large")["fate"] == "rejected"
        packed = {"content-encoding": "gzip"}
        problem(await client.put("/keys/k", content=b"v", headers=packed), "unsupported-media-type")


async def test_a_body_that_does_not_come_is_not_waited_for(clock: Clock) -> None:
    """Its sender is told, and the next request is answered."""
    async with one_client(limits=HttpLimits(body_timeout_s=5)) as client:

        async def never() -> Any:
            yield b"v"
            await trio.sleep(1000)

        assert problem(await client.put("/keys/k", content=never()), "body-too-slow")["fate"] == "rejected"
        assert (await client.put("/keys/k", content=b"v")).status_code == 201


async def test_a_server_that_is_asked_too_much_says_so(clock: Clock) -> None:
    """One request more than allowed is told to come again, and had no effect."""
    async with houses(1, limits=HttpLimits(requests_max=1)) as [one], client_of(one) as client:
        one.requests += 1
        refused = await client.put("/keys/k", content=b"v")
        assert problem(refused, "overloaded")["fate"] == "rejected"
        assert refused.headers["retry-after"] == "1"
        one.requests -= 1
        assert (await client.put("/keys/k", content=b"v")).status_code == 201


async def test_what_is_not_here_is_said_so(clock: Clock) -> None:
    """Paths and methods; the methods that there are, are named."""
    async with one_client() as client:
        for path in ("/nowhere", "/keyss", "/keys%2Fk", "/health/", "/changes/1"):
            problem(await client.get(path), "no-such-page")
        wrong = await client.post("/keys/k")
        assert problem(wrong, "method-not-allowed")["fate"] == "rejected"
        assert wrong.headers["allow"] == "DELETE, GET, HEAD, PUT"
        assert (await client.request("BREW", "/health")).status_code == 405
        assert (await client.head("/keys")).status_code == 200


async def test_a_server_tells_how_it_is(clock: Clock) -> None:
    """Health, status and metrics; this port's own figures among them."""
    async with one_client() as client:
        assert (await client.get("/health")).json() == {"ready": True}
        assert json.loads((await client.get("/status")).text)["ready"] is True
        metrics = await client.get("/metrics")
        assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = metrics.text.splitlines()
        assert 'kv_http_answers_total{method="GET",status="200"} 2' in lines
        assert any(line.startswith("craft_sync_seconds_bucket{le=") for line in lines)


async def test_a_browser_gets_one_page_that_needs_nothing_else(clock: Clock) -> None:
    """No other server is asked for anything, and only its own script is run."""
    async with one_client() as client:
        page = await client.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'sha256-")
        assert "unsafe" not in policy
        assert not re.search(r"https?://|src=|href=|url\(|@import| style=| on[a-z]+=", page.text)


async def test_a_server_that_is_not_ready_is_not_healthy(clock: Clock) -> None:
    """So that nobody is sent to it."""
    config = craft.Config(cluster="kv", server_id=1, servers={1: "127.0.0.1:7401", 2: "127.0.0.1:7402"})
    opening = craft.open_server(
        config, KeyValue(), clock=craft.SystemClock(), transport=craft.MemoryNetwork().transport(1)
    )
    async with opening as server, client_of(house(server, (), HttpLimits())) as client:
        response = await client.get("/health")
        problem(response, "not-ready")
        assert response.status_code == 503


async def test_a_server_is_called_by_its_names_only(clock: Clock) -> None:
    """Where it needs no password, a page in this machine's browser must not reach it by another name."""
    async with houses(1) as [one], client_of(one) as client:
        one.hosts = frozenset({"127.0.0.1", "[::1]"})
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/health", headers={"host": "[::1]:80"})).status_code == 200
        for name in ("evil.example:1", "", "127.0.0.1.evil.example", "[::2]"):
            problem(await client.get("/health", headers={"host": name}), "wrong-host")
