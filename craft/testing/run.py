"""One run: the fault phase, the liveness phase, the end; and what came out of it.

Phases
1. *Faults*: clients work while the plan's faults come and go.
2. *Liveness*: everything heals except permanent faults, which stay outside a healthy majority (the core).
   Everything that is outstanding on the core, and a fresh write and read on each of its servers, must
   complete in bounded virtual time, with clocks left as wrong as they are.
3. *Agreement*: the permanent faults heal too. All servers that are not lost must come to the same end.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from craft import marks
from craft.testing import checkers as standard_checkers
from craft.testing import faults
from craft.testing.checkers.base import Checker, Violation
from craft.testing.clients import Clients
from craft.testing.history import Operation, Outcome, WrongAnswer
from craft.testing.plan import SECOND, Fault, Plan
from craft.testing.trace import Trace
from craft.testing.workloads import WORKLOADS, Workload
from craft.testing.world import World
from craft.types import ServerId

LIVENESS_NS = 60 * SECOND
"""Everything outstanding completes within this: an election or two, retries that wait twice as long each
time, and a backlog through the smallest limits."""


STABLE_NS = 5 * SECOND
TERMS_MAX = 8
"""So many terms a group may pass in that time: an election under way, and three returns that fail, each after
twice the wait and back again. (A server that is not heard by a peer reads other clocks than the rest, and may
find itself clamped where they do not.)"""

RETURN_MS = 250
"""Where leaders return sooner, more returns fail: each doubles the wait for the next, and takes two terms."""


@dataclass(frozen=True)
class Result:
    """What came of a run."""

    plan: Plan
    digest: str
    """Of everything that happened: the same for the same plan, in any process."""
    virtual_ns: int
    operations: int
    answered: int
    merged: int
    violation: Violation | None
    faults: Counter[str]
    marks: Counter[str]
    trace: Trace


class Run:
    """One run of a plan."""

    def __init__(
        self,
        plan: Plan,
        *,
        workload: Workload | None = None,
        checkers: Sequence[Checker] | None = None,
        trace: Trace | None = None,
    ) -> None:
        self.plan = plan
        self.workload = workload or WORKLOADS[plan.workload]()
        if checkers is None:
            checkers = standard_checkers.standard(model=self.workload.model, machine=self.workload.machine)
        self.world = World(plan, self.workload.machine, checkers=checkers, trace=trace)
        self.clients = Clients(self.world, self.workload)
        self._ends: dict[int, Callable[[], None] | None] = {}
        self._left_out: set[ServerId] = set()

    def run(self) -> Result:
        """Run it to its end, or to the first violation."""
        before = marks.reached.copy()
        violation = None
        try:
            self._run()
        except Violation as found:
            violation = found
            self.world.say("violation", str(found))
        except WrongAnswer as error:
            violation = Violation("a client is answered once, and what it asked", str(error))
            violation.__cause__ = error
        except AssertionError as error:
            violation = Violation("the product's own assertions hold", repr(error))
            violation.__cause__ = error
        world = self.world
        operations = list(world.history)
        return Result(
            plan=self.plan,
            digest=world.trace.digest,
            virtual_ns=world.time,
            operations=len(operations),
            answered=sum(one.outcome is Outcome.OK for one in operations),
            merged=max((one.applied_position for one in world.servers.values()), default=0),
            violation=violation,
            faults=world.faults_begun,
            marks=marks.reached - before,
            trace=world.trace,
        )

    def _run(self) -> None:
        world = self.world
        for i in world.ids:
            world.at(0, partial(world.start, i))
        for fault in self.plan.faults:
            if not fault.permanent:
                self._arm(fault)
        self.clients.start()
        world.operator.start()
        world.run_while(self._goes_on, until=self.plan.duration)
        self._liveness()
        self._agreement()

    def _goes_on(self) -> bool:
        return self.plan.turns_max is None or self.world.turns < self.plan.turns_max

    # -- faults -----------------------------------------------------------------------------------

    def _arm(self, fault: Fault) -> None:
        if fault.on:
            event = partial(self._begin, fault)
            self.world.moments.wait(fault.on, nth=fault.nth, after=fault.at, event=event)
        else:
            self.world.at(fault.at, partial(self._begin, fault, None))

    def _begin(self, fault: Fault, server: ServerId | None) -> None:
        if self.world.calm or self.world.time >= self.plan.duration:
            return
        self._ends[fault.number] = faults.begin(self.world, fault, server)
        self.world.at(self.world.time + fault.duration, partial(self._end, fault))

    def _end(self, fault: Fault) -> None:
        if fault.number in self._ends:
            end = self._ends.pop(fault.number)
            self.world.say("heal", f"#{fault.number} {fault.kind}")
            if end is not None:
                end()

    def _heal(self) -> None:
        """Everything that can heal does."""
        for fault in self.plan.faults:
            self._end(fault)
        world = self.world
        net, plan = world.network, self.plan
        net.loss, net.repeat, net.reorder, net.delay = 0.0, plan.repeat, plan.reorder, plan.delay
        net.slow.clear()
        world.mail.echo = (0.0, (0, 0))
        world.sync_spans.clear()
        for i in world.ids:
            disk = world.disks[i]
            disk.hung = disk.full = disk.failing = disk.nearly_full = False
            server = world.servers.get(i)
            if server is not None and server.engine.state.stopping:
                world.stop(server)
            world.resume(i)
            world.down.pop(i, None)
            world.start(i)
        for way in list(net.cuts):
            while way in net.cuts:
                world.mend(*way)

    # -- liveness ---------------------------------------------------------------------------------

    def _liveness(self) -> None:
        world = self.world
        world.say("phase", "everything heals but what is permanent")
        world.calm = True
        self._heal()
        for fault in self.plan.faults:
            if fault.permanent:
                self._begin_for_ever(fault)
        last = self.clients.finish()
        self._must(world.operator.unsettled, "a change of members comes to its end")
        core = [i for i in world.ids if i not in world.lost | self._left_out]
        self._must(
            lambda: any(i not in world.servers or not world.servers[i].engine.session_open for i in core),
            f"every server of the healthy majority {core} becomes ready",
        )
        fresh = last + [ask(i) for i in core for ask in (self.clients.write, self.clients.read)]
        self._must(
            lambda: self._outstanding(core, fresh), f"everything outstanding on servers {core} completes"
        )
        if self._left_out:
            self._stay_led(core)

    def _stay_led(self, core: list[ServerId]) -> None:
        """Whoever is left out disturbs nobody: leaders may return where they belong, and then they stay."""
        world = self.world
        terms = self._terms(core)
        returns = math.log2(max(1, RETURN_MS / self.plan.limits.leader_return_ms))
        world.run(world.time + STABLE_NS)
        for group, (before, now) in enumerate(zip(terms, self._terms(core), strict=True)):
            if now - before > TERMS_MAX + 2 * returns:
                raise Violation(
                    "a healthy majority keeps its leaders",
                    f"group {group} went from term {before} to {now}\n{describe(world)}",
                )

    def _terms(self, core: list[ServerId]) -> list[int]:
        states = [self.world.servers[i].engine.state for i in core if i in self.world.servers]
        return [max(state.raft(group).term for state in states) for group in range(self.plan.groups)]

    def _begin_for_ever(self, fault: Fault) -> None:
        """A fault outside a healthy majority."""
        world = self.world
        sound = [i for i in world.ids if i not in world.lost and not world.disks[i].suspect]
        spare = len(sound) - (len(world.ids) // 2 + 1)
        if spare < 1:
            return
        victim = random.Random(fault.choice).choice(sound)
        if fault.kind in {"cut_link", "cut_one_way", "slow_way"}:
            # PROTOCOL 9: one cut link must not stall anyone. From five servers on that is not promised.
            others = [i for i in sound if i != victim]
            other = random.Random(fault.choice + 1).choice(others)
            if len(world.ids) > 3 or world.lost:
                self._left_out.add(victim)
            ways = [(victim, other)] if fault.kind == "cut_one_way" else [(victim, other), (other, victim)]
            for way in ways:
                world.cut(*way)
            world.say("fault", f"#{fault.number} for ever: {fault.kind} {victim} {other}")
            return
        self._left_out.add(victim)
        self._ends[fault.number] = faults.begin(world, fault, victim)

    def _outstanding(self, core: list[ServerId], fresh: list[Operation]) -> bool:
        world = self.world
        waiting = any(world.servers[i].operations for i in core if i in world.servers) or self.clients.waiting
        return waiting or any(one.outcome is Outcome.OPEN for one in fresh)

    def _must(self, condition: Callable[[], bool], promise: str) -> None:
        if not self.world.run_while(condition, until=self.world.time + LIVENESS_NS):
            raise Violation("liveness", f"{promise} within {LIVENESS_NS // SECOND} s\n{describe(self.world)}")

    def _agreement(self) -> None:
        """Everyone who is not lost comes to the same end."""
        world = self.world
        world.say("phase", "all faults heal")
        self._heal()
        sound = [i for i in world.ids if i not in world.lost]
        self._must(
            lambda: any(i not in world.servers or not world.servers[i].engine.session_open for i in sound),
            f"every sound server of {sound} becomes ready",
        )
        reads = [self.clients.read(i) for i in sound]
        self._must(lambda: self._outstanding(sound, reads), f"last reads on servers {sound} complete")
        self._must(lambda: self._restless(sound), f"servers {sound} apply the same and come to rest")
        for checker in world.checkers:
            checker.ended(world)

    def _restless(self, sound: list[ServerId]) -> bool:
        servers = [self.world.servers[i] for i in sound if i in self.world.servers]
        positions = {server.applied_position for server in servers}
        states = [server.engine.state for server in servers]
        # What is answered as committed may still wait for the merge.
        merging = any(e.demand or e.merger.bytes or e.applying for e in states)
        busy = merging or any(e.writing is not None for e in states)
        return len(servers) < len(sound) or len(positions) > 1 or busy


def describe(world: World) -> str:
    """Where everybody stands, for a report."""
    lines = [f"cuts {sorted(world.network.cuts)}, lost {sorted(world.lost)}, refused {world.refused}"]
    for i, server in sorted(world.servers.items()):
        status: dict[str, Any] = server.engine.status(server.now())
        lines.append(
            f"server {i}: {status['session']}, demand {status['demand']},"
            f" applied {status['applied_position']}, waits for {sorted(server.operations)}"
            f"{', paused' if server.paused else ''}"
        )
        lines += [f"  {group}" for group in status["groups"]]
    return "\n".join(lines)


def run(plan: Plan, **options: Any) -> Result:
    """Run a plan; see `Run` for the options."""
    return Run(plan, **options).run()
