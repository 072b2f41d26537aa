"""Bad luck, one function a kind: it begins, and returns how it ends.

Knows: what to break. Must not know: when (the swarm draws it).

Invariants
- What a fault chooses depends on its own `choice` alone, and on the world as it finds it.
- Faults overlap: each ends what it began and nothing else.
- What a server cannot come back from (`Losses`) never befalls more than a minority, or the cluster could not
  survive by design; beyond that such a fault does nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import partial

from craft.testing.disk import Crash
from craft.testing.plan import MS, SECOND, Fault
from craft.testing.world import World
from craft.types import ServerId

End = Callable[[], None]
Begin = Callable[[World, random.Random, ServerId | None], End | None]
"""`begin(world, rng, server)`; the server is the one at which the moment was, if the fault waited for one."""

HOUR_NS = 3600 * SECOND


def begin(world: World, fault: Fault, server: ServerId | None = None) -> End | None:
    """A fault begins. Returns what ends it, or None where there is nothing to end."""
    rng = random.Random(fault.choice)
    world.faults_begun[fault.kind] += 1
    world.say("fault", f"#{fault.number} {fault.kind}" + (f" at server {server}" if server else ""))
    world.trace.fold(world.time, fault.number)
    return FAULTS[fault.kind](world, rng, server)


def _victim(world: World, rng: random.Random, server: ServerId | None) -> ServerId | None:
    """The server of the moment; else a leader, or anyone."""
    if server is not None:
        return server
    leaders = [i for i, one in sorted(world.servers.items()) if one.engine.state.led]
    running = sorted(world.servers)
    return rng.choice(leaders if leaders and rng.random() < 0.5 else running) if running else None


# -- links -----------------------------------------------------------------------------------------


def _cut(world: World, ways: Iterable[tuple[ServerId, ServerId]]) -> End:
    cut = sorted(ways)
    world.say("fault", "cut " + ", ".join(f"{a}>{b}" for a, b in cut))
    for a, b in cut:
        world.cut(a, b)

    def end() -> None:
        for a, b in cut:
            world.mend(a, b)

    return end


def _both(a: ServerId, b: ServerId) -> list[tuple[ServerId, ServerId]]:
    return [(a, b), (b, a)]


def _cut_link(world: World, rng: random.Random, _server: ServerId | None) -> End | None:
    if len(world.ids) < 2:
        return None
    return _cut(world, _both(*rng.sample(world.ids, 2)))


def _cut_one_way(world: World, rng: random.Random, _server: ServerId | None) -> End | None:
    if len(world.ids) < 2:
        return None
    a, b = rng.sample(world.ids, 2)
    return _cut(world, [(a, b)])


def _isolate(world: World, rng: random.Random, server: ServerId | None) -> End | None:
    i = _victim(world, rng, server)
    if i is None:
        return None
    return _cut(world, [way for j in world.ids if j != i for way in _both(i, j)])


def _deafen(world: World, rng: random.Random, server: ServerId | None) -> End | None:
    """It speaks and hears nothing, or hears and is not heard."""
    i = _victim(world, rng, server)
    if i is None:
        return None
    outward = rng.random() < 0.5
    return _cut(world, [(i, j) if outward else (j, i) for j in world.ids if j != i])


def _halves(world: World, rng: random.Random, _server: ServerId | None) -> End:
    shuffled = rng.sample(world.ids, len(world.ids))
    size = rng.randint(1, max(1, len(shuffled) // 2))
    return _cut(world, [way for a in shuffled[:size] for b in shuffled[size:] for way in _both(a, b)])


def _bridge(world: World, rng: random.Random, _server: ServerId | None) -> End:
    """Two halves that only one server still connects."""
    _, *rest = rng.sample(world.ids, len(world.ids))
    middle = len(rest) // 2
    return _cut(world, [way for a in rest[:middle] for b in rest[middle:] for way in _both(a, b)])


def _ring(world: World, rng: random.Random, _server: ServerId | None) -> End:
    """Everyone sees the next few on a ring: every majority is another one."""
    ring = rng.sample(world.ids, len(world.ids))
    near = max(1, len(ring) // 4)
    far = [step for step in range(1, len(ring)) if min(step, len(ring) - step) > near]
    return _cut(
        world, [(a, ring[(place + step) % len(ring)]) for place, a in enumerate(ring) for step in far]
    )


def _strand(world: World, rng: random.Random, server: ServerId | None) -> End | None:
    """A leader reaches one peer only: what it appends now lives on too few servers to be committed."""
    i = _victim(world, rng, server)
    others = [j for j in world.ids if j != i]
    if i is None or not others:
        return None
    kept = rng.choice(others)
    end = _cut(world, [way for j in others if j != kept for way in _both(i, j)])
    if rng.random() < 0.7:
        _crash_later(world, rng.randint(0, 30) * MS, i, Crash.POWER)
        world.start_later(i, rng.randint(200, 3000) * MS)
    return end


def _flap(world: World, rng: random.Random, _server: ServerId | None) -> End | None:
    """A link that goes up and down."""
    if len(world.ids) < 2:
        return None
    ways = _both(*rng.sample(world.ids, 2))
    period = rng.choice((20, 200, 700, 1500)) * MS
    ends: list[End] = []
    over = False

    def flip() -> None:
        if over:
            return
        if ends:
            ends.pop()()
        else:
            ends.append(_cut(world, ways))
        world.at(world.time + rng.randint(period // 2, period), flip)

    def end() -> None:
        nonlocal over
        over = True
        for one in ends:
            one()

    flip()
    return end


def _swizzle(world: World, rng: random.Random, _server: ServerId | None) -> End:
    """Cut off some servers one by one, and mend them in another order (FoundationDB's swizzle-clog)."""
    some = rng.sample(world.ids, rng.randint(1, len(world.ids)))
    ends: list[End] = []
    over = False

    def cut(i: ServerId) -> None:
        if not over:
            ends.append(_cut(world, [way for j in world.ids if j != i for way in _both(i, j)]))

    def end() -> None:
        nonlocal over
        over = True
        rng.shuffle(ends)
        for step, one in enumerate(ends):
            if world.calm:
                one()
            else:
                world.at(world.time + step * rng.randint(10, 300) * MS, one)

    for step, i in enumerate(some):
        world.at(world.time + step * rng.randint(10, 300) * MS, partial(cut, i))
    return end


def _set_network(name: str, values: tuple[float, ...]) -> Begin:
    def begin_(world: World, rng: random.Random, _server: ServerId | None) -> End:
        before = getattr(world.network, name)
        setattr(world.network, name, rng.choice(values))
        return lambda: setattr(world.network, name, before)

    return begin_


def _slow_way(world: World, rng: random.Random, _server: ServerId | None) -> End | None:
    if len(world.ids) < 2:
        return None
    a, b = rng.sample(world.ids, 2)
    extra = rng.choice((5, 50, 300, 900)) * MS
    ways = [(a, b)] if rng.random() < 0.5 else _both(a, b)
    for one in ways:
        world.network.slow[one] = world.network.slow.get(one, 0) + extra

    def end() -> None:
        for one in ways:
            world.network.slow[one] = max(0, world.network.slow.get(one, 0) - extra)

    return end


def _echoes(world: World, rng: random.Random, _server: ServerId | None) -> End:
    """What is sent now arrives again much later, behind elections and restarts."""
    share = rng.choice((0.05, 0.3, 1.0))
    spans = ((300 * MS, 900 * MS), (1 * SECOND, 4 * SECOND))
    before = world.echo
    world.echo = (share, rng.choice(spans))

    def end() -> None:
        world.echo = before

    return end


# -- servers ---------------------------------------------------------------------------------------


def _crash_later(world: World, delay: int, i: ServerId, how: Crash) -> None:
    """What was begun in the fault phase does not reach into the next."""

    def crash() -> None:
        if not world.calm:
            world.crash(i, how)

    world.at(world.time + delay, crash)


def _hold_down(world: World, i: ServerId) -> End:
    world.down[i] = world.down.get(i, 0) + 1

    def end() -> None:
        world.down[i] -= 1
        world.start(i)

    return end


def _crash(how: Crash) -> Begin:
    def begin_(world: World, rng: random.Random, server: ServerId | None) -> End | None:
        i = _victim(world, rng, server)
        if i is None:
            return None
        torn = how is Crash.KILL and rng.random() < 0.3
        world.crash(i, how, torn=torn, refused=rng.random() < 0.7)
        if rng.random() < 0.3:
            world.start_later(i, rng.randint(1, 50) * MS)  # at once: its peers may not even have noticed
            return None
        return _hold_down(world, i)

    return begin_


def _crash_all(world: World, rng: random.Random, _server: ServerId | None) -> None:
    how = rng.choice((Crash.KILL, Crash.POWER, Crash.POWER))
    for i in sorted(world.servers):
        world.crash(i, how)
        world.start_later(i, rng.randint(1, 800) * MS)


def _power_cut(world: World, rng: random.Random, _server: ServerId | None) -> None:
    """Disks stop syncing for a moment, and then the power of some or all servers goes."""
    some = rng.sample(world.ids, rng.randint(1, len(world.ids)))
    for i in some:
        world.disks[i].hung = True

    def off() -> None:
        for i in some:
            world.disks[i].hung = False
            if not world.calm:
                world.crash(i, Crash.POWER)
            world.start_later(i, rng.randint(1, 1500) * MS)

    world.at(world.time + rng.choice((1, 10, 100, 500)) * MS, off)


def _crash_in_recovery(world: World, rng: random.Random, server: ServerId | None) -> None:
    """Down, up, and down again before it has said much."""
    i = _victim(world, rng, server)
    if i is not None:
        world.crash(i, rng.choice(list(Crash)))
        delay = 0
        for _ in range(rng.randint(1, 4)):
            delay += rng.randint(1, 300) * MS
            world.start_later(i, delay)
            delay += rng.choice((0, 1, 20)) * MS
            _crash_later(world, delay, i, rng.choice(list(Crash)))
        world.start_later(i, delay + 100 * MS)


def _stop(world: World, rng: random.Random, server: ServerId | None) -> End | None:
    """A server is asked to stop, gives its groups away, and ends."""
    i = _victim(world, rng, server)
    stopping = None if i is None else world.servers.get(i)
    if i is None or stopping is None:
        return None
    stopping.input(lambda: stopping.engine.hand_over(stopping.now()))
    world.at(world.time + rng.choice((5, 100, 1000)) * MS, partial(world.stop, stopping))
    return _hold_down(world, i)


def _pause(world: World, rng: random.Random, server: ServerId | None) -> End | None:
    i = _victim(world, rng, server)
    if i is None:
        return None
    world.pause(i)
    return partial(world.resume, i)


# -- disks -----------------------------------------------------------------------------------------


def _slow_disk(world: World, rng: random.Random, server: ServerId | None) -> End | None:
    i = _victim(world, rng, server)
    if i is None:
        return None
    slow = rng.choice((20, 100, 700)) * MS
    world.sync_spans[i] = (slow // 2, slow)

    def end() -> None:
        world.sync_spans.pop(i, None)

    return end


def _flag(name: str) -> Begin:
    """Something is wrong with a disk until it is not."""

    def begin_(world: World, rng: random.Random, server: ServerId | None) -> End | None:
        i = _victim(world, rng, server)
        if i is None:
            return None
        disk = world.disks[i]
        setattr(disk, name, True)
        return lambda: setattr(disk, name, False)

    return begin_


def _may_lose(world: World, i: ServerId) -> bool:
    """May this server be lost for good, beside those that are?"""
    return i not in world.lost and len(world.lost) < (len(world.ids) - 1) // 2


def _lose(spoil: Callable[[World, random.Random, ServerId], str | None], *, running: bool = False) -> Begin:
    """A disk decays, at rest or while its server runs. Its server must never start on it again."""

    def begin_(world: World, rng: random.Random, server: ServerId | None) -> None:
        i = server or rng.choice(world.ids)
        if not _may_lose(world, i):
            return
        world.lost.add(i)
        if not (running and rng.random() < 0.5):
            world.crash(i, rng.choice(list(Crash)))
        what = spoil(world, rng, i)
        world.say("fault", f"disk of server {i}: {what}")
        if what is None:
            world.lost.discard(i)
        world.start_later(i, rng.randint(10, 500) * MS)

    return begin_


def _torn_power(world: World, rng: random.Random, server: ServerId | None) -> None:
    """Power goes in the middle of a write: whether the torn record had been synced, nobody can tell then."""
    i = _victim(world, rng, server)
    if i is not None and _may_lose(world, i):
        world.lost.add(i)
        world.crash(i, Crash.POWER, torn=True)
        if not world.disks[i].was_torn:
            world.lost.discard(i)
        world.start_later(i, rng.randint(10, 500) * MS)


def _wipe(world: World, rng: random.Random, server: ServerId | None) -> None:
    """An empty disk under an old id: its peers must not let it in."""
    i = server or rng.choice(world.ids)
    met = all(i in world.disks[j].peer_disks for j in world.ids if j != i)
    if met and _may_lose(world, i):
        world.lost.add(i)
        world.crash(i, Crash.POWER)
        world.disks[i] = world.new_disk(i)
        world.wiped.add(i)
        world.start_later(i, rng.randint(10, 500) * MS)


# -- clocks ----------------------------------------------------------------------------------------


def _clocks(change: Callable[[World, random.Random, ServerId], None], *, all_: bool = False) -> Begin:
    """A clock goes wrong, or all of them. When it is over some are repaired and some are left as they are."""

    def begin_(world: World, rng: random.Random, _server: ServerId | None) -> End:
        whose = world.ids if all_ else rng.sample(world.ids, rng.randint(1, len(world.ids)))
        for i in whose:
            change(world, rng, i)
        repaired = rng.random() < 0.5

        def end() -> None:
            for i in whose if repaired else ():
                world.clocks[i].repair(world.time)

        return end

    return begin_


def _jump(world: World, rng: random.Random, i: ServerId) -> None:
    size = rng.choice((1 * MS, 50 * MS, 400 * MS, 10 * SECOND, HOUR_NS))
    world.clocks[i].jump(world.time, rng.choice((-1, 1)) * rng.randint(size // 2, size))


def _drift(world: World, rng: random.Random, i: ServerId) -> None:
    world.clocks[i].drift(world.time, rng.choice((-500_000, -10_000, 10_000, 500_000, 3_000_000)))


def _back(world: World, rng: random.Random, i: ServerId) -> None:
    world.clocks[i].drift(world.time, rng.choice((-1_500_000, -3_000_000)))


def _stand_still(world: World, _rng: random.Random, i: ServerId) -> None:
    world.clocks[i].stop(world.time)


def _set_back(world: World, _rng: random.Random, i: ServerId) -> None:
    world.clocks[i].jump(world.time, -HOUR_NS)


LINKS: dict[str, Begin] = {
    "cut_link": _cut_link,
    "cut_one_way": _cut_one_way,
    "isolate": _isolate,
    "deafen": _deafen,
    "halves": _halves,
    "bridge": _bridge,
    "ring": _ring,
    "strand": _strand,
    "flap": _flap,
    "swizzle": _swizzle,
}
FRAMES: dict[str, Begin] = {
    "lose_frames": _set_network("loss", (0.02, 0.2, 0.5)),
    "repeat_frames": _set_network("repeat", (0.05, 0.5)),
    "reorder_frames": _set_network("reorder", (0.05, 0.5)),
    "delay_frames": _set_network("delay", ((5 * MS, 50 * MS), (50 * MS, 400 * MS))),  # type: ignore[arg-type]
    "slow_way": _slow_way,
    "echo_frames": _echoes,
}
SERVERS: dict[str, Begin] = {
    "kill": _crash(Crash.KILL),
    "power_off": _crash(Crash.POWER),
    "crash_all": _crash_all,
    "power_cut": _power_cut,
    "crash_in_recovery": _crash_in_recovery,
    "stop": _stop,
    "pause": _pause,
}
DISKS: dict[str, Begin] = {
    "slow_disk": _slow_disk,
    "hung_disk": _flag("hung"),
    "fail_sync": _flag("failing"),
    "full_disk": _flag("full"),
}
LOSSES: dict[str, Begin] = {
    "torn_by_power": _torn_power,
    "flip_bit": _lose(lambda world, rng, i: world.disks[i].flip(rng), running=True),
    "lose_synced": _lose(lambda world, rng, i: world.disks[i].truncate(rng, side_too=False)),
    "lose_synced_and_side_files": _lose(lambda world, rng, i: world.disks[i].truncate(rng, side_too=True)),
    "hole": _lose(lambda world, rng, i: world.disks[i].punch(rng)),
    "wipe": _wipe,
}
CLOCKS: dict[str, Begin] = {
    "clock_jump": _clocks(_jump),
    "clock_drift": _clocks(_drift),
    "clock_backwards": _clocks(_back),
    "clock_stop": _clocks(_stand_still),
    "clocks_set_back": _clocks(_set_back, all_=True),
}
FAULTS: dict[str, Begin] = {**LINKS, **FRAMES, **SERVERS, **DISKS, **LOSSES, **CLOCKS}
"""Every kind of bad luck."""
