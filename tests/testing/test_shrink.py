"""A failing plan gets small, and stays a plan that fails."""

from __future__ import annotations

from craft.testing import shrink, swarm
from craft.testing.plan import MS, SECOND, Fault, Plan
from craft.testing.shrink import PLAIN


def plan_with(faults: int) -> Plan:
    """A large plan, as the swarm draws them."""
    many = tuple(Fault(number, "pause", number * MS, 400 * MS, number) for number in range(1, faults + 1))
    return Plan(
        1,
        5,
        4,
        wire=True,
        loss=0.01,
        clock_offsets=(1, 2, 3, 4, 5),
        clients=8,
        duration=8 * SECOND,
        faults=many,
    )


def test_two_faults_out_of_many_are_found() -> None:
    """A failure that needs two faults keeps these two and nothing else."""

    def fails(plan: Plan) -> bool:
        return {7, 42} <= {fault.number for fault in plan.faults}

    shrunk = shrink.shrink(plan_with(60), fails)
    assert shrunk.finished
    small = shrunk.plan
    assert [fault.number for fault in small.faults] == [7, 42]
    assert (small.servers, small.groups, small.clients) == (1, 1, 1)
    assert small.duration < 200 * MS
    assert {name: getattr(small, name) for name in PLAIN} == PLAIN
    assert all(fault.duration < 2 * MS for fault in small.faults)


def test_what_the_failure_needs_stays() -> None:
    """Servers, noise and a moment that matter are not taken away."""
    fault = Fault(1, "kill", 0, 0, 5, on="append", nth=3)
    plan = Plan(1, servers=5, groups=3, loss=0.01, wire=True, faults=(fault,))

    def fails(plan: Plan) -> bool:
        return plan.servers >= 3 and plan.loss > 0 and any(one.on == "append" for one in plan.faults)

    small = shrink.shrink(plan, fails).plan
    assert (small.servers, small.groups, small.loss, small.wire) == (3, 1, 0.01, False)
    assert small.faults == (Fault(1, "kill", 0, 0, 5, on="append", nth=1),)


def test_every_smaller_plan_that_is_told_fails() -> None:
    """So a search that is broken off leaves a plan that is of use."""
    told: list[Plan] = []

    def fails(plan: Plan) -> bool:
        return len(plan.faults) >= 3

    shrunk = shrink.shrink(plan_with(30), fails, tell=lambda plan, _runs: told.append(plan))
    assert told[-1] == shrunk.plan
    assert all(map(fails, told))


def test_it_takes_no_more_runs_than_it_may() -> None:
    """And gives the best plan so far."""
    asked: list[Plan] = []

    def fails(plan: Plan) -> bool:
        asked.append(plan)
        return len(plan.faults) >= 3

    shrunk = shrink.shrink(plan_with(30), fails, runs_max=5)
    assert (len(asked), shrunk.runs, shrunk.finished) == (5, 5, False)
    assert fails(shrunk.plan)
    assert len(shrunk.plan.faults) < 30


def test_no_plan_is_run_twice() -> None:
    """Steps that lead to the same plan cost one run."""
    asked: list[Plan] = []

    def fails(plan: Plan) -> bool:
        asked.append(plan)
        return len(plan.faults) >= 2

    shrink.shrink(swarm.draw(3), fails)
    assert len(asked) == len(set(asked))
