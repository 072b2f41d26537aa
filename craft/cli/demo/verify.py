"""What must hold at the end: one merged log, one state, and every answered write there exactly once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import trio

from craft import client
from craft.cli.demo.cluster import DemoFailed
from craft.cli.demo.load import Load

SETTLE_TIMEOUT_S = 30
SETTLE_POLL_S = 0.05
COUNT_WRITES = 10_000
"""Writes asked about in one query: well below what one request may hold."""

Say = Callable[[str], None]


async def verify(load: Load, say: Say) -> None:
    """Say each thing that holds. Raises DemoFailed with the first that does not."""
    async with AsyncExitStack() as stack:
        connections = {
            station.server_id: await stack.enter_async_context(client.connect(station.process.address))
            for station in load.stations
        }
        position, digest = await _settle(connections)
        say(f"one merged log: {len(connections)} servers at position {position}, digest {digest[:16]}")
        summaries = {server: await one.read(b"summary") for server, one in connections.items()}
        await _check_writes(load, connections, say)
        _check_states(summaries, say)


async def _settle(connections: dict[int, client.Client]) -> tuple[int, str]:
    """Wait until all servers have applied the same and nothing is under way; position and digest."""
    seen: dict[int, Any] = {}
    with trio.move_on_after(SETTLE_TIMEOUT_S):
        while True:
            seen = {server: await one.status() for server, one in connections.items()}
            quiet = not any(status["pending_requests"] for status in seen.values())
            if quiet and len({status["applied_position"] for status in seen.values()}) == 1:
                break
            await trio.sleep(SETTLE_POLL_S)
    positions = {server: status["applied_position"] for server, status in seen.items()}
    if len(set(positions.values())) != 1:
        raise DemoFailed(f"the servers do not reach one position: they have applied {_each(positions)}")
    digests = {server: status["merged_digest"] for server, status in seen.items()}
    if len(set(digests.values())) != 1:
        raise DemoFailed(f"the merged logs differ at position {min(positions.values())}: {_each(digests)}")
    return next(iter(positions.values())), next(iter(digests.values()))


async def _check_writes(load: Load, connections: dict[int, client.Client], say: Say) -> None:
    """Each write on each server, by what its caller was told."""
    answered = [write for station in load.stations for write in station.tally.answered]
    unknown = [write for station in load.stations for write in station.tally.unknown]
    rejected = [write for station in load.stations for write in station.tally.rejected]
    effects = 0
    for server, connection in connections.items():
        await _check(connection, server, answered, "answered", allowed=(1,))
        await _check(connection, server, rejected, "rejected", allowed=(0,))
        effects = await _check(connection, server, unknown, "unknown", allowed=(0, 1))
    say(f"{len(answered)} answered writes: each is there exactly once, on every server")
    if unknown:
        say(f"{len(unknown)} unknown writes (their answer was lost): {effects} took effect, none twice")
    if rejected:
        say(f"{len(rejected)} rejected writes: none took effect")


async def _check(
    connection: client.Client, server: int, writes: Sequence[bytes], told: str, *, allowed: tuple[int, ...]
) -> int:
    """How many of these writes took effect there. Raises DemoFailed where one did so often as it must not."""
    effects = 0
    for start in range(0, len(writes), COUNT_WRITES):
        part = writes[start : start + COUNT_WRITES]
        counts = await connection.read(b" ".join([b"count", *part]))
        for write, count in zip(part, counts, strict=True):
            if count not in allowed:
                often = " or ".join(map(str, allowed))
                raise DemoFailed(
                    f"{write.decode()} was {told}, and is there {count} times on server {server};"
                    f" allowed: {often}"
                )
        effects += sum(counts)
    return effects


def _check_states(summaries: dict[int, Any], say: Say) -> None:
    for server, summary in summaries.items():
        if summary["repeated"]:
            raise DemoFailed(f"server {server}: {', '.join(summary['repeated'])} took effect more than once")
    for what in ("position", "writes", "digest"):
        values = {server: summary[what] for server, summary in summaries.items()}
        if len(set(values.values())) != 1:
            raise DemoFailed(f"the states differ in their {what}: {_each(values)}")
    one = next(iter(summaries.values()))
    say(f"one state: {one['writes']} writes on each server, digest {one['digest'][:16]}")


def _each(values: dict[int, Any]) -> str:
    return ", ".join(f"server {server}: {value}" for server, value in values.items())
