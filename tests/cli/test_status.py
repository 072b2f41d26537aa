"""What `craft status` shows of the servers' clocks, and of where the time goes."""

from __future__ import annotations

from typing import Any

import trio

from craft.cli.clocks import clocks
from craft.cli.status import table
from tests.server.cluster import three_servers

KEPT = {"source": "system", "state": "kept by the system, which states its error", "error_ns": 1_234_567}
WATCHED = {"steps": 0, "last_step_ns": 0, "stops": 0, "stopped": False, "suspends": 0, "asleep_ns": 0}


async def shown(clock: dict[str, Any]) -> str:
    """The head of a server's block, if its clock said this."""
    async with three_servers() as cluster:
        status = cluster.servers[1].status()
    text = table({"127.0.0.1:8001": {**status, "clock": clock}})
    assert max(map(len, text.splitlines())) <= 80
    return " ".join(text.partition("pending")[0].split())


async def test_a_good_clock_is_two_lines(autojump_clock: object) -> None:
    """Its source, its error, and its state in words."""
    text = await shown({**KEPT, **WATCHED, "error_ms_max": None})
    assert "not clamped system, error 1.235 ms kept by the system, which states its error" in text


async def test_what_is_wrong_with_a_clock_is_all_shown(autojump_clock: object) -> None:
    """Unknown errors, stated bounds, steps, stops, suspends, liars, and servers that are not believed."""
    text = await shown(
        {
            "source": "ntp",
            "state": "falling back to the system clock: error unknown",
            "error_ns": None,
            "error_ms_max": 50,
            **WATCHED,
            "steps": 2,
            "stops": 1,
            "stopped": True,
            "falsetickers": ["ntp.example:123"],
            "servers": [
                {"server": "other.example:123", "refused": "its stratum is 16, allowed: 1 to 15"},
                {"server": "good.example:123", "refused": ""},
            ],
        }
    )
    assert "ntp, error unknown, stated at most 50 ms falling back to the system clock: error unknown" in text
    assert "noticed 2 steps, 1 stops, stands still now falsetickers ntp.example:123" in text
    assert "other.example:123: its stratum is 16, allowed: 1 to 15" in text
    assert "good.example" not in text


MS = 1_000_000
HOUR_NS = 3_600_000 * MS


async def statuses(*offsets_ns: int) -> list[dict[str, Any]]:
    """Of three servers whose clocks are wrong by so much, after some heartbeats."""
    async with three_servers() as cluster:
        for clock, offset_ns in zip(cluster.clocks.values(), offsets_ns, strict=True):
            clock.offset_ns = offset_ns
        await trio.sleep(1)
        return [server.status() for server in cluster.servers.values()]


async def test_good_clocks_are_said_to_be_good(autojump_clock: object) -> None:
    """One server's view is enough for that; each row stands in its server's block."""
    text = table({"127.0.0.1:8001": (await statuses(0, 0, 0))[0]})
    assert text.endswith("\n\nclocks     good: every error is below the one-way delay")
    assert text.count("+0.000 ms") == 2


async def test_whose_clock_is_wild_is_said_with_the_matrix(autojump_clock: object) -> None:
    """All rows of those that were asked, and the verdict first; a server that does not answer has none."""
    one, two, three = await statuses(0, HOUR_NS, -2 * MS)
    text = table({"a:1": one, "b:2": two, "c:3": {"error": "gone"}})
    _, _, end = text.rpartition("\n\n")
    assert [" ".join(line.split()) for line in end.splitlines()] == [
        "clocks wild: server 2 is ahead of a majority by 3,600.000 s",
        "the column's clock less the row's, and the one-way delay",
        "server 1 server 2 server 3",
        "server 1 - +3,600.000 s -2.000 ms",
        "0.000 ms 0.000 ms",
        "server 2 -3,600.000 s - -3,600.002 s",
        "0.000 ms 0.000 ms",
    ]
    assert max(map(len, text.splitlines())) <= 80
    assert "wild: server 2" in three["clock_verdict"]


async def test_many_servers_fit_into_the_page(autojump_clock: object) -> None:
    """Columns that do not fit follow below; what a server does not see is unknown."""
    one, two, _ = await statuses(0, 0, 0)
    many = list(range(1, 9))
    lines = clocks([{**one, "servers": many}, {**two, "servers": many}])
    assert max(map(len, lines)) <= 80
    assert sum("server 1 " in line and "unknown" in line for line in lines) == 2
    assert any(" ".join(line.split()) == "server 6 server 7 server 8" for line in lines)


async def test_a_server_alone_has_nothing_to_compare(autojump_clock: object) -> None:
    """No verdict where there is nobody else."""
    one, *_ = await statuses(0, 0, 0)
    assert clocks([{**one, "servers": [1], "peers": []}]) == []


# -- where the time goes ---------------------------------------------------------------------------

RUNGS = ("appended", "persisted", "committed", "merged", "applied")


async def rung_rows(**rungs: dict[str, Any]) -> tuple[str, list[str]]:
    """The head of the groups' table, and what stands below it of the times."""
    async with three_servers() as cluster:
        status = cluster.servers[1].status()
    lines = table({"127.0.0.1:8001": {**status, "rungs": {**status["rungs"], **rungs}}}).splitlines()
    assert max(map(len, lines)) <= 80
    [head] = [line for line in lines if line.startswith("group")]
    return head, [line for line in lines if ", ms " in line]


def climbed(p50_ms: float, p99_ms: float) -> dict[str, Any]:
    return {"count": 2, "p50_ms": p50_ms, "p99_ms": p99_ms}


async def test_times_stand_below_their_rungs(autojump_clock: object) -> None:
    """Two rows under the groups' columns, aligned with their head, and all together at the end."""
    times = {rung: climbed(number, number + 0.5) for number, rung in enumerate(RUNGS)}
    head, [median, most] = await rung_rows(**times, total=climbed(10, 12.5))
    assert median.startswith("         median, ms")
    assert most.startswith("      99 of 100, ms")
    for number, rung in enumerate(RUNGS):
        end = head.index(rung) + len(rung)
        assert median[:end].endswith(f"  {number}.000")
        assert most[:end].endswith(f"  {number}.500")
    assert median.endswith("  10.000 all") and most.endswith("  12.500 all")


async def test_no_times_stand_there_before_a_command_was_applied(autojump_clock: object) -> None:
    """Nothing was measured, so nothing is shown."""
    assert (await rung_rows())[1] == []


async def test_long_times_fit_too(autojump_clock: object) -> None:
    """A minute a rung is shown without its microseconds; what was not measured is a dash."""
    times = dict.fromkeys((*RUNGS, "total"), climbed(60_000.0, 999.999))
    times["appended"] = {"count": 0, "p50_ms": None, "p99_ms": None}
    _, [median, most] = await rung_rows(**times)
    assert median.split() == ["median,", "ms", "-", *["60000"] * 5, "all"]
    assert most.split() == ["99", "of", "100,", "ms", "-", *["999.999"] * 5, "all"]


async def test_a_merge_that_waits_fits_into_the_page(autojump_clock: object) -> None:
    """For whom it waits, and what it holds back, however much that is."""
    async with three_servers() as cluster:
        status = {
            **cluster.servers[1].status(),
            "merged_position": 123_456_789_012,
            "blocking_group": 4095,
            "unmerged_bytes": 123_456_789_012,
        }
    text = table({"127.0.0.1:8001": status})
    assert "waits for group 4095, 123456789012 bytes unmerged" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80
