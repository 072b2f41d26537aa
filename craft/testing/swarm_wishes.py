"""The swarm's part about an operator who moves leaders."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import replace

from craft.testing.faults import WISHES
from craft.testing.plan import MS, Fault, Plan

WISHES_FROM = 5000
"""Numbers of what is asked: behind those of all faults."""

WITH_WISHES = 0.15
"""The share of runs in which somebody asks."""


def with_wishes(rng: random.Random, plan: Plan, allowed: Collection[str]) -> Plan:
    """An operator moves leaders now and then, mostly while something happens to them anyway."""
    kinds = [kind for kind in WISHES if kind in allowed]
    if not kinds or rng.random() >= WITH_WISHES:
        return plan
    faults = []
    for number in range(WISHES_FROM, WISHES_FROM + rng.choice((2, 5, 20))):
        on = rng.choice(("", "", "elect", "append", "sync"))
        at, duration = rng.randrange(plan.duration), rng.choice((50, 300, 1000)) * MS
        nth = rng.choice((1, 2, 8))
        faults.append(Fault(number, rng.choice(kinds), at, duration, rng.getrandbits(32), on, nth))
    return replace(plan, faults=(*plan.faults, *faults))
