"""What travels as JSON, as events, as metrics: all bytes survive, and nobody sees what is not theirs."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import craft
from craft.types import EntryKind
from examples.kv.http import exposition, feed, listing, problems, texts
from examples.kv.http.feed import Filter
from examples.kv.http.problems import KINDS, Problem
from examples.kv.machine import pack_command, pack_transaction
from examples.kv.replies import NO_ARRAY
from tests.kv.store import Store

ALL = Filter((b"",))

# -- JSON ------------------------------------------------------------------------------------------


@given(st.binary(max_size=40))
def test_bytes_survive_json(data: bytes) -> None:
    """Text as it stands, the rest in base64."""
    assert texts.given(json.loads(json.dumps(texts.shown(data))), "here") == data


def test_every_reply_has_its_json() -> None:
    """Those of which JSON knows nothing too."""
    found = texts.reply([None, b"a", b"\xff", "OK", 7, True, 1.5, float("inf"), {"error": b"ERR no"}])
    assert found == [None, "a", {"base64": "/w=="}, "OK", 7, True, 1.5, "inf", {"error": "ERR no"}]
    assert texts.reply({b"f": b"v"}) == {"map": [["f", "v"]]}
    assert texts.reply(NO_ARRAY) is None


def test_a_transaction_is_read() -> None:
    """Commands, and what they watch."""
    body = {
        "commands": [["SET", {"base64": "/w=="}, "v"]],
        "watch": [{"key": "k", "version": 7}],
    }
    assert texts.transaction(body, commands_max=1) == ([[b"SET", b"\xff", b"v"]], [(b"k", 7)])


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ([], "the body: this is not allowed"),
        ({}, "the body"),
        ({"commands": [["GET", "k"]], "more": 1}, "the body"),
        ({"commands": []}, "commands: this is not allowed; allowed: a list of 1 to 2"),
        ({"commands": [["GET", "k"]] * 3}, "commands"),
        ({"commands": [[]]}, "commands[0]"),
        ({"commands": ["GET"]}, "commands[0]"),
        (
            {"commands": [["GET", 1]]},
            'commands[0][1]: this is not allowed; allowed: a text, or {"base64": …}',
        ),
        ({"commands": [["GET", {"base64": "!"}]]}, "commands[0][1]"),
        ({"commands": [["GET", {"base64": "AA==", "more": 1}]]}, "commands[0][1]"),
        ({"commands": [["GET", "\ud800"]]}, "commands[0][1]"),
        ({"commands": [["GET", "k"]], "watch": {}}, "watch"),
        ({"commands": [["GET", "k"]], "watch": [{"key": "k"}]}, "watch[0]"),
        ({"commands": [["GET", "k"]], "watch": [{"key": "k", "version": True}]}, "watch[0].version"),
        ({"commands": [["GET", "k"]], "watch": [{"key": "k", "version": 2**63}]}, "watch[0].version"),
        ({"commands": [["GET", "k"]], "watch": [{"key": None, "version": 1}]}, "watch[0].key"),
    ],
)
def test_what_is_wrong_in_a_transaction_is_named(body: Any, complaint: str) -> None:
    """With where it stands."""
    with pytest.raises(Problem) as caught:
        texts.transaction(body, commands_max=2)
    assert caught.value.detail.startswith(complaint)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b"1" * 5_000])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    """However deep or long."""
    with pytest.raises(Problem, match="no JSON"):
        texts.parsed(body)


# -- problems --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "status", "fate"),
    [
        (craft.CommandTooLarge("x"), 413, "rejected"),
        (craft.Overloaded("x"), 503, "rejected"),
        (craft.NotReady("x"), 503, "rejected"),
        (craft.Unknown("x"), 504, "unknown"),
        (craft.ResultLost("x"), 500, "applied"),
    ],
)
def test_a_write_without_an_answer_tells_its_fate(outcome: craft.CraftError, status: int, fate: str) -> None:
    """Rejected, unknown or applied: what a client has to know before it tries again."""
    problem = problems.of_write(outcome)
    assert (problem.status, problem.fate) == (status, fate)
    content = json.loads(problem.body())
    assert content["fate"] == fate
    assert content["status"] == status
    assert (problem.headers == problems.AGAIN) == (status == 503)


def test_a_read_without_an_answer_has_no_fate() -> None:
    """There is nothing that could have become of it."""
    assert "fate" not in json.loads(problems.of_read(craft.NotReady("x")).body())
    assert problems.of_read(craft.Overloaded("x")).status == 503


def test_every_kind_says_what_it_is() -> None:
    """In words, with a status of an error."""
    assert all(400 <= kind.status < 600 and kind.title for kind in KINDS.values())


# -- metrics ---------------------------------------------------------------------------------------

SAMPLE = re.compile(r'[a-z_]+(\{[a-z]+="([^"\\\n]|\\["\\n])*"(,[a-z]+="([^"\\\n]|\\["\\n])*")*\})? \S+')


def test_metrics_are_as_prometheus_reads_them() -> None:
    """One family after another; histograms are cumulative and end with the count."""
    base = {"unit": "things", "help": "a\nb \\ c", "labels": {}}
    text = exposition.text(
        [
            {**base, "name": "one", "type": "counter", "value": 7},
            {**base, "name": "two", "type": "gauge", "labels": {"peer": 'a"\\\n'}, "value": 0.5},
            {**base, "name": "three", "type": "histogram", "count": 3, "sum": 1.5, "buckets": [[0.1, 1]]},
            {**base, "name": "one", "type": "counter", "labels": {"peer": "2"}, "value": float("inf")},
        ]
    )
    assert text.splitlines() == [
        "# HELP one a\\nb \\\\ c (things)",
        "# TYPE one counter",
        "one 7",
        'one{peer="2"} +Inf',
        "# HELP two a\\nb \\\\ c (things)",
        "# TYPE two gauge",
        'two{peer="a\\"\\\\\\n"} 0.5',
        "# HELP three a\\nb \\\\ c (things)",
        "# TYPE three histogram",
        'three_bucket{le="0.1"} 1',
        'three_bucket{le="+Inf"} 3',
        "three_sum 1.5",
        "three_count 3",
    ]
    assert all(SAMPLE.fullmatch(line) for line in text.splitlines() if not line.startswith("#"))


# -- events ----------------------------------------------------------------------------------------


def entry(*commands: bytes) -> craft.TailEntry:
    return craft.TailEntry(
        position=7, timestamp=1, group=0, index=3, kind=EntryKind.COMMAND, commands=commands
    )


def told(seen: Filter, *commands: bytes) -> Any:
    event = feed.change(entry(*commands), seen)
    if event is None:
        return None
    head, name, data, *rest = event.decode().split("\n")
    assert (head, name, rest) == ("id: 7", "event: change", ["", ""])
    return json.loads(data.removeprefix("data: "))["changes"]


def test_an_entry_is_told_with_its_commands() -> None:
    """A transaction with what it watched; what changes nothing is left out."""
    single = pack_command([b"SET", b"k", b"\xff"])
    transaction = pack_transaction([[b"GET", b"k"], [b"DEL", b"k", b"l"]], [(b"k", 3)])
    nothing = [
        pack_command([b"GET", b"k"]),
        pack_command([b"PUBLISH", b"c", b"m"]),
        b"\xc1",
        pack_command([b"SET"]),
    ]
    assert told(ALL, single, transaction, *nothing) == [
        {"commands": [{"keys": ["k"], "command": ["SET", "k", {"base64": "/w=="}]}], "watch": []},
        {
            "commands": [{"keys": ["k", "l"], "command": ["DEL", "k", "l"]}],
            "watch": [{"key": "k", "version": 3}],
        },
    ]
    assert told(ALL, *nothing) is None


def test_a_follower_sees_what_it_may_and_wants() -> None:
    """Of a command over its keys and others', its keys alone; a flush is everybody's."""
    both = pack_command([b"MSET", b"a:1", b"x", b"b:1", b"secret"])
    mine = Filter((b"a:",))
    assert told(mine, both) == [{"commands": [{"keys": ["a:1"]}], "watch": []}]
    assert told(Filter((b"c:",)), both) is None
    assert told(Filter((b"",), b"b:"), both)[0]["commands"][0]["command"][-1] == "secret"
    assert told(Filter((b"",), b"c:"), both) is None
    assert told(Filter((b"a:",), b"b:"), both) is None
    assert told(mine, pack_command([b"FLUSHALL"])) == [
        {"commands": [{"keys": [], "command": ["FLUSHALL"]}], "watch": []}
    ]
    watched = pack_transaction([[b"SET", b"a:1", b"x"]], [(b"b:1", 1), (b"a:1", 2)])
    assert told(mine, watched)[0]["watch"] == [{"key": "a:1", "version": 2}]


def test_a_sign_of_life_moves_the_place_from_which_one_goes_on() -> None:
    """An id without data is remembered by a browser, and dispatches nothing."""
    assert feed.opening(3) == b"retry: 1000\nid: 3\n\n"
    assert feed.heartbeat(9) == b": 9\nid: 9\n\n"


# -- pages -----------------------------------------------------------------------------------------


def pages(store: Store, **wanted: Any) -> list[list[Any]]:
    """The keys of all pages."""
    found, after = [], None
    while True:
        default = {"prefix": b"", "limit": 2, "values": False, "bytes_max": 10**6}
        page = listing.page(
            store.machine.view(store.now), listing.Wanted(**{**default, **wanted, "after": after})
        )
        found.append([item["key"] for item in page.keys])
        after = page.following
        if after is None:
            return found


def test_pages_have_all_keys_of_a_prefix_in_order() -> None:
    """Each as many as asked for, and the last one says that it is."""
    store = Store()
    assert pages(store) == [[]]
    for key in ("b1", "a", "b3", "c", "b2", b"b\xff"):
        store.ask("SET", key, "v")
    assert pages(store) == [["a", "b1"], ["b2", "b3"], [{"base64": "Yv8="}, "c"]]
    assert pages(store, prefix=b"b") == [["b1", "b2"], ["b3", {"base64": "Yv8="}]]
    assert pages(store, prefix=b"d") == [[]]


def test_a_page_is_bounded_whatever_it_meets(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bytes, and in expired keys, which are looked at and not told."""
    monkeypatch.setattr(listing, "LOOKS_MAX", 2)
    store = Store(now=1_000)
    for at in range(4):
        store.ask("SET", f"a{at}", "v", "PX", 10)
    store.ask("SET", "b", "v" * 300)
    store.ask("HSET", "c", "f", "v")
    store.now = 2_000
    assert pages(store) == [[], [], ["b", "c"]]
    assert pages(store, prefix=b"b", values=True, bytes_max=1) == [["b"]]
    assert pages(store, values=True, bytes_max=300) == [[], [], ["b"], ["c"]]


def test_a_page_leaves_out_a_value_that_is_larger_than_a_page() -> None:
    """Its key is told; the server would die of a page with half a GiB, six times as much in JSON."""
    store = Store()
    for size in (300, 301):
        store.ask("SETRANGE", f"k{size}", size - 1, "x")
    found = listing.page(
        store.machine.view(0), listing.Wanted(b"", None, 10, values=True, bytes_max=300)
    ).keys
    found += listing.page(
        store.machine.view(0), listing.Wanted(b"", b"k300", 10, values=True, bytes_max=300)
    ).keys
    assert [(item["key"], "value" in item) for item in found] == [("k300", True), ("k301", False)]
