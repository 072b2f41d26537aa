"""The simulator as CI runs it: a few hundred seeds, and some of them twice.

A long search is `craft simulate --minutes 60`; what it found is kept in `test_scripts.py`.
"""

from __future__ import annotations

import pytest

from craft.testing import light, report
from craft.testing.parallel import HASH_SEEDS, Recipe, Summary, Sweep, attempt, examine

SEEDS_EACH = 20
FIRSTS = range(1, 241, SEEDS_EACH)
TWICE = range(246, 251)


def repeat(seed: int) -> str:
    return f"craft simulate --seed {seed}"


def failures(total: Summary) -> str:
    """What the command would print of each."""
    lines = [line for failed in total.failures for line in report.failure(failed, repeat)]
    lines += [line for pair in total.differences for line in report.difference(*pair, repeat)]
    return "\n" + "\n".join(lines)


@pytest.mark.parametrize("first", FIRSTS)
def test_the_first_seeds_violate_nothing(first: int) -> None:
    """All workloads, all kinds of fault; a failure prints the command that repeats it."""
    total, recipe = Summary(), Recipe()
    for seed in range(first, first + SEEDS_EACH):
        total.add(examine(recipe.draw(seed), seed=seed))
    assert total.sound, failures(total)
    assert total.seeds == SEEDS_EACH
    assert len(total.faults) > 20  # kinds
    assert len(total.marks) > 10
    assert total.answered > 1000


def test_a_seed_takes_the_same_course_in_any_process() -> None:
    """Another process, another PYTHONHASHSEED, the same hash of everything that happened."""
    total = Summary()
    with Sweep(Recipe(), TWICE, jobs=2, lanes=HASH_SEEDS) as sweep:
        outcomes = {(lane, outcome.seed): outcome for lane, outcome in sweep}
    for seed in TWICE:
        total.compare(outcomes[0, seed], outcomes[1, seed])
    assert total.sound, failures(total)
    assert len({outcomes[0, seed].digest for seed in TWICE}) == len(TWICE)


def test_light_load_is_light() -> None:
    """The yardstick for speed: no faults, nothing unanswered, ten minutes of a cluster's life."""
    plan = light.plan(1)
    assert (plan.servers, plan.groups, plan.clients, plan.faults) == (3, 3, 1, ())
    result = attempt(plan)
    assert result.violation is None
    assert result.answered == result.operations > 500
    assert result.virtual_ns >= light.DURATION_NS
