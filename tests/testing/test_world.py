"""The world does what a plan says, and the same again each time."""

from __future__ import annotations

import dataclasses
import json
import random
from typing import Any

import pytest

from craft.testing import run, swarm
from craft.testing.faults import FAULTS, begin
from craft.testing.moments import MOMENTS
from craft.testing.plan import MS, SECOND, Fault, Plan, RemoteClients, SnapshotPlan
from craft.testing.trace import KINDS, Trace


def test_a_plan_can_be_written_down() -> None:
    """A script is a plan as JSON: what is read is what was drawn."""
    for seed in range(20):
        plan = swarm.draw(seed)
        assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"format": 1}', '{"format": 1, "seed": 1, "limits": {}, "faults": [3]}']
)
def test_what_is_no_plan_is_refused(text: str) -> None:
    """With a ValueError that says so."""
    with pytest.raises(ValueError, match="not a plan"):
        Plan.from_json(text)


REST: dict[str, Any] = {"format": 1, "seed": 1, "limits": {}, "faults": []}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"servers": 0}, "servers of the plan is 0; allowed: a whole number from 1 on"),
        ({"clients": 0}, "clients of the plan is 0; allowed: a whole number from 1 on"),
        ({"duration": "1"}, "duration of the plan is '1'; allowed: a whole number from 0 on"),
        ({"delay": [2, 1]}, r"delay of the plan is \[2, 1\]; allowed: \[least, greatest\]"),
        ({"loss": 2}, "loss of the plan is 2; allowed: a number from 0 to 1"),
        ({"turns_max": True}, "turns_max of the plan is True; allowed: a whole number from 0 on or null"),
        ({"limits": {"entry_bytes_max": "x"}}, "entry_bytes_max of limits is 'x'; allowed: a whole number"),
        ({"faults": [{"number": -1}]}, "number of a fault is -1; allowed: a whole number from 0 on"),
        ({"remote": {"clients": 1, "silence": 3}}, "silence of remote is 3; allowed:"),
        ({"snapshots": 3}, "snapshots is 3; allowed: an object"),
    ],
)
def test_a_wrong_value_in_a_script_is_named(values: dict[str, Any], told: str) -> None:
    """A run of nothing would hold every promise, and one that cannot be run would be a finding."""
    with pytest.raises(ValueError, match=f"^not a plan: {told}"):
        Plan.from_json(json.dumps({**REST, **values}))


def test_a_key_that_is_missing_in_a_script_has_its_default() -> None:
    """Inside of the objects in it as well."""
    remote, snapshots = {"clients": 1}, {"write": [0, 0], "restore": [0, 0]}
    plan = Plan.from_json(json.dumps({**REST, "remote": remote, "snapshots": snapshots}))
    assert plan.remote == RemoteClients(1)
    assert plan.snapshots == SnapshotPlan((0, 0), (0, 0))


def test_a_quiet_plan_answers_everything() -> None:
    """Without any fault every operation is answered, soon."""
    result = run.run(Plan(1, duration=3 * SECOND))
    assert result.violation is None
    assert result.answered == result.operations > 20


@pytest.mark.parametrize("kind", FAULTS)
def test_every_fault_begins_and_ends_and_breaks_no_promise(kind: str) -> None:
    """One at a time, on an otherwise quiet cluster, twice."""
    faults = tuple(
        Fault(number, kind, number * 700 * MS, 400 * MS, random.Random(f"{kind} {number}").getrandbits(32))
        for number in (1, 2)
    )
    result = run.run(Plan(3, duration=3 * SECOND, faults=faults))
    assert result.violation is None, result.violation
    assert result.faults[kind] == 2


@pytest.mark.parametrize("choice", range(8))
def test_a_server_that_stops_late_starts_again(choice: int) -> None:
    """It was asked to stop while it was paused, and ends when nothing holds it down any more."""
    world = run.Run(Plan(1)).world
    for i in world.ids:
        world.start(i)
    world.run(2 * SECOND)
    world.pause(2)
    first = world.servers[2]
    end = begin(world, Fault(1, "stop", 0, 50 * MS, choice), 2)
    assert end is not None
    world.run(world.time + 4 * MS)
    end()
    world.resume(2)
    world.run(world.time + 2 * SECOND)
    assert world.servers[2] is not first and not world.servers[2].engine.state.stopping


def test_every_moment_comes() -> None:
    """A fault may wait for any; a run in which leaders relapse has them all."""
    relapses = [Fault(number, "relapse", number * 500 * MS, 1500 * MS, number * 2) for number in range(1, 41)]
    waiting = [Fault(90 + number, "pause", 0, 5 * MS, 9, on=moment) for number, moment in enumerate(MOMENTS)]
    plan = Plan(3, duration=22 * SECOND, think=(2 * MS, 20 * MS), patience=100 * MS)
    result = run.run(dataclasses.replace(plan, faults=(*relapses, *waiting)))
    assert result.violation is None
    assert result.faults["pause"] == len(MOMENTS)


def test_a_fault_phase_ends_when_enough_turns_were_taken() -> None:
    """What costs more than its share ends early, and everything outstanding completes all the same."""
    plan = Plan(3, duration=3 * SECOND, faults=(Fault(1, "pause", 2 * SECOND, 50 * MS, 9),))
    whole, short = run.run(plan), run.run(dataclasses.replace(plan, turns_max=2000))
    assert (whole.faults["pause"], short.faults["pause"]) == (1, 0)
    assert short.virtual_ns < whole.virtual_ns
    assert short.violation is None
    assert short.operations == short.answered


def test_the_same_plan_gives_the_same_trace() -> None:
    """Kept or not, and whatever ran before in this process."""
    plan = dataclasses.replace(swarm.draw(8), duration=SECOND)
    first = run.run(plan)
    run.run(swarm.draw(9))
    again = run.run(plan, trace=Trace(keep=True))
    assert first.digest == again.digest
    assert {event.kind for event in again.trace} <= set(KINDS)
    assert run.run(dataclasses.replace(plan, seed=10)).digest != first.digest


def test_an_unknown_fault_is_an_error() -> None:
    """Not a fault that silently does nothing."""
    with pytest.raises(KeyError):
        begin(run.Run(Plan(1)).world, Fault(1, "no such kind", 0, 0, 0))
