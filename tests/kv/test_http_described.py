"""The description is true: of every path and method, by hand, by schemathesis, and whatever bytes come."""

from __future__ import annotations

import importlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.routing import Route
from starlette.types import ASGIApp

from examples.kv import serving
from examples.kv.http import openapi
from examples.kv.http.app import application, routes
from examples.kv.http.limits import HttpLimits
from examples.kv.http.problems import KINDS
from examples.kv.settings import Address, Settings
from tests.kv.http import client_of, houses, one_client
from tests.kv.test_http_door import alone

DESCRIPTION: dict[str, Any] = json.loads(json.dumps(openapi.description()))
METHODS = ("get", "put", "post", "delete")


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """Time jumps when nothing runs; the threshold leaves worker threads their few microseconds."""
    return trio.testing.MockClock(autojump_threshold=0.01)


def operations() -> dict[str, dict[str, Any]]:
    """By method and path."""
    return {
        f"{method.upper()} {path}": item[method]
        for path, item in DESCRIPTION["paths"].items()
        for method in METHODS
        if method in item
    }


async def test_every_path_and_method_is_described(clock: trio.testing.MockClock) -> None:
    """And those that are not described are not there."""
    async with houses(1) as [house], client_of(house) as client:
        paths = {route.path for route in routes(house).routes if isinstance(route, Route)}
        assert paths == {*DESCRIPTION["paths"]}
        for path, item in DESCRIPTION["paths"].items():
            allowed = (await client.request("PATCH", path)).headers["allow"].split(", ")
            assert {method.lower() for method in allowed} - {"head"} == {*item} & {*METHODS}


def test_every_kind_of_problem_is_described_somewhere() -> None:
    """Under its status."""
    told = json.dumps(DESCRIPTION["paths"])
    for kind, (_, title) in KINDS.items():
        if kind not in ("no-such-page", "method-not-allowed"):
            assert f"{title} ({kind})" in told
    known = {200, 201, 204, 304, *(kind.status for kind in KINDS.values())}
    for name, operation in operations().items():
        statuses = {int(status) for status in operation["responses"]}
        assert {400, 401} < statuses <= known, name
    assert len({operation["operationId"] for operation in operations().values()}) == len(operations())


async def test_the_description_is_served(clock: trio.testing.MockClock) -> None:
    """As it is."""
    async with one_client() as client:
        assert (await client.get("/openapi.json")).json() == DESCRIPTION


# -- whatever comes --------------------------------------------------------------------------------

SEGMENT = st.sampled_from([b"keys", b"changes", b"transactions", b"health", b"%", b"%zz", b"..", b""])
PATH = st.lists(st.one_of(SEGMENT, st.binary(max_size=6)), max_size=3).map(
    lambda parts: b"/" + b"/".join(parts)
)
NAME = st.sampled_from([b"prefix", b"after", b"limit", b"values", b"consistency", b"ttl_ms", b"x"])
QUERY = st.lists(st.tuples(NAME, st.binary(max_size=6)), max_size=3).map(
    lambda pairs: b"&".join(name + b"=" + value for name, value in pairs)
)
HEADER = st.sampled_from(
    [
        b"if-match",
        b"if-none-match",
        b"craft-position",
        b"content-type",
        b"content-length",
        b"content-encoding",
        b"authorization",
        b"host",
        b"last-event-id",
    ]
)
VALUE = st.one_of(st.sampled_from([b"*", b'"1"', b"application/json", b"7"]), st.binary(max_size=9))
HEADERS = st.lists(st.tuples(HEADER, VALUE), max_size=4)
PART = st.sampled_from([b'{"commands":[["GET","k"]]}', b"[" * 2000, b"null"])
BODY = st.lists(st.one_of(st.binary(max_size=40), PART), max_size=3)
METHOD = st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "BREW"])


class Answer(NamedTuple):
    """What came; of an endless answer its beginning."""

    status: int
    media_type: bytes
    body: bytes


async def ask(
    app: ASGIApp,
    method: str,
    path: bytes,
    query: bytes = b"",
    *,
    headers: Any = (),
    body: Sequence[bytes] = (),
) -> Answer:
    """One request, sent as it is; its client leaves when it has sent it."""
    parts = [{"type": "http.request", "body": part, "more_body": True} for part in body]
    parts.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[Any] = []

    async def receive() -> Any:
        return parts.pop(0) if parts else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path.decode("latin-1"),
        "raw_path": path,
        "query_string": query,
        "headers": headers,
        "client": None,
    }
    await app(scope, receive, send)
    content = b"".join([message.get("body", b"") for message in sent[1:]])
    return Answer(sent[0]["status"], dict(sent[0]["headers"]).get(b"content-type", b""), content)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(METHOD, PATH, QUERY, HEADERS, BODY), min_size=1, max_size=20))
def test_whatever_comes_is_answered_with_sense(requests: list[Any]) -> None:
    """No bytes in a path, query, header or body bring a server out of step; what fails is a problem."""

    async def run() -> None:
        async with houses(1) as [house]:
            app = application(house)
            for method, path, query, headers, body in requests:
                answer = await ask(app, method, path, query, headers=headers, body=body)
                assert answer.status < 500
                if answer.status >= 400:
                    assert answer.media_type == b"application/problem+json"
                    told = json.loads(answer.body)
                    assert told["status"] == answer.status
                    assert ("fate" in told) == (method not in ("GET", "HEAD"))
            assert (await ask(app, "GET", b"/health")).status == 200

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0.01))


# -- schemathesis ----------------------------------------------------------------------------------

FOREVER = "GET /changes"
"""Its answer has no end; its own tests read it."""


@asynccontextmanager
async def port_of_a_server() -> AsyncIterator[int]:
    """A whole server with its port."""
    limits = HttpLimits(body_timeout_s=5, answer_timeout_s=1)
    found = Settings(craft=alone(), http_listen=Address("127.0.0.1", 0), http_limits=limits)
    async with serving.running(found) as store:
        await store.store.server.wait_ready()
        yield store.http.port


@pytest.mark.parametrize("name", [name for name in operations() if name != FOREVER])
async def test_the_server_does_what_the_description_says(name: str) -> None:
    """Statuses, types and shapes of all answers; what the description forbids is refused."""
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    method, path = name.split()
    # Not all that has the right shape can be carried out, and a session may ask for the far future.
    waived = (
        importlib.import_module("schemathesis.checks").not_a_server_error,
        importlib.import_module("schemathesis.specs.openapi.checks").positive_data_acceptance,
    )
    schema = schemathesis.openapi.from_dict(DESCRIPTION)

    def check(port: int) -> None:
        operation = schema[path][method]

        @settings(max_examples=40, database=None, suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy())
        def meet(case: Any) -> None:
            response = case.call(base_url=f"http://127.0.0.1:{port}", timeout=30)
            case.validate_response(response, excluded_checks=waived)
            assert response.status_code < 500 or response.status_code == 504

        meet()

    async with port_of_a_server() as port:
        await trio.to_thread.run_sync(check, port)
