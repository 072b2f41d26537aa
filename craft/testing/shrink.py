"""From a plan that fails to a small one that fails in the same way.

Knows: plans, and how to make one smaller. Must not know: how a plan is run (it is asked whether one fails).

Delta debugging (Zeller and Hildebrandt 2002): leave out halves of the faults, then quarters, then single
ones; then make whatever is left plainer (a shorter run, fewer clients, servers and groups, default limits, no
noise), and again from the beginning, until nothing can be left out or the runs are used up.

Invariants
- The plan that is returned fails; each step was a run that failed with the same property.
- The same plan shrinks to the same plan: nothing is random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from craft.limits import EngineLimits
from craft.testing.plan import MS, SECOND, Fault, Plan, RemoteClients

RUNS_MAX = 400
"""Runs that a search may take."""

DURATION_MIN_NS = 100 * MS

PLAIN: dict[str, Any] = {
    "wire": False,
    "forwarded": False,
    "loss": 0.0,
    "repeat": 0.0,
    "reorder": 0.0,
    "apply": (0, 0),
    "turn": (0, 0),
    "limits": EngineLimits(),
    "tail_bytes_max": None,
    "clock_offsets": (),
    "clock_step": 1,
    "delay": (200_000, 400_000),
    "sync": (200_000, 600_000),
    "reads": 0.0,
}
"""What a plain plan has; anything else in a small one matters."""

Fails = Callable[[Plan], bool]
Tell = Callable[[Plan, int], None]


@dataclass(frozen=True)
class Shrunk:
    """The smallest plan that was found, and how many runs it took; `finished`: it cannot get smaller so."""

    plan: Plan
    runs: int
    finished: bool


class _UsedUp(Exception):
    """No more runs."""


def shrink(plan: Plan, fails: Fails, *, runs_max: int = RUNS_MAX, tell: Tell | None = None) -> Shrunk:
    """Shrink a plan for which `fails` is true. `tell(plan, runs)` hears of each smaller plan."""
    search = _Search(plan, fails, runs_max, tell)
    try:
        before = None
        while before != search.plan:
            before = search.plan
            search.without_faults()
            search.plainer()
    except _UsedUp:
        return Shrunk(search.plan, search.runs, finished=False)
    return Shrunk(search.plan, search.runs, finished=True)


class _Search:
    """The smallest plan so far."""

    def __init__(self, plan: Plan, fails: Fails, runs_max: int, tell: Tell | None) -> None:
        self.plan, self.runs = plan, 0
        self._fails, self._runs_max, self._tell = fails, runs_max, tell
        self._tried: set[Plan] = {plan}

    def take(self, candidate: Plan) -> bool:
        """Does it fail too? Then it is the plan from now on."""
        if candidate in self._tried:
            return False
        if self.runs == self._runs_max:
            raise _UsedUp
        self._tried.add(candidate)
        self.runs += 1
        if not self._fails(candidate):
            return False
        self.plan = candidate
        if self._tell is not None:
            self._tell(candidate, self.runs)
        return True

    def without_faults(self) -> None:
        """Leave out faults: large parts first."""
        size = len(self.plan.faults)
        while size >= 1:
            start = 0
            while start < len(self.plan.faults):
                faults = self.plan.faults
                if not self.take(replace(self.plan, faults=faults[:start] + faults[start + size :])):
                    start += size
            size //= 2

    def plainer(self) -> None:
        """Each step again and again while it helps, in an order of what helps a reader most."""
        for step in (_shorter, _fewer_servers, _fewer_groups, _fewer_clients, _without_noise, _plain_faults):
            while any(self.take(candidate) for candidate in step(self.plan)):
                pass


def _shorter(plan: Plan) -> Iterator[Plan]:
    """The faults of the end last as long as before: those behind the new end go."""
    for duration in (plan.duration // 4, plan.duration // 2, plan.duration * 7 // 8):
        if duration >= DURATION_MIN_NS:
            yield replace(plan, duration=duration // MS * MS)


def _fewer_servers(plan: Plan) -> Iterator[Plan]:
    for servers in range(1, plan.servers):
        yield replace(plan, servers=servers, clock_offsets=plan.clock_offsets[:servers])


def _fewer_groups(plan: Plan) -> Iterator[Plan]:
    for groups in range(1, plan.groups):
        yield replace(plan, groups=groups)


def _fewer_clients(plan: Plan) -> Iterator[Plan]:
    for clients in (1, plan.clients // 2, plan.clients - 1):
        if 1 <= clients < plan.clients:
            yield replace(plan, clients=clients)
    low, high = plan.think
    if high < 1 * SECOND:
        yield replace(plan, think=(2 * low, 2 * high))


def _without_noise(plan: Plan) -> Iterator[Plan]:
    if plan.remote is not None:
        yield replace(plan, remote=None)
        yield from (replace(plan, remote=remote) for remote in _plain_remote(plan.remote))
    for name, value in PLAIN.items():
        if getattr(plan, name) != value:
            yield replace(plan, **{name: value})


def _plain_remote(remote: RemoteClients) -> Iterator[RemoteClients]:
    """One client with nothing special, then each speciality without the others."""
    plain = RemoteClients(1)
    for one in fields(remote):
        if getattr(remote, one.name) != getattr(plain, one.name):
            yield replace(remote, **{one.name: getattr(plain, one.name)})


def _plain_faults(plan: Plan) -> Iterator[Plan]:
    """Each fault without its moment, then for a shorter time."""
    for place, fault in enumerate(plan.faults):
        for plainer in _plain_fault(fault):
            yield replace(plan, faults=(*plan.faults[:place], plainer, *plan.faults[place + 1 :]))


def _plain_fault(fault: Fault) -> Iterator[Fault]:
    if fault.nth > 1:
        yield replace(fault, nth=1)
    if fault.duration // 2 >= 1 * MS:
        yield replace(fault, duration=fault.duration // 2)
