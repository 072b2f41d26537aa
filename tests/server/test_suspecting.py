"""A suspect server in the shell: what it says of itself, and the operator's word (PROTOCOL 10)."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack

import pytest
import trio

from craft.cli.status import table
from craft.types import Write
from tests.server.cluster import Cluster

HANGS_S = 100_000
"""Virtual seconds: the clock leaps half a minute whenever a thread is slower than the event loop."""

REASON = "the log ends after batch 9 in a record that is torn or damaged"


def doubt(cluster: Cluster, *server_ids: int) -> None:
    """As a start does that finds the end of the log damaged."""
    for server_id in server_ids:
        disk = cluster.disks[server_id]
        disk.write(Write(0, (), (), None, suspicions=tuple((group, REASON) for group in range(3))))
        disk.sync()


def suspect_groups(cluster: Cluster, server_id: int) -> list[int]:
    groups = cluster.servers[server_id].status()["groups"]
    return [group["group"] for group in groups if group["suspicion"] == REASON]


def gauge(cluster: Cluster, server_id: int) -> float:
    [found] = [m for m in cluster.servers[server_id].metrics() if m["name"] == "craft_suspect_groups"]
    return float(found["value"])


async def test_a_suspect_says_so_until_its_peers_have_cleared_it(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    """In the status, the metric and two lines of the log; then it is a server as any."""
    caplog.set_level(logging.INFO, "craft.server")
    async with AsyncExitStack() as stack:
        cluster = Cluster(stack)
        doubt(cluster, 2)
        await cluster.start(2)
        assert suspect_groups(cluster, 2) == [0, 1, 2] and gauge(cluster, 2) == 3
        text = table({"127.0.0.1:8002": cluster.servers[2].status()})
        assert f"  suspect  counts for nothing in group 0, 1, 2\n           {REASON}\n" in text
        assert "group 1 is cleared by its next leader, or its last one" in text
        await cluster.start(1)
        await cluster.start(3)
        with trio.fail_after(HANGS_S):
            for server in cluster.servers.values():
                await server.wait_ready()
            while suspect_groups(cluster, 2):  # noqa: ASYNC110  # the engine tells nobody
                await trio.sleep(0.1)
        assert gauge(cluster, 2) == 0
        assert await cluster.servers[2].propose(b"x") == 1
    assert f'suspect: counts for nothing groups=0,1,2 reason="{REASON}"' in caplog.text
    assert "suspect no longer: it has everything again" in caplog.text


async def test_everyone_suspect_comes_back(autojump_clock: object) -> None:
    """After a power cut of all: everyone's vote decides."""
    async with AsyncExitStack() as stack:
        cluster = Cluster(stack)
        doubt(cluster, 1, 2, 3)
        await cluster.start_all()
        assert await cluster.servers[1].propose(b"x") == 1


async def test_the_operator_trusts_where_nobody_else_can(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    """One voter is gone for good and one is suspect: nobody leads, until somebody decides."""
    async with AsyncExitStack() as stack:
        cluster = Cluster(stack)
        doubt(cluster, 2)
        await cluster.start(1)
        await cluster.start(2)
        await trio.sleep(20)
        assert cluster.leaders() == [None] * 3
        assert cluster.servers[2].trust() == [0, 1, 2]
        with trio.fail_after(HANGS_S):
            await cluster.servers[2].wait_ready()
        assert suspect_groups(cluster, 2) == [] and cluster.servers[2].trust() == []
    assert f'trusted by the operator group=2 reason="{REASON}"' in caplog.text
