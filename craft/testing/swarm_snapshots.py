"""The swarm's part about snapshots: who takes them, how small the logs are kept, who dies meanwhile."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import replace

from craft.testing.faults import LOSSES, TAILS
from craft.testing.moments import SNAPSHOT_MOMENTS
from craft.testing.plan import MS, SECOND, Fault, Plan, SnapshotPlan

WITH_SNAPSHOTS = 0.3
"""The share of runs in which servers take snapshots, and compact their logs."""

WITH_OWN_DATA = 0.3
"""The share of those in which state machines keep their data themselves."""

WITH_LOSSES = 0.35
"""The share of those in which a server loses all of its snapshots now and then."""

SNAPSHOTS_FROM = 4000
"""Numbers of the faults that are added there: behind all others."""

LOSSES_FROM = 6000
"""Numbers of those about lost snapshots."""


def with_snapshots(rng: random.Random, plan: Plan, allowed: Collection[str]) -> Plan:
    """Some servers take snapshots all the time, and forget their logs as soon as they may."""
    if rng.random() >= WITH_SNAPSHOTS:
        return plan
    limits = replace(
        plan.limits,
        snapshot_log_bytes=rng.choice((300, 1000, 5000)),
        snapshot_interval_ms=rng.choice((300, 60_000)),
        log_trailing_bytes=rng.choice((1, 1, 2000)),
        log_held_bytes_max=rng.choice((1, 2000, 100_000)),
        snapshot_chunk_bytes=rng.choice((100, 1000)),
        snapshot_bytes_per_second_max=rng.choice((20_000, 10**9)),
        snapshot_stall_ms=rng.choice((300, 2000)),
    )
    snapshots = SnapshotPlan(
        write=rng.choice(((1 * MS, 5 * MS), (10 * MS, 300 * MS))),
        restore=rng.choice(((1 * MS, 5 * MS), (10 * MS, 300 * MS))),
        cut_short=rng.choice((0.0, 0.0, 0.1)),
    )
    late = random.Random(f"{plan.seed} own data")  # not from `rng`: the rest of a seed stays as it was
    if late.random() < WITH_OWN_DATA:
        snapshots = replace(snapshots, kept=late.choice((0.0, 0.3, 1.0)))
    at_moments = tuple(_at_snapshots(rng, plan, allowed)) if rng.random() < 0.5 else ()
    plan = replace(plan, limits=limits, snapshots=snapshots, faults=(*plan.faults, *at_moments))
    return _losing(random.Random(f"{plan.seed} lost snapshots"), plan, allowed)


def _losing(rng: random.Random, plan: Plan, allowed: Collection[str]) -> Plan:
    """Now and then a server has no snapshot any more, mostly when the others are behind it or have just died.

    Nothing else may be lost then for good, or for long: what it lacks, it must get from somebody.
    """
    if rng.random() >= WITH_LOSSES or "lose_snapshots" not in allowed or plan.changes:
        return plan
    faults = [
        fault
        for fault in plan.faults
        if fault.kind not in {*LOSSES, *TAILS, "flip_snapshot"} and not fault.permanent
    ]
    behind = [kind for kind in ("kill", "isolate", "pause", "power_off") if kind in allowed]
    duration, number = max(plan.duration, 2 * SECOND), LOSSES_FROM
    at = rng.randint(1, 500) * MS
    while at < duration:
        number += 4
        for other in range(rng.randint(0, 2) if behind else 0):
            lasts = rng.choice((100, 300, 1000)) * MS
            on = rng.choice(("", "capture"))
            earlier = max(0, at - rng.randint(0, lasts))
            faults.append(
                Fault(number + 1 + other, rng.choice(behind), earlier, lasts, rng.getrandbits(32), on)
            )
        on = rng.choice(("", "", "append", "learn", "answer"))
        faults.append(Fault(number, "lose_snapshots", at, 1 * MS, rng.getrandbits(32), on))
        at += rng.randint(1, 1000) * MS
    limits = replace(plan.limits, snapshot_log_bytes=rng.choice((100, 300)), log_trailing_bytes=1)
    return replace(plan, limits=limits, faults=tuple(faults), duration=duration)


def _at_snapshots(rng: random.Random, plan: Plan, allowed: Collection[str]) -> Iterator[Fault]:
    """Somebody dies while a snapshot is written, sent or installed, or is away until all others have one."""
    at, number = rng.randint(1, 500) * MS, SNAPSHOTS_FROM
    while at < plan.duration:
        number += 1
        kind = rng.choice(("kill", "kill", "power_off", "pause", "isolate", "flip_snapshot"))
        on = rng.choice(sorted(SNAPSHOT_MOMENTS)) if kind not in {"isolate", "flip_snapshot"} else ""
        duration = rng.choice((1, 100, 1000)) * MS
        fault = Fault(number, kind, at, duration, rng.getrandbits(32), on, rng.choice((1, 2, 8)))
        if kind in allowed:
            yield fault
        at += rng.randint(100, 1000) * MS
