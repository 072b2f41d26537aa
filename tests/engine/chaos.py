"""One seed, one cluster, every fault mixed; then everything heals, and all that is outstanding is answered.

A seed draws the cluster's shape, its limits and which kinds of fault it suffers (a seed that suffers all of
them hides what two of them do together). Safety is checked by the driver at all times, liveness here. Repeat
one: `python -m tests.engine.chaos --seed N`; search: `python -m tests.engine.chaos --from 1 --count 1000`.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from craft.errors import Rejected
from craft.limits import KIB, EngineLimits
from tests.driver import EPOCH, MS, SECOND, Cluster

HEALED_WITHIN = 40 * SECOND
"""Of virtual time. Elections take one or two, retries one each; the rest is for what queued up meanwhile."""

HOUR = 3600 * SECOND


class Chaos:
    """A cluster, its clients and its bad luck, all from one seed."""

    def __init__(self, seed: int) -> None:
        self.seed, self.rng = seed, random.Random(seed)
        self.cluster = _cluster(seed, self.rng)
        kinds = list(FAULTS)
        self.kinds = self.rng.sample(kinds, self.rng.randint(1, len(kinds)))
        self.writes: dict[Any, tuple[int, int]] = {}  # token -> (server, incarnation)
        self.reads: dict[Any, tuple[int, int]] = {}
        self.refused = 0
        self.serial = 0
        self.healed = False

    def run(self) -> None:
        """Faults and clients, then healing, then the promise: everything is answered."""
        end = self.cluster.time + self.rng.randint(2, 8) * SECOND
        pace = self.rng.choice((5, 20, 100)) * MS
        pause = self.rng.choice((100, 300, 1000)) * MS
        fault_at = self.cluster.time + self.rng.randint(0, 1500) * MS
        while self.cluster.time < end:
            self.cluster.run(self.rng.randint(0, 2 * pace))
            self.request()
            if self.cluster.time >= fault_at:
                FAULTS[self.rng.choice(self.kinds)](self)
                fault_at = self.cluster.time + self.rng.randint(1, 2 * pause)
        self.heal()
        self.demand_answers()

    # -- clients ----------------------------------------------------------------------------------

    def request(self) -> None:
        """One client does something, on a server that runs."""
        running = sorted(set(self.cluster.servers) - self.cluster.paused)
        if running:
            i = self.rng.choice(running)
            self.read(i) if self.rng.random() < 0.3 else self.write(i)

    def write(self, i: int) -> None:
        commands = []
        for _ in range(self.rng.choice((1, 1, 1, 5))):
            self.serial += 1
            commands.append(b"%d:" % self.serial + bytes(self.rng.choice((0, 0, 10, 100))))
        try:
            token = self.cluster.propose(i, *commands)
        except Rejected:
            self.refused += 1
        else:
            self.writes[token] = (i, self.cluster.servers[i].incarnation)

    def read(self, i: int) -> None:
        self.reads[self.cluster.read(i)] = (i, self.cluster.servers[i].incarnation)

    # -- the end ----------------------------------------------------------------------------------

    def heal(self) -> None:
        """No more faults. Clocks are left as they are, repaired, or all set back."""
        c = self.cluster
        self.healed = True
        c.heal()
        c.loss = c.repeat = c.reorder = 0.0
        c.held.clear()
        c.syncs.clear()
        for i in sorted(c.paused):
            c.resume(i)
        for i in c.ids:
            server = c.servers.get(i)
            if server is not None and server.engine.state.stopping:
                c.stop(i)
            if i not in c.servers:
                c.start(i)
        _relink(c)
        clocks = self.rng.choice(("left", "repaired", "back"))
        if clocks == "repaired":
            c.clocks.clear()
        elif clocks == "back":
            c.clocks = dict.fromkeys(c.ids, lambda at: EPOCH - HOUR + at)

    def demand_answers(self) -> None:
        """Liveness: the cluster settles, whoever survived is answered, and all servers agree."""
        c = self.cluster
        c.run_until(lambda: c.open() and None not in c.leaders(), HEALED_WITHIN)
        for i in c.ids:
            self.read(i)
            self.write(i)
        c.run_until(lambda: not self.outstanding(), HEALED_WITHIN)
        c.quiesce()
        c.check_answers()
        assert len({server.engine.state.digest for server in c.servers.values()}) == 1
        assert not c.ended, c.ended
        assert not c.wire_errors, c.wire_errors

    def outstanding(self) -> bool:
        servers = self.cluster.servers
        self.writes = {
            token: (i, incarnation)
            for token, (i, incarnation) in self.writes.items()
            if servers[i].incarnation == incarnation and token not in servers[i].answers
        }
        self.reads = {
            token: (i, incarnation)
            for token, (i, incarnation) in self.reads.items()
            if servers[i].incarnation == incarnation and token not in servers[i].served
        }
        return bool(self.writes or self.reads)


def _cluster(seed: int, rng: random.Random) -> Cluster:
    tight = rng.random() < 0.5
    limits = EngineLimits()
    if tight:
        limits = EngineLimits(
            entry_bytes_max=rng.choice((700, 4 * KIB)),
            append_bytes_max=rng.choice((500, 8 * KIB)),
            inflight_bytes_max=rng.choice((1500, 32 * KIB)),
            uncommitted_entries_max=rng.choice((1, 2, 8)),
            proposals_bytes_max=rng.choice((4 * KIB, 64 * KIB)),
            proposals_max=rng.choice((10, 1000)),
            forwarded_bytes_max=rng.choice((1 * KIB, 64 * KIB)),
            unmerged_bytes_max=rng.choice((1 * KIB, 64 * KIB)),
            log_memory_bytes_max=rng.choice((0, 4 * KIB)),
            load_bytes_max=rng.choice((100, 2 * KIB)),
        )
    return Cluster(
        rng.choice((1, 2, 3, 3, 3, 3, 5)),
        rng.choice((1, 2, 3, 3, 3, 7)),
        seed=seed,
        limits=limits,
        delay=rng.choice(((100_000, 300_000), (MS, 20 * MS))),
        sync=rng.choice(((200_000, 600_000), (MS, 30 * MS), (0, 0))),
        apply=rng.choice(((0, 0), (0, 20 * MS))),
        turn=rng.choice(((0, 0), (0, 2 * MS))),
        wire=rng.random() < 0.2,
        tail_bytes_max=rng.choice((None, 300)) if tight else None,
    )


def _relink(c: Cluster) -> None:
    for a in sorted(c.servers):
        for b in sorted(c.servers):
            if a < b and (a, b) not in c.links:
                c.link(a, b)


# -- faults ---------------------------------------------------------------------------------------


def _a_server(chaos: Chaos) -> int | None:
    running = sorted(chaos.cluster.servers)
    return chaos.rng.choice(running) if running else None


def _crash(chaos: Chaos) -> None:
    i = _a_server(chaos)
    if i is not None:
        chaos.cluster.crash(i, refused=chaos.rng.random() < 0.7, keep=chaos.rng.randint(0, 1))
        chaos.cluster.at(chaos.rng.randint(0, 2000) * MS, lambda: _start(chaos, i))


def _start(chaos: Chaos, i: int) -> None:
    if i not in chaos.cluster.servers:
        chaos.cluster.start(i)


def _crash_all(chaos: Chaos) -> None:
    if chaos.rng.random() < 0.5:
        for i in sorted(chaos.cluster.servers):
            chaos.cluster.crash(i, keep=chaos.rng.randint(0, 1))
            chaos.cluster.at(chaos.rng.randint(0, 300) * MS, partial(_start, chaos, i))


def _power_cut(chaos: Chaos) -> None:
    """Some disks stop syncing, and then the power goes: all that was written meanwhile is lost."""
    c = chaos.cluster
    victims = chaos.rng.sample(c.ids, chaos.rng.randint(1, len(c.ids)))
    c.held.update(victims)

    def cut() -> None:
        c.held.difference_update(victims)
        for i in victims:
            if i in c.servers and not chaos.healed:
                c.crash(i)
            c.at(chaos.rng.randint(0, 1000) * MS, partial(_start, chaos, i))

    c.at(chaos.rng.randint(1, 300) * MS, cut)


def _stop(chaos: Chaos) -> None:
    i = _a_server(chaos)
    if i is None or i in chaos.cluster.paused:
        return
    server = chaos.cluster.servers[i]
    server.engine.hand_over(server.now())

    def stopped() -> None:
        if chaos.cluster.alive(server):
            chaos.cluster.stop(i)
            chaos.cluster.at(chaos.rng.randint(0, 2000) * MS, lambda: _start(chaos, i))

    chaos.cluster.at(chaos.rng.randint(0, 2000) * MS, stopped)


def _pair(chaos: Chaos) -> tuple[int, int]:
    a, b = chaos.rng.sample(chaos.cluster.ids, 2) if len(chaos.cluster.ids) > 1 else (0, 0)
    return a, b


def _cut(chaos: Chaos) -> None:
    a, b = _pair(chaos)
    if chaos.rng.random() < 0.5:
        chaos.cluster.cut(a, b)
    else:
        chaos.cluster.cut_one_way(a, b)


def _isolate(chaos: Chaos) -> None:
    i = chaos.rng.choice(chaos.cluster.ids)
    for other in chaos.cluster.ids:
        chaos.cluster.cut(i, other)


def _mend(chaos: Chaos) -> None:
    chaos.cluster.heal()


def _unlink(chaos: Chaos) -> None:
    a, b = _pair(chaos)
    c = chaos.cluster
    if (a, b) in c.links:
        c.unlink(a, b)

        def again() -> None:
            if a in c.servers and b in c.servers and (a, b) not in c.links:
                c.link(a, b)

        c.at(chaos.rng.randint(0, 800) * MS, again)


def _pause(chaos: Chaos) -> None:
    i = _a_server(chaos)
    if i is not None:
        chaos.cluster.pause(i)
        chaos.cluster.at(chaos.rng.randint(1, 3000) * MS, lambda: chaos.cluster.resume(i))


def _hold(chaos: Chaos) -> None:
    i = chaos.rng.choice(chaos.cluster.ids)
    chaos.cluster.held.add(i)
    chaos.cluster.at(chaos.rng.randint(1, 3000) * MS, lambda: chaos.cluster.held.discard(i))


def _slow_disk(chaos: Chaos) -> None:
    i = chaos.rng.choice(chaos.cluster.ids)
    chaos.cluster.syncs[i] = (MS, chaos.rng.choice((5, 100, 1000)) * MS)


def _bad_network(chaos: Chaos) -> None:
    c = chaos.cluster
    c.loss, c.repeat, c.reorder = (chaos.rng.choice((0.0, 0.0, 0.02, 0.2)) for _ in range(3))


def _wild_clock(chaos: Chaos) -> None:
    i, c, began = chaos.rng.choice(chaos.cluster.ids), chaos.cluster, chaos.cluster.time
    jump = chaos.rng.choice((HOUR, -HOUR, SECOND, -SECOND, 200 * MS, 0))
    rate = chaos.rng.choice((1.0, 1.0, 2.0, 0.5, -1.0, 0.0))
    before = c.clock_of(i)
    step = chaos.rng.choice((0, 0, -SECOND))  # every second

    def clock(at: int) -> int:
        since = at - began
        return int(before + jump + since * rate) + since // SECOND * step

    c.clocks[i] = clock


FAULTS: dict[str, Callable[[Chaos], None]] = {
    "crash": _crash,
    "crash_all": _crash_all,
    "power_cut": _power_cut,
    "stop": _stop,
    "cut": _cut,
    "isolate": _isolate,
    "mend": _mend,
    "unlink": _unlink,
    "pause": _pause,
    "hold": _hold,
    "slow_disk": _slow_disk,
    "bad_network": _bad_network,
    "wild_clock": _wild_clock,
}


def run(seed: int) -> Chaos:
    """One seed; raises AssertionError (or whatever broke), naming how to repeat it."""
    chaos = Chaos(seed)
    try:
        chaos.run()
    except BaseException as error:
        error.add_note(f"kinds of fault: {chaos.kinds}\nrepeat: python -m tests.engine.chaos --seed {seed}")
        raise
    return chaos


def main(arguments: list[str]) -> int:
    """Run one seed, or many until the time is up; the first line of each failure is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one, and let its error out")
    parser.add_argument("--from", type=int, default=1, dest="first")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seconds-max", type=int, default=600)
    options = parser.parse_args(arguments)
    if options.seed is not None:
        chaos = run(options.seed)
        print(f"seed {options.seed}: {len(chaos.cluster.history.merged)} commands merged, {chaos.kinds}")
        return 0
    return search(options.first, options.count, options.seconds_max)


def search(first: int, count: int, seconds_max: int) -> int:
    """Run many seeds; print the first line of each failure."""
    began, failed, seeds = time.process_time(), 0, 0
    for seed in range(first, first + count):
        if time.process_time() - began > seconds_max:
            break
        seeds += 1
        try:
            run(seed)
        except Exception as error:  # noqa: BLE001  # whatever breaks, the search goes on
            failed += 1
            what = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            print(f"seed {seed}: {what}", flush=True)
    print(f"{seeds} seeds in {time.process_time() - began:.0f} CPU-seconds, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
