"""/keys and /keys/{key}: values with their versions as entity tags, conditional writes, pages.

Knows: what a method does to a key. Must not know: sockets.

Invariants:
- A condition is decided in the merged log, at the position at which the write takes effect or not.
- A tag names what a key held at the end of a batch. Two writes of one batch have one position, so a write is
  told its tag only where its value is still what the key holds.
"""

from __future__ import annotations

import json
from typing import NamedTuple
from urllib.parse import quote_from_bytes, urlencode

from starlette.responses import Response

from examples.kv.commands import Args
from examples.kv.http import asking, listing
from examples.kv.http.asking import FRESHNESS, Condition, etag, number, tags, truth
from examples.kv.http.house import House
from examples.kv.http.problems import Problem
from examples.kv.http.resource import Asked
from examples.kv.keyspace import View
from examples.kv.machine import KeyValue
from examples.kv.replies import NO_ARRAY, Reply, is_error
from examples.kv.values import Hash, Value

PAGE_KEYS = 100
"""Unless a client says otherwise."""

TTL_MS_MAX = 10**15

KEPT = {"cache-control": "no-cache"}
"""A browser may keep it, and asks each time whether it is still true."""


class Held(NamedTuple):
    """What a key holds."""

    value: Value
    version: int
    deadline: int | None


def held(view: View, key: bytes) -> Held | None:
    """None: nothing."""
    value = view.value(key)
    return None if value is None else Held(value, view.version(key), view.deadline(key))


async def get(asked: Asked) -> Response:
    """GET /keys/{key}."""
    key = asking.key(asked.scope["raw_path"])
    asked.check(b"GET", key)
    fresh = asked.freshness(asked.parameters(*FRESHNESS))
    match = tags("If-Match", asked.listed("if-match"))
    none_match = tags("If-None-Match", asked.listed("if-none-match"))
    found = await asked.see(lambda machine, now: held(machine.view(now), key), fresh)
    if found is None:
        raise Problem("no-such-key", "it is absent, or has expired")
    if isinstance(found.value, Hash):
        raise Problem("wrong-type", "the key holds a hash: read it by POST /transactions with HGETALL")
    if match is not None and not match.matches(found.version, weakly=False):
        raise Problem("condition-failed", f"its version is {found.version}", version=found.version)
    headers = KEPT | {"etag": etag(found.version)}
    if found.deadline is not None:
        headers["craft-expires-at-ms"] = str(found.deadline)
    if none_match is not None and none_match.matches(found.version, weakly=True):
        return Response(status_code=304, headers=headers)
    return Response(found.value, headers=headers, media_type="application/octet-stream")


async def put(asked: Asked) -> Response:
    """PUT /keys/{key}."""
    house, key = asked.house, asking.key(asked.scope["raw_path"])
    asked.check(b"SET", key, b"")
    parameters = asked.parameters("ttl_ms")
    wanted = condition_of(asked)
    value = await asked.read(house.store.command_bytes_max)
    args = [b"SET", key, value]
    if "ttl_ms" in parameters:
        ttl = number("ttl_ms", parameters["ttl_ms"], least=1, most=TTL_MS_MAX)
        args += [b"PX", b"%d" % ttl]
    args += [b"XX"] * wanted.present + [b"NX"] * wanted.absent
    there, done = await write(house, [[b"EXISTS", key], args], key, wanted)
    if is_error(done):
        assert isinstance(done, dict)
        raise Problem("refused", done["error"].decode(errors="replace"))
    if done is None:
        raise failed(house, key)
    headers = {}
    now = applied(house, key)
    if now is not None and now.value == value:
        headers["etag"] = etag(now.version)
    if there:
        return Response(status_code=204, headers=headers)
    return Response(status_code=201, headers=headers | {"location": path_of(key)})


async def delete(asked: Asked) -> Response:
    """DELETE /keys/{key}."""
    house, key = asked.house, asking.key(asked.scope["raw_path"])
    asked.check(b"DEL", key)
    asked.parameters()
    wanted = condition_of(asked)
    if wanted.absent:
        raise Problem("bad-request", "If-None-Match: a key that is not there cannot be deleted")
    [removed] = await write(house, [[b"DEL", key]], key, wanted)
    if not removed and wanted.present:
        raise failed(house, key)
    if not removed:
        raise Problem("no-such-key", "it is absent, or has expired")
    return Response(status_code=204)


def condition_of(asked: Asked) -> Condition:
    """Of a write. Raises Problem where it can never hold."""
    wanted = asking.condition(asked.listed("if-match"), asked.listed("if-none-match"))
    if wanted is None:
        raise Problem("condition-failed", "If-Match: this is no tag of this server")
    return wanted


async def write(house: House, commands: list[Args], key: bytes, wanted: Condition) -> list[Reply]:
    """The replies of a transaction whose condition held."""
    watched = [] if wanted.version is None else [(key, wanted.version)]
    replies = await house.write(commands, watched)
    if replies == NO_ARRAY:
        raise failed(house, key)
    assert isinstance(replies, (list, tuple))
    return list(replies)


def failed(house: House, key: bytes) -> Problem:
    """The key was not as it should have been; how it is now may help who wants to try again."""
    now = applied(house, key)
    if now is None:
        return Problem("condition-failed", "the key is not there")
    return Problem("condition-failed", f"its version is {now.version}", version=now.version)


def applied(house: House, key: bytes) -> Held | None:
    """What a key holds here. Cannot fail, as a read may: behind a write that would deny the write."""
    machine: KeyValue = house.store.machine
    return held(machine.view(machine.now), key)


def path_of(key: bytes) -> str:
    """Where a key is."""
    return f"/keys/{quote_from_bytes(key, safe='')}"


# -- pages -----------------------------------------------------------------------------------------


async def scan(asked: Asked) -> Response:
    """GET /keys: one page, from one read."""
    limits = asked.house.limits
    parameters = asked.parameters("prefix", "after", "limit", "values", *FRESHNESS)
    prefix = parameters.get("prefix", b"")
    if not prefix.startswith(asked.user.readable):
        raise Problem("not-allowed", "this user may not read all keys with this prefix")
    limit = number("limit", parameters.get("limit", b"%d" % PAGE_KEYS), least=1)
    wanted = listing.Wanted(
        prefix,
        parameters.get("after"),
        min(limit, limits.page_keys_max),
        truth("values", parameters.get("values", b"false")),
        limits.page_bytes_max,
    )
    fresh = asked.freshness(parameters)
    page = await asked.see(lambda machine, now: listing.page(machine.view(now), wanted), fresh)
    content: dict[str, object] = {"keys": page.keys}
    headers = {}
    if page.following is not None:
        content["next"] = f"/keys?{urlencode({**parameters, 'after': page.following})}"
        headers["link"] = f'<{content["next"]}>; rel="next"'
    return Response(json.dumps(content), headers=headers, media_type="application/json")
