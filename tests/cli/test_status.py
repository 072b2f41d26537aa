"""What `craft status` shows of a server's clock."""

from __future__ import annotations

from typing import Any

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
