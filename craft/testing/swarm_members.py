"""The swarm's part about members that come and go."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import replace

from craft.limits import EngineLimits
from craft.testing.faults import LOSSES
from craft.testing.members import KINDS, LATER_KINDS
from craft.testing.plan import MS, SECOND, Fault, MemberChange, Plan

WITH_CHANGES = 0.15
"""The share of runs in which the members change."""

ABOUT_MEMBERS = 0.12
"""The share of others in which they change fast, and little else happens."""

MEMBERS_FROM = 9000
"""Numbers of the faults there."""

AT_CONFIGURATIONS = ("isolate", "isolate", "kill", "kill", "power_off", "strand", "relapse", "pause")
"""What happens there, mostly to a leader that has just appended a configuration."""


def with_members(rng: random.Random, plan: Plan) -> Plan:
    """The members change. Disks do not decay meanwhile: the operator decides what a majority can spare."""
    if rng.random() >= WITH_CHANGES or plan.clock_error is not None:
        return plan
    weights = {kind: rng.choice((0, 1, 1, 3)) for kind in KINDS}
    at, changes = 0, list[MemberChange]()
    pause = rng.choice((300, 1000, 2000)) * MS
    while any(weights.values()) and (at := at + rng.randint(1, 2 * pause)) < plan.duration + 2 * SECOND:
        [kind] = rng.choices(list(weights), list(weights.values()))
        changes.append(MemberChange(at, kind, rng.getrandbits(32)))
    faults = tuple(fault for fault in plan.faults if fault.kind not in LOSSES and not fault.permanent)
    return replace(plan, changes=tuple(changes), faults=faults, duration=plan.duration + 2 * SECOND)


def about_members(rng: random.Random, plan: Plan, allowed: Collection[str], limits: EngineLimits) -> Plan:
    """Few servers, which come and go all the time; one knows nothing of it. `limits` are of a quick run."""
    if rng.random() >= ABOUT_MEMBERS or plan.changes or plan.remote or plan.clock_error is not None:
        return plan
    weights = {kind: rng.choice((0, 1, 1, 3)) for kind in (*KINDS, *LATER_KINDS) if kind != "move"}
    duration = 3 * SECOND
    at, changes = 0, list[MemberChange]()
    pause = rng.choice((30, 100, 250)) * MS
    while any(weights.values()) and (at := at + rng.randint(1, 2 * pause)) < duration:
        [kind] = rng.choices(list(weights), list(weights.values()))
        changes.append(MemberChange(at, kind, rng.getrandbits(32)))
    plan = replace(
        plan,
        servers=rng.choice((1, 2, 2, 3, 3, 3, 5)),
        groups=rng.choice((1, 1, 2, 3)),
        limits=limits,
        delay=(100_000, 300_000),
        sync=rng.choice(((200_000, 600_000), (1 * MS, 10 * MS))),
        apply=(0, 0),
        turn=(0, 0),
        loss=0.0,
        clock_offsets=(),
        clients=rng.choice((2, 3)),
        think=rng.choice(((2 * MS, 20 * MS), (10 * MS, 100 * MS))),
        patience=rng.choice((20, 100)) * MS,
        forwarded=False,
        reads=0.5,
        duration=duration,
        changes=tuple(changes),
    )
    return replace(plan, faults=tuple(one for one in _at_configurations(rng, plan) if one.kind in allowed))


def _at_configurations(rng: random.Random, plan: Plan) -> Iterator[Fault]:
    number, at = MEMBERS_FROM, 0
    if rng.random() < 0.5:
        yield Fault(number, "aloof", 0, rng.choice((500, 1500, 3000)) * MS, rng.getrandbits(32))
    pause = rng.choice((100, 300, 1000)) * MS
    while (at := at + rng.randint(1, 2 * pause)) < plan.duration:
        number += 1
        on = rng.choice(("configure", "configure", "configure", "elect", "start", "append", ""))
        duration, nth = rng.choice((20, 300, 1000)) * MS, rng.choice((1, 1, 2, 3))
        kind = rng.choice(AT_CONFIGURATIONS)
        yield Fault(number, kind, at, duration, rng.getrandbits(32), on, nth)
