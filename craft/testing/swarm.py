"""The swarm: from a seed to a plan. Every seed suffers other kinds of bad luck, in another density.

Knows: the shapes, speeds, loads and faults that are worth mixing. A seed that suffers everything hides what
two faults do together, so each kind is in or out by the seed (Groce's swarm testing; TigerBeetle,
FoundationDB).

Biases, each for all seeds alike: faults wait for moments at which they hurt; small limits; coarse clocks, for
ties; clients of one server only; frames that come again behind elections; the same moment hit several times
in a row.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import fields, replace

from craft.limits import CLIENT_RESULTS_BYTES_MAX, CLIENT_SESSION_TTL_MS, KIB, EngineLimits
from craft.testing.faults import (
    ALOOF,
    AMNESIA,
    CLOCKS,
    DECAY,
    DISKS,
    FAULTS,
    FRAMES,
    LINKS,
    LOSSES,
    RESERVE,
    SERVERS,
    SETS,
    STALLS,
    TAILS,
    WISHES,
)
from craft.testing.moments import MOMENTS
from craft.testing.plan import MS, SECOND, Fault, Plan, RemoteClients
from craft.testing.swarm_members import about_members, with_members
from craft.testing.swarm_reads import with_session_reads
from craft.testing.swarm_reserve import with_reserve
from craft.testing.swarm_sets import with_old_sets
from craft.testing.swarm_snapshots import with_snapshots
from craft.testing.swarm_stalls import with_stalls
from craft.testing.swarm_suspicion import with_suspicion, with_tails
from craft.testing.swarm_wishes import with_wishes
from craft.testing.workloads import WORKLOADS

FAULTS_MAX = 80
"""In one run: more hide one another."""

PERMANENT = ("cut_link", "cut_one_way", "isolate", "deafen", "kill", "pause", "hung_disk", "slow_way")
"""What may last for ever, outside a healthy majority. (Clocks may be left wrong in any case.)"""

AT_MOMENTS = tuple(
    kind
    for kind in FAULTS
    if kind in {*SERVERS, *DISKS, "isolate", "deafen", "strand", "relapse", "lag", "repeat_past"}
    and kind != "crash_all"
)
"""Faults that befall one server, and so may wait for a moment at one."""


WEIGHTS = {
    "isolate": 4,
    "strand": 4,
    "relapse": 4,
    "seesaw": 4,
    "halves": 3,
    "deafen": 3,
    "kill": 3,
    "power_off": 3,
    "crash_pair": 3,
    "lag": 3,
    "echo_frames": 3,
    "repeat_past": 3,
    "slow_disk": 3,
    "pause": 2,
    "slow_way": 2,
}
"""What deposes leaders is drawn more often than the rest, which counts 1: most bugs need logs that part."""

LATE_FROM = 1000
"""Numbers of the faults that are added in runs about clocks: behind all others."""

DRAWN = tuple(
    kind
    for kind in FAULTS
    if kind not in {*RESERVE, *TAILS, *DECAY, *WISHES, *AMNESIA, *STALLS, *ALOOF, *SETS}
)
"""What a seed's faults are drawn from at once.

What came later is drawn for itself: old seeds keep their traces.
"""

LATE_EVERY = 300 * MS
"""So often, at least, somebody hears late in such a run."""

OTHERS = 3
"""So many other kinds of fault are possible there."""

ABOUT_LEADERS = 0.15
"""The share of runs in which leaders come and go, and little else happens."""

DRAMAS = {"seesaw": 8, "relapse": 4, "strand": 3, "crash_pair": 3, "repeat_past": 2, "power_off": 1}
"""What happens there."""

WITH_SESSIONS = 0.25
"""The share of runs in which some clients have sessions of their own, as remote clients do."""

SLOW_SYNC = 100 * MS
"""Where syncs take longer, a call may take longer than the least time to live of a session."""

ABOUT_FLOORS = 0.35
"""The share of these that are about what a session's next write must come behind, and little else."""

AT_ANSWERS = ("kill", "power_off", "pause")
"""What happens there to a server that has just answered."""

QUICK = 4
"""So many times faster are elections, retries and faults in a quick seed: more happens for the same CPU."""


BUSY = (2 * MS, 10 * MS)
"""Between the operations of clients in a busy seed: with less, one seed in twenty took half of the time."""


TURNS_MAX = 15_000
"""Of one seed's fault phase, all servers together: one in twenty-five would take as long as all others."""


def draw(seed: int, *, only: Collection[str] | None = None, workload: str | None = None) -> Plan:
    """The plan of a seed. `only` names the kinds of fault that are allowed; `workload` fixes the workload."""
    plan = _draw(seed, only, workload)
    allowed = FAULTS if only is None else only
    plan = _sessions(random.Random(f"{seed} sessions"), plan, allowed)
    plan = with_members(random.Random(f"{seed} members"), plan)
    coming = random.Random(f"{seed} about members")
    plan = about_members(coming, plan, allowed, _limits(coming, quick=True))
    plan = with_tails(random.Random(f"{seed} tails"), plan, allowed)
    coming = random.Random(f"{seed} suspicion")
    plan = with_suspicion(coming, plan, allowed, _limits(coming, quick=True))
    plan = with_reserve(random.Random(f"{seed} reserve"), plan, allowed)
    plan = with_snapshots(random.Random(f"{seed} snapshots"), plan, allowed)
    plan = with_wishes(random.Random(f"{seed} wishes"), plan, allowed)
    plan = with_stalls(random.Random(f"{seed} stalls"), plan, allowed)
    plan = with_old_sets(random.Random(f"{seed} old sets"), plan, allowed)
    plan = with_session_reads(random.Random(f"{seed} session reads"), plan)
    return replace(plan, turns_max=TURNS_MAX)


def _draw(seed: int, only: Collection[str] | None, workload: str | None) -> Plan:
    rng = random.Random(f"{seed} plan")
    servers = rng.choice((1, 2, 3, 3, 3, 3, 3, 5, 5, 5))
    busy, quick = rng.random() < 0.2, rng.random() < 0.7
    duration = rng.choice((1, 2) if busy else (1, 2, 3, 3) if quick else (2, 3, 5, 8)) * SECOND
    if not busy and rng.random() < 0.03:
        duration = 30 * SECOND
    plan = Plan(
        seed,
        servers,
        rng.choice((1, 2, 2, 3, 3, 3, 4, 7)),
        limits=_limits(rng, quick=quick),
        # What is slow is slow against an election, and never so slow that no leader could stay.
        delay=rng.choice(((100_000, 300_000), (100_000, 300_000), (1 * MS, (15 if quick else 60) * MS))),
        sync=rng.choice(((200_000, 600_000), (1 * MS, 30 * MS), (0, (80 if quick else 400) * MS), (0, 0))),
        apply=rng.choice(((0, 0), (0, 0), (0, 20 * MS))),
        turn=rng.choice(((0, 0), (0, 2 * MS))),
        loss=rng.choice((0.0, 0.0, 0.0, 0.01)),
        repeat=rng.choice((0.0, 0.0, 0.05)),
        reorder=rng.choice((0.0, 0.0, 0.05)),
        wire=rng.random() < 0.1,
        tail_bytes_max=rng.choice((None, None, 300)),
        clock_step=rng.choice((1, 1, 1, 10 * MS, 1 * SECOND)),
        clock_offsets=_offsets(rng, servers),
        workload=workload or rng.choice(sorted(WORKLOADS)),
        clients=rng.choice((1, 2, 3, 5, 8)),
        think=BUSY if busy else rng.choice(((5 * MS, 50 * MS), (20 * MS, 200 * MS))),
        patience=rng.choice((100 * MS, 300 * MS, 3 * SECOND)),
        reads=rng.choice((0.0, 0.2, 0.3, 0.7)),
        duration=duration,
    )
    plan, about_clocks = _levels(random.Random(f"{seed} levels"), plan)
    allowed = FAULTS if only is None else only
    coming = random.Random(f"{seed} leaders")
    if not about_clocks and coming.random() < ABOUT_LEADERS:
        plan = _about_leaders(coming, plan)
        return replace(plan, faults=tuple(_dramas(coming, plan, allowed)))
    if not about_clocks:
        return replace(plan, faults=tuple(_faults(rng, plan, allowed, QUICK if quick else 1)))
    few = random.Random(f"{seed} lags")
    # The clocks keep within their bound, and little else happens, for this is about what clocks order.
    kinds = [kind for kind in DRAWN if kind in allowed and kind not in CLOCKS]
    faults = list(_faults(rng, plan, few.sample(kinds, min(len(kinds), OTHERS)), QUICK if quick else 1))
    late = [kind for kind in ("lag", "slow_way", "cut_link") if kind in allowed]
    return replace(plan, faults=(*faults, *_late(few, plan, late)))


def _sessions(rng: random.Random, plan: Plan, allowed: Collection[str]) -> Plan:
    """Some clients have sessions of their own. What else is drawn of the seed stays as it is, mostly."""
    if rng.random() >= WITH_SESSIONS:
        return plan
    if rng.random() < ABOUT_FLOORS:
        plan = (_told_late if rng.random() < 0.4 else _about_floors)(rng, plan, allowed)
        return replace(plan, remote=RemoteClients(1, window=rng.choice((1, 3))))
    remote = RemoteClients(
        rng.choice((1, 2, 4)),
        ttl_ms=rng.choice((1000, 1000, CLIENT_SESSION_TTL_MS)),
        window=rng.choice((1, 1, 3, 8)),
        patience=rng.choice((20, 100, 300, 1000)) * MS,
        lost=rng.choice((0.0, 0.02, 0.2)),
        silence=rng.choice(((0, 0), (100 * MS, 600 * MS), (500 * MS, 2000 * MS))),
        results_bytes_max=rng.choice((600, CLIENT_RESULTS_BYTES_MAX, CLIENT_RESULTS_BYTES_MAX)),
        closes=rng.choice((0.02, 0.02, 0.2)),
    )
    if plan.sync[1] > SLOW_SYNC:  # else every call outlives its session, and is begun anew for ever
        remote = replace(remote, ttl_ms=CLIENT_SESSION_TTL_MS)
    clients = max(plan.clients, remote.clients)
    # Long enough for a session to end.
    return replace(plan, remote=remote, clients=clients, duration=max(plan.duration, 2 * SECOND))


def _about_floors(rng: random.Random, plan: Plan, allowed: Collection[str]) -> Plan:
    """A server leads nothing. Its clients ask again as soon as they are told, and want no more than
    `committed`; it forwards to two leaders whose clocks differ, and who hear of each other late.
    """
    # One clock is fast; or all are right, and so coarse that they tie.
    error, fast = rng.choice((0, 100, 100)) * MS, rng.randrange(3)
    plan = replace(
        plan,
        servers=3,
        groups=2,
        limits=_limits(rng, quick=True),
        delay=rng.choice(((200_000, 600_000), (1 * MS, 3 * MS))),
        sync=rng.choice(((0, 0), (200_000, 600_000))),
        apply=(0, 0),
        turn=rng.choice(((0, 0), (0, 2 * MS))),
        clock_step=1 if error else 10 * MS,
        clock_offsets=tuple(error if i == fast else -error for i in range(3)),
        clients=rng.choice((2, 3)),
        think=(0, 2 * MS),
        patience=rng.choice((100, 300)) * MS,
        forwarded=True,
        reads=0.0,
        committed=rng.choice((0.7, 1.0)),
        clock_error=None,
        duration=2 * SECOND,
    )
    kinds = [kind for kind in AT_ANSWERS if kind in allowed]
    at_answers = _at_answers(rng, plan, kinds) if rng.random() < 0.5 else ()
    late = [kind for kind in ("slow_way", "slow_way", "cut_one_way", "pause") if kind in allowed]
    return replace(plan, faults=(*at_answers, *_late(rng, plan, late)))


def _told_late(rng: random.Random, plan: Plan, allowed: Collection[str]) -> Plan:
    """The clocks are good, and the bounds upon them tight. But what their readings travel by is slow."""
    error = 5 * MS
    plan = replace(
        plan,
        servers=3,
        groups=3,
        limits=replace(_limits(rng, quick=False), clock_offset_ms_max=2 * error // MS),
        delay=(100_000, 300_000),
        sync=(200_000, 600_000),
        apply=(0, 0),
        turn=(0, 0),
        clock_step=1,
        clock_offsets=tuple(rng.choice((-error, error)) for _ in range(3)),
        clients=6,
        think=(1 * MS, 20 * MS),
        committed=0.7,
        clock_error=error,
        duration=2 * SECOND,
    )
    late = [kind for kind in ("lag", "pause") if kind in allowed]
    return replace(plan, faults=tuple(_late(rng, plan, late)))


def _at_answers(rng: random.Random, plan: Plan, kinds: list[str]) -> Iterator[Fault]:
    """Who has just told a client dies, and is back soon."""
    at, number = rng.randint(1, 300) * MS, 0
    while kinds and at < plan.duration:
        number += 1
        kind = rng.choice(kinds)
        nth = rng.choice((1, 2, 8))
        yield Fault(number, kind, at, rng.choice((1, 20)) * MS, rng.getrandbits(32), "answer", nth)
        at += rng.randint(100, 500) * MS


def _about_leaders(rng: random.Random, plan: Plan) -> Plan:
    """Leaders come and go, each with a suffix that others lack, and little else happens.

    Few clients, who give up soon and try again: one that is isolated with its leader makes the suffix long.
    """
    servers = rng.choice((3, 5, 5))
    limits = replace(
        _limits(rng, quick=True),
        uncommitted_entries_max=200,
        leader_return_ms=20,
        append_bytes_max=rng.choice((150, EngineLimits().append_bytes_max)),
    )
    return replace(
        plan,
        servers=servers,
        groups=rng.choice((1, 2, 3)),
        limits=limits,
        delay=(100_000, 300_000),
        sync=rng.choice(((200_000, 600_000), (1 * MS, 30 * MS))),
        clock_offsets=_offsets(rng, servers),
        clients=rng.choice((1, 2, 3)),
        think=(1 * MS, 10 * MS),
        patience=rng.choice((20, 100)) * MS,
        duration=3 * SECOND,
    )


def _dramas(rng: random.Random, plan: Plan, allowed: Collection[str]) -> Iterator[Fault]:
    """One after the other, each with time for its elections."""
    weights = {kind: weight for kind, weight in DRAMAS.items() if kind in allowed}
    election = plan.limits.election_timeout_ms_max * MS
    at, number = rng.randint(1, 2 * election), 0
    while weights and at < plan.duration:
        number += 1
        [kind] = rng.choices(list(weights), list(weights.values()))
        duration = rng.choice((2, 4, 6)) * election
        on = rng.choice(sorted(MOMENTS)) if kind in AT_MOMENTS and rng.random() < 0.7 else ""
        yield Fault(number, kind, at, duration, rng.getrandbits(32), on, rng.choice((1, 2, 8)))
        at += rng.randint(1, duration if not on else election)


def _late(rng: random.Random, plan: Plan, kinds: list[str]) -> Iterator[Fault]:
    """Somebody hears late what others do, and leads on: then nothing but the clocks orders their writes."""
    at, number = 0, LATE_FROM
    while kinds and (at := at + rng.randint(1, LATE_EVERY)) < plan.duration:
        number += 1
        yield Fault(number, rng.choice(kinds), at, rng.choice((100, 400)) * MS, rng.getrandbits(32))


def _levels(rng: random.Random, plan: Plan) -> tuple[Plan, bool]:
    """Some clients want no more than `committed`. Is the run about what the clocks order?

    Of some of those clusters a bound on the clocks' error is stated; in others somebody leads nothing, and
    forwards its session's writes to leaders whose clocks differ.
    """
    if rng.random() < 0.7:
        return plan, False
    plan = replace(plan, committed=rng.choice((0.3, 0.7)))
    if rng.random() < 0.3:
        return plan, False
    stated = rng.random() < 0.6
    error = rng.choice((20, 100)) * MS
    plan = replace(
        plan,
        groups=max(plan.groups, plan.servers) if stated else max(1, min(plan.groups, plan.servers - 1)),
        clock_error=error if stated else None,
        clock_offsets=_apart(rng, plan.servers, error, evenly=not stated),
        clock_step=1,
        clients=8,
        think=(1 * MS, 20 * MS),
    )
    return plan, True


def _apart(rng: random.Random, servers: int, error: int, *, evenly: bool) -> tuple[int, ...]:
    """Clocks at the ends of a bound; or evenly spread, so that of two leaders one is ahead and one behind.

    Where a majority's clocks agree, leaders that are behind stamp by theirs.
    """
    if not evenly:
        return tuple(rng.choice((-error, error)) for _ in range(servers))
    offsets = [2 * error * place // max(1, servers - 1) - error for place in range(servers)]
    rng.shuffle(offsets)
    return tuple(offsets)


def _limits(rng: random.Random, *, quick: bool) -> EngineLimits:
    limits = EngineLimits()
    if quick:
        names = [field.name for field in fields(limits) if "_ms" in field.name and "clock" not in field.name]
        limits = replace(limits, **{name: max(1, getattr(limits, name) // QUICK) for name in names})
    if rng.random() < 0.2:  # what was sent is sent again while the first is still on its way
        limits = replace(limits, proposal_retry_ms=rng.choice((10, 50)))
    if rng.random() < 0.3:  # a leader is back before what it was told in its earlier term is forgotten
        limits = replace(limits, leader_return_ms=20)
    if rng.random() < 0.3:  # what is overwritten is long
        limits = replace(limits, uncommitted_entries_max=200)
    if rng.random() < 0.6:
        return limits
    return replace(
        limits,
        entry_bytes_max=rng.choice((700, 4 * KIB)),
        append_bytes_max=rng.choice((150, 500, 8 * KIB)),
        inflight_bytes_max=rng.choice((1500, 32 * KIB)),
        uncommitted_entries_max=rng.choice((1, 2, 8)),
        proposals_bytes_max=rng.choice((4 * KIB, 64 * KIB)),
        proposals_max=rng.choice((10, 1000)),
        forwarded_bytes_max=rng.choice((1 * KIB, 64 * KIB)),
        unmerged_bytes_max=rng.choice((100, 1 * KIB, 64 * KIB)),
        apply_bytes_max=rng.choice((200, 64 * KIB)),
        log_memory_bytes_max=rng.choice((0, 4 * KIB)),
        load_bytes_max=rng.choice((100, 2 * KIB)),
    )


def _offsets(rng: random.Random, servers: int) -> tuple[int, ...]:
    size = rng.choice((0, 0, 1 * MS, 100 * MS, 3600 * SECOND))
    return tuple(rng.randint(-size, size) for _ in range(servers))


def _faults(rng: random.Random, plan: Plan, allowed: Collection[str], quick: int) -> Iterator[Fault]:
    share, losses = rng.choice((0.1, 0.3, 0.6)), rng.random() < 0.3
    kinds = [
        kind for kind in DRAWN if kind in allowed and rng.random() < share and (losses or kind not in LOSSES)
    ]
    weights = [WEIGHTS.get(kind, 1) for kind in kinds]
    number = 0
    if kinds:
        pause = rng.choice((200, 700, 2000)) * MS // quick
        waits = rng.choice((0.0, 0.3, 0.8))  # how many wait for a moment
        moments = rng.sample(sorted(MOMENTS), rng.randint(1, 4))
        at = rng.randint(0, 1500) * MS // quick
        while at < plan.duration and number < FAULTS_MAX:
            [kind] = rng.choices(kinds, weights)
            number += 1
            duration = rng.choice((20, 400, 1500, 1500, 4000)) * MS // quick
            on = rng.choice(moments) if kind in AT_MOMENTS and rng.random() < waits else ""
            if kind == "seesaw":  # it takes two elections, and comes to nothing if another cut divides them
                duration = max(duration, 6 * plan.limits.election_timeout_ms_max * MS)
                yield Fault(number, kind, at, duration, rng.getrandbits(32))
                at += rng.choice((0, duration, duration))
            else:
                yield Fault(number, kind, at, duration, rng.getrandbits(32), on, rng.choice((1, 1, 2, 3, 8)))
            at += rng.randint(1, 2 * pause)
    if rng.random() < 0.5:
        choices = [kind for kind in PERMANENT if kind in allowed]
        if choices and plan.servers > 2:
            kind = rng.choice(choices)
            yield Fault(number + 1, kind, plan.duration, 0, rng.getrandbits(32), permanent=True)


SWITCHES = {
    "links": (*LINKS, *ALOOF),
    "frames": tuple(FRAMES),
    "servers": tuple(SERVERS),
    "disks": (*DISKS, *RESERVE, *STALLS),
    "losses": tuple(LOSSES),
    "tails": (*TAILS, *AMNESIA),
    "clocks": tuple(CLOCKS),
    "wishes": tuple(WISHES),
}
"""Names for whole classes of fault, for switching them on and off."""
