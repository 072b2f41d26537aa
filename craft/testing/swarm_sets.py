"""The swarm's part about servers that believe in a set of members which is long gone."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import replace

from craft.testing.faults import LINKS, SETS
from craft.testing.plan import MS, Fault, Plan

WITH_OLD_SETS = 0.4
"""The share of runs in which the members change that are about this, and about little else."""

SETS_FROM = 7000
"""Numbers of these faults: behind those of all others."""

EARLIER_NS = 100 * MS
"""So long before a change, at most, somebody is cut off."""


def with_old_sets(rng: random.Random, plan: Plan, allowed: Collection[str]) -> Plan:
    """Before a change somebody is cut off, who misses it; other links hold. Many clients read, few write."""
    kinds = [kind for kind in SETS if kind in allowed]
    if not plan.changes or not kinds or rng.random() >= WITH_OLD_SETS:
        return plan
    faults, number = [fault for fault in plan.faults if fault.kind not in LINKS], SETS_FROM
    until = 0
    for change in plan.changes:
        if change.at >= until:
            number += 1
            at, lasts = max(0, change.at - rng.randint(1, EARLIER_NS)), rng.choice((1500, 3000)) * MS
            faults.append(Fault(number, rng.choice(kinds), at, lasts, rng.getrandbits(32)))
            until = at + lasts
    return replace(
        plan,
        groups=min(plan.groups, 3),
        delay=(100_000, 300_000),
        apply=(0, 0),
        clients=8,
        think=(10 * MS, 100 * MS),
        patience=rng.choice((100, 300)) * MS,
        reads=0.7,
        faults=tuple(faults),
    )
