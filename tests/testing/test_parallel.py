"""Many runs in processes of their own: every seed is accounted for, whatever happens to its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from craft.testing.parallel import HASH_SEEDS, Outcome, Recipe, Summary, Sweep, attempt, examine
from craft.testing.plan import MS, SECOND, Fault, Plan

SMALL = Plan(1, groups=1, clients=1, duration=200 * MS)
HOPELESS = Plan(2, servers=1, groups=1, clients=1, duration=100 * MS, sync=(100 * SECOND, 100 * SECOND))
"""Its disk is so slow that the server is not ready when everything outstanding must be complete."""

DEADLY, ENDLESS = 3, 4


@dataclass(frozen=True)
class Small(Recipe):
    """Small plans, and two seeds that are the end of their process."""

    def draw(self, seed: int) -> Plan:
        if seed == DEADLY:
            os._exit(7)
        if seed == ENDLESS:
            signal.pause()
        return SMALL


def told(seeds: Iterable[int], *, jobs: int = 1, seconds_max: float = 100.0) -> dict[int, Outcome]:
    """What a sweep tells of each seed; each must be told once."""
    with Sweep(Small(), seeds, jobs=jobs, seconds_max=seconds_max) as sweep:
        outcomes = [outcome for _, outcome in sweep]
    by_seed = {outcome.seed: outcome for outcome in outcomes}
    assert len(by_seed) == len(outcomes)
    return by_seed


def test_each_seed_comes_back_once() -> None:
    """Whatever the number of processes, and with more of them than seeds."""
    outcomes = told(range(10, 20), jobs=2)
    assert sorted(outcomes) == list(range(10, 20))
    assert all(outcome.violation is None and outcome.answered for outcome in outcomes.values())
    assert sorted(told([1], jobs=3)) == [1]
    assert told([]) == {}


def test_a_process_that_dies_is_its_seeds_failure() -> None:
    """The seed is named, and the seeds behind it run elsewhere."""
    outcomes = told([1, DEADLY, 5, 6, 7])
    assert sorted(outcomes) == [1, DEADLY, 5, 6, 7]
    failed = [seed for seed, outcome in outcomes.items() if outcome.violation is not None]
    assert failed == [DEADLY]
    assert "exit code 7" in str(outcomes[DEADLY].violation)


def test_a_run_without_an_end_is_given_up() -> None:
    """It is reported like any other failure."""
    (outcome,) = told([ENDLESS], seconds_max=0.5).values()
    assert "every run comes to its end: no end within 0.5 s" in str(outcome.violation)


def test_two_lanes_run_each_seed_with_hash_seeds_of_their_own() -> None:
    """The environment of this process stays as it was."""
    before = os.environ.get("PYTHONHASHSEED")
    with Sweep(HashSeeds(), range(3), jobs=2, lanes=HASH_SEEDS) as sweep:
        seen = sorted((lane, outcome.seed, outcome.virtual_ns) for lane, outcome in sweep)
    assert os.environ.get("PYTHONHASHSEED") == before
    assert [(lane, seed) for lane, seed, _ in seen] == [(lane, seed) for lane in (0, 1) for seed in range(3)]
    assert len({length for lane, _, length in seen if lane == 0}) == 1
    assert {length for lane, _, length in seen if lane == 0} != {
        length for lane, _, length in seen if lane == 1
    }


@dataclass(frozen=True)
class HashSeeds(Recipe):
    """A plan whose length tells the PYTHONHASHSEED of the process that drew it."""

    def draw(self, seed: int) -> Plan:
        return Plan(1, servers=1, groups=1, clients=1, duration=100 * MS * int(os.environ["PYTHONHASHSEED"]))


def test_a_failure_is_told_with_its_last_events() -> None:
    """They are lines of a full trace, though the run itself kept none; the last one is the violation."""
    outcome = examine(HOPELESS, seed=2)
    assert outcome.violation is not None
    assert outcome.violation.property == "liveness"
    assert " violation " in outcome.events[-1]
    assert any(" write " in event or " send " in event or " read " in event for event in outcome.events)


def test_what_a_run_raises_is_a_finding() -> None:
    """A bug need not be an assertion; the search goes on."""
    result = attempt(Plan(1, duration=50 * MS, faults=(Fault(1, "no such kind", 0, 0, 0),)))
    assert result.violation is not None
    assert "KeyError('no such kind')" in result.violation.detail
    assert "faults/__init__.py:" in result.violation.detail


@pytest.mark.parametrize("same", [True, False])
def test_a_sum_counts_everything(same: bool) -> None:
    """Two seeds are twice one; a seed that went apart makes the whole unsound."""
    outcome = examine(SMALL, seed=1)
    total = Summary()
    total.add(outcome)
    total.add(examine(SMALL, seed=2))
    assert (total.seeds, total.first_seed, total.last_seed) == (2, 1, 2)
    assert total.virtual_ns == 2 * outcome.virtual_ns
    assert total.answered == 2 * outcome.answered
    assert total.speed > 0
    assert total.compare(outcome, outcome if same else examine(HOPELESS, seed=1)) is same
    assert total.sound is same


STARTING = """
import signal
from craft.testing.parallel import _no_interrupts
from multiprocessing import resource_tracker
with _no_interrupts():
    resource_tracker.getfd()  # as the start of a process does
    print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""


def test_no_process_is_left_half_started_by_ctrl_c() -> None:
    """The first start brings Python's resource tracker along, which lets Ctrl-C through again.

    The process that was started just then had nothing to read, and showed a traceback.
    """
    done = subprocess.run([sys.executable, "-c", STARTING], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
