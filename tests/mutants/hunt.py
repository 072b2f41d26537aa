"""The hunt: seed after seed of the usual swarm against one mutant, until the usual checkers catch it.

`kills.json` keeps for each mutant the seed that caught it, which is also how many seeds that took, and the
property; the tests run that seed alone. No seed list and no schedule is made for a mutant: a hunt begins at
seed 1 and goes up, past those seeds that cannot reach what the mutant changes (no snapshots, no members that
come and go).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from craft.testing import run, swarm
from craft.testing.faults import AMNESIA, STALLS, TAILS
from craft.testing.plan import Plan
from tests.mutants.catalogue import MUTANTS, Mutant

KILLS = Path(__file__).with_name("kills.json")

SEEDS_MAX = 20_000
"""A mutant that lives longer than this has found a hole in the net."""

CPU_SECONDS_MAX = 600
"""Or longer than this."""


SUSPECTING = {*AMNESIA, *TAILS, "torn_by_power"}
"""Whose servers may be suspect."""

HANGING = {*STALLS, "hung_disk"}
"""By which a disk may take nothing for longer than a leader may wait."""


def _suffers(plan: Plan, kind: str) -> bool:
    return any(fault.kind == kind for fault in plan.faults)


NEEDS: dict[str, Callable[[Plan], bool]] = {
    "": lambda _: True,
    "snapshots": lambda plan: plan.snapshots is not None,
    "own data": lambda plan: plan.snapshots is not None and plan.snapshots.kept is not None,
    "own data, and session reads": lambda plan: NEEDS["own data"](plan) and plan.seen > 0 < plan.reads,
    "lost snapshots": lambda plan: _suffers(plan, "lose_snapshots"),
    "own data, and lost snapshots": lambda plan: NEEDS["own data"](plan) and NEEDS["lost snapshots"](plan),
    "members": lambda plan: bool(plan.changes),
    "old sets": lambda plan: _suffers(plan, "old_set"),
    "stalls": lambda plan: any(fault.kind in HANGING for fault in plan.faults),
    "suspects": lambda plan: any(fault.kind in SUSPECTING for fault in plan.faults),
}
"""Which seeds can reach what a mutant changes. All others run as they would without it."""


class Kill(NamedTuple):
    """What caught a mutant."""

    seed: int
    cpu_seconds: float
    property: str
    detail: str


def attempt(mutant: Mutant, seed: int) -> tuple[str, str] | None:
    """One seed against a mutant: the property that does not hold and what was seen, or None."""
    with mutant.planted():
        found = run.run(swarm.draw(seed)).violation
    return None if found is None else (found.property, found.detail.splitlines()[0])


def hunt(mutant: Mutant, *, first: int = 1, cpu_seconds_max: float = CPU_SECONDS_MAX) -> Kill | None:
    """Seeds from the first on; None where the mutant lives."""
    began, reaches = time.process_time(), NEEDS[mutant.needs]
    for seed in range(first, first + SEEDS_MAX):
        if not reaches(swarm.draw(seed)):
            continue
        found = attempt(mutant, seed)
        spent = time.process_time() - began
        if found is not None:
            assert run.run(swarm.draw(seed)).violation is None, f"seed {seed} fails without any mutant too"
            return Kill(seed, round(spent, 1), *found)
        if spent > cpu_seconds_max:
            return None
    return None


def by_name(name: str, cpu_seconds_max: float, known: Kill | None = None) -> Kill | None:
    """A hunt in a process of its own, unless the seed that is `known` still catches it."""
    [mutant] = [one for one in MUTANTS if one.name == name]
    if known is not None and (found := attempt(mutant, known.seed)):
        return Kill(known.seed, known.cpu_seconds, *found)
    return hunt(mutant, cpu_seconds_max=cpu_seconds_max)


def load() -> dict[str, Kill]:
    """The kills that are on record."""
    found = json.loads(KILLS.read_text(encoding="utf-8")) if KILLS.exists() else {}
    return {name: Kill(*kill) for name, kill in found.items()}


def save(kills: dict[str, Kill]) -> None:
    """Put them on record, in the order of the catalogue."""
    ordered = {mutant.name: kills[mutant.name] for mutant in MUTANTS if mutant.name in kills}
    KILLS.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


def table() -> str:
    """The part of the docs that is made from the record."""
    kills = load()
    caught = sum(mutant.name in kills for mutant in MUTANTS)
    lines = [
        f"{caught} of {len(MUTANTS)} mutants are caught. *Seeds* is how many of the usual seeds, from 1 on,",
        "that took; `python -m tests.mutants` repeats the hunt.",
        "",
        "| mutant | what is wrong | rule | seeds | caught by |",
        "|---|---|---|---|---|",
    ]
    for mutant in MUTANTS:
        kill = kills.get(mutant.name)
        seeds, caught_by = (str(kill.seed), kill.property) if kill else ("", "**not caught**")
        lines.append(f"| `{mutant.name}` | {mutant.what} | {mutant.rule} | {seeds} | {caught_by} |")
    return "\n".join(lines)
