"""One page worth reading, made of results: Markdown out, files elsewhere. Pure.

What stands beside a figure there: the machine, the versions, the commit, what makes it doubtful, and the
command that repeats it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.experiment import Experiment, Figures
from bench.tables import cell
from bench.targets import MISSED, NOT_MEASURED, REACHED, TARGETS, Verdict, judge

MARKS = {REACHED: "reached", MISSED: "**missed**", NOT_MEASURED: "not measured"}

RAN, FAILED, SKIPPED, MISSING = "ran", "failed", "skipped", "missing"


@dataclass(frozen=True, kw_only=True)
class Ran:
    """One run of an experiment, as the report knows it."""

    name: str
    """Of its files."""

    experiment: str
    options: tuple[str, ...]
    state: str = MISSING
    """RAN, FAILED, SKIPPED, or MISSING where there is nothing of it."""

    why: str = ""
    """What was wrong, or what the machine lacks."""

    took_s: float = 0.0
    plots: tuple[str, ...] = field(default=())
    """Files beside the page."""

    @property
    def command(self) -> str:
        """What repeats it."""
        return shlex.join(["python", "-m", "bench", self.experiment, *self.options])


def page(
    runs: Sequence[Ran], results: Mapping[str, Figures], experiments: Mapping[str, Experiment]
) -> list[str]:
    """The lines of the page."""
    commands = {run.name: run.command for run in runs}
    verdicts = judge(TARGETS, results, commands)
    lines = ["# What craft does on this machine", "", *_head(list(results.values()), runs), ""]
    lines += ["## Targets", "", *_targets(verdicts), ""]
    for run in runs:
        lines += [f"## {run.name}", "", *_run(run, results.get(run.name), experiments[run.experiment]), ""]
    return lines[:-1]


# -- the head --------------------------------------------------------------------------------------


def _head(results: Sequence[Figures], runs: Sequence[Ran]) -> list[str]:
    """Where the figures come from; every value that the runs have, where they differ."""
    if not results:
        return ["There is no result.", *_not_run(runs)]

    def values(*path: str) -> str:
        found = dict.fromkeys(str(_value(one, path)) for one in results)
        return cell(", ".join(found))

    versions = sorted({name for one in results for name in one["versions"]})
    shown = ", ".join(f"{name} {values('versions', name)}" for name in versions)
    dates = sorted(one["date"] for one in results)
    period = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    machine = (
        f"{values('machine', 'processor')}, {values('machine', 'cores')} cores,"
        f" {values('machine', 'memory_bytes')} bytes of memory, {values('machine', 'system')}"
        f" {values('machine', 'kernel')}, {values('machine', 'file_system')}, Python"
        f" {values('machine', 'python')}"
    )
    rows = [
        f"- machine: {machine}",
        f"- versions: {shown}",
        f"- commit: {values('commit')}",
        f"- date: {period}",
        f"- took: {sum(run.took_s for run in runs) / 60:.1f} minutes",
    ]
    doubted = sum(bool(one.get("doubts")) for one in results)
    if doubted:
        rows.append(f"- beware: {doubted} of {len(results)} runs say what makes them doubtful, below")
    if len({(one["commit"], str(one["versions"]), one["machine"]["processor"]) for one in results}) > 1:
        rows.append("- beware: these are results of different commits, versions or machines")
    return [*rows, *_not_run(runs)]


def _value(result: Mapping[str, Any], path: Sequence[str]) -> Any:
    here: Any = result
    for key in path:
        here = here.get(key, "?") if isinstance(here, Mapping) else "?"
    return here


def _not_run(runs: Sequence[Ran]) -> list[str]:
    return [
        f"- {run.state}: {cell(run.name)}" + (f" ({cell(run.why)})" if run.why else "")
        for run in runs
        if run.state != RAN
    ]


def _targets(verdicts: Sequence[Verdict]) -> list[str]:
    """A row a target: whether it was reached, by which figure, and what repeats it."""
    rows = ["| target | wanted | figure | | by |", "| --- | ---: | ---: | --- | --- |"]
    for one in verdicts:
        by = code(one.command) if one.figure is not None else cell(one.why)
        cells = (cell(one.target.words), one.target.wanted, one.shown, MARKS[one.verdict], by)
        rows.append(f"| {' | '.join(cells)} |")
    counts = {name: sum(one.verdict == name for one in verdicts) for name in MARKS}
    return [*rows, "", ", ".join(f"{count} {name}" for name, count in counts.items()) + "."]


# -- one run ---------------------------------------------------------------------------------------


def code(text: str) -> str:
    """A text as code within a line or a cell."""
    kept = text.replace("`", "'").replace("|", "\\|")
    return f"`{kept}`" if kept else ""


def block(lines: Sequence[str]) -> list[str]:
    """Lines as they are, whatever is in them."""
    fence = "```"
    while any(fence in line for line in lines):
        fence += "`"
    return [f"{fence}text", *lines, fence]


def _run(run: Ran, result: Figures | None, experiment: Experiment) -> list[str]:
    lines = [cell(experiment.question), ""]
    if result is None:
        why = f": {cell(run.why)}" if run.why else ""
        return [*lines, f"{run.state}{why}", "", *block([run.command])]
    lines += [*_shown(experiment, result), ""]
    for plot in run.plots:
        lines += [f"![{cell(run.name)}]({plot})", ""]
    for what, name in (("FAILED", "failures"), ("beware", "doubts")):
        found = result.get(name) or []
        lines += [f"- {what}: {cell(one)}" for one in found] + ([""] if found else [])
    return [*lines, *block([run.command])]


def _shown(experiment: Experiment, result: Figures) -> list[str]:
    """Its table; or what the terminal shows. A result of another version of the harness may have neither."""
    try:
        if experiment.table is not None:
            return experiment.table(result)
        return block(experiment.summary(result))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        return [f"This result cannot be shown: {cell(repr(error))}"]
