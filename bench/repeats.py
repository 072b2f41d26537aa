"""Several settings measured in one run, each several times: which one was faster, and how sure one may be.

A machine's speed drifts over minutes. So the settings take turns: a round measures each of them once, in an
order of its own. Reported is the median over the rounds, with the least and the greatest beside it.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any, TypeVar

from bench.experiment import Figures, Progress, whole

S = TypeVar("S")

REPEATS_MAX = 100


def add_repeat_options(parser: argparse.ArgumentParser, default: int) -> None:
    """How often each setting is measured, and in which order."""
    parser.add_argument(
        "--repeats",
        type=whole(1, REPEATS_MAX),
        default=default,
        metavar="N",
        help=f"measure each setting N times, in random order (default: {default})",
    )
    parser.add_argument(
        "--order-seed",
        type=whole(0, 2**31),
        default=1,
        metavar="N",
        help="decides that order (default: 1)",
    )


async def repeated(
    settings: Sequence[S],
    measure: Callable[[S], Awaitable[tuple[Figures, list[str]]]],
    *,
    options: argparse.Namespace,
    progress: Progress,
    name_of: Callable[[S], str] = str,
) -> tuple[list[list[Figures]], list[str]]:
    """The figures of each setting's runs, in the settings' order, and all that went wrong.

    `options` are those of `add_repeat_options`. `measure` returns as an experiment's `run` does.
    """
    rng = random.Random(options.order_seed)
    runs: list[list[Figures]] = [[] for _ in settings]
    failures = []
    for number in range(1, options.repeats + 1):
        for place in rng.sample(range(len(settings)), len(settings)):
            name = name_of(settings[place])
            progress.stage(f"round {number} of {options.repeats}: {name}")
            figures, wrong = await measure(settings[place])
            runs[place].append(figures)
            failures += [f"{name}, round {number}: {one}" for one in wrong]
    return runs, failures


def spread(values: Iterable[float | None]) -> dict[str, Any]:
    """The median of the runs' values with the least and the greatest; None where no run has one."""
    found = [one for one in values if one is not None]
    if not found:
        return {"median": None, "least": None, "greatest": None, "runs": 0}
    return {
        "median": round(median(found), 3),
        "least": min(found),
        "greatest": max(found),
        "runs": len(found),
    }


def spreads(runs: Sequence[Mapping[str, Any]], names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """`spread` of each of these figures over a setting's runs."""
    return {name: spread(run.get(name) for run in runs) for name in names}


def shown(one: Mapping[str, Any], digits: int = 0) -> str:
    """A spread for people: the median, and the range where there is one."""
    if one["median"] is None:
        return "-"
    text = f"{one['median']:,.{digits}f}"
    if one["runs"] > 1:
        text += f" ({one['least']:,.{digits}f} to {one['greatest']:,.{digits}f})"
    return text
