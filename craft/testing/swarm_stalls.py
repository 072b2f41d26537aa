"""The swarm's part about storage that several servers share, and that hangs."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import replace

from craft.testing.faults import STALLS
from craft.testing.plan import MS, Fault, Plan

STALLS_FROM = 8000
"""Numbers of these faults: behind those of all others."""

WITH_STALLS = 0.04
"""The share of runs in which that happens."""


def with_stalls(rng: random.Random, plan: Plan, allowed: Collection[str]) -> Plan:
    """Now and then several disks hang at once: for so long that their server should lead no more, or less."""
    kinds = [kind for kind in STALLS if kind in allowed]
    if not kinds or rng.random() >= WITH_STALLS:
        return plan
    longest = plan.limits.disk_stall_ms_max * MS
    faults = []
    for number in range(STALLS_FROM, STALLS_FROM + rng.choice((1, 2, 4))):
        at, duration = rng.randrange(plan.duration), rng.choice((longest // 4, longest, 2 * longest))
        faults.append(Fault(number, rng.choice(kinds), at, duration, rng.getrandbits(32)))
    return replace(plan, faults=(*plan.faults, *faults))
