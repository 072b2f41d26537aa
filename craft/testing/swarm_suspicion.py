"""The swarm's part about suspicion: logs that lose their ends, and who must do without them."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import replace

from craft.limits import EngineLimits
from craft.testing.faults import AMNESIA, TAILS
from craft.testing.moments import MOMENTS
from craft.testing.plan import MS, SECOND, Fault, Plan

TAILS_FROM = 2000
"""Numbers of the faults about lost tails: behind those of the other kinds."""

WITH_TAILS = 0.15
"""The share of runs in which logs lose their ends, and servers are suspect."""

ABOUT_SUSPICION = 0.12
"""The share of runs in which that happens on purpose, one time after the other, and nothing else does."""


def with_tails(rng: random.Random, plan: Plan, allowed: Collection[str]) -> Plan:
    """Now and then the end of a log is gone, mostly of one server's, and a leader dies soon after.

    Then the others must do without what the first has forgotten, and without whom it had told.
    """
    kinds = [kind for kind in (*TAILS, "torn_by_power") if kind in allowed]
    if rng.random() >= WITH_TAILS or not kinds or plan.changes:
        return plan  # what a minority is that may be missing, is not known where the members change
    weights = [1 if kind == "lose_tails" else 4 for kind in kinds]
    deposing = [kind for kind in ("kill", "isolate", "power_off", "relapse", "crash_pair") if kind in allowed]
    election = plan.limits.election_timeout_ms_max * MS
    duration = max(plan.duration, 2 * SECOND)
    faults, at, number = list(plan.faults), rng.randint(1, 2 * election), TAILS_FROM
    while at < duration:
        number += 2
        [kind] = rng.choices(kinds, weights)
        on = rng.choice(sorted(MOMENTS)) if kind != "lose_tails" and rng.random() < 0.6 else ""
        lasts = 1 * MS if kind != "oblivion" else rng.choice((2, 6, 12)) * election
        faults.append(Fault(number, kind, at, lasts, rng.getrandbits(32), on, rng.choice((1, 2, 8))))
        if deposing and rng.random() < 0.5:
            after, lasts = rng.choice((1, 20, election // MS, 2000)) * MS, rng.choice((1, 3)) * election
            faults.append(Fault(number + 1, rng.choice(deposing), at + after, lasts, rng.getrandbits(32)))
        at += rng.randint(1, 4 * election)
    return replace(plan, faults=tuple(faults), duration=duration)


def with_suspicion(rng: random.Random, plan: Plan, allowed: Collection[str], limits: EngineLimits) -> Plan:
    """In some runs servers forget what counts most, and little else happens. `limits` are of a quick run."""
    kinds = [kind for kind in AMNESIA if kind in allowed]
    if rng.random() >= ABOUT_SUSPICION or not kinds or plan.changes or plan.remote or plan.clock_error:
        return plan
    servers = rng.choice((3, 3, 3, 5))
    plan = replace(
        plan,
        servers=servers,
        groups=rng.choice((1, 1, 2)),
        limits=limits,
        delay=(100_000, 300_000),
        sync=rng.choice(((200_000, 600_000), (1 * MS, 10 * MS))),
        apply=(0, 0),
        turn=(0, 0),
        loss=0.0,
        clock_offsets=(),
        clients=rng.choice((2, 3, 5)),
        think=rng.choice(((1 * MS, 10 * MS), (5 * MS, 50 * MS))),
        patience=rng.choice((20, 100)) * MS,
        forwarded=False,
        reads=0.5,
        duration=3 * SECOND,
    )
    return replace(plan, faults=tuple(_forgetful(rng, plan, kinds)))


def _forgetful(rng: random.Random, plan: Plan, kinds: list[str]) -> Iterator[Fault]:
    """One after the other, each with time for a few elections."""
    election = plan.limits.election_timeout_ms_max * MS
    at, number = rng.randint(1, 2 * election), TAILS_FROM
    while at < plan.duration:
        number += 1
        lasts = rng.choice((4, 8)) * election
        yield Fault(number, rng.choice(kinds), at, lasts, rng.getrandbits(32))
        at += lasts + rng.randint(1, election)
