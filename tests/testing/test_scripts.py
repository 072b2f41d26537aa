"""Kept scripts: plans of runs that once failed, cut down to what matters. What was fixed stays fixed.

A script's name is the sentence that was wrong. `craft simulate --replay FILE --trace` shows one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from craft.testing.parallel import attempt
from craft.testing.plan import Plan

SCRIPTS = Path(__file__).parent / "scripts"

REACHED = {
    "a_follower_hidden_from_the_only_leader_never_wrote": "forward relayed",
    "a_group_was_given_to_a_machine_whose_log_does_not_count": "answer of another disk not counted",
    "joint_was_entered_by_a_dead_servers_last_words": "removed server switched off",
    "requests_went_round_three_servers_none_of_which_led": "forward relayed",
    "the_merge_was_kept_late_by_what_was_proposed_again": "request waits for the merge",
}
"""The rare path on which a script's bug was: a plan that no longer gets there proves nothing."""


def read(path: Path) -> Plan:
    return Plan.from_json(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.json")), ids=lambda path: path.stem)
def test_the_script_passes(path: Path) -> None:
    """The plan that once broke a property breaks none."""
    result = attempt(read(path))
    assert result.violation is None, f"{result.violation}\ncraft simulate --replay {path} --trace"
    if path.stem in REACHED:
        assert result.marks[REACHED[path.stem]], "the plan no longer leads to the path on which the bug was"


def test_the_scripts_that_must_reach_something_exist() -> None:
    """The table names no script that is gone."""
    assert {path.stem for path in SCRIPTS.glob("*.json")} >= set(REACHED)
