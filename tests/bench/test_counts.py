"""What commands cost, counted: no time is looked at, so none of this depends on a machine.

Three servers joined in memory (`bench.joined`), each with one call: turns, frames, syncs, bytes, Python calls
and memory are the same in every run. A change that makes them fewer changes the table below, and is welcome.
One that adds work per command fails here, however fast the machine is.
"""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest

from bench.joined import Joined, python_calls, sources

SERVERS = 3
SIZE = 64
BULK_SIZE, BULK = 256, 1000
"""The commands for which bounds of bytes are promised."""

WARM_UP = 3
"""Beats, after which every index and request number is as long as it will be for the next hundred."""

BEATS = 6
"""Of which the least is taken where not all are alike."""

MSGPACK_HEADERS = {SIZE: 2, BULK_SIZE: 3}
"""Bytes before a command in its array."""


def warm(batch: int, *, size: int = SIZE, calls: int = 1) -> tuple[Joined, Any]:
    """Servers that have settled, and their callers."""
    joined = Joined(SERVERS)
    joined.settle()
    callers = sources(joined.ids, batch=batch, size=size)
    for _ in range(WARM_UP):
        joined.beat(callers, calls)
        joined.calm()
    joined.counts.clear()
    return joined, callers


def counted_calls(batch: int, calls: int = 1) -> tuple[int, int]:
    """The calls of one beat: Python functions, and C functions by Python.

    The least of a few beats: each log gets a landmark every 256 KiB, which is a call or two more.
    """
    joined, callers = warm(batch, calls=calls)
    found = []
    for _ in range(BEATS):
        with python_calls() as seen:
            joined.beat(callers, calls)
        found.append((seen["call"], seen["c_call"]))
        joined.calm()
    return min(found)


@pytest.mark.parametrize(("batch", "calls"), [(1, 1), (22, 1), (BULK, 1), (1, 8), (22, 8)])
def test_a_call_at_each_server_costs_as_much_whatever_it_carries(batch: int, calls: int) -> None:
    """Four turns, six frames and two syncs a server: one for the commands, one for the closing entries."""
    joined, callers = warm(batch, calls=calls)
    joined.beat(callers, calls)
    names = ("turns", "frames", "messages", "writes", "entries")
    assert {name: joined.counts[name] for name in names} == {
        "turns": 4 * SERVERS,
        "frames": 6 * SERVERS,
        "messages": 6 * SERVERS,  # an append to each peer, an acknowledgement each, and what became durable
        "writes": 2 * SERVERS,
        "entries": SERVERS * SERVERS,  # one a group, on every server
    }


@pytest.mark.parametrize("size", [SIZE, BULK_SIZE])
def test_every_command_travels_once_to_every_other_server(size: int) -> None:
    """Between 1,000 and 2,000 commands a call the wire differs by those commands, and by nothing else."""
    sent = []
    for batch in (BULK, 2 * BULK):
        joined, callers = warm(batch, size=size)
        joined.beat(callers)
        sent.append(joined.counts["wire_bytes"])
    commands = SERVERS * BULK * (SERVERS - 1)
    assert sent[1] - sent[0] == commands * (size + MSGPACK_HEADERS[size])


@pytest.mark.parametrize("size", [SIZE, BULK_SIZE])
def test_every_command_is_written_once_by_every_server(size: int) -> None:
    """The same of the log."""
    written = []
    for batch in (BULK, 2 * BULK):
        joined, callers = warm(batch, size=size)
        joined.beat(callers)
        written.append(joined.counts["log_bytes"])
    commands = SERVERS * BULK * SERVERS
    assert written[1] - written[0] == commands * (size + MSGPACK_HEADERS[size])


def test_bytes_stay_near_the_least_that_is_possible() -> None:
    """In bulk, of 256 bytes: at most 1.1 times once to each other server, and 1.3 times once in each log."""
    joined, callers = warm(BULK, size=BULK_SIZE)
    joined.beat(callers)
    payload = SERVERS * BULK * BULK_SIZE
    assert joined.counts["wire_bytes"] <= 1.1 * payload * (SERVERS - 1)
    assert joined.counts["log_bytes"] <= 1.3 * payload * SERVERS


def test_no_python_runs_per_command() -> None:
    """From the caller's list to the state machine: a thousand commands take the calls that one takes."""
    assert counted_calls(1) == counted_calls(100) == counted_calls(BULK)


def test_a_call_costs_as_many_python_calls_as_the_one_before() -> None:
    """Sixty at most, on all servers together and with the harness: linear in calls, with this slope."""
    few, some, many = (counted_calls(10, calls)[0] for calls in (2, 4, 8))
    assert many - some == 2 * (some - few)
    assert (many - some) / (4 * SERVERS) <= 60


def retained(batch: int) -> tuple[int, int]:
    """Bytes and blocks of memory that a beat leaves behind on all servers together."""
    joined, callers = warm(batch)
    tracemalloc.start()
    try:
        for _ in range(2):  # what the tracer itself has not seen being made is replaced meanwhile
            joined.beat(callers)
            joined.calm()
        gc.collect()
        before = tracemalloc.take_snapshot()
        joined.beat(callers)
        joined.calm()
        gc.collect()
        after = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    made = [one for one in after.compare_to(before, "filename") if "tracemalloc" not in str(one.traceback)]
    return sum(one.size_diff for one in made), sum(one.count_diff for one in made)


def test_a_command_is_held_once_a_server_and_as_no_object_of_its_own() -> None:
    """What a thousand commands leave in memory: their bytes in one entry a server, and few objects."""
    few, many = retained(100), retained(BULK)
    commands = SERVERS * (BULK - 100)
    assert many[0] - few[0] <= 1.01 * commands * (SIZE + MSGPACK_HEADERS[SIZE]) * SERVERS
    assert many[1] - few[1] <= commands / 100


def test_the_servers_agree() -> None:
    """What was counted was the work: everything was applied everywhere, once and alike."""
    joined, callers = warm(22)
    joined.beat(callers)
    joined.finish()
    proposed = 22 * SERVERS * (WARM_UP + 1)
    assert joined.differences(proposed) == []
    assert len(joined.differences(proposed + 1)) == SERVERS
    joined.nodes[2].table.table.popitem()
    assert [one.split()[0] for one in joined.differences(proposed)] == ["state"]
