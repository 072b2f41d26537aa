"""Light load, no faults: what a simulator costs that has nearly nothing to do.

It is the yardstick for how many hours of a cluster's life an hour of CPU covers. Heartbeats, ticks and the
closing of idle groups are most of it.
"""

from __future__ import annotations

from craft.testing.plan import MS, SECOND, Plan

DURATION_NS = 600 * SECOND


def plan(seed: int, *, workload: str | None = None) -> Plan:
    """Three servers, three groups, all limits and timings as they are by default; one client that does
    about one operation a second.
    """
    return Plan(
        seed,
        servers=3,
        groups=3,
        clients=1,
        think=(500 * MS, 1500 * MS),
        workload=workload or "counter",
        duration=DURATION_NS,
    )
