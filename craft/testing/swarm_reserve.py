"""The swarm's part about disks that have little space left."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import replace

from craft.testing.plan import MS, SECOND, Fault, Plan

RESERVE_FROM = 3000
"""Numbers of the faults that take a disk's reserve: behind those about lost tails."""

WITH_RESERVE = 0.1
"""The share of runs with such faults."""


def with_reserve(rng: random.Random, plan: Plan, allowed: Collection[str]) -> Plan:
    """Some disks fall below their reserve for a while. What else is drawn of the seed stays as it is."""
    if "nearly_full" not in allowed or rng.random() >= WITH_RESERVE:
        return plan
    faults = [
        Fault(
            RESERVE_FROM + number, "nearly_full", rng.randrange(plan.duration), duration, rng.getrandbits(32)
        )
        for number, duration in enumerate(rng.choices((100 * MS, 500 * MS, 2 * SECOND), k=rng.randint(1, 6)))
    ]
    return replace(plan, faults=(*plan.faults, *faults))
