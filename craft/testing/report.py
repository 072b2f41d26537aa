"""What a search came to, in words and as JSON.

Knows: outcomes and sums. Must not know: options, terminals; how to repeat a seed (it is told).
"""

from __future__ import annotations

import ast
import textwrap
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from craft import marks
from craft.testing.faults import FAULTS
from craft.testing.parallel import Outcome, Summary
from craft.testing.plan import SECOND, Plan

HOUR_NS = 3600 * SECOND
WIDTH = 100
LABEL = 14

COLUMNS = f"{'ms':>15} {'srv':>3} {'kind':<9} {'grp':>3} {'per':>3} rest"
"""The heading of a trace's columns."""

Repeat = Callable[[int], str]
"""From a seed to the command that repeats it."""


def known_marks(root: Path | None = None) -> list[str]:
    """Every coverage mark in craft's source: the strings in the arguments of calls of `mark`."""
    found: set[str] = set()
    for path in sorted((root or Path(marks.__file__).parent).rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "mark":
                words = (word for argument in call.args for word in ast.walk(argument))
                found.update(
                    word.value
                    for word in words
                    if isinstance(word, ast.Constant) and isinstance(word.value, str)
                )
    return sorted(found)


def first_line(event: str) -> str:
    """An event is one line: what is seen of a violation takes several, and stands below the trace."""
    return event.partition("\n")[0]


# -- words -----------------------------------------------------------------------------------------


def summary(total: Summary, *, seconds: float, jobs: int, kinds: Collection[str] = ()) -> Iterator[str]:
    """The figures of a search, a line each. `kinds`: the faults that there could have been."""
    hours, cpu_hours = total.virtual_ns / HOUR_NS, total.cpu_ns / HOUR_NS
    rate = total.seeds / seconds if seconds else 0.0
    span = f" ({total.first_seed} to {total.last_seed})" if total.seeds > 1 else f" ({total.first_seed})"
    seeds = f"{total.seeds}{span if total.seeds else ''} in {seconds:.1f} s, {rate:.1f} a second"
    yield _row("seeds", f"{seeds}, {jobs} process{'es' if jobs > 1 else ''}")
    yield _row("virtual time", f"{hours:.4g} hours of a cluster in {cpu_hours:.4g} CPU-hours")
    yield _row("", f"{total.speed:.1f} virtual cluster-hours per CPU-hour")
    yield _row("operations", f"{total.operations}, {total.answered} answered; {total.merged} entries merged")
    if total.compared:
        same = total.compared - len(total.differences)
        yield _row("twice", f"{same} of {total.compared} seeds took the same course in two processes")
    yield from _counts("faults", total.faults, kinds, "never injected")
    yield from _counts("rare paths", total.marks, known_marks(), "never reached")
    yield _row("result", verdict(total))


def verdict(total: Summary) -> str:
    """The result in one line."""
    if not total.seeds and not total.failures:
        return "nothing was run"
    words = []
    if total.failures:
        words.append(f"{len(total.failures)} of {total.seeds} seeds violate a property")
    if total.differences:
        words.append(f"{len(total.differences)} of {total.compared} seeds are not deterministic")
    return "; ".join(words) or "every property held in every seed"


def failure(outcome: Outcome, repeat: Repeat) -> Iterator[str]:
    """A failed seed: the property, what was seen, the last events, and how to see it again."""
    assert outcome.violation is not None
    yield f"seed {outcome.seed}: VIOLATED: {outcome.violation.property}"
    yield from textwrap.indent(outcome.violation.detail.rstrip(), "  ").splitlines()
    if outcome.events:
        yield f"  last events (after {outcome.virtual_ns / SECOND:.3f} s of virtual time):"
        yield f"  {COLUMNS}"
        yield from (f"  {first_line(line)}" for line in outcome.events)
    yield f"  repeat: {repeat(outcome.seed)}"


def difference(one: Outcome, other: Outcome, repeat: Repeat) -> Iterator[str]:
    """A seed that is not deterministic."""
    yield f"seed {one.seed}: NOT DETERMINISTIC: two processes with other PYTHONHASHSEEDs went apart"
    for outcome in (one, other):
        yield f"  trace {outcome.digest or '-'}, {outcome.virtual_ns / SECOND:.6f} s of virtual time"
    yield f"  repeat: {repeat(one.seed)} --twice"


def course(outcome: Outcome) -> Iterator[str]:
    """One run that was asked for by its seed."""
    answered = f"{outcome.operations} operations, {outcome.answered} answered"
    yield _row("virtual time", f"{outcome.virtual_ns / SECOND:.3f} s")
    yield _row("operations", f"{answered}; {outcome.merged} entries merged")
    yield from _counts("faults", outcome.faults, (), "")
    yield from _counts("rare paths", outcome.marks, (), "")
    yield _row("trace", outcome.digest)
    held = "every property held" if outcome.violation is None else f"VIOLATED: {outcome.violation.property}"
    yield _row("result", held)


def plan_words(plan: Plan) -> Iterator[str]:
    """A plan: the shape and the faults."""
    shape = (_many(plan.servers, "server"), _many(plan.groups, "group"), _many(plan.clients, "client"))
    lasts = f"{plan.workload}, {plan.duration / SECOND:g} s, {_many(len(plan.faults), 'fault')}"
    yield f"{', '.join(shape)} of {lasts}"
    for fault in plan.faults:
        lasts = ", for ever" if fault.permanent else f", for {fault.duration / SECOND:g} s"
        yield f"  {fault.words()}{lasts}"


def changes(before: Plan, after: Plan) -> str:
    """What differs between two plans, by its names."""
    names = (one.name for one in fields(Plan))
    return ", ".join(name for name in names if getattr(before, name) != getattr(after, name))


def _many(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _row(label: str, text: str) -> str:
    return f"{label:<{LABEL}}{text}"


def _counts(label: str, counts: Mapping[str, int], known: Collection[str], missing: str) -> Iterator[str]:
    """How often each, the most frequent first; and those of the known that are not there."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    yield from _wrapped(label, f"{sum(counts.values())}: ", [f"{name} {count}" for name, count in ordered])
    never = [name for name in known if not counts.get(name)]
    if never:
        yield from _wrapped("", f"{missing}: ", never)


def _wrapped(label: str, opening: str, items: Collection[str]) -> Iterator[str]:
    joined = ", ".join(item.replace(" ", "\xa0") for item in items) or "none"
    lines = textwrap.wrap(opening + joined, WIDTH - LABEL, break_long_words=False, break_on_hyphens=False)
    for number, line in enumerate(lines):
        yield _row("" if number else label, line.replace("\xa0", " "))


# -- JSON ------------------------------------------------------------------------------------------


def as_json(total: Summary, repeat: Repeat, *, seconds: float, jobs: int) -> dict[str, Any]:
    """The same figures for programs."""
    return {
        "seeds": total.seeds,
        "first_seed": total.first_seed,
        "last_seed": total.last_seed,
        "processes": jobs,
        "seconds": round(seconds, 3),
        "seeds_per_second": round(total.seeds / seconds, 3) if seconds else 0.0,
        "virtual_hours": total.virtual_ns / HOUR_NS,
        "cpu_hours": total.cpu_ns / HOUR_NS,
        "virtual_hours_per_cpu_hour": round(total.speed, 3),
        "operations": total.operations,
        "answered": total.answered,
        "merged": total.merged,
        "faults": _all_counts(total.faults, FAULTS),
        "marks": _all_counts(total.marks, known_marks()),
        "failures": [_failure_json(one, repeat) for one in total.failures],
        "compared": total.compared,
        "differences": [one.seed for one, _ in total.differences],
    }


def _all_counts(counts: Counter[str], known: Collection[str]) -> dict[str, int]:
    return {name: counts[name] for name in sorted({*counts, *known})}


def _failure_json(outcome: Outcome, repeat: Repeat) -> dict[str, Any]:
    assert outcome.violation is not None
    return {
        "seed": outcome.seed,
        "property": outcome.violation.property,
        "detail": outcome.violation.detail,
        "trace": outcome.digest,
        "repeat": repeat(outcome.seed),
    }
