"""What is promised, and whether it was reached: `python -m bench targets --from DIR`.

A target is one figure of one run's result, and a bound. A run is an experiment with some options: its result
is `NAME.json` in a directory, where `python -m bench report` puts it. Pure but for reading those.

Exit codes: 0 all that was measured was reached; 1 something was missed; 2 the options are wrong.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from bench.experiment import Experiment, Figures, directory

HELP = "Which of the promised figures do the results in a directory reach?"

Step: TypeAlias = str | tuple[str, Any]
"""Of a path: a key; or a key and the value that the wanted one of a list has there."""

AT_LEAST, AT_MOST = "at least", "at most"


@dataclass(frozen=True, kw_only=True)
class Target:
    """One promise."""

    words: str
    run: str
    path: tuple[tuple[Step, ...], ...]
    """Where its figure stands; the first of these ways that there is."""

    sense: str
    bound: float
    unit: str = ""

    def reached(self, figure: float) -> bool:
        """Is it kept by this figure?"""
        return figure >= self.bound if self.sense == AT_LEAST else figure <= self.bound

    @property
    def wanted(self) -> str:
        """For people."""
        return f"{self.sense} {number(self.bound)}{self.unit}"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of a target."""

    target: Target
    verdict: str
    """`reached`, `missed` or `not measured`."""

    figure: float | None
    why: str
    """Why it was not measured; empty where it was."""

    command: str
    """What repeats it."""

    @property
    def shown(self) -> str:
        """The figure for people."""
        return "-" if self.figure is None else f"{number(self.figure)}{self.target.unit}"


REACHED, MISSED, NOT_MEASURED = "reached", "missed", "not measured"


def number(value: float) -> str:
    """With as many digits as say something."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _figure(name: str, *before: Step) -> tuple[tuple[Step, ...], ...]:
    """A figure of a run; of its only point, where the run was repeated and so has points."""
    return ((*before, name), ("points", ("", ""), name))


def _compared(limit: str, servers: int) -> tuple[tuple[Step, ...], ...]:
    return (("comparisons", ("limit", limit), ("servers", servers), "ratio"),)


TARGETS: tuple[Target, ...] = (
    Target(
        words="bulk: commands applied a second",
        run="throughput",
        path=_figure("applied_per_second"),
        sense=AT_LEAST,
        bound=600_000,
    ),
    Target(
        words="bulk: share of what bare processes reach that append and sync the same bytes",
        run="throughput",
        path=_figure("bare_ratio"),
        sense=AT_LEAST,
        bound=0.6,
    ),
    Target(
        words="or of what bare processes reach that replicate, sync, merge and apply, and promise nothing",
        run="ceiling",
        path=_figure("share"),
        sense=AT_LEAST,
        bound=0.75,
    ),
    Target(
        words="awaited one by one by 1,024 tasks: commands applied a second",
        run="throughput-awaited",
        path=_figure("applied_per_second"),
        sense=AT_LEAST,
        bound=100_000,
    ),
    Target(
        words="bulk: memory of a server",
        run="throughput",
        path=_figure("memory_mb_max"),
        sense=AT_MOST,
        bound=200,
        unit=" MB",
    ),
    Target(
        words="bulk: 99.9 % of the turns of the event loop",
        run="throughput",
        path=_figure("turn_p999_ms"),
        sense=AT_MOST,
        bound=50,
        unit=" ms",
    ),
    Target(
        words="bulk of 256 bytes: bytes on the wire, times those of each command once to each other server",
        run="throughput-256",
        path=_figure("wire_bytes_per_payload_byte"),
        sense=AT_MOST,
        bound=1.1,
    ),
    Target(
        words="bulk of 256 bytes: bytes in the log, times those of the commands",
        run="throughput-256",
        path=_figure("log_bytes_per_payload_byte"),
        sense=AT_MOST,
        bound=1.3,
    ),
    Target(
        words="three leaders over one, egress limited, 3 servers",
        run="multileader",
        path=_compared("egress", 3),
        sense=AT_LEAST,
        bound=2.7,
    ),
    Target(
        words="five leaders over one, egress limited, 5 servers",
        run="multileader",
        path=_compared("egress", 5),
        sense=AT_LEAST,
        bound=4.3,
    ),
    Target(
        words="three leaders over one, processors limited, 3 servers",
        run="multileader",
        path=_compared("cpu", 3),
        sense=AT_LEAST,
        bound=1.6,
    ),
    Target(
        words="64 groups: throughput lost against 3 groups",
        run="groups",
        path=(("cost",),),
        sense=AT_MOST,
        bound=0.25,
    ),
    Target(
        words="twice the history: throughput in the second half over that in the first",
        run="growth",
        path=(("late_over_early",),),
        sense=AT_LEAST,
        bound=0.9,
    ),
    Target(
        words="twice the load that it can take: throughput kept, of its peak",
        run="overload",
        path=(("kept_share",),),
        sense=AT_LEAST,
        bound=0.9,
    ),
    Target(
        words="the example store over etcd: durable writes a second, 128 clients, one outstanding each",
        run="compare",
        path=(("kv_over_etcd",),),
        sense=AT_LEAST,
        bound=2.0,
    ),
)


# -- finding figures -------------------------------------------------------------------------------


def find(result: Any, path: Sequence[Step]) -> float | None:
    """The number at a path, or the median of a spread; None where there is none.

    A step `("", "")` is the only item of a list.
    """
    here = result
    for step in path:
        here = _only(here, step) if isinstance(step, tuple) else _at(here, step)
    if isinstance(here, Mapping):
        here = here.get("median")
    return float(here) if isinstance(here, int | float) and not isinstance(here, bool) else None


def _at(here: Any, key: str) -> Any:
    if isinstance(here, list):
        here = here[0] if len(here) == 1 else None
    return here.get(key) if isinstance(here, Mapping) else None


def _only(here: Any, step: tuple[str, Any]) -> Any:
    """The items of a list that have this value there."""
    if not isinstance(here, list):
        return None
    key, value = step
    return [one for one in here if not key or (isinstance(one, Mapping) and one.get(key) == value)]


def judge(
    targets: Sequence[Target], results: Mapping[str, Figures], commands: Mapping[str, str]
) -> list[Verdict]:
    """Every target, by the results of the runs that there are; `commands` are those that repeat the runs."""
    return [_judge(target, results.get(target.run), commands.get(target.run, "")) for target in targets]


def _judge(target: Target, result: Figures | None, command: str) -> Verdict:
    figure, why = None, ""
    if result is None:
        why = f"there is no result of {target.run}"
    elif result.get("failures"):
        why = f"{target.run} failed: {result['failures'][0]}"
    else:
        found = [figure for path in target.path if (figure := find(result, path)) is not None]
        figure = found[0] if found else None
        why = "" if found else f"the result of {target.run} has no such figure"
    verdict = NOT_MEASURED
    if figure is not None:
        verdict = REACHED if target.reached(figure) else MISSED
    return Verdict(target=target, verdict=verdict, figure=figure, why=why, command=command)


# -- the program -----------------------------------------------------------------------------------

LEFT_OUT = {"--json", "--plot", "--svg", "--table", "--dir", "--profile"}
"""Options that say where something goes."""


def repeating(command: Sequence[str]) -> str:
    """A result's command without the places where things went."""
    kept: list[str] = []
    words = iter(command)
    for word in words:
        if word in LEFT_OUT:
            next(words, None)
        elif word.partition("=")[0] not in LEFT_OUT:
            kept.append(word)
    return shlex.join(kept)


def load(place: Path) -> dict[str, Figures]:
    """The results in a directory, by the runs' names. What is no result of an experiment is passed over."""
    found = {}
    for file in sorted(place.glob("*.json")):
        try:
            result = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # a run that was killed while it wrote
        if isinstance(result, dict) and {"experiment", "command", "machine"} <= result.keys():
            found[file.stem] = result
    return found


def main(arguments: list[str], experiments: Mapping[str, Experiment]) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m bench targets", description=HELP)
    parser.add_argument(
        "--from", dest="place", type=directory, required=True, metavar="DIR", help="where the results are"
    )
    place = parser.parse_args(arguments).place
    results = {name: one for name, one in load(place).items() if one["experiment"] in experiments}
    if not results:
        parser.error(f"--from {place}: there are no results of experiments, as `report` makes them")
    verdicts = judge(TARGETS, results, {name: repeating(one["command"]) for name, one in results.items()})
    for one in verdicts:
        print(f"{one.verdict:<13} {one.target.words}: {one.shown}, wanted {one.target.wanted}")
        print(f"{'':<13} {one.why or one.command}")
    counts = {name: sum(one.verdict == name for one in verdicts) for name in (REACHED, MISSED, NOT_MEASURED)}
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
    return 1 if counts[MISSED] else 0
