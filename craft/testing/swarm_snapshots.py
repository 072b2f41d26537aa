"""The swarm's part about snapshots: who takes them, how small the logs are kept, who dies meanwhile."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import replace

from craft.testing.moments import SNAPSHOT_MOMENTS
from craft.testing.plan import MS, Fault, Plan, SnapshotPlan

WITH_SNAPSHOTS = 0.3
"""The share of runs in which servers take snapshots, and compact their logs."""

WITH_OWN_DATA = 0.3
"""The share of those in which state machines keep their data themselves."""

SNAPSHOTS_FROM = 4000
"""Numbers of the faults that are added there: behind all others."""


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
    return replace(plan, limits=limits, snapshots=snapshots, faults=(*plan.faults, *at_moments))


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
